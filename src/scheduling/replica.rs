//! One container that answers scoring calls: its permits, its pace, and how much it is to be trusted just now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock;
use super::pace::Pace;
use super::permits::Permits;
use super::queue::{Lane, Permit, Slot};
use crate::upstream::Endpoint;

/// How long a replica that has just come, come back, or failed counts as busier than it is.
const TRUST_AFTER: u64 = 10_000;

/// Errors of one replica have its health looked at at most this often, in milliseconds.
const DOUBT_AGAIN: u64 = 1_000;

/// How much busier at first.
const DISTRUST: f32 = 10.0;

/// A replica, shared by all threads. Aligned so that the counts of two of them never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Replica {
    permits: Permits,
    pace: Pace,
    /// Since when it has to earn trust, by [`clock::millis`]; 0: it has it.
    on_trial_since: AtomicU64,
    /// When its errors last had its health looked at, by [`clock::millis`].
    doubted_at: AtomicU64,
    lane: Arc<Lane<Self>>,
    endpoint: Endpoint,
}

impl Slot for Replica {
    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn lane(&self) -> &Lane<Self> {
        &self.lane
    }
}

impl Replica {
    pub(super) fn new(endpoint: Endpoint, limit: usize, lane: Arc<Lane<Self>>) -> Self {
        let permits = Permits::new(limit);
        Self {
            permits,
            pace: Pace::default(),
            on_trial_since: AtomicU64::new(0),
            doubted_at: AtomicU64::new(0),
            lane,
            endpoint,
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Different for every replica of the process's life.
    pub fn id(&self) -> usize {
        self.endpoint.id()
    }

    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Requests that are with it now, from all threads.
    pub fn in_flight(&self) -> usize {
        self.permits.used()
    }

    /// From now on so many of its requests at once are this process's to give.
    pub fn set_limit(&self, limit: usize) {
        self.permits.set_limit(limit);
    }

    /// Requests that this process may give it at once; [`ANY`](super::ANY): any number, 0: none.
    pub fn limit(&self) -> usize {
        self.permits.limit()
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.permits.is_open()
    }

    pub(super) fn put_on_trial(&self, now: u64) {
        self.on_trial_since.store(now, Relaxed);
    }

    /// Whether an error of its own is a reason to look at its health: now, and not again for a while.
    pub(super) fn doubt(&self, now: u64) -> bool {
        let before = self.doubted_at.load(Relaxed);
        let is_due = before == 0 || now.saturating_sub(before) >= DOUBT_AGAIN;
        if is_due {
            self.doubted_at.store(now, Relaxed);
        }
        is_due
    }

    /// How busy it would be with one more request; less goes first. The second part decides among equals: how long it
    /// took of late.
    pub(super) fn cost(&self, now: u64) -> (f32, u64) {
        #[expect(clippy::cast_precision_loss, reason = "a difference of one in 16 million requests decides nothing")]
        let load = (self.in_flight() + 1) as f32;
        let distrust = self.distrust(now);
        // Now and then it counts as what it is. Else it would have nothing to show what it is worth by, as long as any
        // other is less than so many times as busy.
        let is_tried = distrust > 1.0 && fastrand::f32() * distrust < 1.0;
        (if is_tried { load } else { load * distrust }, self.pace.recent(now))
    }

    /// From [`DISTRUST`] down to 1 over [`TRUST_AFTER`].
    fn distrust(&self, now: u64) -> f32 {
        let since = self.on_trial_since.load(Relaxed);
        let age = now.saturating_sub(since);
        if since == 0 || age >= TRUST_AFTER {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "both are below 10,000")]
        let left = (TRUST_AFTER - age) as f32 / TRUST_AFTER as f32;
        1.0 + (DISTRUST - 1.0) * left
    }

    /// Notes that a request that was answered had been here for `held`.
    pub fn note_answered(&self, held: Duration, now: tokio::time::Instant) {
        self.pace.observe(held, clock::millis(now));
    }

    /// Notes that a request was given up without an answer after `held`.
    pub fn note_given_up(&self, held: Duration, now: tokio::time::Instant) {
        self.pace.observe_at_least(held, clock::millis(now));
    }
}

/// The right to have one request answered by a replica.
pub type ReplicaPermit = Permit<Replica>;
