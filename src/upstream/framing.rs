//! Where the body of an answer ends (RFC 9112 sections 6 and 7). Looks at bytes that were read, and reads none.

use bytes::{Buf, Bytes, BytesMut};

use super::AnswerError;

/// Bytes of a line before or after a chunk: its size and extensions, which nobody uses, or a trailer field.
const MAX_LINE: usize = 4 * 1024;

/// Bytes of all extensions and trailers of a body.
const MAX_EXTRAS: usize = 64 * 1024;

/// What there is of a body so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    /// More has to be read, of which so much is known to belong to the body.
    More(u64),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked {
        place: Place,
        extras: usize,
    },
    /// All that comes until the connection is closed.
    UntilClosed,
}

/// In a body of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    SizeLine,
    Data(u64),
    /// The line end that follows the data.
    DataEnd,
    Trailers,
    End,
}

impl Framing {
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) fn chunked() -> Self {
        Self::Chunked { place: Place::SizeLine, extras: 0 }
    }

    /// How many bytes of data are still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked { .. } | Self::UntilClosed => None,
        }
    }

    /// Whether the body is over when the connection is closed here.
    pub(super) fn may_end_here(&self) -> bool {
        matches!(self, Self::UntilClosed)
    }

    /// Whether nothing but the end is left in what was read, which it then takes.
    pub(super) fn is_at_end(&mut self, read: &mut BytesMut) -> bool {
        matches!(self, Self::Chunked { place: Place::DataEnd, .. })
            && **read == *b"\r\n0\r\n\r\n"
            && matches!(self.take(read), Ok(Part::End))
    }

    /// Takes the next part out of what was read.
    ///
    /// # Errors
    ///
    /// Where chunks should be there is something else, or too much between them.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Part, AnswerError> {
        match self {
            Self::Length(0) => Ok(Part::End),
            Self::Length(left) => Ok(take_data(read, left)),
            Self::UntilClosed if read.is_empty() => Ok(Part::More(0)),
            Self::UntilClosed => Ok(Part::Data(read.split().freeze())),
            Self::Chunked { place, extras } => take_chunk(place, extras, read),
        }
    }
}

fn take_data(read: &mut BytesMut, left: &mut u64) -> Part {
    if read.is_empty() {
        return Part::More(*left);
    }
    // No more than `read` has, which fits.
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= here as u64;
    Part::Data(read.split_to(here).freeze())
}

fn take_chunk(place: &mut Place, extras: &mut usize, read: &mut BytesMut) -> Result<Part, AnswerError> {
    loop {
        *place = match place {
            Place::Data(left) => {
                let part = take_data(read, left);
                if *left == 0 {
                    *place = Place::DataEnd;
                }
                return Ok(part);
            }
            Place::End => return Ok(Part::End),
            Place::SizeLine => {
                let Some(line) = take_line(read)? else { return Ok(Part::More(0)) };
                let (size, extension) = chunk_size(&line)?;
                count(extras, extension)?;
                if size == 0 { Place::Trailers } else { Place::Data(size) }
            }
            Place::DataEnd => match take_line(read)? {
                None => return Ok(Part::More(0)),
                Some(line) if line.is_empty() => Place::SizeLine,
                Some(_) => return Err(AnswerError::Malformed("a chunk is longer than it said")),
            },
            Place::Trailers => match take_line(read)? {
                None => return Ok(Part::More(0)),
                Some(line) if line.is_empty() => Place::End,
                // Trailers end here: nothing in scoring needs them, and a recipient may discard them (RFC 9110 section 6.5.1).
                Some(line) => {
                    count(extras, line.len())?;
                    Place::Trailers
                }
            },
        }
    }
}

/// A line without its end, if it is whole.
fn take_line(read: &mut BytesMut) -> Result<Option<BytesMut>, AnswerError> {
    let Some(end) = memchr::memchr(b'\n', read.get(..MAX_LINE).unwrap_or(read)) else {
        return if read.len() < MAX_LINE { Ok(None) } else { Err(AnswerError::TooLarge("a line between chunks")) };
    };
    let mut line = read.split_to(end);
    read.advance(1);
    match line.last() {
        Some(b'\r') => {
            line.truncate(end - 1);
            Ok(Some(line))
        }
        _ => Err(AnswerError::Malformed("a line between chunks does not end with CRLF")),
    }
}

/// Size and bytes of extensions. White space behind the size is of servers that pad it.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), AnswerError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let size = str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let has_end = rest.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
    match size {
        Some(size) if has_end && !rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') => {
            Ok((size, rest.len()))
        }
        _ => Err(AnswerError::Malformed("a chunk's size is none")),
    }
}

fn count(extras: &mut usize, more: usize) -> Result<(), AnswerError> {
    *extras += more;
    if *extras > MAX_EXTRAS { Err(AnswerError::TooLarge("chunk extensions and trailers")) } else { Ok(()) }
}
