//! What is to be written of a message over HTTP/1.1, a request or an answer: lines of our own, data as it came, and what
//! follows a chunk. In one place, so that all of it can go in one system call.

use bytes::{Buf, Bytes};

use crate::digits::push_hexadecimal;

/// Lines, data, and the end of a chunk.
pub const MOST_PARTS: usize = 3;

/// What follows the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

/// The same, and the last chunk, without trailers.
const LAST_CHUNK_END: &[u8] = b"\r\n0\r\n\r\n";

/// To be written in the order of its fields.
#[derive(Debug, Default)]
pub struct Outgoing {
    lines: Vec<u8>,
    /// Bytes of `lines` that were written.
    written: usize,
    data: Bytes,
    chunk_end: &'static [u8],
}

impl Outgoing {
    /// That begins with `lines`.
    pub fn new(lines: Vec<u8>) -> Self {
        Self { lines, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.len() == self.written && !self.has_data()
    }

    /// Whether there is data, or what follows it.
    pub fn has_data(&self) -> bool {
        !self.data.is_empty() || !self.chunk_end.is_empty()
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// Where more lines are put. Data before them is copied, so that they stay behind it.
    pub fn lines(&mut self) -> &mut Vec<u8> {
        if self.has_data() {
            self.lines.extend_from_slice(&std::mem::take(&mut self.data));
            self.lines.extend_from_slice(std::mem::take(&mut self.chunk_end));
        }
        &mut self.lines
    }

    /// Adds data.
    pub fn put(&mut self, data: Bytes) {
        self.lines();
        self.data = data;
    }

    /// Adds data, of which there must be some, as a chunk (RFC 9112 section 7.1).
    pub fn put_chunk(&mut self, data: Bytes) {
        let lines = self.lines();
        push_hexadecimal(lines, data.len() as u64);
        lines.extend_from_slice(b"\r\n");
        self.data = data;
        self.chunk_end = CHUNK_END;
    }

    /// Adds the last chunk.
    pub fn end_chunks(&mut self) {
        if self.chunk_end == CHUNK_END {
            self.chunk_end = LAST_CHUNK_END;
        } else {
            self.lines().extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// What is to be written, in this order.
    pub fn parts(&self) -> [&[u8]; MOST_PARTS] {
        [self.lines.get(self.written..).unwrap_or_default(), &self.data, self.chunk_end]
    }

    /// Notes that so many bytes were written.
    pub fn advance(&mut self, written: usize) {
        let of_lines = written.min(self.lines.len() - self.written);
        self.written += of_lines;
        let of_data = (written - of_lines).min(self.data.len());
        self.data.advance(of_data);
        let of_end = (written - of_lines - of_data).min(self.chunk_end.len());
        self.chunk_end = self.chunk_end.get(of_end..).unwrap_or_default();
        if self.data.is_empty() {
            // Else its memory would stay.
            self.data = Bytes::new();
        }
        if self.written == self.lines.len() {
            self.lines.clear();
            self.written = 0;
        }
    }

    /// Gives the memory back that the lines had, if nothing is to be written.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The data that was not written.
    pub fn into_data(self) -> Bytes {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that is to be written.
    fn whole(outgoing: &Outgoing) -> Vec<u8> {
        outgoing.parts().concat()
    }

    #[test]
    fn the_last_chunk_goes_with_the_one_before_it() {
        let mut outgoing = Outgoing::new(b"head\r\n\r\n".to_vec());
        outgoing.put_chunk(Bytes::from_static(b"hello"));
        outgoing.end_chunks();
        assert_eq!(whole(&outgoing), b"head\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        outgoing.advance(outgoing.len() - 6);
        assert_eq!(whole(&outgoing), b"\n0\r\n\r\n");
        outgoing.advance(6);
        assert!(outgoing.is_empty());
        outgoing.end_chunks();
        assert_eq!(whole(&outgoing), b"0\r\n\r\n");
    }

    proptest! {
        /// Whatever is put when, and however it is written, all of it comes in its order.
        #[test]
        fn nothing_is_lost_and_nothing_changes_places(
            steps in prop::collection::vec((0..3u8, prop::collection::vec(any::<u8>(), 1..20), 0usize..40), 0..30),
        ) {
            let (mut outgoing, mut expected, mut written) = (Outgoing::default(), Vec::new(), Vec::new());
            for (kind, bytes, takes) in steps {
                match kind {
                    0 => {
                        outgoing.lines().extend_from_slice(&bytes);
                        expected.extend_from_slice(&bytes);
                    }
                    1 => {
                        outgoing.put(bytes.clone().into());
                        expected.extend_from_slice(&bytes);
                    }
                    _ => {
                        outgoing.put_chunk(bytes.clone().into());
                        expected.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                        expected.extend_from_slice(&bytes);
                        expected.extend_from_slice(b"\r\n");
                    }
                }
                let takes = takes.min(outgoing.len());
                written.extend_from_slice(&whole(&outgoing)[..takes]);
                outgoing.advance(takes);
            }
            written.extend_from_slice(&whole(&outgoing));
            prop_assert_eq!(written, expected);
        }
    }
}
