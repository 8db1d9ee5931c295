//! A request as it is written to a replica: its head, and its body as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::link::Link;
use super::{Request, Upload};
use crate::digits::push_decimal;
use crate::outgoing::Outgoing;

/// Bytes of a body that are put together before they are written, while more is there already.
const PUT_TOGETHER: usize = 8 * 1024;

pub(super) struct Sending<B> {
    body: B,
    length: Length,
    out: Outgoing,
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
            out: Outgoing::new(lines),
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
        self.is_read && !self.is_broken && self.out.is_empty()
    }

    /// The body as it came, if nothing was written.
    pub(super) fn into_body(mut self) -> B {
        let data = self.out.into_data();
        if !data.is_empty() {
            self.body.take_back(data);
        }
        self.body
    }

    /// Writes as much as there is and the replica takes; ready when that was all.
    pub(super) fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.is_broken {
            return Poll::Ready(Err(SendError::Body));
        }
        loop {
            let more = self.poll_parts(cx);
            if let Poll::Ready(Err(error)) = more {
                self.is_broken = true;
                return Poll::Ready(Err(error));
            }
            while !self.out.is_empty() {
                let written = ready!(link.poll_write(cx, &self.out.parts())).map_err(SendError::Io)?;
                self.is_begun = true;
                self.out.advance(written);
            }
            if self.is_read {
                return Poll::Ready(Ok(()));
            }
            if more.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes what is there of the body and is to be written at once.
    fn poll_parts(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.is_read && self.has_room() {
            ready!(self.poll_body(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// With the head goes one part, which can be taken back as it is; later ones are put together while they are small.
    fn has_room(&self) -> bool {
        !self.out.has_data() || (self.is_begun && self.out.len() < PUT_TOGETHER)
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
                self.out.put(data);
            }
            Length::Chunked => self.out.put_chunk(data),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SendError> {
        self.is_read = true;
        match self.length {
            Length::None | Length::Known(0) => {}
            Length::Known(_) => return Err(SendError::Body),
            Length::Chunked => self.out.end_chunks(),
        }
        Ok(())
    }
}

fn push_length(lines: &mut Vec<u8>, length: u64) {
    lines.extend_from_slice(b"content-length: ");
    push_decimal(lines, length);
    lines.extend_from_slice(b"\r\n");
}
