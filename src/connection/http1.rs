//! HTTP/1, between the requests and during them. A connection at rest is its stream and nothing else: hyper, which
//! brings 16 KiB of buffers, is there from a request's first bytes until a while after the last answer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::activity::{Activity, Overdue};
use super::drive::{Connection, drive};
use super::watched::{Next, Watched};
use super::{Adapter, Common, LAST_WORDS, MAX_BUFFER, MAX_HEAD, MEMBERS_HEAD, ticks};
use crate::scoring::caller::Caller;
use crate::scoring::error::Refusal;
use crate::scoring::headers::{MAX_FIELDS, MEMBERS_FIELDS};
use crate::scoring::worker::Worker;
use crate::scoring::{RequestId, exchange};

/// How long hyper stays when there is nothing to do. To set it up again takes a twentieth of a call.
const STAY: Duration = Duration::from_secs(1);

/// Connections of a thread that have hyper before it stays for a tick only: 1 MiB of buffers.
const MANY: usize = 64;

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, activity: &Rc<Activity>, common: &Common) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    // In a box, since it changes hands and the room for that would be part of every connection.
    let stream = Box::new(Watched::http1(stream, Rc::clone(activity)));
    let stage = Stage::Rest(Rest { stream, flush: Flush::AtTick });
    let mut http1 = Http1 { stage, is_closing: false, activity, common };
    let overdue = drive(activity, common, &mut http1).await;
    // Whoever sent what is no request, or half of one, is told so; an answer under way would be torn by that.
    let last_words = match (activity.violation(), overdue) {
        (Some(violation), _) => Some(violation.to_refusal()),
        (None, Some(Overdue::Head)) => Some(Refusal::request_timeout("The request head did not arrive in time.")),
        (None, _) => None,
    };
    if let Some(mut stream) = http1.stage.into_stream().filter(|stream| stream.is_open()) {
        let _ = match last_words.filter(|_| activity.may_speak()) {
            Some(refusal) => {
                let caller = activity.caller();
                timeout(LAST_WORDS, Box::pin(say(&mut stream, &refusal, &common.worker, &caller))).await
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

struct Http1<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> {
    stage: Stage<S>,
    is_closing: bool,
    activity: &'a Activity,
    common: &'a Common,
}

enum Stage<S: AsyncRead + AsyncWrite + Unpin + 'static> {
    Rest(Rest<S>),
    Talk(Box<Talk<S>>),
    /// From the one to the other.
    Changing,
}

/// A connection between two requests, or before the first.
struct Rest<S> {
    stream: Box<Watched<S>>,
    flush: Flush,
}

/// TLS leaves a ticket for the first answer to take along; if there is none soon it goes alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    AtTick,
    Now,
    Done,
}

/// A connection from a request on, for as long as there are more.
struct Talk<S: AsyncRead + AsyncWrite + Unpin + 'static> {
    connection: http1::Connection<TokioIo<Box<Watched<S>>>, Adapter>,
    /// There has been nothing to do for a while.
    rests: bool,
    _counted: Rc<()>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection for Http1<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let goes_on = match &mut self.stage {
                Stage::Rest(_) if self.is_closing => false,
                Stage::Rest(rest) => ready!(rest.poll(cx)),
                Stage::Talk(talk) => ready!(talk.poll(cx, self.activity)),
                Stage::Changing => false,
            };
            if !goes_on {
                return Poll::Ready(());
            }
            self.stage = match mem::replace(&mut self.stage, Stage::Changing) {
                Stage::Rest(Rest { stream, .. }) => {
                    Stage::Talk(Box::new(Talk::begin(stream, self.activity, self.common)))
                }
                talk => {
                    self.activity.forget_requests();
                    talk.into_stream()
                        .map_or(Stage::Changing, |stream| Stage::Rest(Rest { stream, flush: Flush::Done }))
                }
            };
        }
    }

    fn drain(&mut self) {
        self.is_closing = true;
        if let Stage::Talk(talk) = &mut self.stage {
            Pin::new(&mut talk.connection).graceful_shutdown();
        }
    }

    fn wants_tick(&self) -> bool {
        match &self.stage {
            Stage::Rest(rest) => rest.flush == Flush::AtTick,
            _ => self.activity.is_at_rest(),
        }
    }

    fn tick(&mut self) {
        match &mut self.stage {
            Stage::Rest(rest) if rest.flush == Flush::AtTick => rest.flush = Flush::Now,
            Stage::Talk(talk) => {
                let are_many = Rc::strong_count(&self.common.talking) > MANY;
                let stay = if are_many { ticks::PERIOD } else { STAY };
                talk.rests = self.activity.idle_since() + stay <= Instant::now();
            }
            _ => {}
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stage<S> {
    fn into_stream(self) -> Option<Box<Watched<S>>> {
        match self {
            Self::Rest(rest) => Some(rest.stream),
            // What hyper has read by then was of requests that are answered, or of none.
            Self::Talk(talk) => Some(talk.connection.into_parts().io.into_inner()),
            Self::Changing => None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rest<S> {
    /// Ready when something has come, with whether that is a message.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Poll::Ready(next) = self.stream.poll_begin(cx) {
            return Poll::Ready(next == Next::Message);
        }
        // Should writing fail, so will reading.
        if self.flush == Flush::Now && Pin::new(&mut *self.stream).poll_flush(cx).is_ready() {
            self.flush = Flush::Done;
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Talk<S> {
    fn begin(stream: Box<Watched<S>>, activity: &Activity, common: &Common) -> Self {
        let is_member = activity.caller().is_member;
        let (head, fields) = if is_member { (MEMBERS_HEAD, MEMBERS_FIELDS) } else { (MAX_HEAD as usize, MAX_FIELDS) };
        let connection = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(fields)
            // The watch refuses first, in our own words; hyper's limit is reached at, not after, its last byte.
            .max_header_size(head + 1)
            .serve_connection(TokioIo::new(stream), Adapter::new(&common.worker, activity.caller()));
        Self { connection, rests: false, _counted: Rc::clone(&common.talking) }
    }

    /// Ready at the connection's end, or when it rests, with whether it is that.
    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<bool> {
        let mut held_before = None;
        loop {
            if Pin::new(&mut self.connection).poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            // What cannot be read is refused when everything before it is answered.
            if activity.violation().is_some_and(|violation| !violation.is_in_body()) && activity.may_speak() {
                return Poll::Ready(false);
            }
            // What was held back for the answer that has just ended is read now: hyper does not try by itself.
            let held = activity.held();
            if held == 0 || activity.is_answering() || held_before == Some(held) {
                break;
            }
            held_before = Some(held);
        }
        self.rests &= activity.is_at_rest();
        if self.rests { Poll::Ready(true) } else { Poll::Pending }
    }
}
