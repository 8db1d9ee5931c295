//! An answer on its way to the caller.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BodyError, RequestBody};
use crate::scoring::exchange::{Ending, Exchange};
use crate::scoring::holder::Holder;
use crate::upstream::{AnswerBody, AnswerError};

/// See the module. It holds the [`Exchange`], which is written down when this is dropped.
pub struct ResponseBody {
    source: Source,
    exchange: Option<Rc<Exchange>>,
}

enum Source {
    /// A short text of our own.
    Own(Bytes),
    Replica {
        answer: AnswerBody<RequestBody, Holder>,
        /// How long the replica may be silent between two parts.
        patience: Duration,
        /// Rings at the earliest when the silence may be over; set anew only then, not for each part. Absent as long as
        /// nothing had to be waited for, as with most small answers.
        alarm: Option<Pin<Box<Sleep>>>,
        last_part: Instant,
        /// Told a turn later, so that what came before it is written first.
        broken: Option<AnswerError>,
    },
}

impl ResponseBody {
    pub fn full(text: Bytes) -> Self {
        Self { source: Source::Own(text), exchange: None }
    }

    /// The body of an answer whose head came at `since`.
    pub fn replica(answer: AnswerBody<RequestBody, Holder>, since: Instant, patience: Duration) -> Self {
        Self {
            source: Source::Replica { answer, patience, alarm: None, last_part: since, broken: None },
            exchange: None,
        }
    }

    /// Sends on what the caller sends while it takes nothing of the answer, as [`Body::poll_frame`] does besides; false if
    /// the request broke off.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> bool {
        let (Source::Replica { answer, .. }, Some(exchange)) = (&mut self.source, &self.exchange) else { return true };
        let before = exchange.request_bytes.get();
        let goes_on = answer.poll_upload(cx);
        if !goes_on {
            exchange.ending.set(Ending::CallerLeft);
        } else if exchange.request_bytes.get() > before {
            // The caller is there, and busy with the other direction.
            exchange.untaken_since.set(Some(Instant::now()));
        }
        goes_on
    }

    /// Counts into `exchange` and keeps it until the answer is over.
    pub fn counted_by(mut self, exchange: Rc<Exchange>) -> Self {
        if self.is_end_stream() {
            exchange.ending.set(Ending::Complete);
        }
        self.exchange = Some(exchange);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = this.source.poll(cx);
        let Some(exchange) = &this.exchange else { return polled };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                exchange.response_bytes.set(exchange.response_bytes.get() + length);
                let now = Instant::now();
                this.source.note_part(now);
                exchange.untaken_since.set(Some(now));
                if this.source.is_end_stream() {
                    exchange.ending.set(Ending::Complete);
                }
            }
            Poll::Ready(None) => exchange.ending.set(Ending::Complete),
            Poll::Ready(Some(Err(BodyError::Silent))) => exchange.ending.set(Ending::ReplicaSilent),
            // The caller's own upload is what broke.
            Poll::Ready(Some(Err(BodyError::Replica(AnswerError::Request)))) => exchange.ending.set(Ending::CallerLeft),
            Poll::Ready(Some(Err(_))) => exchange.ending.set(Ending::ReplicaBroke),
            // It is the replica's turn.
            Poll::Pending => exchange.untaken_since.set(None),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.len() as u64),
            Source::Replica { answer, .. } => answer.size_hint(),
        }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Own(text) if text.is_empty() => Poll::Ready(None),
            Self::Own(text) => Poll::Ready(Some(Ok(Frame::data(mem::take(text))))),
            Self::Replica { answer, patience, alarm, last_part, broken } => {
                if let Some(error) = broken.take() {
                    return Poll::Ready(Some(Err(BodyError::Replica(error))));
                }
                if let Poll::Ready(frame) = Pin::new(answer).poll_frame(cx) {
                    let Some(Err(error)) = frame else {
                        return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Replica)));
                    };
                    *broken = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(*last_part + *patience)));
                while alarm.as_mut().poll(cx).is_ready() {
                    let silent_until = *last_part + *patience;
                    if silent_until <= Instant::now() {
                        return Poll::Ready(Some(Err(BodyError::Silent)));
                    }
                    alarm.as_mut().reset(silent_until);
                }
                Poll::Pending
            }
        }
    }

    /// Notes that the replica was not silent until `now`.
    fn note_part(&mut self, now: Instant) {
        if let Self::Replica { last_part, .. } = self {
            *last_part = now;
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_empty(),
            Self::Replica { answer, .. } => answer.is_end_stream(),
        }
    }
}
