//! Requests as their callers frame them, head and body.

use bytes::BytesMut;
use proptest::prelude::*;

use super::super::MAX_HEAD;
use super::framing::{Framing, Part};
use super::head::{Bounds, HeadReader};
use super::violation::Violation;
use crate::scoring::headers::MAX_FIELDS;

/// Reads one request after the other.
struct Follower {
    reader: HeadReader,
    framing: Framing,
    read: BytesMut,
}

impl Default for Follower {
    fn default() -> Self {
        Self { reader: HeadReader::new(Bounds::CALLER), framing: Framing::NONE, read: BytesMut::new() }
    }
}

impl Follower {
    fn follow(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.read.extend_from_slice(bytes);
        loop {
            match self.framing.take(&mut self.read)? {
                Part::Data(_) => {}
                Part::More => return Ok(()),
                Part::End => match self.reader.take(&mut self.read)? {
                    Some(head) => self.framing = head.framing,
                    None => return Ok(()),
                },
            }
        }
    }

    fn is_in_head(&self) -> bool {
        self.framing.is_over() && !self.read.is_empty()
    }
}

/// What comes of a whole text: where it was refused, or whether it ends inside a head.
fn follow(text: &[u8]) -> Result<bool, (usize, Violation)> {
    let mut follower = Follower::default();
    let outcome = follower.follow(text);
    outcome.map(|()| follower.is_in_head()).map_err(|violation| (text.len() - follower.read.len(), violation))
}

fn violation(text: &str) -> Option<Violation> {
    follow(text.as_bytes()).err().map(|(_, violation)| violation)
}

#[test]
fn a_head_is_read_as_it_was_sent() {
    let text = "\r\nPOST /a?b HTTP/1.1\r\nHost: a.example\r\nX-Empty:\r\nX-Two: 1\r\nx-two:\t2 \r\nContent-Length: 3\r\n\r\nabcGET";
    let mut read = BytesMut::from(text);
    let head = HeadReader::new(Bounds::CALLER).take(&mut read).expect("good").expect("whole");
    assert_eq!((head.request.method().as_str(), head.request.uri().to_string()), ("POST", "/a?b".to_owned()));
    let fields: Vec<_> = head.request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let expected: [(&str, &[u8]); 5] =
        [("host", b"a.example"), ("x-empty", b""), ("x-two", b"1"), ("x-two", b"2"), ("content-length", b"3")];
    assert_eq!(fields, expected);
    assert_eq!((head.framing, &*read), (Framing::Length(3), &b"abcGET"[..]));
}

#[test]
fn the_caller_says_whether_the_connection_goes_on_and_whether_it_waits() {
    for (version, fields, keeps_alive, expects) in [
        ("1.1", "", true, false),
        ("1.1", "Connection: Close\r\n", false, false),
        ("1.1", "Connection: te, close\r\n", false, false),
        ("1.1", "Connection: te\r\nConnection: close\r\n", false, false),
        ("1.1", "Expect: 100-Continue\r\n", true, true),
        ("1.1", "Expect: something\r\n", true, false),
        ("1.1", "Expect: something, 100-continue\r\n", true, true),
        ("1.0", "", false, false),
        ("1.0", "Connection: Keep-Alive\r\n", true, false),
        ("1.0", "Connection: keep-alive, close\r\n", false, false),
        ("1.0", "Expect: 100-continue\r\n", false, false),
    ] {
        let mut read = BytesMut::from(&*format!("GET / HTTP/{version}\r\n{fields}\r\n"));
        let head = HeadReader::new(Bounds::CALLER).take(&mut read).expect("good").expect("whole");
        assert_eq!((head.keeps_alive, head.expects_continue), (keeps_alive, expects), "{version} {fields:?}");
    }
}

const GOOD: [&str; 7] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\ncd",
    "POST / HTTP/1.1\r\nContent-Length:\t0 \r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nab\ncd\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;a;b=c;d=\"e \\\" f\"\r\n0123456789\r\n000\r\nx: y\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nX: \u{e9}\t!\r\n\r\n",
];

#[test]
fn good_messages_pass_one_after_the_other() {
    for text in GOOD {
        assert_eq!(follow(text.as_bytes()), Ok(false), "{text:?}");
        assert_eq!(follow(text.repeat(3).as_bytes()), Ok(false), "{text:?}");
        assert_eq!(follow(format!("{text}G").as_bytes()), Ok(true), "{text:?} and the next one's first byte");
    }
}

#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    for (head, expected) in [
        ("GET / HTTP/1.1\nHost: a\n\n", Violation::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Violation::BareLineFeed),
        ("GET  / HTTP/1.1\r\n", Violation::RequestLine),
        ("GET /\r\n", Violation::RequestLine),
        ("GET / x HTTP/1.1\r\n", Violation::RequestLine),
        ("G(T / HTTP/1.1\r\n", Violation::RequestLine),
        ("GET /\u{1} HTTP/1.1\r\n", Violation::RequestLine),
        ("GET /a#b HTTP/1.1\r\n", Violation::RequestLine),
        ("GET /<a> HTTP/1.1\r\n", Violation::RequestLine),
        ("GET a HTTP/1.1\r\n", Violation::RequestLine),
        ("GET ftp://a/ HTTP/1.1\r\n", Violation::RequestLine),
        ("GET / HTTP/1.2\r\n", Violation::Version),
        ("PRI * HTTP/2.0\r\n", Violation::Version),
        ("GET / HTTP/1.1\r\nHost : a\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\n Host: a\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\nA\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\n: a\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n", Violation::FieldLine),
        ("GET / HTTP/1.1\r\nA: b\0c\r\n", Violation::FieldLine),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 0x1\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", Violation::ContentLength),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", Violation::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n", Violation::TransferEncoding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Violation::TransferEncoding,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", Violation::TransferEncoding),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Violation::TwoLengths),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Violation::TwoLengths),
    ] {
        assert_eq!(violation(head), Some(expected), "{head:?}");
    }
}

#[test]
fn malformed_chunks_are_refused_where_they_begin_to_be() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad) in [
        ("", " 5\r\n"),
        ("5", " \r\n"),
        ("5", "\t;a\r\n"),
        ("", "\r\n"),
        ("", "-5\r\n"),
        ("", "+5\r\n"),
        ("0", "x5\r\n"),
        ("5\r", "a"),
        ("5", "\nabcde"),
        ("1\r\na", "b"),
        ("1\r\na\r", "b"),
        ("1\r\na", "\n"),
        ("5;", "\r\n"),
        ("5;", " a\r\n"),
        ("5;a=", "\r\n"),
        ("5;a=\"b", "\r\n"),
        ("5;a=\"b\"", "c\r\n"),
        ("5;a;", ";\r\n"),
        ("5;a=\"\\", "\n"),
        ("0123456789abcdef", "0\r\n"),
        ("", ";a\r\n"),
        ("5;", "\0\r\n"),
    ] {
        let text = format!("{head}{good}{bad}");
        assert_eq!(follow(text.as_bytes()), Err((head.len() + good.len(), Violation::Chunk)), "{good:?} {bad:?}");
    }
    assert_eq!(violation(&format!("{head}1;{}\r\n", "a".repeat(300))), Some(Violation::Chunk));
}

#[test]
fn a_body_that_was_refused_never_ends() {
    let mut follower = Follower::default();
    let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na : b\r\n\r\n";
    assert_eq!(follower.follow(text.as_bytes()), Err(Violation::Chunk));
    assert_eq!(follower.framing.take(&mut follower.read), Err(Violation::Chunk), "although the rest looks like an end");
    assert!(!follower.framing.is_over());
}

#[test]
fn heads_and_trailers_have_limits() {
    let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(violation(&format!("GET / HTTP/1.1\r\n{many}")), Some(Violation::TooManyFields));
    assert_eq!(
        violation(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{many}")),
        Some(Violation::Chunk)
    );
    assert_eq!(
        violation(&format!("GET / HTTP/1.1\r\na: {}", "b".repeat(MAX_HEAD as usize))),
        Some(Violation::HeadTooLarge)
    );
    assert_eq!(violation(&"\r\n".repeat(MAX_HEAD as usize)), Some(Violation::HeadTooLarge));
}

/// Method, target and fields.
type Parts = (String, String, Vec<(String, Vec<u8>)>);

/// What an independent reader makes of a head that was taken.
fn by_httparse(head: &[u8]) -> Option<Parts> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    assert!(matches!(request.parse(head), Ok(httparse::Status::Complete(length)) if length == head.len()));
    let fields =
        request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.trim_ascii().to_vec()));
    Some((request.method?.to_owned(), request.path?.to_owned(), fields.collect()))
}

proptest! {
    /// What is taken has one meaning: another parser, which is less strict, reads the same.
    #[test]
    fn a_head_that_is_taken_is_read_the_same_by_another_parser(
        method in "[A-Z]{1,7}|[!-~]{1,4}",
        target in "/[!-~]{0,20}|http://[a-z.]{1,9}/?",
        fields in prop::collection::vec(("[A-Za-z-]{1,12}|[!-~]{1,6}", "[ \t!-~\u{80}-\u{ff}]{0,20}"), 0..8),
        flip in prop::option::of((0usize..200, any::<u8>())),
    ) {
        let mut text = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in &fields {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        if let Some((at, byte)) = flip {
            let at = at % text.len();
            text[at] = byte;
        }
        let mut read = BytesMut::from(&text[..]);
        if let Ok(Some(head)) = HeadReader::new(Bounds::CALLER).take(&mut read) {
            let whole = text.len() - read.len();
            let (method, target, fields) = by_httparse(&text[..whole]).expect("whole");
            prop_assert_eq!(head.request.method().as_str(), method);
            prop_assert!(!target.starts_with('/') || head.request.uri().to_string() == target);
            let mut left: Vec<_> = fields;
            for (name, value) in head.request.headers() {
                let place = left.iter().position(|(n, v)| n == name.as_str() && v == value.as_bytes());
                prop_assert!(place.is_some(), "{name}");
                left.remove(place.unwrap());
            }
            prop_assert!(left.is_empty(), "{left:?}");
        }
    }

    /// However the bytes are cut into reads, the outcome is the same.
    #[test]
    fn cuts_do_not_matter(
        which in prop::collection::vec(0..GOOD.len(), 1..4),
        flip in prop::option::of((0usize..200, any::<u8>())),
        cuts in prop::collection::vec(1usize..40, 1..40),
    ) {
        let mut text: Vec<u8> = which.iter().flat_map(|index| GOOD[*index].bytes()).collect();
        if let Some((at, byte)) = flip {
            let at = at % text.len();
            text[at] = byte;
        }
        let whole = follow(&text);

        let mut follower = Follower::default();
        let mut rest = &text[..];
        let mut outcome = Ok(());
        for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
            let (part, later) = rest.split_at(cut.min(rest.len()));
            if part.is_empty() || outcome.is_err() {
                break;
            }
            outcome = follower.follow(part);
            rest = later;
        }
        match whole {
            Ok(in_head) => prop_assert_eq!((outcome, follower.is_in_head()), (Ok(()), in_head)),
            Err((_, violation)) => prop_assert_eq!(outcome, Err(violation)),
        }
    }
}
