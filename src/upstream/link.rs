//! One connection to a replica: a socket, and what was read of it and not yet used. It holds no memory while it is idle.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::{self, Head, MAX_HEAD};
use super::{AnswerError, ConnectError, Endpoint, Fields};
use crate::outgoing::MOST_PARTS;

/// Read at a time as long as nothing is known of what comes: most answers are smaller. The space is on the stack, and what
/// came is kept in a buffer of its own size.
const FIRST_READ: usize = 4 * 1024;

/// So little is put together on the stack and sent as one piece: send(2) of one piece is cheaper than writev(2) of three.
const GATHERED_WRITE: usize = 4 * 1024;

fn is_nothing(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

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

    /// Whether the replica has neither closed it nor said anything that nobody asked for, as far as the runtime has
    /// heard. This costs no system call where it has not heard of anything.
    pub(super) fn seems_quiet(&self) -> bool {
        self.read.is_empty() && self.tcp.try_read(&mut [0]).is_err_and(is_nothing)
    }

    /// The same as it is now, which another request may be sent by: what came since the runtime last asked the kernel, be it
    /// a second answer, would be taken for the answer to that request.
    pub(super) fn is_quiet(&self) -> bool {
        let mut space = [MaybeUninit::uninit()];
        self.read.is_empty() && SockRef::from(&self.tcp).peek(&mut space).is_err_and(is_nothing)
    }

    /// The head of the next answer that is not an interim one. `to_head`: it answers HEAD, and has no body.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
        fields: &mut Fields<'_>,
    ) -> Poll<Result<Head, AnswerError>> {
        loop {
            if !self.read.is_empty() {
                match head::take(&mut self.read, to_head, fields)? {
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
        // What is left of the space of the last read is used first.
        if self.read.capacity() - self.read.len() < most / 4 {
            self.read.reserve(most);
        }
        // It loses nothing when it is dropped.
        pin!(self.tcp.read_buf(&mut self.read)).poll(cx)
    }

    /// Writes of `parts`, in their order, as much as is taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); GATHERED_WRITE];
        let mut space = ReadBuf::uninit(&mut space);
        let tcp = Pin::new(&mut self.tcp);
        let written = if parts.iter().map(|part| part.len()).sum::<usize>() <= GATHERED_WRITE {
            for part in parts {
                space.put_slice(part);
            }
            ready!(tcp.poll_write(cx, space.filled()))?
        } else {
            let mut slices = [IoSlice::new(&[]); MOST_PARTS];
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            ready!(tcp.poll_write_vectored(cx, &slices))?
        };
        if written == 0 { Poll::Ready(Err(io::ErrorKind::WriteZero.into())) } else { Poll::Ready(Ok(written)) }
    }
}
