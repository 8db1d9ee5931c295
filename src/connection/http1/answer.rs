//! The head of an answer, and how its body is framed (RFC 9112 sections 4, 6 and 9.3).

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};

use crate::digits::push_decimal;
use crate::outgoing::Outgoing;

/// Room for the head of an answer; most are smaller.
const USUAL_HEAD: usize = 1024;

/// What of a request decides over the form of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) is_http11: bool,
    /// Whether the caller means to use the connection again, and may.
    pub(super) keeps_alive: bool,
}

/// How the caller learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    UntilClosed,
}

/// An answer of which the head is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    framing: Framing,
    /// Whether the connection is for another request after it.
    pub(super) keeps_alive: bool,
}

impl Answer {
    /// Puts the head of `response` into `out`. Its body has so many bytes of `length` as far as that is known; the answer
    /// to HEAD has none whatever it says.
    pub(super) fn begin(
        asked: Asked,
        response: &Response<()>,
        length: Option<u64>,
        date: &Date,
        out: &mut Outgoing,
    ) -> Self {
        let (status, fields) = (response.status(), response.headers());
        let is_bodiless =
            status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = match length {
            _ if asked.is_head || is_bodiless => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if asked.is_http11 => Framing::Chunked,
            None => Framing::UntilClosed,
        };
        let keeps_alive = asked.keeps_alive && framing != Framing::UntilClosed && !closes(fields);

        let lines = out.lines();
        lines.reserve(USUAL_HEAD);
        lines.extend_from_slice(if asked.is_http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
        lines.extend_from_slice(status.as_str().as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        lines.extend_from_slice(b"\r\n");
        for (name, value) in fields {
            // Said below, but where there is no body that could say it better.
            let is_framing = *name == CONNECTION || *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH;
            if !is_framing || (*name == CONTENT_LENGTH && asked.is_head) {
                push_field(lines, name.as_str(), value.as_bytes());
            }
        }
        match framing {
            Framing::Length(_) if asked.is_head || is_bodiless => {}
            Framing::Length(length) => {
                lines.extend_from_slice(b"content-length: ");
                push_decimal(lines, length);
                lines.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => push_field(lines, "transfer-encoding", b"chunked"),
            Framing::UntilClosed => {}
        }
        match (keeps_alive, asked.is_http11) {
            (false, _) => push_field(lines, "connection", b"close"),
            (true, false) => push_field(lines, "connection", b"keep-alive"),
            (true, true) => {}
        }
        if !fields.contains_key(DATE) {
            push_field(lines, "date", &date.now());
        }
        lines.extend_from_slice(b"\r\n");
        Self { framing, keeps_alive }
    }

    /// Puts a part of the body into `out`; false if there is more than was announced.
    pub(super) fn put(&mut self, data: Bytes, out: &mut Outgoing) -> bool {
        match &mut self.framing {
            _ if data.is_empty() => {}
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    out.put(data);
                }
                None => return false,
            },
            Framing::Chunked => out.put_chunk(data),
            Framing::UntilClosed => out.put(data),
        }
        true
    }

    /// Whether the caller sees by itself that the body breaks off before its end.
    pub(super) fn shows_its_end(&self) -> bool {
        self.framing != Framing::UntilClosed
    }

    /// Puts the body's end into `out`; false if there is less than was announced.
    pub(super) fn end(self, out: &mut Outgoing) -> bool {
        match self.framing {
            Framing::Length(left) => left == 0,
            Framing::Chunked => {
                out.end_chunks();
                true
            }
            Framing::UntilClosed => true,
        }
    }
}

/// Whether an answer ends its connection. Nothing but `close` is ever put there.
fn closes(fields: &HeaderMap) -> bool {
    fields.contains_key(CONNECTION)
}

fn push_field(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}

/// The date as answers give it (RFC 9110 section 5.6.7), written once a second.
#[derive(Default)]
pub struct Date {
    second: Cell<u64>,
    text: RefCell<Box<str>>,
}

impl Date {
    fn now(&self) -> impl std::ops::Deref<Target = [u8]> + '_ {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second.replace(second) != second || self.text.borrow().is_empty() {
            *self.text.borrow_mut() = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)).into();
        }
        std::cell::Ref::map(self.text.borrow(), |text| text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    const ASKED: Asked = Asked { is_head: false, is_http11: true, keeps_alive: true };

    fn head(
        asked: Asked,
        status: u16,
        fields: &[(&'static str, &'static str)],
        length: Option<u64>,
    ) -> (Answer, String) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let mut out = Outgoing::default();
        let answer = Answer::begin(asked, &response, length, &Date::default(), &mut out);
        let text = String::from_utf8(out.parts().concat()).expect("ASCII");
        let date = text.find("date: ").expect("a date");
        assert_eq!(text.len() - date, "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".len(), "{text}");
        (answer, text[..date].to_owned())
    }

    #[test]
    fn what_is_known_of_the_body_decides_how_its_end_is_told() {
        for (asked, status, length, expected, keeps_alive) in [
            (ASKED, 200, Some(5), "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 5\r\n", true),
            (ASKED, 200, Some(0), "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 0\r\n", true),
            (ASKED, 200, None, "HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n", true),
            (ASKED, 204, Some(0), "HTTP/1.1 204 No Content\r\na: b\r\n", true),
            (ASKED, 599, Some(1), "HTTP/1.1 599 \r\na: b\r\ncontent-length: 1\r\n", true),
            (
                Asked { keeps_alive: false, ..ASKED },
                200,
                Some(5),
                "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 5\r\nconnection: close\r\n",
                false,
            ),
            (
                Asked { is_http11: false, ..ASKED },
                200,
                Some(5),
                "HTTP/1.0 200 OK\r\na: b\r\ncontent-length: 5\r\nconnection: keep-alive\r\n",
                true,
            ),
            (Asked { is_http11: false, ..ASKED }, 200, None, "HTTP/1.0 200 OK\r\na: b\r\nconnection: close\r\n", false),
        ] {
            let (answer, text) = head(asked, status, &[("a", "b")], length);
            assert_eq!((&*text, answer.keeps_alive), (expected, keeps_alive));
        }
    }

    #[test]
    fn the_answer_to_head_keeps_the_length_of_what_it_does_not_have() {
        let asked = Asked { is_head: true, ..ASKED };
        let (answer, text) = head(asked, 200, &[("content-length", "17")], Some(0));
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n");
        assert!(answer.end(&mut Outgoing::default()));
    }

    #[test]
    fn an_answer_that_says_so_is_the_last() {
        let (answer, text) = head(ASKED, 503, &[("connection", "close")], Some(0));
        assert_eq!(text, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n");
        assert!(!answer.keeps_alive);
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_noticed() {
        let mut out = Outgoing::default();
        let (mut answer, _) = head(ASKED, 200, &[], Some(5));
        assert!(answer.put(Bytes::from_static(b"abc"), &mut out));
        assert!(!answer.end(&mut out), "too little");
        assert!(!answer.put(Bytes::from_static(b"def"), &mut out), "too much");
    }
}
