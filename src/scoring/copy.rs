//! A copy of a request under way, and what the two have to tell each other.
//!
//! A copy has a task, connections and figures of its own. The request it is a copy of never waits for it: what the request's
//! body reads is handed over as it passes, and a copy that cannot keep up is cut. It holds nothing of the request's
//! [`Exchange`](super::exchange::Exchange), and is in no figure and no log line of requests.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::attempt::{Attempt, Errand};
use super::catalog::{Deployment, ServiceRef};
use super::incoming::Upload;
use super::worker::Worker;
use crate::scheduling::ReplicaPermit;
use crate::telemetry::cell::Counter;
use crate::telemetry::metrics::Mirroring;
use crate::upstream::{self, AnswerBody, CONNECT_TIMEOUT, Failure, Fields, Request, Times};

/// Bytes of a body that a copy may lag behind. A caller over HTTP/2 may have sent as much at once, and the copy has its turn
/// only after it was read; what lags further has a replica or a network that is slower than the request's own.
pub const MAX_UNREAD: usize = 1024 * 1024;

/// What a part of a body counts for at least against [`MAX_UNREAD`]: remembering it takes memory too.
const LEAST_PART: usize = 64;

/// Bytes of an answer that are read and thrown away. More would cost more than the connection that is closed is worth.
const MAX_ANSWER: usize = 100 * 1024 * 1024;

/// A request and its copy: what the one has to tell the other, and what becomes of the copy. Each side holds it for as long
/// as it goes on.
pub struct Pair {
    worker: Rc<Worker>,
    service: ServiceRef,
    deployment: usize,
    /// The copy's.
    times: Times,
    /// Of the body, that the copy has not taken yet.
    parts: RefCell<VecDeque<Bytes>>,
    /// Bytes of them.
    unread: Cell<usize>,
    /// How far the body came.
    upload: Cell<Upload>,
    /// Whether the copy asked for more of the body than there was.
    awaits_body: Cell<bool>,
    is_answer_broken: Cell<bool>,
    original: Cell<Option<Head>>,
    copy: Cell<Option<Head>>,
    is_counted: Cell<bool>,
    /// Whether the copy has ended, or shall.
    is_over: Cell<bool>,
    /// Of the copy's task, which drives its connection too.
    waker: OnceCell<Waker>,
}

/// How one of the two was answered.
#[derive(Clone, Copy)]
struct Head {
    status: StatusCode,
    /// From the connection to the head, if it is a replica's answer.
    model: Option<Duration>,
}

impl Errand for Pair {
    fn service(&self) -> Option<&ServiceRef> {
        Some(&self.service)
    }

    fn deployment(&self) -> Option<&Deployment> {
        self.service.deployments().get(self.deployment)
    }

    fn times(&self) -> &Times {
        &self.times
    }

    fn is_replicas_turn(&self) -> bool {
        self.upload.get() == Upload::Complete || !self.awaits_body.get()
    }

    fn is_answer_broken(&self) -> bool {
        self.is_answer_broken.get()
    }
}

/// The copy's way.
impl Pair {
    pub fn new(worker: Rc<Worker>, service: ServiceRef, deployment: usize) -> Rc<Self> {
        Rc::new(Self {
            worker,
            service,
            deployment,
            times: Times::default(),
            parts: RefCell::default(),
            unread: Cell::new(0),
            upload: Cell::new(Upload::Reading),
            awaits_body: Cell::new(false),
            is_answer_broken: Cell::new(false),
            original: Cell::new(None),
            copy: Cell::new(None),
            is_counted: Cell::new(false),
            is_over: Cell::new(false),
            waker: OnceCell::new(),
        })
    }

    pub fn original(self: &Rc<Self>) -> Original {
        Original(Rc::clone(self))
    }

    pub fn tee(self: &Rc<Self>) -> Tee {
        Tee(Rc::clone(self))
    }

    /// The copy's, of `left` bytes if that is known.
    pub fn body(self: &Rc<Self>, left: Option<u64>) -> CopyBody {
        CopyBody { pair: Rc::clone(self), left }
    }

    /// Has a replica answer the copy, until `deadline`.
    pub async fn run(self: &Rc<Self>, request: Request<CopyBody>, permit: ReplicaPermit, deadline: Instant) {
        let mut asked = pin!(timeout_at(deadline, self.ask(request, permit)));
        poll_fn(|cx| {
            // A task's waker never changes.
            self.waker.get_or_init(|| cx.waker().clone());
            if self.is_over.get() { Poll::Ready(()) } else { asked.as_mut().poll(cx).map(drop) }
        })
        .await;
        self.end();
        if self.copy.get().is_none() {
            self.count(|mirroring| &mirroring.unanswered);
        }
    }

    async fn ask(self: &Rc<Self>, request: Request<CopyBody>, permit: ReplicaPermit) {
        let attempt = Attempt::begin(Rc::clone(self), permit, Instant::now());
        let mut fields = Fields { room: &mut HeaderMap::new(), is_wanted: |_| false };
        match upstream::send(&self.worker.pool, request, &self.times, attempt, CONNECT_TIMEOUT, &mut fields).await {
            Ok(answer) => {
                let (connected, answered) = (self.times.connected.get(), self.times.answered.get());
                let model = connected.zip(answered).map(|(connected, answered)| answered - connected);
                self.copy.set(Some(Head { status: answer.status(), model }));
                self.compare();
                self.throw_away(answer.into_body()).await;
            }
            Err(Failure::Sent { held: attempt, cause }) => {
                tracing::debug!(replica = %attempt.replica().endpoint().address(), %cause, "no answer to a copy");
                attempt.fail_to_answer(&cause);
            }
            Err(Failure::Unsent { held: attempt, cause, .. }) => {
                let address = attempt.replica().endpoint().address();
                tracing::debug!(replica = %address, %cause, "replica unreachable for a copy");
                attempt.fail_to_connect(&cause);
            }
        }
    }

    /// Reads an answer to its end, so that the connection can be used again.
    async fn throw_away(&self, mut answer: AnswerBody<CopyBody, Attempt<Self>>) {
        let mut left = MAX_ANSWER;
        while let Some(frame) = answer.frame().await {
            let Ok(frame) = frame else {
                self.is_answer_broken.set(true);
                return;
            };
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    /// Ends the copy, whatever it is at.
    fn end(&self) {
        self.is_over.set(true);
        self.parts.take();
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// What is written down.
impl Pair {
    /// Compares the two answers if both are there.
    fn compare(&self) {
        let (Some(original), Some(copy)) = (self.original.get(), self.copy.get()) else { return };
        if self.is_counted.get() {
            return;
        }
        if original.status == copy.status {
            self.count(|mirroring| &mirroring.same_status);
        } else {
            self.count(|mirroring| &mirroring.other_status);
        }
        if let (Some(mirroring), Some(original), Some(copy)) = (self.mirroring(), original.model, copy.model) {
            mirroring.mirrored_duration.observe(original);
            mirroring.duration.observe(copy);
        }
    }

    /// Counts what became of the copy, which is what is said first.
    fn count(&self, result: fn(&Mirroring) -> &Counter) {
        if !self.is_counted.replace(true)
            && let Some(mirroring) = self.mirroring()
        {
            result(mirroring).increment();
        }
    }

    fn mirroring(&self) -> Option<&Mirroring> {
        Some(&self.worker.part(&self.deployment()?.metrics).mirroring)
    }
}

/// The request's own side, which tells how it was answered. Dropped before that: its caller has left.
pub struct Original(Rc<Pair>);

impl Original {
    /// `model` is the time from the connection to the head of the answer, if it is a replica's.
    pub fn tell(&self, status: StatusCode, model: Option<Duration>) {
        self.0.original.set(Some(Head { status, model }));
        self.0.compare();
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if self.0.original.get().is_none() {
            self.0.count(|mirroring| &mirroring.abandoned);
        }
    }
}

/// Where the request's body tells what passes. Dropped before [`Tee::finish`] it ends the copy, whose body would lack the rest.
pub struct Tee(Rc<Pair>);

impl Tee {
    /// Hands a part of the body over, and never waits.
    pub fn push(&self, data: &Bytes) {
        let pair = &*self.0;
        if pair.is_over.get() {
            return;
        }
        let unread = pair.unread.get() + data.len().max(LEAST_PART);
        if unread > MAX_UNREAD {
            pair.count(|mirroring| &mirroring.slow);
            pair.end();
            return;
        }
        pair.unread.set(unread);
        // A part is a slice of what was read at once, all of which it would hold.
        pair.parts.borrow_mut().push_back(Bytes::copy_from_slice(data));
        pair.wake();
    }

    /// Notes that the body is whole.
    pub fn finish(self) {
        self.0.upload.set(Upload::Complete);
        self.0.wake();
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        if self.0.upload.get() != Upload::Complete {
            self.0.upload.set(Upload::Broken);
            self.0.count(|mirroring| &mirroring.abandoned);
            self.0.end();
        }
    }
}

/// The body of a copy. Whoever drives the copy is woken when there is more of it.
pub struct CopyBody {
    pair: Rc<Pair>,
    /// Bytes to come, if that is known.
    left: Option<u64>,
}

impl Body for CopyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let part = this.pair.parts.borrow_mut().pop_front();
        let is_complete = this.pair.upload.get() == Upload::Complete;
        this.pair.awaits_body.set(part.is_none() && !is_complete);
        match part {
            Some(part) => {
                this.pair.unread.set(this.pair.unread.get().saturating_sub(part.len().max(LEAST_PART)));
                this.left = this.left.map(|left| left.saturating_sub(part.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(part))))
            }
            None if is_complete => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pair.upload.get() == Upload::Complete && self.pair.parts.borrow().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl upstream::Upload for CopyBody {
    fn take_back(&mut self, data: Bytes) {
        self.pair.unread.set(self.pair.unread.get() + data.len().max(LEAST_PART));
        self.left = self.left.map(|left| left + data.len() as u64);
        self.pair.parts.borrow_mut().push_front(data);
    }
}
