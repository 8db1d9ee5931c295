//! HTTP/2: hyper with its streams as tasks of this thread, and a watch on the bytes that come (`watched`), which knows what
//! hyper keeps to itself: whether a frame has been begun.

mod executor;
mod frames;
mod watched;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::Entry;
use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tower::Service;

use super::activity::{Activity, Overdue};
use super::drive::{Connection, drive};
use super::{Common, MAX_BUFFER, MAX_HEAD, MAX_STREAMS};
use crate::scoring::body::ResponseBody;
use crate::scoring::caller::Caller;
use crate::scoring::headers::{SERVER_TIMING, X_MS_REQUEST_ID};
use crate::scoring::incoming::Incoming;
use crate::scoring::{self, Observe, Score};
use crate::telemetry::metrics::ThreadMetrics;

use self::executor::{LocalExecutor, Streams};
use self::watched::Watched;

/// How often an HTTP/2 caller that sends nothing is asked whether it is still there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, activity: &Rc<Activity>, common: &Common) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let caller = activity.caller();
    let executor = LocalExecutor::new(Rc::clone(&caller));
    let streams = executor.streams();
    let service = Adapter(RefCell::new(scoring::service(Rc::clone(&common.worker), Rc::clone(&caller))));
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_send_buf_size(MAX_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .serve_connection(TokioIo::new(Watched::new(stream, Rc::clone(activity))), service);
    let metrics = common.worker.thread_metrics();
    let mut connection = Http2 { caller: &caller, connection: pin!(connection), streams: &streams, metrics };
    drive(activity, common, &mut connection).await
}

struct Http2<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> {
    caller: &'a Caller,
    connection: Pin<&'a mut http2::Connection<TokioIo<Watched<S>>, Adapter, LocalExecutor>>,
    streams: &'a Streams,
    metrics: &'a ThreadMetrics,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection for Http2<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.caller.poll_unread(cx);
        self.connection.as_mut().poll(cx).map(drop)
    }

    fn drain(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }

    fn look_after(&mut self, now: Instant, patience: Duration) {
        self.metrics.timeouts.stalled.add(self.streams.end_stalled(now, patience));
    }
}

/// hyper calls services through a shared reference; tower's take an exclusive one.
struct Adapter(RefCell<Observe<Score>>);

impl hyper::service::Service<Request<hyper::body::Incoming>> for Adapter {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Marked;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Marked {
        // Always ready: what limits calls stands further down.
        Marked(self.0.borrow_mut().call(request.map(Incoming::Http2)))
    }
}

/// An answer of which the fields are marked that are never the same twice. In HPACK's table they would push out all others,
/// and each new one would be compared with all before it.
struct Marked(<Observe<Score> as Service<Request<Incoming>>>::Future);

impl Future for Marked {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = ready!(Pin::new(&mut self.0).poll(cx))?;
        for name in [X_MS_REQUEST_ID, SERVER_TIMING] {
            if let Entry::Occupied(mut values) = answer.headers_mut().entry(name) {
                values.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
        Poll::Ready(Ok(answer))
    }
}
