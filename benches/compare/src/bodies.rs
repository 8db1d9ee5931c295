//! What is sent and what has to arrive, byte for byte: every body is a period that repeats, up to its length.

use std::sync::LazyLock;

use crate::random::Random;

pub const CALL: &[u8] = b"{\"data\": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.7, 3.1, 5.6, 2.4]]}";
pub const ANSWER: &[u8] =
    b"[{\"class\":\"setosa\",\"probability\":0.9816},{\"class\":\"versicolor\",\"probability\":0.8131}]";

/// Of a large body: a MiB of noise, so that a piece that is lost or comes twice shows.
pub static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(1);
    (0..1 << 17).flat_map(|_| random.next().to_le_bytes()).collect()
});

/// A server-sent event of 1 KiB.
pub static EVENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut event = b"data: ".to_vec();
    event.resize(1022, b'x');
    event.extend(b"\n\n");
    event
});

#[derive(Clone)]
pub struct Body {
    period: &'static [u8],
    pub length: usize,
}

impl Body {
    pub fn whole(period: &'static [u8]) -> Self {
        Self { period, length: period.len() }
    }

    pub fn noise(length: usize) -> Self {
        Self { period: &NOISE, length }
    }

    pub fn events(count: usize) -> Self {
        Self { period: &EVENT, length: EVENT.len() * count }
    }

    /// From a place on, as far as it is in one piece; empty at the end.
    pub fn piece(&self, at: usize) -> &'static [u8] {
        let piece = &self.period[at % self.period.len()..];
        &piece[..piece.len().min(self.length - at)]
    }

    /// Whether these bytes belong at that place.
    pub fn has(&self, mut at: usize, mut bytes: &[u8]) -> bool {
        if at + bytes.len() > self.length {
            return false;
        }
        while !bytes.is_empty() {
            let piece = self.piece(at);
            let length = piece.len().min(bytes.len());
            if bytes[..length] != piece[..length] {
                return false;
            }
            (at, bytes) = (at + length, &bytes[length..]);
        }
        true
    }
}
