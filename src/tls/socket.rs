//! The TCP connection under TLS. While much comes it is read far ahead: rustls takes one record at a time, and a system
//! call for each would cost more than the decryption.
//!
//! Small messages are read straight into rustls's own buffer. The large buffers belong to the thread, and a connection
//! has one only as long as there are bytes in it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read at most at once.
const AHEAD: usize = 128 * 1024;

/// Buffers that one thread's connections may have at a time. The next one reads record by record.
const MAX_LENT: usize = 64;

/// Buffers that a thread keeps while nobody uses them.
const MAX_KEPT: usize = 4;

/// One thread's large buffers.
#[derive(Default)]
pub struct Buffers {
    kept: RefCell<Vec<Box<[u8]>>>,
    lent: Cell<usize>,
}

impl Buffers {
    fn lend(&self) -> Option<Box<[u8]>> {
        if self.lent.get() == MAX_LENT {
            return None;
        }
        self.lent.set(self.lent.get() + 1);
        let kept = self.kept.borrow_mut().pop();
        Some(kept.unwrap_or_else(|| vec![0; AHEAD].into()))
    }

    fn take_back(&self, buffer: Box<[u8]>) {
        self.lent.set(self.lent.get() - 1);
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MAX_KEPT {
            kept.push(buffer);
        }
    }
}

/// A TCP connection and what was read ahead of it.
pub struct Socket {
    tcp: TcpStream,
    buffers: Rc<Buffers>,
    ahead: Option<Ahead>,
    /// Whether the last read brought all there was room for, so that more is likely to be there.
    was_full: bool,
}

/// Bytes that were read and not asked for yet: there is one at least.
struct Ahead {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Socket {
    /// `buffers` are those of this thread.
    pub fn new(tcp: TcpStream, buffers: Rc<Buffers>) -> Self {
        Self { tcp, buffers, ahead: None, was_full: false }
    }

    fn read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        mut buffer: Box<[u8]>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut read = ReadBuf::new(&mut buffer);
        let outcome = Pin::new(&mut self.tcp).poll_read(cx, &mut read);
        let to = read.filled().len();
        if to > 0 {
            // A little more than fits would have cost no more without the copy.
            self.was_full = to >= 2 * buf.remaining();
            self.ahead = Some(Ahead { buffer, from: 0, to });
            self.take_ahead(buf);
        } else {
            self.buffers.take_back(buffer);
        }
        outcome
    }

    /// Hands out what was read ahead; false if nothing was.
    fn take_ahead(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some(Ahead { buffer, from, to }) = &mut self.ahead else { return false };
        let bytes = buffer.get(*from..*to).unwrap_or_default();
        let bytes = bytes.get(..buf.remaining()).unwrap_or(bytes);
        buf.put_slice(bytes);
        *from += bytes.len();
        if from == to {
            self.return_buffer();
        }
        true
    }

    fn return_buffer(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            self.buffers.take_back(ahead.buffer);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.return_buffer();
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.take_ahead(buf) {
            return Poll::Ready(Ok(()));
        }
        if self.was_full
            && let Some(buffer) = self.buffers.lend()
        {
            return self.read_ahead(cx, buffer, buf);
        }
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.was_full = buf.remaining() == 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            // send(2) of one piece is cheaper than writev(2) of it.
            [only] => Pin::new(&mut self.tcp).poll_write(cx, only),
            _ => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A socket as rustls reads and writes it: what would have to wait is an error of the kind `WouldBlock`, and the task
/// is woken when it need not any more.
pub(super) struct Polled<'a, 'b> {
    pub(super) socket: &'a mut Socket,
    pub(super) cx: &'a mut Context<'b>,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(bytes);
        or_would_block(Pin::new(&mut *self.socket).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(Pin::new(&mut *self.socket).poll_flush(self.cx))
    }
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(buffers: &Rc<Buffers>) -> (TcpStream, Socket) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (caller.expect("a connection"), Socket::new(accepted.expect("the same").0, Rc::clone(buffers)))
    }

    #[tokio::test]
    async fn what_is_read_ahead_comes_in_order_and_its_buffer_goes_back() {
        let buffers = Rc::new(Buffers::default());
        let (mut caller, mut socket) = pair(&buffers).await;
        let sent: Vec<u8> = (0..1_000_003_u32).map(|index| (index % 251) as u8).collect();
        let mut read = Vec::new();
        let mut most_lent = 0;
        let ((), ()) = tokio::join!(
            async {
                caller.write_all(&sent).await.expect("taken");
                drop(caller);
            },
            async {
                let mut part = [0; 4096];
                loop {
                    let length = socket.read(&mut part).await.expect("bytes");
                    if length == 0 {
                        break;
                    }
                    read.extend_from_slice(&part[..length]);
                    most_lent = most_lent.max(buffers.lent.get());
                }
            }
        );
        assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
        assert_eq!((most_lent, buffers.lent.get(), buffers.kept.borrow().len()), (1, 0, 1));
    }

    #[tokio::test]
    async fn small_messages_need_no_buffer() {
        let buffers = Rc::new(Buffers::default());
        let (mut caller, mut socket) = pair(&buffers).await;
        let mut part = [0; 4096];
        for _ in 0..3 {
            caller.write_all(b"small").await.expect("taken");
            assert_eq!(socket.read(&mut part).await.expect("bytes"), 5);
        }
        assert!(buffers.kept.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_ends_gives_its_buffer_back_and_no_more_than_some_are_lent() {
        let buffers = Rc::new(Buffers::default());
        let mut sockets = Vec::new();
        for _ in 0..=MAX_LENT {
            let (mut caller, mut socket) = pair(&buffers).await;
            caller.write_all(&[1; 3_000]).await.expect("taken");
            let mut part = [0; 100];
            // The first read is full, the second one reads ahead.
            for _ in 0..2 {
                socket.read_exact(&mut part).await.expect("bytes");
            }
            sockets.push((caller, socket));
        }
        assert_eq!(buffers.lent.get(), MAX_LENT);
        drop(sockets);
        assert_eq!((buffers.lent.get(), buffers.kept.borrow().len()), (0, MAX_KEPT));
    }
}
