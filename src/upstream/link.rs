//! One connection to a replica, driven by whoever holds it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ConnectError, Endpoint};

/// What is read at most at once. More is no faster, and memory that was large once stays with the process.
const MAX_BUFFER: usize = 64 * 1024;

/// An HTTP/1.1 connection. It is half a kilobyte and changes hands twice a request, so it stays where it was made.
pub(super) struct Link<B: Body + 'static> {
    sender: SendRequest<B>,
    /// Gone when it has ended. Dropping it hands a request back that it never took.
    connection: Option<Connection<TokioIo<TcpStream>, B>>,
}

impl<B> Link<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Box<Self>, ConnectError> {
        let address = endpoint.address();
        timeout(limit, async {
            let tcp = TcpStream::connect((address.host(), address.port())).await?;
            tcp.set_nodelay(true)?;
            let (sender, connection) =
                http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(tcp)).await?;
            Ok(Box::new(Self { sender, connection: Some(connection) }))
        })
        .await
        .unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    /// Sends a request and drives the connection until the head of the answer is there.
    pub(super) async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            Self::drive_connection(&mut self.connection, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        Self::drive_connection(&mut self.connection, cx);
    }

    /// Whether another request may be sent: the last answer is whole, and neither side closes.
    pub(super) fn is_reusable(&mut self) -> bool {
        // Nobody waits for this connection now, so nobody needs waking. Where the kernel has not told of anything new
        // this costs no system call.
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    fn drive_connection(connection: &mut Option<Connection<TokioIo<TcpStream>, B>>, cx: &mut Context<'_>) {
        // What went wrong reaches the request or the body.
        if connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
            *connection = None;
        }
    }
}
