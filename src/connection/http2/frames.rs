//! Follows the frames of HTTP/2 (RFC 9113 section 4.1) just far enough to know whether the caller is in the middle of
//! one: a caller that sends a byte a minute would otherwise never be late.

/// The connection preface, section 3.4.
const PREFACE_LENGTH: usize = 24;
const FRAME_HEADER_LENGTH: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Where in the stream of frames a connection is.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    header: [u8; FRAME_HEADER_LENGTH],
    header_length: usize,
    payload_left: usize,
    /// A header block was begun, and its last frame has not come.
    in_block: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface_left: PREFACE_LENGTH,
            header: [0; FRAME_HEADER_LENGTH],
            header_length: 0,
            payload_left: 0,
            in_block: false,
        }
    }
}

impl Frames {
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        let mut skip = |left: &mut usize| {
            let taken = bytes.len().min(*left);
            *left -= taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            bytes.first().copied()
        };
        let mut next = skip(&mut self.preface_left);
        while next.is_some() {
            next = skip(&mut self.payload_left);
            while let Some(byte) = next
                && let Some(place) = self.header.get_mut(self.header_length)
            {
                *place = byte;
                self.header_length += 1;
                next = skip(&mut 1);
            }
            if self.header_length == FRAME_HEADER_LENGTH {
                self.begin_payload();
                next = skip(&mut self.payload_left);
            }
        }
    }

    /// Whether something other than a body's data has been begun and is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        let in_data = self.payload_left > 0 && self.header[3] == DATA;
        self.preface_left > 0 || self.in_block || self.header_length > 0 || (self.payload_left > 0 && !in_data)
    }

    fn begin_payload(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.header_length = 0;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload.len()).expect("short"), kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_frame_or_header_block_is_known_to_be_unfinished_at_every_byte() {
        // (a frame, and whether the connection is between heads after it)
        let frames = [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), true),
            (frame(4, 0, &[0; 12]), true),
            (frame(HEADERS, 0, b"part"), false),
            (frame(CONTINUATION, 0, b""), false),
            (frame(CONTINUATION, END_HEADERS, b"end"), true),
            (frame(6, 0, &[0; 8]), true),
        ];
        let mut follow = Frames::default();
        let mut whole = Frames::default();
        for (bytes, between) in &frames {
            for byte in bytes.split_last().expect("not empty").1 {
                follow.advance(&[*byte]);
                assert!(follow.is_in_head());
            }
            follow.advance(&bytes[bytes.len() - 1..]);
            assert_eq!(follow.is_in_head(), !between, "{bytes:?}");
        }
        whole.advance(&frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect::<Vec<_>>());
        assert!(!whole.is_in_head());
    }

    #[test]
    fn unfinished_data_is_no_unfinished_head() {
        let mut frames = Frames::default();
        frames.advance(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.advance(&frame(DATA, 0, b"0123456789")[..15]);
        assert!(!frames.is_in_head());
    }
}
