//! One request and its answer, as they will be written down: everything that is decided and measured on the way is put here,
//! and when the last holder lets go (the answer is out, or the caller has gone, at whatever point that was) it is
//! [recorded](record).

pub mod record;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::attempt::Errand;
use super::caller::{Answering, Caller};
use super::catalog::limits::Admission;
use super::catalog::split::Traits;
use super::catalog::{Deployment, ServiceRef};
use super::copy::Original;
use super::error::Code;
use super::headers::{X_REQUEST_ID, client_request_id};
use super::id::RequestId;
use super::incoming::Upload;
use super::worker::Worker;
use crate::cluster::Member;
use crate::config::{Auth, Key, Priority};
use crate::scheduling::{Rank, Replica};
use crate::telemetry::metrics::{DeploymentMetrics, RequestMetrics};
use crate::upstream::Times;

/// What is noted of one request.
pub struct Exchange {
    pub worker: Rc<Worker>,
    pub caller: Rc<Caller>,
    pub started: Instant,
    pub id: RequestId,
    pub client_id: Option<HeaderValue>,
    method: Method,
    pub uri: Uri,
    version: Version,
    /// What the caller named as host, with the port if it gave one.
    pub host: OnceCell<HeaderValue>,
    service: OnceCell<ServiceRef>,
    /// The place in the service of the key that the caller has.
    pub key: Cell<Option<usize>>,
    /// Its places under the limits of requests in flight, held until the exchange is over.
    pub(super) admission: OnceCell<Admission>,
    /// Its number among [`split::PARTS`](super::catalog::split::PARTS), which stays the same where the request goes elsewhere; absent as long as
    /// nobody asked, and if the caller chose the deployment.
    pub number: OnceCell<u16>,
    deployment: Cell<Option<usize>>,
    /// Where it went when the deployment it waited for was gone.
    moved: OnceCell<Box<Move>>,
    /// Where its copy learns how it was answered, if it has one.
    pub(super) mirrored: OnceCell<Original>,
    /// As another front end handed it over, if one did.
    handed: OnceCell<Box<Handed>>,
    /// The front end that it was handed over to, if it was.
    pub member: RefCell<Option<Arc<Member>>>,
    /// Where its time went there, once that is known.
    pub elsewhere: Cell<Option<Elsewhere>>,
    /// Whether it is written down nowhere: front ends talk to each other.
    pub is_silent: Cell<bool>,
    /// The one it is with, or was with last.
    pub replica: RefCell<Option<Arc<Replica>>>,
    /// When a replica was first sought.
    pub asked: Cell<Option<Instant>>,
    /// How long it has waited for permits.
    pub queued: Cell<Duration>,
    /// Since when it waits for one now.
    pub waits_since: Cell<Option<Instant>>,
    pub times: Times,
    stages: Cell<Option<Stages>>,
    pub status: Cell<Option<StatusCode>>,
    pub refused: Cell<Option<Code>>,
    pub upload: Cell<Upload>,
    /// Whether more of the body was asked for and did not come yet.
    pub awaits_body: Cell<bool>,
    pub request_bytes: Cell<u64>,
    pub response_bytes: Cell<u64>,
    /// Since when a part of the answer, handed over, waits for the caller to take it.
    pub untaken_since: Cell<Option<Instant>>,
    pub ending: Cell<Ending>,
}

/// To a deployment that took the place of another, and from there on.
struct Move {
    service: ServiceRef,
    deployment: usize,
    next: OnceCell<Box<Move>>,
}

/// A request as another front end handed it over.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    pub from: SocketAddr,
    /// How often it has been by now.
    pub hops: u8,
    pub rank: Rank,
    /// The time that its caller was promised in all.
    pub timeout: Duration,
}

/// Where the time up to the head of the answer went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    pub queue: Duration,
    pub connect: Duration,
    /// From the connection being there to the head of the replica's answer, or to when it was given up; absent when
    /// there was no connection.
    pub model: Option<Duration>,
}

/// The same of another front end.
pub type Elsewhere = Stages;

/// How the exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The caller went away before the whole answer was handed over: what holds as long as nothing else is known.
    CallerLeft,
    Complete,
    /// The process ended before that.
    Cut,
    /// The replica broke off in the middle of its answer.
    ReplicaBroke,
    /// It was silent for too long there.
    ReplicaSilent,
}

impl Exchange {
    pub fn begin<B>(worker: Rc<Worker>, caller: Rc<Caller>, request: &http::Request<B>) -> Rc<Self> {
        caller.in_flight.set(caller.in_flight.get() + 1);
        caller.used.set(true);
        // A request keeps its id wherever it is handed over to.
        let id = caller.is_member.then(|| RequestId::parse(request.headers().get(X_REQUEST_ID)?)).flatten();
        let id = id.unwrap_or_else(RequestId::random);
        let exchange = Self {
            worker,
            caller,
            started: Instant::now(),
            id,
            client_id: client_request_id(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: OnceCell::new(),
            service: OnceCell::new(),
            key: Cell::new(None),
            admission: OnceCell::new(),
            number: OnceCell::new(),
            deployment: Cell::new(None),
            moved: OnceCell::new(),
            mirrored: OnceCell::new(),
            handed: OnceCell::new(),
            member: RefCell::new(None),
            elsewhere: Cell::new(None),
            is_silent: Cell::new(false),
            replica: RefCell::new(None),
            asked: Cell::new(None),
            queued: Cell::new(Duration::ZERO),
            waits_since: Cell::new(None),
            times: Times::default(),
            stages: Cell::new(None),
            status: Cell::new(None),
            refused: Cell::new(None),
            upload: Cell::new(Upload::Reading),
            awaits_body: Cell::new(false),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            untaken_since: Cell::new(None),
            ending: Cell::new(Ending::CallerLeft),
        };
        let exchange = Rc::new(exchange);
        let newest: Weak<Self> = Rc::downgrade(&exchange);
        *exchange.caller.newest.borrow_mut() = Some(newest);
        exchange
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    pub fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Whether the caller wants no body, whatever the answer is.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Where the time has gone, as it was when this was first asked.
    pub fn stages(&self) -> Stages {
        if let Some(stages) = self.stages.get() {
            return stages;
        }
        let mut stages = Stages::default();
        if let Some(asked) = self.asked.get() {
            let now = Instant::now();
            let connected = self.times.connected.get();
            let waits = self.waits_since.get().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
            stages.queue = self.queued.get() + waits;
            if self.replica.borrow().is_some() || self.member.borrow().is_some() {
                stages.connect = connected.unwrap_or(now).saturating_duration_since(asked).saturating_sub(stages.queue);
            }
            stages.model = connected.map(|connected| self.times.answered.get().unwrap_or(now) - connected);
            if let Some(elsewhere) = self.elsewhere.get() {
                stages.queue += elsewhere.queue;
                stages.connect += elsewhere.connect;
                stages.model = elsewhere.model;
            }
        }
        self.stages.set(Some(stages));
        stages
    }

    /// Notes the service that is asked.
    pub fn route(&self, service: ServiceRef) -> &ServiceRef {
        self.service.get_or_init(|| service)
    }

    pub fn service(&self) -> Option<&ServiceRef> {
        self.last_move().map(|last| &last.service).or_else(|| self.service.get())
    }

    fn last_move(&self) -> Option<&Move> {
        let first = self.moved.get();
        std::iter::successors(first, |before| before.next.get()).last().map(|last| &**last)
    }

    /// Notes the deployment that answers, by its place in the service, and counts the request there.
    pub fn choose(&self, deployment: usize) -> Option<&Deployment> {
        self.deployment.set(Some(deployment));
        self.metrics().started.increment();
        self.deployment()
    }

    /// Notes that another deployment answers than the one before, which is gone.
    pub fn move_to(&self, service: ServiceRef, deployment: usize) -> Option<&Deployment> {
        let before = self.metrics();
        let next = self.last_move().map_or(&self.moved, |last| &last.next);
        next.set(Box::new(Move { service, deployment, next: OnceCell::new() })).ok()?;
        before.finished.increment();
        self.metrics().started.increment();
        self.deployment()
    }

    pub fn deployment(&self) -> Option<&Deployment> {
        if let Some(last) = self.last_move() {
            return last.service.deployments().get(last.deployment);
        }
        self.service.get()?.deployments().get(self.deployment.get()?)
    }

    /// The caller's key, if it needed one.
    pub(super) fn key(&self) -> Option<&Key> {
        let (Auth::Keys(keys), Some(index)) = (&self.service.get()?.auth, self.key.get()) else { return None };
        keys.get(index)
    }

    /// What may tell its caller apart.
    pub fn traits<'a>(&'a self, headers: &'a HeaderMap) -> Traits<'a> {
        Traits { key: self.key(), address: &self.caller.forwarded_for, headers }
    }

    /// Notes who handed it over.
    pub(super) fn note_handed(&self, handed: Handed) {
        // There is one caller, which does so once.
        let _ = self.handed.set(Box::new(handed));
    }

    /// As another front end handed it over, if one did.
    pub fn handed(&self) -> Option<&Handed> {
        self.handed.get().map(|handed| &**handed)
    }

    /// Whether a replica answered it, here or elsewhere.
    pub fn is_answered(&self) -> bool {
        match self.elsewhere.get() {
            Some(elsewhere) => elsewhere.model.is_some() && self.refused.get().is_none(),
            None => self.times.answered.get().is_some() && self.member.borrow().is_none(),
        }
    }

    /// Who goes before whom if it has to wait.
    pub fn rank(&self) -> Rank {
        if let Some(handed) = self.handed() {
            return handed.rank;
        }
        match self.key().map(|key| key.priority) {
            Some(Priority::High) => Rank::High,
            Some(Priority::Normal) | None => Rank::Normal,
            Some(Priority::Low) => Rank::Low,
        }
    }

    /// This thread's figures of the deployment, or of the requests that reached none.
    pub fn metrics(&self) -> &RequestMetrics {
        let metrics: &DeploymentMetrics = match self.deployment() {
            Some(deployment) => &deployment.metrics,
            None => &self.worker.metrics.unrouted,
        };
        // What callers have of it is counted where they are.
        if self.handed.get().is_some() { self.worker.handed_part(metrics) } else { self.worker.part(metrics) }
    }
}

impl Errand for Exchange {
    fn service(&self) -> Option<&ServiceRef> {
        self.service()
    }

    fn deployment(&self) -> Option<&Deployment> {
        self.deployment()
    }

    fn times(&self) -> &Times {
        &self.times
    }

    fn is_replicas_turn(&self) -> bool {
        self.upload.get() == Upload::Complete || !self.awaits_body.get()
    }

    fn is_answer_broken(&self) -> bool {
        self.ending.get() == Ending::ReplicaBroke
    }

    fn note_replica(&self, replica: &Arc<Replica>) {
        self.replica.replace(Some(Arc::clone(replica)));
    }
}

impl Answering for Exchange {
    fn untaken_since(&self) -> Option<Instant> {
        self.untaken_since.get()
    }
}
