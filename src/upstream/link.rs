//! One connection to a replica: a socket, and what was read of it and not yet used. It holds no memory while it is idle.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::{self, Head, MAX_HEAD};
use super::{AnswerError, ConnectError, Endpoint};

/// Read at a time as long as nothing is known of what comes: most answers are smaller. The space is on the stack, and what
/// came is kept in a buffer of its own size.
const FIRST_READ: usize = 4 * 1024;

pub(super) struct Link {
    tcp: TcpStream,
    /// Read, and not yet used.
    pub(super) read: BytesMut,
}

impl Link {
    pub(super) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Self, ConnectError> {
        let address = endpoint.address();
        timeout(limit, async {
            let tcp = TcpStream::connect((address.host(), address.port())).await?;
            tcp.set_nodelay(true)?;
            Ok(Self { tcp, read: BytesMut::new() })
        })
        .await
        .unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    /// Whether another request may be sent: the replica has neither closed it nor said anything that nobody asked for.
    /// Where the kernel has not told of anything new this costs no system call.
    pub(super) fn is_quiet(&self) -> bool {
        let nothing = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.read.is_empty() && self.tcp.try_read(&mut [0]).is_err_and(nothing)
    }

    /// The head of the next answer that is not an interim one. `to_head`: it answers HEAD, and has no body.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, to_head: bool) -> Poll<Result<Head, AnswerError>> {
        loop {
            if !self.read.is_empty() {
                match head::take(&mut self.read, to_head)? {
                    Some(head) if head.response.status().is_informational() => continue,
                    Some(head) => return Poll::Ready(Ok(head)),
                    None if self.read.len() >= MAX_HEAD => return Poll::Ready(Err(AnswerError::TooLarge("its head"))),
                    None => {}
                }
            }
            if ready!(self.poll_first_read(cx))? == 0 {
                return Poll::Ready(Err(AnswerError::Closed));
            }
        }
    }

    /// Reads a little. 0: the replica has closed its side.
    fn poll_first_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); FIRST_READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut space))?;
        self.read.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Reads up to `most` bytes more. 0: the replica has closed its side.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        if most <= FIRST_READ {
            return self.poll_first_read(cx);
        }
        self.read.reserve(most);
        // It loses nothing when it is dropped.
        pin!(self.tcp.read_buf(&mut self.read)).poll(cx)
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, parts))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }
}
