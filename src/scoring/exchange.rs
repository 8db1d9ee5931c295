//! One request and its answer, as they will be written down: everything that is measured on the way is put here, and
//! when the last holder lets go (the answer is out, or the caller has gone, at whatever point that was) it becomes
//! metrics and a line of the access log.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::caller::Caller;
use super::catalog::{Deployment, ServiceRef};
use super::error::Code;
use super::id::RequestId;
use super::worker::Worker;
use crate::telemetry::access;
use crate::telemetry::metrics::{DeploymentMetrics, RequestMetrics};
use crate::upstream::Replica;

/// What is noted of one request.
pub struct Exchange {
    pub worker: Rc<Worker>,
    pub caller: Rc<Caller>,
    pub started: Instant,
    pub id: RequestId,
    pub client_id: Option<HeaderValue>,
    method: Method,
    uri: Uri,
    version: Version,
    /// What the caller named as host, with the port if it gave one.
    pub host: OnceCell<HeaderValue>,
    pub service: OnceCell<ServiceRef>,
    deployment: Cell<Option<usize>>,
    pub replica: OnceCell<Arc<Replica>>,
    pub stages: Cell<Stages>,
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

/// Where the time up to the head of the answer went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    pub queue: Duration,
    pub connect: Duration,
    /// From the connection being there to the head of the replica's answer; absent when no replica answered.
    pub model: Option<Duration>,
}

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
}

impl Exchange {
    pub fn begin<B>(worker: Rc<Worker>, caller: Rc<Caller>, request: &http::Request<B>) -> Rc<Self> {
        caller.in_flight.set(caller.in_flight.get() + 1);
        caller.used.set(true);
        let exchange = Self {
            worker,
            caller,
            started: Instant::now(),
            id: RequestId::random(),
            client_id: super::headers::client_request_id(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: OnceCell::new(),
            service: OnceCell::new(),
            deployment: Cell::new(None),
            replica: OnceCell::new(),
            stages: Cell::default(),
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

    pub fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Whether the caller wants no body, whatever the answer is.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Notes the deployment that answers, by its place in the service, and counts the request there.
    pub fn choose(&self, deployment: usize) -> Option<&Deployment> {
        self.deployment.set(Some(deployment));
        self.metrics().started.increment();
        self.deployment()
    }

    pub fn deployment(&self) -> Option<&Deployment> {
        self.service.get()?.deployments().get(self.deployment.get()?)
    }

    /// This thread's figures of the deployment, or of the requests that reached none.
    pub fn metrics(&self) -> &RequestMetrics {
        let metrics: &DeploymentMetrics = match self.deployment() {
            Some(deployment) => &deployment.metrics,
            None => &self.worker.metrics.unrouted,
        };
        self.worker.part(metrics)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.caller.in_flight.set(self.caller.in_flight.get().saturating_sub(1));
        self.caller.idle_since.set(now);
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
        }
        metrics.finished.increment();
        metrics.duration.observe(total);
        metrics.request_bytes.add(self.request_bytes.get());
        metrics.response_bytes.add(self.response_bytes.get());
        match self.status.get() {
            Some(status) => {
                let class = usize::from(status.as_u16() / 100).checked_sub(1);
                if let Some(class) = class.and_then(|class| metrics.statuses.get(class)) {
                    class.increment();
                }
            }
            None => metrics.abandoned.increment(),
        }
        if let Some(refusal) = self.refused.get().and_then(|code| metrics.refusals.get(code as usize)) {
            refusal.increment();
        }
    }

    fn log(&self, total: Duration) {
        let stages = self.stages.get();
        self.worker.access.write(&access::Line {
            time: SystemTime::now(),
            id: self.id.as_str(),
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            peer: self.caller.peer,
            host: self.host.get().and_then(|host| host.to_str().ok()),
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            tls: self.caller.tls.as_ref().map(|tls| match tls.version {
                rustls::ProtocolVersion::TLSv1_3 => "1.3",
                _ => "1.2",
            }),
            method: self.method.as_str(),
            path: self.uri.path(),
            service: self.service.get().map(|service| &*service.name),
            deployment: self.deployment().map(|deployment| &*deployment.name),
            replica: self.replica.get().and_then(|replica| replica.authority().to_str().ok()),
            status: self.status.get().map(|status| status.as_u16()),
            code: self.refused.get().map(Code::as_str),
            end: match self.ending.get() {
                Ending::Complete => "complete",
                Ending::CallerLeft => "caller_left",
                Ending::ReplicaBroke => "replica_broke",
            },
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            queue_ms: access::millis(stages.queue),
            connect_ms: access::millis(stages.connect),
            model_ms: stages.model.map(access::millis),
            total_ms: access::millis(total),
        });
    }
}
