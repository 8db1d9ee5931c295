//! The head of a request: request line and fields, read line by line as they come, and strictly: what another parser
//! could read as another message is refused before any of it is acted upon (RFC 9112 sections 2.2, 3, 5, 6.3 and 11.2).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use memchr::memchr;

use super::super::{MAX_HEAD, MEMBERS_HEAD};
use super::framing::Framing;
use super::syntax;
use super::violation::Violation;
use crate::scoring::headers::{MAX_FIELDS, MEMBERS_FIELDS};

/// Fields for which there is room at first; most requests have fewer.
const USUAL_FIELDS: usize = 16;

/// A head that is whole.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) framing: Framing,
    /// Whether the caller means to use the connection again.
    pub(super) keeps_alive: bool,
    /// Whether it sends the body only when it is told to (RFC 9110 section 10.1.1).
    pub(super) expects_continue: bool,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    bytes: usize,
    pub(super) fields: usize,
}

impl Bounds {
    pub(super) const CALLER: Self = Self { bytes: MAX_HEAD as usize, fields: MAX_FIELDS };

    /// Of what another front end has let in, and added its own fields to.
    pub(super) const MEMBER: Self = Self { bytes: MEMBERS_HEAD, fields: MEMBERS_FIELDS };
}

/// How far a head is understood. Each byte is looked at once, however they are cut into reads.
#[derive(Debug)]
pub(super) struct HeadReader {
    bounds: Bounds,
    /// Bytes of empty lines before the head.
    skipped: usize,
    /// Bytes of the lines that are understood.
    understood: usize,
    /// Bytes after them without a line's end.
    searched: usize,
    request_line: Option<RequestLine>,
    fields: Vec<Field>,
    control: Control,
}

/// Where its parts stand in the head.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    method: (usize, usize),
    target: (usize, usize),
    is_http10: bool,
}

/// Where its parts stand in the head.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

/// What the fields say of the body and of the connection.
#[derive(Clone, Copy, Debug, Default)]
struct Control {
    length: Option<u64>,
    is_chunked: bool,
    /// What `Connection` says of it, if it does; `close` overrides `keep-alive` (RFC 9112 section 9.3).
    keeps_alive: Option<bool>,
    expects_continue: bool,
}

impl HeadReader {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (request_line, control) = (None, Control::default());
        Self { bounds, skipped: 0, understood: 0, searched: 0, request_line, fields: Vec::new(), control }
    }

    /// Takes a head out of what was `read`, once it is whole.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Option<Head>, Violation> {
        self.skip_empty_lines(read)?;
        if !self.is_whole(read)? {
            return Ok(None);
        }
        let whole = std::mem::replace(self, Self::new(self.bounds));
        let head = read.split_to(whole.understood).freeze();
        let request = whole.request(&head)?;
        let framing = whole.control.framing()?;
        let Control { keeps_alive, expects_continue, .. } = whole.control;
        let is_http11 = request.version() == Version::HTTP_11;
        let keeps_alive = keeps_alive.unwrap_or(is_http11);
        Ok(Some(Head { request, framing, keeps_alive, expects_continue: expects_continue && is_http11 }))
    }

    /// Empty lines before a request are a courtesy to old callers (RFC 9112 section 2.2), and no beginning of one.
    fn skip_empty_lines(&mut self, read: &mut BytesMut) -> Result<(), Violation> {
        while self.understood == 0 && read.starts_with(b"\r\n") {
            read.advance(2);
            (self.skipped, self.searched) = (self.skipped + 2, 0);
        }
        if self.skipped > self.bounds.bytes { Err(Violation::HeadTooLarge) } else { Ok(()) }
    }

    /// Understands the lines that are whole. `bytes` begin where the head does.
    fn is_whole(&mut self, bytes: &[u8]) -> Result<bool, Violation> {
        loop {
            let from = self.understood;
            // What cannot become a request is refused before its line ends, which it may never do.
            let first = bytes.get(from).filter(|_| self.request_line.is_none());
            if first.is_some_and(|first| !syntax::is_token_byte(*first) && !matches!(first, b'\r' | b'\n')) {
                return Err(Violation::RequestLine);
            }
            let Some(end) = memchr(b'\n', bytes.get(from + self.searched..).unwrap_or_default()) else {
                self.searched = bytes.len() - from;
                return if bytes.len() > self.bounds.bytes { Err(Violation::HeadTooLarge) } else { Ok(false) };
            };
            let end = from + self.searched + end;
            if end >= self.bounds.bytes {
                return Err(Violation::HeadTooLarge);
            }
            let line = bytes.get(from..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(Violation::BareLineFeed)?;
            (self.understood, self.searched) = (end + 1, 0);
            match (line, self.request_line) {
                ([], Some(_)) => return Ok(true),
                (line, None) => self.request_line = Some(RequestLine::parse(line, from)?),
                (line, Some(RequestLine { is_http10, .. })) => self.field(line, from, is_http10)?,
            }
        }
    }

    fn field(&mut self, line: &[u8], start: usize, is_http10: bool) -> Result<(), Violation> {
        if self.fields.len() == self.bounds.fields {
            return Err(Violation::TooManyFields);
        }
        let (name, value) = syntax::field(line).ok_or(Violation::FieldLine)?;
        self.control.note(name, value, is_http10)?;
        let place = |part: &[u8]| {
            let from = start + (part.as_ptr().addr() - line.as_ptr().addr());
            (from, from + part.len())
        };
        if self.fields.is_empty() {
            self.fields.reserve(USUAL_FIELDS);
        }
        self.fields.push(Field { name: place(name), value: place(value) });
        Ok(())
    }

    /// Values are slices of `head`.
    fn request(&self, head: &Bytes) -> Result<Request<()>, Violation> {
        let mut request = Request::new(());
        let RequestLine { method, target, is_http10 } = self.request_line.ok_or(Violation::RequestLine)?;
        let method = head.get(method.0..method.1).and_then(|method| Method::from_bytes(method).ok());
        *request.method_mut() = method.ok_or(Violation::RequestLine)?;
        let uri = Uri::from_maybe_shared(head.slice(target.0..target.1));
        *request.uri_mut() = uri.map_err(|_| Violation::RequestLine)?;
        *request.version_mut() = if is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut fields = HeaderMap::with_capacity(self.fields.len());
        for Field { name, value } in &self.fields {
            let name = head.get(name.0..name.1).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| Violation::FieldLine)?;
            let value = HeaderValue::from_maybe_shared(head.slice(value.0..value.1));
            fields.append(name, value.map_err(|_| Violation::FieldLine)?);
        }
        *request.headers_mut() = fields;
        Ok(request)
    }
}

impl RequestLine {
    /// `method SP request-target SP HTTP-version`, of a line that begins at `start`.
    fn parse(line: &[u8], start: usize) -> Result<Self, Violation> {
        let (method, rest) = line.split_at(syntax::token_length(line));
        let [b' ', rest @ ..] = rest else { return Err(Violation::RequestLine) };
        let (target, rest) = rest.split_at(syntax::target_length(rest));
        if method.is_empty() || !syntax::has_target_form(method, target) {
            return Err(Violation::RequestLine);
        }
        let is_http10 = match rest {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            [b' ', version @ ..] if !version.contains(&b' ') => return Err(Violation::Version),
            _ => return Err(Violation::RequestLine),
        };
        let after = start + method.len();
        Ok(Self { method: (start, after), target: (after + 1, after + 1 + target.len()), is_http10 })
    }
}

impl Control {
    fn note(&mut self, name: &[u8], value: &[u8], is_http10: bool) -> Result<(), Violation> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            6 if is(b"expect") => {
                self.expects_continue |= syntax::list(value).any(|one| one.eq_ignore_ascii_case(b"100-continue"));
            }
            10 if is(b"connection") => {
                for option in syntax::list(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keeps_alive = Some(false);
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keeps_alive.get_or_insert(true);
                    }
                }
            }
            14 if is(b"content-length") => {
                let length = syntax::decimal(value).ok_or(Violation::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Violation::ContentLength);
                }
            }
            17 if is(b"transfer-encoding") => {
                let twice = std::mem::replace(&mut self.is_chunked, true);
                if twice || is_http10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::TransferEncoding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self) -> Result<Framing, Violation> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err(Violation::TwoLengths),
            (None, true) => Ok(Framing::chunked()),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}
