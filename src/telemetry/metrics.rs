//! Every figure the front end keeps. `admin::metrics` puts them into words; this file says what there is.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use super::busy::Busy;
use super::cell::{Counter, Histogram};

/// The figures of the whole process.
#[derive(Debug)]
pub struct Metrics {
    /// One a worker thread, by the thread's index.
    pub threads: Box<[Arc<ThreadMetrics>]>,
    /// Requests that reached no deployment: unknown paths and services, wrong keys.
    pub unrouted: Arc<DeploymentMetrics>,
    deployments: Mutex<BTreeMap<(String, String), Arc<DeploymentMetrics>>>,
    /// Lines of the access log, and log events, that the writers could not take.
    pub dropped_lines: Arc<AtomicU64>,
    /// When counting began.
    pub started: SystemTime,
}

impl Metrics {
    /// For `threads` workers; `dropped_lines` is counted up by the log's writers.
    pub fn new(threads: usize, dropped_lines: Arc<AtomicU64>) -> Self {
        Self {
            threads: (0..threads).map(|_| Arc::default()).collect(),
            unrouted: Arc::new(DeploymentMetrics::new(threads)),
            deployments: Mutex::default(),
            dropped_lines,
            started: SystemTime::now(),
        }
    }

    /// Requests that were cut because the process ended.
    pub fn requests_cut(&self) -> u64 {
        self.threads.iter().map(|thread| thread.requests_cut.get()).sum()
    }

    /// The figures of one deployment: the same ones for the same names, so that they survive a reload.
    pub fn deployment(&self, service: &str, deployment: &str) -> Arc<DeploymentMetrics> {
        let mut deployments = self.deployments.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = deployments
            .entry((service.to_owned(), deployment.to_owned()))
            .or_insert_with(|| Arc::new(DeploymentMetrics::new(self.threads.len())));
        Arc::clone(metrics)
    }

    /// Every deployment seen so far, as (service, deployment, figures), in order.
    pub fn deployments(&self) -> Vec<(String, String, Arc<DeploymentMetrics>)> {
        let deployments = self.deployments.lock().unwrap_or_else(PoisonError::into_inner);
        let rows =
            deployments.iter().map(|((service, name), metrics)| (service.clone(), name.clone(), metrics.clone()));
        rows.collect()
    }
}

/// What one worker thread counts of itself and its connections.
#[derive(Debug, Default)]
pub struct ThreadMetrics {
    /// Absent until the thread runs.
    pub busy: OnceLock<Busy>,
    /// Samples of how long the thread takes to come round to a task that is ready.
    pub ready_wait: Histogram,
    pub connections_accepted: Counter,
    pub connections_closed: Counter,
    /// Requests whose answer was cut because the process ended.
    pub requests_cut: Counter,
    /// How often accepting found the thread's share of `max_connections` used up.
    pub connections_at_limit: Counter,
    pub accept_errors: AcceptErrors,
    pub proxy_headers: ProxyHeaders,
    pub handshakes: Handshakes,
    pub handshake_duration: Histogram,
    pub timeouts: Timeouts,
}

/// Failed accepts by cause.
#[derive(Debug, Default)]
pub struct AcceptErrors {
    /// EMFILE, ENFILE: no file descriptor left.
    pub descriptors: Counter,
    /// ENOBUFS, ENOMEM.
    pub memory: Counter,
    /// ECONNABORTED and its like: the caller had gone.
    pub aborted: Counter,
    pub other: Counter,
}

/// Headers of the PROXY protocol, by what became of them.
#[derive(Debug, Default)]
pub struct ProxyHeaders {
    pub taken: Counter,
    /// Missing, or malformed.
    pub refused: Counter,
    pub timeout: Counter,
    /// The connection ended before there was a whole one.
    pub closed: Counter,
}

/// TLS handshakes by version and outcome.
#[derive(Debug, Default)]
pub struct Handshakes {
    pub tls12_full: Counter,
    pub tls12_resumed: Counter,
    pub tls13_full: Counter,
    pub tls13_resumed: Counter,
    pub unknown_name: Counter,
    pub no_name: Counter,
    pub no_certificates: Counter,
    /// The caller's certificate was missing or refused.
    pub caller_certificate: Counter,
    pub protocol: Counter,
    pub io: Counter,
    pub timeout: Counter,
}

/// Connections closed because the caller kept us waiting.
#[derive(Debug, Default)]
pub struct Timeouts {
    pub header: Counter,
    pub idle: Counter,
    pub stalled: Counter,
}

/// What is counted of one deployment's requests.
#[derive(Debug)]
pub struct DeploymentMetrics {
    threads: Box<[RequestMetrics]>,
    /// The same of requests that other front ends handed over; made with the first of them.
    handed: OnceLock<Box<[RequestMetrics]>>,
}

impl DeploymentMetrics {
    fn new(threads: usize) -> Self {
        Self { threads: parts(threads), handed: OnceLock::new() }
    }

    /// The figures that worker thread `index` writes of requests that other front ends handed over.
    pub fn handed_thread(&self, index: usize) -> &RequestMetrics {
        // As many as of the others.
        &self.handed.get_or_init(|| parts(self.threads.len()))[index]
    }

    /// The same of all threads; empty if there was none.
    pub fn handed(&self) -> &[RequestMetrics] {
        self.handed.get().map(|parts| &**parts).unwrap_or_default()
    }

    /// The figures that worker thread `index` writes.
    pub fn thread(&self, index: usize) -> &RequestMetrics {
        // There is one for every worker, and workers are counted from 0.
        &self.threads[index]
    }

    pub fn threads(&self) -> &[RequestMetrics] {
        &self.threads
    }

    /// Requests that are under way, those of other front ends included.
    pub fn in_flight(&self) -> u64 {
        let parts = || self.threads.iter().chain(self.handed());
        let sum = |cell: fn(&RequestMetrics) -> &Counter| parts().map(|part| cell(part).get()).sum::<u64>();
        // In this order: what ends in between must not be counted twice.
        let finished = sum(|part| &part.finished);
        sum(|part| &part.started).saturating_sub(finished)
    }
}

fn parts(threads: usize) -> Box<[RequestMetrics]> {
    (0..threads).map(|_| RequestMetrics::default()).collect()
}

/// One deployment's requests on one thread. Aligned so that two threads never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RequestMetrics {
    pub started: Counter,
    pub finished: Counter,
    /// By class of the status sent, 1xx to 5xx.
    pub statuses: [Counter; 5],
    /// Callers that hung up before a status was sent.
    pub abandoned: Counter,
    pub request_bytes: Counter,
    pub response_bytes: Counter,
    /// Attempts to reach a replica that failed before anything was sent.
    pub unreachable: Counter,
    /// Requests that went to another replica after that.
    pub retries: Counter,
    pub duration: Histogram,
    pub model: Histogram,
    pub overhead: Histogram,
    /// Waiting for a permit; zero for most.
    pub queue_wait: Histogram,
    /// What replicas say themselves their model took.
    pub execution: Histogram,
    /// Refusals for overload, in the order of [`Overload::REASONS`].
    pub overloaded: [Counter; Overload::REASONS.len()],
    /// Answers of our own, in the order of [`crate::scoring::error::Code::ALL`].
    pub refusals: [Counter; REFUSALS],
    pub mirroring: Mirroring,
}

/// One deployment's copies of other deployments' requests on one thread. They are counted nowhere else. But for those that
/// the thread's end cut off, each copy is in one of the counters.
#[derive(Debug, Default)]
pub struct Mirroring {
    /// Answered with the status that the caller got.
    pub same_status: Counter,
    /// Answered with another one.
    pub other_status: Counter,
    /// The replica could not be reached, closed the connection, or did not answer in time.
    pub unanswered: Counter,
    /// Not begun: no permit was free, or the thread had as many copies under way as it may.
    pub busy: Counter,
    /// Cut because the replica took the body so much more slowly than the request's own.
    pub slow: Counter,
    /// The request itself came to no end: its caller left, or its body was not read to the end.
    pub abandoned: Counter,
    /// The copy's time from the connection to the head of the answer, where both were answered.
    pub duration: Histogram,
    /// The same of the requests that were copied.
    pub mirrored_duration: Histogram,
}

impl RequestMetrics {
    /// Counts a refusal for overload.
    pub fn note_overload(&self, reason: Overload) {
        if let Some(count) = self.overloaded.get(reason as usize) {
            count.increment();
        }
    }
}

/// How many codes our own answers have.
pub const REFUSALS: usize = 17;

/// Why a request was refused as one too many.
#[derive(Clone, Copy, Debug)]
pub enum Overload {
    /// As many wait as may.
    QueueFull,
    /// By what was measured it would have waited in vain.
    Hopeless,
    /// It waited, and no replica had room in time.
    Waited,
    /// This process could open no more connections.
    NoConnection,
}

impl Overload {
    /// As a metric's label, in order.
    pub const REASONS: [&str; 4] = ["queue_full", "hopeless", "waited", "no_connection"];
}
