//! One request and its answer, as they will be written down: everything that is measured on the way is put here, and
//! when the last holder lets go (the answer is out, or the caller has gone, at whatever point that was) it becomes
//! metrics and a line of the access log.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use rustls::ProtocolVersion;
use tokio::time::Instant;

use super::caller::Caller;
use super::catalog::{Deployment, ServiceRef};
use super::error::{Code, Refusal};
use super::handover::Handed;
use super::headers::X_REQUEST_ID;
use super::id::RequestId;
use super::limits::Admission;
use super::mirror::Original;
use super::worker::Worker;
use crate::cluster::Member;
use crate::config::{Auth, Key, Priority};
use crate::scheduling::{Rank, Replica};
use crate::telemetry::access;
use crate::telemetry::metrics::{DeploymentMetrics, RequestMetrics};
use crate::upstream::Times;

/// Bytes of a path that are logged: a caller needs no key to send a long one.
const MAX_LOGGED_PATH: usize = 1024;

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
    /// Its number among `split::PARTS`, which stays the same where the request goes elsewhere; absent as long as
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

/// How far the caller's body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    Reading,
    Complete,
    TooLarge,
    /// The caller broke off, or its framing was malformed.
    Broken,
}

/// How the exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The caller went away before the whole answer was handed over: what holds as long as nothing else is known.
    CallerLeft,
    Complete,
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
            client_id: super::headers::client_request_id(request.headers()),
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
        *exchange.caller.newest.borrow_mut() = Rc::downgrade(&exchange);
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

/// Writes down a request that could not be read, so that there was nothing to begin an [`Exchange`] with. That is known so
/// long after its first byte as it `took`.
pub fn note_unreadable(worker: &Worker, caller: &Caller, refusal: &Refusal, id: &RequestId, took: Duration) {
    let metrics = worker.part(&worker.metrics.unrouted);
    metrics.started.increment();
    metrics.finish(Some(refusal.status()), Some(refusal.code), took);
    if worker.access.is_on() {
        let mut line = access::Line::new(id.as_str(), &caller.peer);
        line.tls = caller.tls.as_ref().map(|tls| tls_version(tls.version));
        line.status = Some(refusal.status().as_u16());
        line.code = Some(refusal.code.as_str());
        worker.access.write(&line);
    }
}

fn tls_version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => "1.2",
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.caller.in_flight.set(self.caller.in_flight.get().saturating_sub(1));
        self.caller.idle_since.set(now);
        if self.is_silent.get() {
            return;
        }
        let total = now - self.started;
        self.count(total);
        if self.worker.access.is_on() {
            self.log(total);
        }
    }
}

impl Exchange {
    fn count(&self, total: Duration) {
        let metrics = self.metrics();
        if self.deployment.get().is_none() {
            metrics.started.increment();
        } else {
            metrics.queue_wait.observe(self.stages().queue);
        }
        metrics.request_bytes.add(self.request_bytes.get());
        metrics.response_bytes.add(self.response_bytes.get());
        metrics.finish(self.status.get(), self.refused.get(), total);
    }

    fn log(&self, total: Duration) {
        let stages = self.stages();
        let path = self.uri.path();
        let replica = self.replica.borrow();
        let member = self.member.borrow();
        self.worker.access.write(&access::Line {
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            host: self.host.get().and_then(|host| host.to_str().ok()),
            protocol: Some(match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            }),
            tls: self.caller.tls.as_ref().map(|tls| tls_version(tls.version)),
            client_certificate: self.caller.certificate.as_ref().map(|certificate| &*certificate.subject),
            method: Some(self.method.as_str()),
            path: Some(path.split_at(path.floor_char_boundary(MAX_LOGGED_PATH)).0),
            service: self.service().map(|service| &*service.name),
            key: self.key().map(|key| &*key.name),
            deployment: self.deployment().map(|deployment| &*deployment.name),
            replica: replica.as_ref().and_then(|replica| replica.endpoint().authority().to_str().ok()),
            handed_to: member.as_ref().map(|member| member.address),
            handed_by: self.handed().map(|handed| handed.from),
            status: self.status.get().map(|status| status.as_u16()),
            code: self.refused.get().map(Code::as_str),
            end: match self.ending.get() {
                Ending::Complete => "complete",
                Ending::CallerLeft => "caller_left",
                Ending::ReplicaBroke | Ending::ReplicaSilent => "replica_broke",
            },
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            queue: stages.queue,
            connect: stages.connect,
            model: stages.model,
            total,
            ..access::Line::new(self.id.as_str(), &self.caller.peer)
        });
    }
}

impl RequestMetrics {
    fn finish(&self, status: Option<StatusCode>, refused: Option<Code>, total: Duration) {
        self.finished.increment();
        self.duration.observe(total);
        match status {
            Some(status) => {
                let class = usize::from(status.as_u16() / 100).checked_sub(1);
                if let Some(class) = class.and_then(|class| self.statuses.get(class)) {
                    class.increment();
                }
            }
            None => self.abandoned.increment(),
        }
        if let Some(refusal) = refused.and_then(|code| self.refusals.get(code as usize)) {
            refusal.increment();
        }
    }
}
