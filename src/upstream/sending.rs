//! A request as it is written to a replica: its head, and its body as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::link::{Link, MOST_PARTS};
use super::{Request, Upload};
use crate::digits::{push_decimal, push_hexadecimal};

/// What has to follow the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

pub(super) struct Sending<B> {
    body: B,
    length: Length,
    /// To be written in this order: lines of our own, from the first that is not written yet, then of the body.
    lines: Vec<u8>,
    written: usize,
    data: Bytes,
    chunk_end: &'static [u8],
    /// Whether there is nothing more to take from the body.
    is_read: bool,
    is_begun: bool,
    is_broken: bool,
}

/// How the replica learns where the body ends.
#[derive(Clone, Copy)]
enum Length {
    None,
    /// So many bytes are still to come.
    Known(u64),
    Chunked,
}

pub(super) enum SendError {
    Io(io::Error),
    /// It broke off, or is of another length than it said.
    Body,
}

impl<B: Upload> Sending<B> {
    pub(super) fn new(request: Request<B>) -> Self {
        let Request { mut lines, expects_body, body, .. } = request;
        let length = match body.size_hint().exact() {
            Some(0) => Length::None,
            Some(length) => Length::Known(length),
            None if body.is_end_stream() => Length::None,
            None => Length::Chunked,
        };
        match length {
            Length::Chunked => lines.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Length::Known(length) => push_length(&mut lines, length),
            Length::None if expects_body => push_length(&mut lines, 0),
            Length::None => {}
        }
        lines.extend_from_slice(b"\r\n");
        Self {
            body,
            length,
            lines,
            written: 0,
            data: Bytes::new(),
            chunk_end: b"",
            is_read: matches!(length, Length::None),
            is_begun: false,
            is_broken: false,
        }
    }

    /// Whether a byte was written.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether all of it was written.
    pub(super) fn is_over(&self) -> bool {
        self.is_read && !self.is_broken && !self.has_unwritten()
    }

    /// The body as it came, if nothing was written.
    pub(super) fn into_body(mut self) -> B {
        if !self.data.is_empty() {
            self.body.take_back(self.data);
        }
        self.body
    }

    fn has_unwritten(&self) -> bool {
        self.written < self.lines.len() || !self.data.is_empty() || !self.chunk_end.is_empty()
    }

    /// Writes as much as there is and the replica takes; ready when that was all.
    pub(super) fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.is_broken {
            return Poll::Ready(Err(SendError::Body));
        }
        loop {
            // What is there of the body goes with the head.
            let more = if self.is_read || !self.data.is_empty() || !self.chunk_end.is_empty() {
                Poll::Ready(Ok(()))
            } else {
                self.poll_body(cx)
            };
            if let Poll::Ready(Err(error)) = more {
                self.is_broken = true;
                return Poll::Ready(Err(error));
            }
            while self.has_unwritten() {
                let lines = self.lines.get(self.written..).unwrap_or_default();
                let parts: [&[u8]; MOST_PARTS] = [lines, &self.data, self.chunk_end];
                let written = ready!(link.poll_write(cx, &parts)).map_err(SendError::Io)?;
                self.is_begun = true;
                self.advance(written);
            }
            if self.is_read {
                return Poll::Ready(Ok(()));
            }
            if more.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn advance(&mut self, written: usize) {
        let of_lines = written.min(self.lines.len() - self.written);
        self.written += of_lines;
        let of_data = (written - of_lines).min(self.data.len());
        self.data.advance(of_data);
        let of_end = (written - of_lines - of_data).min(self.chunk_end.len());
        self.chunk_end = self.chunk_end.get(of_end..).unwrap_or_default();
        if self.written == self.lines.len() {
            self.lines.clear();
            self.written = 0;
        }
    }

    /// Takes the next part of the body, or its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(self.put(data)),
                    // A replica might take trailers for header fields (RFC 9110 section 6.5.1).
                    Ok(_) | Err(_) => {}
                },
                Some(Err(_)) => return Poll::Ready(Err(SendError::Body)),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    fn put(&mut self, data: Bytes) -> Result<(), SendError> {
        match self.length {
            Length::None => return Err(SendError::Body),
            Length::Known(left) => {
                let left = left.checked_sub(data.len() as u64).ok_or(SendError::Body)?;
                self.length = Length::Known(left);
                self.is_read = left == 0;
            }
            Length::Chunked => {
                push_hexadecimal(&mut self.lines, data.len() as u64);
                self.lines.extend_from_slice(b"\r\n");
                self.chunk_end = CHUNK_END;
            }
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self) -> Result<(), SendError> {
        self.is_read = true;
        match self.length {
            Length::None | Length::Known(0) => {}
            Length::Known(_) => return Err(SendError::Body),
            Length::Chunked => self.lines.extend_from_slice(b"0\r\n\r\n"),
        }
        Ok(())
    }
}

fn push_length(lines: &mut Vec<u8>, length: u64) {
    lines.extend_from_slice(b"content-length: ");
    push_decimal(lines, length);
    lines.extend_from_slice(b"\r\n");
}
