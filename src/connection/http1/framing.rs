//! Where the body of a request ends, and strictly (RFC 9112 sections 6 and 7.1): a chunk that another parser could read
//! as another is refused. Looks at bytes that were read, and reads none.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::syntax;
use super::violation::Violation;
use crate::scoring::headers::MAX_FIELDS;

/// Bytes of one chunk's extensions. Nobody sends any; a megabyte of them for each byte of data is an attack.
const MAX_CHUNK_EXTENSIONS: usize = 256;

/// Digits of a chunk's size: 16 of them fill a `u64`.
const MAX_CHUNK_DIGITS: u8 = 16;

/// Bytes of all trailers of a body.
const MAX_TRAILERS: usize = 64 * 1024;

/// What there is of a body so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    /// More has to be read.
    More,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Place),
    /// It was refused: where it ends nobody can say.
    Broken,
}

/// In a body of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Size { size: u64, digits: u8 },
    Extension { size: u64, part: ExtensionPart, length: usize },
    SizeLineFeed { size: u64 },
    Data(u64),
    DataEnd { carriage_return_seen: bool },
    Trailers { bytes: usize, fields: usize },
    End,
}

/// `;name`, `;name=token` or `;name="quoted"`, without blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtensionPart {
    Name { empty: bool },
    Token { empty: bool },
    Quoted,
    QuotedPair,
    AfterQuoted,
}

impl Framing {
    /// Of no body.
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) fn chunked() -> Self {
        Self::Chunked(Place::FIRST)
    }

    /// How many bytes of data are still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Broken => None,
        }
    }

    /// Whether nothing of it is to come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Place::End))
    }

    /// Takes the next part of the body out of what was read.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Part, Violation> {
        match self {
            Self::Length(0) => Ok(Part::End),
            Self::Length(left) => Ok(take_data(left, read)),
            Self::Chunked(place) => {
                let part = place.take(read);
                if part.is_err() {
                    *self = Self::Broken;
                }
                part
            }
            Self::Broken => Err(Violation::Chunk),
        }
    }
}

fn take_data(left: &mut u64, read: &mut BytesMut) -> Part {
    if read.is_empty() {
        return Part::More;
    }
    // No more than `read` has, which fits.
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= here as u64;
    Part::Data(read.split_to(here).freeze())
}

impl Place {
    const FIRST: Self = Self::Size { size: 0, digits: 0 };

    fn take(&mut self, read: &mut BytesMut) -> Result<Part, Violation> {
        loop {
            *self = match &mut *self {
                Self::Data(left) => {
                    let part = take_data(left, read);
                    if *left == 0 {
                        *self = Self::DataEnd { carriage_return_seen: false };
                    }
                    return Ok(part);
                }
                Self::Trailers { bytes, fields } => match take_trailer(bytes, fields, read)? {
                    None => return Ok(Part::More),
                    Some(true) => continue,
                    Some(false) => Self::End,
                },
                Self::End => return Ok(Part::End),
                place => {
                    let Some(byte) = read.first() else { return Ok(Part::More) };
                    let next = place.after(*byte).ok_or(Violation::Chunk)?;
                    read.advance(1);
                    next
                }
            };
        }
    }

    /// One byte of a chunk's own lines further; `None` if it does not belong there.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match self {
            Self::Size { size, digits } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if digits < MAX_CHUNK_DIGITS => {
                    Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
                }
                (None, b'\r') if digits > 0 => Self::SizeLineFeed { size },
                (None, b';') if digits > 0 => {
                    Self::Extension { size, part: ExtensionPart::Name { empty: true }, length: 0 }
                }
                _ => return None,
            },
            Self::Extension { length, .. } if length >= MAX_CHUNK_EXTENSIONS => return None,
            Self::Extension { size, part, .. } if part.ends_before(byte) => Self::SizeLineFeed { size },
            Self::Extension { size, part, length } => {
                Self::Extension { size, part: part.next(byte)?, length: length + 1 }
            }
            Self::SizeLineFeed { size } if byte == b'\n' => match size {
                0 => Self::Trailers { bytes: 0, fields: 0 },
                size => Self::Data(size),
            },
            Self::DataEnd { carriage_return_seen: false } if byte == b'\r' => {
                Self::DataEnd { carriage_return_seen: true }
            }
            Self::DataEnd { carriage_return_seen: true } if byte == b'\n' => Self::FIRST,
            _ => return None,
        })
    }
}

/// Takes a line of the trailers and says whether it was a field; the last one is not. Fields end here: nothing in
/// scoring needs them, and a recipient may discard them (RFC 9110 section 6.5.1).
fn take_trailer(bytes: &mut usize, fields: &mut usize, read: &mut BytesMut) -> Result<Option<bool>, Violation> {
    let end = memchr(b'\n', read);
    if *bytes + end.map_or(read.len(), |end| end + 1) > MAX_TRAILERS {
        return Err(Violation::Chunk);
    }
    let Some(end) = end else { return Ok(None) };
    let line = read.split_to(end + 1);
    *bytes += line.len();
    let line = line.strip_suffix(b"\r\n").ok_or(Violation::Chunk)?;
    if line.is_empty() {
        return Ok(Some(false));
    }
    *fields += 1;
    let is_field = *fields <= MAX_FIELDS && syntax::field(line).is_some();
    if is_field { Ok(Some(true)) } else { Err(Violation::Chunk) }
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
            (Self::Name { .. }, _) if syntax::is_token_byte(byte) => Some(Self::Name { empty: false }),
            (Self::Token { .. }, _) if syntax::is_token_byte(byte) => Some(Self::Token { empty: false }),
            (Self::Quoted, b'"') => Some(Self::AfterQuoted),
            (Self::Quoted, b'\\') => Some(Self::QuotedPair),
            (Self::Quoted | Self::QuotedPair, _) if !byte.is_ascii_control() || byte == b'\t' => Some(Self::Quoted),
            _ => None,
        }
    }
}
