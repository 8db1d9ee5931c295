//! The stream of a connection, what was read of it and what is to be written. The connection reads heads and writes
//! answers; the body of a request is read, over the same stream, by whoever answers the request.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::{MAX_BUFFER, MAX_HEAD};
use super::framing::{Framing, Part};
use super::head::{Head, HeadReader};
use super::violation::Violation;
use crate::outgoing::{MOST_PARTS, Outgoing};
use crate::scoring::caller::LINGER;
use crate::scoring::incoming::{Http1Body, IncomingError};

/// Read at a time as long as nothing is known of what comes: most requests are smaller. The space is on the stack, and what
/// came is kept in a buffer of its own size.
const FIRST_READ: usize = 4 * 1024;

/// What is read at a time of a body whose beginning has come; more as long as that is filled.
const NEXT_READ: usize = 16 * 1024;

/// How long a caller may go on sending after the last answer. One that reads slowly needs the time for what the kernel still has
/// of the answer.
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// What tells a caller to send its body (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub(super) struct Wire<S> {
    stream: S,
    /// Read, and not yet used.
    read: BytesMut,
    /// To be written.
    pub(super) out: Outgoing,
    /// Whether something was written that the stream may hold back.
    is_unflushed: bool,
    body: Upload,
    closing: Closing,
}

/// The body of the request that is answered now.
struct Upload {
    framing: Framing,
    /// Whether the caller waits to be told to send it.
    is_expected: bool,
    /// Read at a time.
    reads: usize,
}

enum Closing {
    NotYet,
    /// Our side is closed; the rest of the caller's is being read, until nothing comes for a while, or it is too long.
    Lingering {
        quiet: Pin<Box<Sleep>>,
        end: Instant,
    },
    Done,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let body = Upload { framing: Framing::NONE, is_expected: false, reads: NEXT_READ };
        let (read, out) = (BytesMut::new(), Outgoing::default());
        Self { stream, read, out, is_unflushed: false, body, closing: Closing::NotYet }
    }

    /// Whether something was read of what comes next.
    pub(super) fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// Whether the caller has not yet sent all of the body of the last request, as far as can be told without reading.
    pub(super) fn has_body_to_come(&self) -> bool {
        match self.body.framing.left() {
            Some(left) => left > self.read.len() as u64,
            None if self.body.framing.is_over() => false,
            // Short, most likely, and asked for hardly ever.
            None => {
                let (mut framing, mut read) = (self.body.framing, self.read.clone());
                skip(&mut framing, &mut read);
                !framing.is_over()
            }
        }
    }

    /// Has what the stream holds back written with the next flush.
    pub(super) fn unsettle(&mut self) {
        self.is_unflushed = true;
    }

    /// Gives memory back that was needed for what came and what went, and is not for what is to come.
    pub(super) fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        self.out.rest();
    }

    /// Whether the body of the last request was read to its end, as far as it has come. What of it nobody wanted is
    /// thrown away.
    pub(super) fn is_past_body(&mut self) -> bool {
        skip(&mut self.body.framing, &mut self.read);
        self.body.framing.is_over()
    }
}

/// Throws away what was read of a body.
fn skip(framing: &mut Framing, read: &mut BytesMut) {
    while let Ok(Part::Data(_)) = framing.take(read) {}
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads the next head; there is none when the caller has ended, in whatever order.
    pub(super) fn poll_head(
        &mut self,
        reader: &mut HeadReader,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Head>, Violation>> {
        loop {
            if !self.read.is_empty()
                && let Some(head) = reader.take(&mut self.read)?
            {
                self.body = Upload { framing: head.framing, is_expected: head.expects_continue, reads: NEXT_READ };
                return Poll::Ready(Ok(Some(head)));
            }
            match ready!(self.poll_first_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Ok(None)),
                Ok(_) => {}
            }
        }
    }

    /// Ready when the caller has hung up while it is answered. Nothing is known of that while its body comes, since whoever
    /// answers reads that. What comes behind the request is read ahead as far as there is room.
    pub(super) fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let has_sent_all = self.body.framing.is_over() || self.body.is_expected;
        while has_sent_all && self.read.len() < MAX_HEAD as usize {
            match ready!(self.poll_first_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    fn poll_first_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        self.read.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Reads up to `most` bytes more.
    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        if most <= FIRST_READ {
            return self.poll_first_read(cx);
        }
        // What is left of the space of the last read is used first.
        if self.read.capacity() - self.read.len() < most / 4 {
            self.read.reserve(most);
        }
        // It loses nothing when it is dropped.
        pin!(self.stream.read_buf(&mut self.read)).poll(cx)
    }

    /// Reads and throws away; false at the end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = [MaybeUninit::uninit(); NEXT_READ];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch));
        Poll::Ready(read.is_ok() && !scratch.filled().is_empty())
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    /// Has the stream take what is to be written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let parts = self.out.parts();
            let mut slices = [IoSlice::new(&[]); MOST_PARTS];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            self.is_unflushed = true;
            let written = match slices.get(..count).unwrap_or_default() {
                [only] => ready!(stream.poll_write(cx, only))?,
                slices => ready!(stream.poll_write_vectored(cx, slices))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Has all of it on its way to the caller.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Writes what is left, closes our side, and, if it `lingers`, reads for a while what the caller still sends: closed
    /// or reset with unread bytes, a last answer might not arrive (RFC 9112 section 9.6).
    pub(super) fn poll_close(&mut self, lingers: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        loop {
            match &mut self.closing {
                Closing::NotYet => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    let now = Instant::now();
                    let lingering =
                        || Closing::Lingering { quiet: Box::pin(sleep_until(now + LINGER)), end: now + LONGEST_LINGER };
                    self.closing = if lingers { lingering() } else { Closing::Done };
                }
                Closing::Lingering { quiet, end } => {
                    let end = *end;
                    let goes_on = quiet.as_mut().poll(cx).is_pending() && ready!(self.poll_discard(cx));
                    match &mut self.closing {
                        Closing::Lingering { quiet, .. } if goes_on => {
                            quiet.as_mut().reset(end.min(Instant::now() + LINGER));
                        }
                        closing => *closing = Closing::Done,
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Tells a caller that waits for it to send its body.
    fn ask_for_body(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.body.is_expected = false;
        if self.read.is_empty() {
            self.out.lines().extend_from_slice(CONTINUE);
            // What cannot go now does so when the connection is polled.
            if let Poll::Ready(written) = self.poll_flush(cx) {
                return written;
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Body for Wire<S> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncomingError>>> {
        loop {
            match self.body.framing.take(&mut self.read) {
                Ok(Part::Data(data)) => {
                    if self.body.framing.is_over() {
                        self.rest();
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Part::End) => return Poll::Ready(None),
                Ok(Part::More) => {}
                Err(_) => return Poll::Ready(Some(Err(IncomingError::Malformed))),
            }
            if self.body.is_expected {
                self.ask_for_body(cx)?;
            }
            let reads = self.body.reads;
            let left = self.body.framing.left().map_or(reads, |left| usize::try_from(left).unwrap_or(reads));
            match ready!(self.poll_read(cx, left.clamp(1, reads)))? {
                0 => return Poll::Ready(Some(Err(IncomingError::Closed))),
                read if read >= reads => self.body.reads = (2 * reads).min(MAX_BUFFER),
                _ => {}
            }
        }
    }

    fn left(&self) -> Option<u64> {
        self.body.framing.left()
    }

    fn is_over(&self) -> bool {
        self.body.framing.is_over()
    }
}
