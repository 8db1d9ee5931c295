//! HTTP/1, between the requests and during them. A connection at rest is its stream and nothing else: hyper, which
//! brings 16 KiB of buffers, is there from a request's first bytes until a little after the answer's last.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::activity::{Activity, Overdue};
use super::drive::{Connection, drive};
use super::watched::{Next, Watched};
use super::{Adapter, Common, LAST_WORDS, MAX_BUFFER, MAX_HEAD, ticks};
use crate::scoring::caller::Caller;
use crate::scoring::error::Refusal;
use crate::scoring::headers::MAX_FIELDS;
use crate::scoring::worker::Worker;
use crate::scoring::{RequestId, exchange};

/// How long hyper stays at least, at rest. Setting it up again costs a twentieth of a call.
const STAY: Duration = ticks::PERIOD;

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, activity: &Rc<Activity>, common: &Common) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut stream = Watched::http1(stream, Rc::clone(activity));
    let mut flush = Flush::AtTick;
    let overdue = loop {
        let mut rest = Rest { stream: &mut stream, flush, next: None };
        let overdue = drive(activity, common, &mut rest).await;
        if rest.next != Some(Next::Message) {
            break overdue;
        }
        let mut talk = Talk::begin(stream, activity, common);
        let overdue = drive(activity, common, &mut talk).await;
        let rests = talk.rests;
        // What hyper has read by then was of requests that are answered.
        stream = talk.connection.into_parts().io.into_inner();
        flush = Flush::Done;
        if !rests {
            break overdue;
        }
    };
    // Whoever sent what is no request, or half of one, is told so; an answer under way would be torn by that.
    let last_words = match (activity.violation(), overdue) {
        (Some(violation), _) => Some(violation.to_refusal()),
        (None, Some(Overdue::Head)) => Some(Refusal::request_timeout("The request head did not arrive in time.")),
        (None, _) => None,
    };
    if stream.is_open() {
        let _ = match last_words.filter(|_| activity.may_speak()) {
            Some(refusal) => {
                timeout(LAST_WORDS, say(&mut stream, &refusal, &common.worker, &activity.caller())).await
            }
            // hyper leaves some connections open that it has done with, and there is none at rest.
            None if matches!(overdue, None | Some(Overdue::Idle)) => timeout(LAST_WORDS, stream.shutdown()).await,
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

/// A connection between two requests, or before the first.
struct Rest<'a, S> {
    stream: &'a mut Watched<S>,
    flush: Flush,
    next: Option<Next>,
}

/// TLS leaves a ticket for the first answer to take along, but if there is none soon it goes alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    AtTick,
    Now,
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection for Rest<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.next.is_none()
            && let Poll::Ready(next) = self.stream.poll_begin(cx)
        {
            self.next = Some(next);
        }
        if self.next.is_some() {
            return Poll::Ready(());
        }
        if self.flush == Flush::Now && Pin::new(&mut *self.stream).poll_flush(cx).is_ready() {
            // Should that have failed, reading will.
            self.flush = Flush::Done;
        }
        Poll::Pending
    }

    fn drain(&mut self) {
        self.next = Some(Next::End);
    }

    fn wants_tick(&self) -> bool {
        self.flush == Flush::AtTick
    }

    fn tick(&mut self) {
        self.flush = Flush::Now;
    }

    /// No head can begin unnoticed.
    fn longest_pause(&self, activity: &Activity) -> Duration {
        activity.patience()
    }
}

/// A connection from a request on, for as long as there are more.
struct Talk<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> {
    connection: Box<http1::Connection<TokioIo<Watched<S>>, Adapter>>,
    activity: &'a Activity,
    /// There has been nothing to do for a while.
    rests: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> Talk<'a, S> {
    fn begin(stream: Watched<S>, activity: &'a Activity, common: &Common) -> Self {
        let connection = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_FIELDS)
            // The watch refuses first, in our own words; hyper's limit is reached at, not after, its last byte.
            .max_header_size(MAX_HEAD as usize + 1)
            .serve_connection(TokioIo::new(stream), Adapter::new(&common.worker, activity.caller()));
        Self { connection: Box::new(connection), activity, rests: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection for Talk<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held_before = None;
        loop {
            if Pin::new(&mut *self.connection).poll(cx).is_ready() {
                self.rests = false;
                return Poll::Ready(());
            }
            // What cannot be read is refused when everything before it is answered.
            if self.activity.violation().is_some_and(|violation| !violation.is_in_body()) && self.activity.may_speak() {
                self.rests = false;
                return Poll::Ready(());
            }
            // What was held back for the answer that has just ended is read now: hyper does not try by itself.
            let held = self.activity.held();
            if held == 0 || self.activity.is_answering() || held_before == Some(held) {
                break;
            }
            held_before = Some(held);
        }
        self.rests &= self.activity.is_at_rest();
        if self.rests { Poll::Ready(()) } else { Poll::Pending }
    }

    fn drain(&mut self) {
        Pin::new(&mut *self.connection).graceful_shutdown();
    }

    fn wants_tick(&self) -> bool {
        self.activity.is_at_rest()
    }

    fn tick(&mut self) {
        self.rests = self.activity.idle_since() + STAY <= Instant::now();
    }
}
