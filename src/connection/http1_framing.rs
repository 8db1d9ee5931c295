//! Follows HTTP/1 framing byte by byte, beside hyper, and more strictly: what another parser could read as another
//! message is refused before any of it is acted upon (RFC 9112 sections 2.2, 5, 6.3, 7.1 and 11.2).
//!
//! It also knows what hyper keeps to itself: whether a head has been begun. It changes nothing and keeps no bytes but
//! those of a line that is not whole yet.

use super::{MAX_HEAD, MEMBERS_HEAD};
use crate::scoring::error::Refusal;
use crate::scoring::headers::{MAX_FIELDS, MEMBERS_FIELDS};

/// Bytes of one chunk's extensions. Nobody sends any; a megabyte of them for each byte of data is an attack.
const MAX_CHUNK_EXTENSIONS: usize = 256;

/// Digits of a chunk's size: 16 of them fill a `u64`.
const MAX_CHUNK_DIGITS: u8 = 16;

/// How a message breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    BareLineFeed,
    Chunk,
    ContentLength,
    FieldLine,
    HeadTooLarge,
    RequestLine,
    TooManyFields,
    TransferEncoding,
    TwoLengths,
    Version,
}

impl Violation {
    pub(super) fn to_refusal(self) -> Refusal {
        Refusal::bad_request(match self {
            Self::BareLineFeed => "A line ends with a line feed alone; HTTP/1.1 lines end with CR LF.",
            Self::Chunk => "A chunk of the request body is malformed.",
            Self::ContentLength => "Content-Length is not one decimal number.",
            Self::FieldLine => "A header field is malformed.",
            Self::HeadTooLarge => {
                return Refusal::headers_too_large(format!(
                    "The request head is larger than the limit of {MAX_HEAD} bytes."
                ));
            }
            Self::RequestLine => "The request line is malformed.",
            Self::TooManyFields => {
                return Refusal::too_many_fields();
            }
            Self::TransferEncoding => "Transfer-Encoding is not chunked alone, or the request is HTTP/1.0.",
            Self::TwoLengths => "The request body is announced twice, by Content-Length and Transfer-Encoding.",
            Self::Version => "The HTTP version is not 1.0 or 1.1; use ALPN h2 for HTTP/2.",
        })
    }

    /// Whether it came up inside a body, so that a request is being answered.
    pub(super) fn is_in_body(self) -> bool {
        self == Self::Chunk
    }
}

/// Where in the stream of messages a connection is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    head: Head,
    bounds: Bounds,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: usize,
    fields: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: MAX_HEAD as usize, fields: MAX_FIELDS }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    /// Bytes left of a body with a length.
    Body(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkExtension {
        part: ExtensionPart,
        length: usize,
    },
    ChunkSizeLineFeed {
        size: u64,
    },
    ChunkData(u64),
    ChunkDataEnd {
        carriage_return_seen: bool,
    },
    Trailers,
}

/// `;name`, `;name=token` or `;name="quoted"`, without blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionPart {
    Name { empty: bool },
    Token { empty: bool },
    Quoted,
    QuotedPair,
    AfterQuoted,
}

/// What is known of the head being read.
#[derive(Debug, Default)]
struct Head {
    request_line_seen: bool,
    bytes: usize,
    fields: usize,
    http_1_0: bool,
    content_length: Option<u64>,
    chunked: bool,
    /// The size of the chunk whose extension is being read.
    chunk_size: u64,
}

impl Framing {
    /// What another front end has let in, and added its own fields to.
    pub(super) fn of_member() -> Self {
        Self { bounds: Bounds { bytes: MEMBERS_HEAD, fields: MEMBERS_FIELDS }, ..Self::default() }
    }

    /// Follows `bytes` to the end of a message at most and says how many that were; on a violation, how many of them
    /// came before it.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, (usize, Violation)> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let step = match self.place {
                Place::Head | Place::Trailers => self.line(rest),
                Place::Body(left) => Ok(self.skip(left, rest.len(), Place::Body, Place::Head)),
                Place::ChunkData(left) => {
                    let end = Place::ChunkDataEnd { carriage_return_seen: false };
                    Ok(self.skip(left, rest.len(), Place::ChunkData, end))
                }
                _ => self.chunk_byte(byte).map(|()| 1),
            };
            match step {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(violation) => {
                    // Trailers are lines too, but belong to a request that is being answered.
                    let violation = if self.place == Place::Head { violation } else { Violation::Chunk };
                    return Err((bytes.len() - rest.len(), violation));
                }
            }
            if self.place == Place::Head && self.head.bytes == 0 {
                break;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether a head has been begun and is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        self.place == Place::Head && self.head.bytes > 0
    }

    /// Whether a body, or what is around its chunks, is not at its end.
    pub(super) fn is_in_body(&self) -> bool {
        self.place != Place::Head
    }

    fn skip(&mut self, left: u64, available: usize, more: fn(u64) -> Place, done: Place) -> usize {
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - taken as u64;
        self.place = if left == 0 { done } else { more(left) };
        taken
    }

    /// Takes one line, or what there is of it.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        self.head.bytes += taken;
        if self.head.bytes > self.bounds.bytes {
            return Err(Violation::HeadTooLarge);
        }
        let Some(end) = end else {
            self.line.extend_from_slice(bytes);
            return Ok(taken);
        };
        let part = bytes.get(..end).unwrap_or_default();
        if self.line.is_empty() {
            self.whole_line(part)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            self.whole_line(&line)?;
        }
        Ok(taken)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let line = line.strip_suffix(b"\r").ok_or(Violation::BareLineFeed)?;
        match (self.place, line) {
            (Place::Trailers, []) => self.begin_message(),
            (Place::Trailers, _) => self.field(line, false)?,
            // Empty lines before a request are a courtesy to old callers (RFC 9112 section 2.2).
            (_, []) if !self.head.request_line_seen => {}
            (_, []) => self.end_head()?,
            (_, _) if self.head.request_line_seen => self.field(line, true)?,
            (_, _) => self.request_line(line)?,
        }
        Ok(())
    }

    /// `method SP request-target SP HTTP-version`
    fn request_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (method, rest) = line.split_at(token_length(line));
        let [b' ', rest @ ..] = rest else { return Err(Violation::RequestLine) };
        let (target, rest) = rest.split_at(length_of(rest, TARGET));
        if method.is_empty() || !has_target_form(method, target) {
            return Err(Violation::RequestLine);
        }
        self.head.http_1_0 = match rest {
            b" HTTP/1.1" => false,
            b" HTTP/1.0" => true,
            [b' ', version @ ..] if !version.contains(&b' ') => return Err(Violation::Version),
            _ => return Err(Violation::RequestLine),
        };
        self.head.request_line_seen = true;
        Ok(())
    }

    /// `field-name ":" OWS field-value OWS`; the fields that frame a body are understood in a head, and only there.
    fn field(&mut self, line: &[u8], in_head: bool) -> Result<(), Violation> {
        self.head.fields += 1;
        if self.head.fields > self.bounds.fields {
            return Err(Violation::TooManyFields);
        }
        let (name, rest) = line.split_at(token_length(line));
        let value = match rest {
            [b':', value @ ..] if !name.is_empty() && !has_control(value) => value,
            _ => return Err(Violation::FieldLine),
        };
        if !in_head {
            return Ok(());
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value.trim_ascii()).ok_or(Violation::ContentLength)?;
                if self.head.content_length.replace(length).is_some() {
                    return Err(Violation::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let twice = std::mem::replace(&mut self.head.chunked, true);
                if twice || self.head.http_1_0 || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::TransferEncoding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), Violation> {
        let body = match (self.head.content_length, self.head.chunked) {
            (Some(_), true) => return Err(Violation::TwoLengths),
            (None, true) => Place::ChunkSize { size: 0, digits: 0 },
            (None | Some(0), false) => Place::Head,
            (Some(length), false) => Place::Body(length),
        };
        self.begin_message();
        self.place = body;
        Ok(())
    }

    fn begin_message(&mut self) {
        self.head = Head::default();
        self.place = Place::Head;
    }

    /// One byte of a chunk's own lines (RFC 9112 section 7.1).
    fn chunk_byte(&mut self, byte: u8) -> Result<(), Violation> {
        self.place = match self.place {
            Place::ChunkSize { size, digits } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if digits < MAX_CHUNK_DIGITS => {
                    Place::ChunkSize { size: size << 4 | u64::from(digit), digits: digits + 1 }
                }
                (None, b'\r') if digits > 0 => Place::ChunkSizeLineFeed { size },
                (None, b';') if digits > 0 => {
                    self.head.chunk_size = size;
                    Place::ChunkExtension { part: ExtensionPart::Name { empty: true }, length: 0 }
                }
                _ => return Err(Violation::Chunk),
            },
            Place::ChunkExtension { length, .. } if length >= MAX_CHUNK_EXTENSIONS => return Err(Violation::Chunk),
            Place::ChunkExtension { part, length } => match (part.ends_before(byte), byte) {
                (true, b'\r') => Place::ChunkSizeLineFeed { size: self.head.chunk_size },
                _ => Place::ChunkExtension { part: part.next(byte).ok_or(Violation::Chunk)?, length: length + 1 },
            },
            Place::ChunkSizeLineFeed { size } if byte == b'\n' => match size {
                0 => Place::Trailers,
                size => Place::ChunkData(size),
            },
            Place::ChunkDataEnd { carriage_return_seen: false } if byte == b'\r' => {
                Place::ChunkDataEnd { carriage_return_seen: true }
            }
            Place::ChunkDataEnd { carriage_return_seen: true } if byte == b'\n' => {
                Place::ChunkSize { size: 0, digits: 0 }
            }
            _ => return Err(Violation::Chunk),
        };
        Ok(())
    }
}

impl ExtensionPart {
    /// Whether the extensions may be over where `byte` stands.
    fn ends_before(self, byte: u8) -> bool {
        byte == b'\r' && matches!(self, Self::Name { empty: false } | Self::Token { empty: false } | Self::AfterQuoted)
    }

    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Name { empty: false } | Self::Token { empty: false } | Self::AfterQuoted, b';') => {
                Some(Self::Name { empty: true })
            }
            (Self::Name { empty: false }, b'=') => Some(Self::Token { empty: true }),
            (Self::Token { empty: true }, b'"') => Some(Self::Quoted),
            (Self::Name { .. }, _) if is_token_byte(byte) => Some(Self::Name { empty: false }),
            (Self::Token { .. }, _) if is_token_byte(byte) => Some(Self::Token { empty: false }),
            (Self::Quoted, b'"') => Some(Self::AfterQuoted),
            (Self::Quoted, b'\\') => Some(Self::QuotedPair),
            (Self::Quoted | Self::QuotedPair, _) if !byte.is_ascii_control() || byte == b'\t' => Some(Self::Quoted),
            _ => None,
        }
    }
}

/// How many bytes of a token `text` begins with.
fn token_length(text: &[u8]) -> usize {
    length_of(text, TOKEN)
}

fn length_of(text: &[u8], class: u8) -> usize {
    text.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(text.len())
}

/// Whether a request target begins like one of its four forms (RFC 9112 section 3.2).
fn has_target_form(method: &[u8], target: &[u8]) -> bool {
    let absolute = |scheme: &[u8]| {
        target.split_at_checked(scheme.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(scheme))
    };
    target.starts_with(b"/")
        || target == b"*"
        || (method == b"CONNECT" && !target.is_empty())
        || absolute(b"http://")
        || absolute(b"https://")
}

/// Whether there is a control character but for tabs.
fn has_control(text: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    // Eight bytes at a time for whether there is any at all. A byte borrows from the one above it if it is below the
    // bound, or if it is equal and another has borrowed from it, so that what is seen first is right.
    let (words, rest) = text.as_chunks();
    let suspicious = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        let below_space = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7f);
        found | below_space | (delete.wrapping_sub(EACH) & !delete)
    });
    (suspicious & (EACH * 0x80) != 0 && words.as_flattened().iter().any(is_control)) || rest.iter().any(is_control)
}

/// One in each byte.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// `tchar` of RFC 9110 section 5.6.2.
const TOKEN: u8 = 1;

/// What may stand in a URI, but for a fragment, which would be cut off by one reader and kept by another.
const TARGET: u8 = 2;

/// To which of these a byte belongs.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        if matches!(byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
        {
            classes[byte as usize] |= TOKEN;
        }
        if !matches!(byte, b'#' | b'<' | b'>' | b'`') {
            classes[byte as usize] |= TARGET;
        }
        byte += 1;
    }
    classes
};

fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of a whole text: where it was refused, or whether it ends inside a head.
    fn follow(text: &[u8]) -> Result<bool, (usize, Violation)> {
        let mut framing = Framing::default();
        let mut taken = 0;
        while taken < text.len() {
            taken += framing.advance(&text[taken..]).map_err(|(good, violation)| (taken + good, violation))?;
        }
        Ok(framing.is_in_head())
    }

    fn violation(text: &str) -> Option<Violation> {
        follow(text.as_bytes()).err().map(|(_, violation)| violation)
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

    proptest! {
        #[test]
        fn control_characters_are_found_wherever_they_stand(
            text in prop::collection::vec(prop_oneof![8 => b' '..=b'~', 1 => any::<u8>(), 1 => Just(b'\t')], 0..40),
        ) {
            let naive = text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f);
            prop_assert_eq!(has_control(&text), naive);
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

            let mut framing = Framing::default();
            let mut done = 0;
            let mut outcome = Ok(());
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                let part = &text[done..(done + cut).min(text.len())];
                if part.is_empty() {
                    break;
                }
                match framing.advance(part) {
                    Ok(taken) => done += taken,
                    Err((_, violation)) => {
                        outcome = Err(violation);
                        break;
                    }
                }
            }
            match whole {
                Ok(in_head) => prop_assert_eq!((outcome, framing.is_in_head()), (Ok(()), in_head)),
                Err((_, violation)) => prop_assert_eq!(outcome, Err(violation)),
            }
        }
    }
}
