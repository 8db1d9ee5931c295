//! Callers that use hyper: what well-behaved programs send.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{CNAME, Reply, SCORE, within};

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub enum Caller {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Caller {
    pub async fn http1(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    pub async fn http2(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: Option<u32>) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    /// Waits for the head of the answer. `request` has a whole URI.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                within(sender.ready()).await?;
                within(sender.send_request(with_host(request))).await
            }
            Self::Http2(sender) => {
                within(sender.ready()).await?;
                within(sender.send_request(request)).await
            }
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, request: Request<Body>) -> Reply {
        read(self.send(request).await.expect("an answer")).await.expect("a whole answer")
    }
}

/// HTTP/1 names the host in a field.
fn with_host(mut request: Request<Body>) -> Request<Body> {
    if request.method() == Method::CONNECT {
        return request;
    }
    let uri = std::mem::take(request.uri_mut());
    let host = uri.authority().expect("a whole URI").as_str().parse().expect("a host");
    request.headers_mut().entry(header::HOST).or_insert(host);
    *request.uri_mut() = Uri::from(uri.path_and_query().expect("a path").clone());
    request
}

/// Reads an answer to its end; an error when it breaks off.
pub async fn read(response: Response<Incoming>) -> hyper::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = within(body.collect()).await?.to_bytes();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// A request to [`CNAME`].
pub fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let uri = format!("https://{CNAME}{path}");
    Request::builder().method(method).uri(uri).body(body).expect("a request")
}

pub fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, empty())
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    request(Method::POST, path, full(body))
}

/// A scoring call with more fields.
pub fn score(fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = post(SCORE, "[1]");
    let more: HeaderMap =
        fields.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect();
    request.headers_mut().extend(more);
    request
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of unknown length that is sent as it is handed in; an error breaks it off.
pub fn channel() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, parts) = mpsc::channel(1);
    (sender, Channel(parts).boxed_unsync())
}

struct Channel(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
