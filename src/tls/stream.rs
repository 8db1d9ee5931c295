//! A caller's bytes over TLS, in place of tokio-rustls's stream for two reasons: nothing is written that can wait for
//! company (the ticket of a TLS 1.3 handshake goes with the first answer), and a connection that is moved about is one
//! pointer.

use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{ProtocolVersion, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::{Polled, Socket};

/// An encrypted stream after its handshake. What was written is out when it was flushed, and a ticket too.
pub struct Stream(Box<Parts>);

struct Parts {
    socket: Socket,
    session: ServerConnection,
    /// The caller's side of the TCP connection is closed.
    ended: bool,
    /// Ours is, but for what is not written yet.
    closing: bool,
}

impl Stream {
    pub(super) fn new(socket: Socket, session: ServerConnection) -> Self {
        Self(Box::new(Parts { socket, session, ended: false, closing: false }))
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.0.session
    }

    /// Carries the handshake on. It is over when the caller's part of it is there and all is written that the caller
    /// waits for: nobody waits for a ticket.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let parts = &mut *self.0;
        loop {
            let is_over = !parts.session.is_handshaking();
            if is_over && parts.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                return Poll::Ready(Ok(()));
            }
            ready!(parts.poll_send(cx))?;
            if is_over {
                return Poll::Ready(Ok(()));
            }
            if parts.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(parts.poll_receive(cx))?;
        }
    }
}

impl Parts {
    /// Reads from the socket once and decrypts what is whole.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.session.read_tls(&mut Polled { socket: &mut self.socket, cx }) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(self.session.process_new_packets().map(drop).map_err(|error| {
            // The alert that says so is sent if it can be at once.
            let _ = self.poll_send(cx);
            io::Error::new(io::ErrorKind::InvalidData, error)
        }))
    }

    /// Writes what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Polled { socket: &mut self.socket, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in as much as `write` gives at once, and sends it.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = write(&mut self.session.writer())?;
            let sent = self.poll_send(cx)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            // There was no room for anything before.
            ready!(sent);
        }
    }
}

impl AsyncRead for Stream {
    /// Reads as much as there is and fits, from as many records as that takes.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let parts = &mut *self.0;
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let mut reader = parts.session.reader();
            let outcome = match reader.fill_buf() {
                Ok([]) => break,
                Ok(bytes) => {
                    let bytes = bytes.get(..buf.remaining()).unwrap_or(bytes);
                    let taken = bytes.len();
                    buf.put_slice(bytes);
                    reader.consume(taken);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => parts.poll_receive(cx),
                Err(error) => Poll::Ready(Err(error)),
            };
            match outcome {
                Poll::Ready(Ok(())) => {}
                // An error will be there again when the bytes before it have been read.
                _ if buf.filled().len() > before => break,
                outcome => return outcome,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.0.poll_write_with(cx, |writer| writer.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.0.poll_write_with(cx, |writer| writer.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(cx)
    }

    /// Says that nothing more comes, and closes our side.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let parts = &mut *self.0;
        if !parts.closing {
            parts.closing = true;
            parts.session.send_close_notify();
        }
        ready!(parts.poll_send(cx))?;
        // Where the caller is done too the socket is closed next, which says the same.
        if parts.ended || matches!(parts.session.reader().fill_buf(), Ok([])) {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut parts.socket).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}
