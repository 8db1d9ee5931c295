//! The head of an answer: status and fields, and what they say of the body and of the connection (RFC 9112 section 6.3).

use std::mem::{self, MaybeUninit};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};

use super::framing::Framing;
use super::{AnswerError, Fields};

/// Bytes of a head.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Fields in one.
const MAX_FIELDS: usize = 100;

#[derive(Debug)]
pub(super) struct Head {
    /// With the fields that concern more than this connection.
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether the connection can be used again when the answer is over.
    pub(super) keeps_alive: bool,
}

/// Takes a head out of what was read, if it is whole. `to_head`: it answers HEAD, and has no body.
///
/// # Errors
///
/// It is not HTTP, or can be read in two ways.
pub(super) fn take(read: &mut BytesMut, to_head: bool, fields: &mut Fields<'_>) -> Result<Option<Head>, AnswerError> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parsing = httparse::ParserConfig::default();
    let length = match parsing.parse_response_with_uninit_headers(&mut parsed, read, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLarge("its fields")),
        Err(_) => return Err(AnswerError::Malformed("its head")),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(AnswerError::Malformed("its status"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // A replica was never asked to change the protocol.
        return Err(AnswerError::Malformed("it changes the protocol"));
    }
    let is_http11 = parsed.version == Some(1);
    let control = Control::of(parsed.headers)?;
    let (framing, is_delimited) = control.framing(status, to_head, is_http11)?;

    // Values are slices of one copy, so that what was read is left to the body.
    let (start, copy) = (read.as_ptr().addr(), Bytes::copy_from_slice(read.get(..length).unwrap_or_default()));
    let mut response = Response::new(());
    *response.status_mut() = status;
    let map = response.headers_mut();
    *map = mem::take(fields.room);
    map.clear();
    for field in parsed.headers.iter() {
        let Ok(name) = HeaderName::from_bytes(field.name.as_bytes()) else {
            return Err(AnswerError::Malformed("a field's name"));
        };
        // Written anew below: it may stand there twice, or where none belongs.
        if is_hop_by_hop(&name) || name == CONTENT_LENGTH || control.nominates(&name) || !(fields.is_wanted)(&name) {
            continue;
        }
        let place = field.value.as_ptr().addr() - start;
        let value = HeaderValue::from_maybe_shared(copy.slice(place..place + field.value.len()));
        map.append(name, value.map_err(|_| AnswerError::Malformed("a field's value"))?);
    }
    // A coded body ends where its coding says, and there is none after 204 (RFC 9110 section 8.6).
    if let Some(length) = control.length
        && !(control.is_coded || status == StatusCode::NO_CONTENT || status.is_informational())
    {
        map.insert(CONTENT_LENGTH, length.into());
    }
    let keeps_alive = is_http11 && is_delimited && !control.closes;
    read.advance(length);
    Ok(Some(Head { response, framing, keeps_alive }))
}

/// What the fields say of this connection and of where the body ends.
#[derive(Default)]
struct Control<'a> {
    closes: bool,
    /// Names in `Connection` that are no options everybody knows.
    nominated: Vec<&'a [u8]>,
    is_chunked: bool,
    /// Whether there is any transfer coding.
    is_coded: bool,
    length: Option<u64>,
}

impl<'a> Control<'a> {
    fn of(fields: &[httparse::Header<'a>]) -> Result<Self, AnswerError> {
        let mut control = Self::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                10 if is("connection") => control.connection(field.value)?,
                14 if is("content-length") => control.content_length(field.value)?,
                17 if is("transfer-encoding") => control.transfer_encoding(field.value),
                _ => {}
            }
        }
        Ok(control)
    }

    fn connection(&mut self, value: &'a [u8]) -> Result<(), AnswerError> {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                self.nominated.push(option);
            }
        }
        // Each is compared with each field.
        if self.nominated.len() > MAX_FIELDS { Err(AnswerError::TooLarge("its Connection field")) } else { Ok(()) }
    }

    /// The same number several times is one (RFC 9112 section 6.3).
    fn content_length(&mut self, value: &[u8]) -> Result<(), AnswerError> {
        let malformed = AnswerError::Malformed("its Content-Length");
        for number in value.split(|byte| *byte == b',') {
            let number = number.trim_ascii();
            let length = str::from_utf8(number).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match length.and_then(|text| text.parse().ok()) {
                Some(length) if self.length.is_none_or(|before| before == length) => self.length = Some(length),
                _ => return Err(malformed),
            }
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        for coding in list(value) {
            // Only as the one coding there is.
            self.is_chunked = !self.is_coded && coding.eq_ignore_ascii_case(b"chunked");
            self.is_coded = true;
        }
    }

    /// How the body is framed, and whether the connection is at the next answer when it is over.
    fn framing(&self, status: StatusCode, to_head: bool, is_http11: bool) -> Result<(Framing, bool), AnswerError> {
        let is_bodiless =
            status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if to_head || is_bodiless {
            return Ok((Framing::NONE, true));
        }
        match (self.is_coded, self.length) {
            // The coding overrides the length, and whoever sends both may have been tricked.
            (true, length) if self.is_chunked && is_http11 => Ok((Framing::chunked(), length.is_none())),
            (true, _) => Err(AnswerError::Malformed("a transfer coding other than chunked")),
            (false, Some(length)) => Ok((Framing::Length(length), true)),
            (false, None) => Ok((Framing::UntilClosed, false)),
        }
    }

    fn nominates(&self, name: &HeaderName) -> bool {
        // What the message is cannot be a matter of one connection.
        !matches!(name.as_str(), "content-length" | "content-type")
            && self.nominated.iter().any(|nominated| nominated.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

/// The elements of a list that are not empty.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Known to concern one connection only (RFC 9110 section 7.6.1), or the framing, which is made anew.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}
