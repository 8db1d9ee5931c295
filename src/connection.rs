//! One caller's connection: HTTP on a stream that TLS has already ended, and every wait on the caller bounded.
//!
//! hyper reads and writes HTTP. Around it stand a watch on the bytes (`watched`), which knows before hyper does
//! when a message begins, is too large or is framed ambiguously, and one timer, which is set anew only when it
//! rings. What a request means is the business of [`crate::scoring`].

mod activity;
mod executor;
mod http1_framing;
mod http2_frames;
mod watched;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, mem};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service as _;

use self::activity::{Activity, Overdue};
use self::executor::{LocalExecutor, Streams};
use self::watched::Watched;
use crate::config::Limits;
use crate::scoring::caller::Caller;
use crate::scoring::error::Refusal;
use crate::scoring::headers::{MAX_FIELDS, MEMBERS_FIELDS};
use crate::scoring::worker::Worker;
use crate::scoring::{self, RequestId, Score, exchange};
use crate::shutdown::Drain;
use crate::telemetry::metrics::ThreadMetrics;
use crate::tls::Protocol;

/// Bytes of a request's head, before HPACK's compression for HTTP/2.
const MAX_HEAD: u32 = 64 * 1024;

/// The same of a request that another front end hands over: what it lets in, and what it adds.
const MEMBERS_HEAD: usize = 96 * 1024;

/// Bytes of a body in memory on one side of a connection, and what hyper reads at most at once. More is no faster, and
/// memory that was large once stays with the process.
const MAX_BUFFER: usize = 128 * 1024;

/// Streams a caller may have open on one connection.
const MAX_STREAMS: u32 = 250;

/// How often an HTTP/2 caller that sends nothing is asked whether it is still there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long, while the process closes, a new connection is left for the request that it was opened for.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How long a last answer to somebody who sent no readable request may take to write.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a connection until it ends; never fails, since nobody would be there to tell.
pub async fn serve<S>(stream: S, protocol: Protocol, caller: Caller, worker: Rc<Worker>, limits: &Limits, drain: &Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let caller = Rc::new(caller);
    let activity = Rc::new(Activity::new(Rc::clone(&caller), limits));
    let service = Adapter(RefCell::new(scoring::service(Rc::clone(&worker), caller)));
    let metrics = worker.thread_metrics();
    let overdue = match protocol {
        Protocol::Http1 => serve_http1(stream, service, &activity, &worker, drain).await,
        Protocol::Http2 => serve_http2(stream, service, &activity, metrics, drain).await,
    };
    let timeouts = &metrics.timeouts;
    match overdue {
        None => {}
        Some(Overdue::Head) => timeouts.header.increment(),
        Some(Overdue::Idle) => timeouts.idle.increment(),
        Some(Overdue::Stalled) => timeouts.stalled.increment(),
    }
}

async fn serve_http1<S>(
    stream: S,
    service: Adapter,
    activity: &Rc<Activity>,
    worker: &Worker,
    drain: &Drain,
) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (head, fields) =
        if activity.caller().is_member { (MEMBERS_HEAD, MEMBERS_FIELDS) } else { (MAX_HEAD as usize, MAX_FIELDS) };
    let stream = Watched::http1(stream, Rc::clone(activity));
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_headers(fields)
        // The watch refuses first, in our own words; hyper's limit is reached at, not after, its last byte.
        .max_header_size(head + 1)
        .serve_connection(TokioIo::new(stream), service);
    let overdue = drive(activity, drain, &mut Http1 { connection: &mut connection, activity }).await;
    // Whoever sent what is no request, or half of one, is told so; an answer under way would be torn by that.
    let last_words = match (activity.violation(), overdue) {
        (Some(violation), _) => Some(violation.to_refusal()),
        (None, Some(Overdue::Head)) => Some(Refusal::request_timeout("The request head did not arrive in time.")),
        (None, _) => None,
    };
    let mut stream = connection.into_parts().io.into_inner();
    if stream.is_open() {
        let _ = match last_words.filter(|_| activity.may_speak()) {
            Some(refusal) => timeout(LAST_WORDS, say(&mut stream, &refusal, worker, &activity.caller())).await,
            // hyper leaves some connections open that it has done with.
            None if overdue.is_none() => timeout(LAST_WORDS, stream.shutdown()).await,
            None => Ok(Ok(())),
        };
    }
    overdue
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Watched<S>,
    refusal: &Refusal,
    worker: &Worker,
    caller: &Caller,
) -> io::Result<()> {
    let id = RequestId::random();
    exchange::note_unreadable(worker, caller, refusal, &id);
    stream.write_all(&refusal.to_http1(worker.catalog().error_format, id.as_str())).await?;
    stream.linger();
    stream.shutdown().await
}

async fn serve_http2<S>(
    stream: S,
    service: Adapter,
    activity: &Rc<Activity>,
    metrics: &ThreadMetrics,
    drain: &Drain,
) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let caller = activity.caller();
    let executor = LocalExecutor::new(Rc::clone(&caller));
    let streams = executor.streams();
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_send_buf_size(MAX_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .serve_connection(TokioIo::new(Watched::http2(stream, Rc::clone(activity))), service);
    drive(activity, drain, &mut Http2 { caller: &caller, connection: pin!(connection), streams: &streams, metrics })
        .await
}

/// A connection of either protocol, as [`drive`] sees it.
trait Connection {
    /// Reads, answers and writes what it can; ready at the connection's end, however that came.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Answers what is there and takes nothing more.
    fn drain(&mut self);

    /// Looks after what the connection's own clock does not see.
    fn look_after(&mut self, _now: Instant, _patience: Duration) {}
}

struct Http1<'a, S> {
    connection: &'a mut http1::Connection<TokioIo<Watched<S>>, Adapter>,
    activity: &'a Activity,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection for Http1<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held_before = None;
        loop {
            if Pin::new(&mut *self.connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // What cannot be read is refused when everything before it is answered.
            if self.activity.violation().is_some_and(|violation| !violation.is_in_body()) && self.activity.may_speak() {
                return Poll::Ready(());
            }
            // What was held back for the answer that has just ended is read now: hyper does not try by itself.
            let held = self.activity.held();
            if held == 0 || self.activity.is_answering() || held_before == Some(held) {
                return Poll::Pending;
            }
            held_before = Some(held);
        }
    }

    fn drain(&mut self) {
        Pin::new(&mut *self.connection).graceful_shutdown();
    }
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

/// Polls a connection to its end, or until the caller has kept it waiting for too long.
async fn drive(activity: &Activity, drain: &Drain, connection: &mut impl Connection) -> Option<Overdue> {
    let begin = Instant::now();
    let mut alarm = pin!(sleep_until(begin + activity.longest_pause()));
    let mut closed = pin!(drain.closed());
    let mut waiting_for_close = false;
    let mut told = false;
    let mut leaving = None;
    poll_fn(|cx| {
        if !told {
            // A task's waker never changes, so waiting once is enough; after that the flag says it all.
            let waiting = mem::replace(&mut waiting_for_close, true);
            if drain.is_closing() || (!waiting && closed.as_mut().poll(cx).is_ready()) {
                // hyper would close a connection that has not been used, and the request on its way would be lost.
                let patience = begin + FIRST_REQUEST;
                if activity.is_unused() && Instant::now() < patience {
                    let earlier = alarm.deadline().min(patience);
                    alarm.as_mut().reset(earlier);
                } else {
                    told = true;
                    connection.drain();
                }
            }
        }
        if connection.poll(cx).is_ready() {
            return Poll::Ready(leaving);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            connection.look_after(now, activity.patience());
            match activity.look_again(now) {
                Ok(later) => alarm.as_mut().reset(later),
                // Nobody was late with anything: it ends in good order (close_notify, GOAWAY).
                Err(Overdue::Idle) if leaving.is_none() => {
                    leaving = Some(Overdue::Idle);
                    connection.drain();
                    alarm.as_mut().reset(now + LAST_WORDS);
                    if connection.poll(cx).is_ready() {
                        return Poll::Ready(leaving);
                    }
                }
                Err(overdue) => return Poll::Ready(Some(overdue)),
            }
        }
        Poll::Pending
    })
    .await
}

/// hyper calls services through a shared reference; tower's take an exclusive one.
struct Adapter(RefCell<scoring::Observe<Score>>);

impl hyper::service::Service<Request<Incoming>> for Adapter {
    type Response = <scoring::Observe<Score> as tower::Service<Request<Incoming>>>::Response;
    type Error = std::convert::Infallible;
    type Future = <scoring::Observe<Score> as tower::Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Always ready: what limits calls stands further down.
        self.0.borrow_mut().call(request)
    }
}
