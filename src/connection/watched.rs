//! A stream whose incoming bytes are looked at on their way to hyper, and which is closed so that a last answer still
//! arrives.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::MAX_HEAD;
use super::activity::Activity;
use super::http1_framing::{Framing, Violation};
use super::http2_frames::Frames;
use crate::scoring::caller::LINGER;

pub(super) struct Watched<S> {
    stream: S,
    protocol: Protocol,
    activity: Rc<Activity>,
    closing: Closing,
    /// What came of the next messages while one was still being answered. hyper would hold it otherwise, and then
    /// not notice that the caller hangs up.
    held: BytesMut,
}

enum Protocol {
    Http1(Framing),
    Http2(Frames),
}

enum Closing {
    NotYet,
    /// Our side is closed; the rest of the caller's is being read.
    Lingering(Pin<Box<Sleep>>),
    Done,
}

/// What comes after a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Message,
    /// The end, in whatever order.
    End,
}

impl<S> Watched<S> {
    pub(super) fn http1(stream: S, activity: Rc<Activity>) -> Self {
        let framing = if activity.caller().is_member { Framing::of_member() } else { Framing::default() };
        Self::new(stream, Protocol::Http1(framing), activity)
    }

    pub(super) fn http2(stream: S, activity: Rc<Activity>) -> Self {
        activity.set_in_head(true);
        Self::new(stream, Protocol::Http2(Frames::default()), activity)
    }

    fn new(stream: S, protocol: Protocol, activity: Rc<Activity>) -> Self {
        Self { stream, protocol, activity, closing: Closing::NotYet, held: BytesMut::new() }
    }

    /// Has what the caller still sends read before the stream is closed.
    pub(super) fn linger(&self) {
        self.activity.set_left_unread();
    }

    /// Whether our side has not been closed.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.closing, Closing::NotYet)
    }

    /// Follows the bytes read into `buf` after the first `before`. What belongs to a later message, or breaks the rules,
    /// is taken out again.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let bytes = buf.filled().get(before..).unwrap_or_default();
        let in_head = match &mut self.protocol {
            Protocol::Http1(framing) => {
                let taken = follow(framing, bytes, &self.activity);
                let rest = bytes.get(taken..).unwrap_or_default();
                if !rest.is_empty() && self.activity.violation().is_none() {
                    self.held.extend_from_slice(rest);
                    self.activity.set_held(self.held.len());
                }
                buf.set_filled(before + taken);
                self.activity.set_in_body(framing.is_in_body());
                framing.is_in_head()
            }
            Protocol::Http2(frames) => {
                frames.advance(bytes);
                frames.is_in_head()
            }
        };
        self.activity.set_in_head(in_head);
    }

    /// Reads the next message, or a part of it, out of what was held.
    fn take_held(&mut self, buf: &mut ReadBuf<'_>) {
        let Protocol::Http1(framing) = &mut self.protocol else { return };
        let available = self.held.get(..buf.remaining()).unwrap_or(&self.held);
        let taken = follow(framing, available, &self.activity);
        buf.put_slice(&self.held.split_to(taken));
        if self.held.is_empty() {
            // Else its memory would stay.
            self.held = BytesMut::new();
        }
        self.activity.set_held(self.held.len());
        self.activity.set_in_body(framing.is_in_body());
        self.activity.set_in_head(framing.is_in_head());
    }

    /// Reading is over because of a violation. The request it is part of fails; one that could not even begin is for
    /// the connection to refuse, once everything before it is answered.
    fn refuse(violation: Violation) -> Poll<io::Result<()>> {
        if violation.is_in_body() {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the request breaks HTTP's rules")))
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = self.activity.violation() {
            return Self::refuse(violation);
        }
        let before = buf.filled().len();
        if self.held.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            self.look(buf, before);
        } else if self.activity.is_answering() {
            return self.poll_hang_up(cx);
        } else {
            self.take_held(buf);
        }
        // No bytes would look like the end of the stream.
        if let Some(violation) = self.activity.violation()
            && buf.filled().len() == before
        {
            return Self::refuse(violation);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.activity.set_unflushed(true);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.set_unflushed(true);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.set_unflushed(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::NotYet => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    self.closing = match self.activity.left_unread() {
                        true => Closing::Lingering(Box::pin(sleep(LINGER))),
                        false => Closing::Done,
                    };
                }
                Closing::Lingering(end) => {
                    if end.as_mut().poll(cx).is_pending() && ready!(self.poll_discard(cx)) {
                        continue;
                    }
                    self.closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Ready, without any bytes, when the caller has hung up. Reads ahead for that as far as there is room.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < MAX_HEAD as usize {
            let mut scratch = [MaybeUninit::uninit(); 4 * 1024];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            if scratch.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(scratch.filled());
            self.activity.set_held(self.held.len());
        }
        Poll::Pending
    }

    /// Waits for the next message, between two of them: ready when some of it is there, or not open any more.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut scratch = [MaybeUninit::uninit(); 4 * 1024];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch));
        if read.is_err() || scratch.filled().is_empty() {
            return Poll::Ready(Next::End);
        }
        self.held.extend_from_slice(scratch.filled());
        self.activity.set_held(self.held.len());
        Poll::Ready(Next::Message)
    }

    /// Reads and throws away; false at the end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = [MaybeUninit::uninit(); 16 * 1024];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch));
        Poll::Ready(read.is_ok() && !scratch.filled().is_empty())
    }
}

/// Follows HTTP/1 to the end of a message at most; says how many bytes are good.
fn follow(framing: &mut Framing, bytes: &[u8], activity: &Activity) -> usize {
    match framing.advance(bytes) {
        Ok(taken) => taken,
        Err((good, violation)) => {
            activity.set_violation(violation);
            good
        }
    }
}
