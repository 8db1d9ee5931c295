//! A stream whose incoming bytes are looked at on their way to hyper, and which is closed so that a last answer still
//! arrives.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::http1_framing::{Framing, Violation};
use super::http2_frames::Frames;
use crate::scoring::caller::LINGER;

pub(super) struct Watched<S> {
    stream: S,
    protocol: Protocol,
    activity: Rc<Activity>,
    closing: Closing,
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

impl<S> Watched<S> {
    pub(super) fn http1(stream: S, activity: Rc<Activity>) -> Self {
        Self { stream, protocol: Protocol::Http1(Framing::default()), activity, closing: Closing::NotYet }
    }

    pub(super) fn http2(stream: S, activity: Rc<Activity>) -> Self {
        activity.set_in_head(true);
        Self { stream, protocol: Protocol::Http2(Frames::default()), activity, closing: Closing::NotYet }
    }

    /// Has what the caller still sends read before the stream is closed.
    pub(super) fn linger(&self) {
        self.activity.set_left_unread();
    }

    /// Follows the bytes read into `buf` after the first `before`; takes out again what breaks the rules.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let bytes = buf.filled().get(before..).unwrap_or_default();
        let in_head = match &mut self.protocol {
            Protocol::Http1(framing) => match framing.advance(bytes) {
                Ok(()) => framing.is_in_head(),
                Err((good, violation)) => {
                    self.activity.set_violation(violation);
                    buf.set_filled(before + good);
                    false
                }
            },
            Protocol::Http2(frames) => {
                frames.advance(bytes);
                frames.is_in_head()
            }
        };
        self.activity.set_in_head(in_head);
    }

    /// Whether reading is over because of a violation: with an error once everything before it is answered.
    fn refuse(&self, violation: Violation) -> Poll<io::Result<()>> {
        if violation.is_in_body() || self.activity.may_speak() {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the request breaks HTTP's rules")))
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = self.activity.violation() {
            return self.refuse(violation);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.look(buf, before);
            // No bytes would look like the end of the stream.
            if let Some(violation) = self.activity.violation()
                && buf.filled().len() == before
            {
                return self.refuse(violation);
            }
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
        if self.activity.violation().is_some() {
            // Reading stood still until everything before the violation was answered.
            cx.waker().wake_by_ref();
        }
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
    /// Reads and throws away; false at the end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = [0; 16 * 1024];
        let mut scratch = ReadBuf::new(&mut scratch);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch));
        Poll::Ready(read.is_ok() && !scratch.filled().is_empty())
    }
}
