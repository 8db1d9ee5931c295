//! HTTP/2: hyper with its streams as tasks of this thread.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::Entry;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::activity::{Activity, Overdue};
use super::drive::{Connection, drive};
use super::executor::{LocalExecutor, Streams};
use super::watched::Watched;
use super::{Adapter, Common, MAX_BUFFER, MAX_HEAD, MAX_STREAMS};
use crate::scoring::body::ResponseBody;
use crate::scoring::caller::Caller;
use crate::scoring::headers::{SERVER_TIMING, X_MS_REQUEST_ID};
use crate::telemetry::metrics::ThreadMetrics;

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
    let service = Service(Adapter::new(&common.worker, Rc::clone(&caller)));
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_send_buf_size(MAX_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .serve_connection(TokioIo::new(Watched::http2(stream, Rc::clone(activity))), service);
    let metrics = common.worker.thread_metrics();
    let mut connection = Http2 { caller: &caller, connection: pin!(connection), streams: &streams, metrics };
    drive(activity, common, &mut connection).await
}

struct Http2<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> {
    caller: &'a Caller,
    connection: Pin<&'a mut http2::Connection<TokioIo<Watched<S>>, Service, LocalExecutor>>,
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

/// The service, with fields marked that are never the same twice. In HPACK's table they would push out all others, and
/// each new one would be compared with all before it.
struct Service(Adapter);

type Answering = <Adapter as hyper::service::Service<Request<Incoming>>>::Future;

struct Marked(Answering);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Marked;

    fn call(&self, request: Request<Incoming>) -> Marked {
        Marked(self.0.call(request))
    }
}

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
