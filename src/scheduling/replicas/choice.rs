//! What requests ask for: a permit of the replica that is to have them, a place in the queue, or what they can expect
//! of one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Forecast, Replicas};
use crate::scheduling::clock;
use crate::scheduling::queue::{Rank, Slot, Turned, Waiting};
use crate::scheduling::replica::{Replica, ReplicaPermit};

impl Replicas {
    /// A permit of the replica that is to have the next request, if one is free and nobody waits for it.
    pub fn try_take(&self, now: Instant) -> Option<ReplicaPermit> {
        if self.lane.is_empty() { self.take_any(now) } else { None }
    }

    /// The same for a request that could not reach `tried`. If no other takes requests, one that is out is better
    /// than none.
    pub fn try_take_other(&self, tried: &Replica, now: Instant) -> Option<ReplicaPermit> {
        let set = self.set.load();
        let others = |replicas: &[Arc<Replica>]| replicas.iter().any(|replica| replica.id() != tried.id());
        let choice = if others(&set.ready) { &set.ready } else { &set.all };
        choose(choice, Some(tried), now)
    }

    /// Whether there is any replica but `tried` that this process gives requests to.
    pub fn has_other(&self, tried: &Replica) -> bool {
        self.set.load().all.iter().any(|replica| replica.id() != tried.id() && replica.limit() > 0)
    }

    pub fn is_none(&self) -> bool {
        self.set.load().all.is_empty()
    }

    /// Waits for a permit. One that a health check has is asked for, and as good as free: who is to have it is let in
    /// although the queue is full.
    ///
    /// # Errors
    ///
    /// See [`Turned`].
    pub fn join(&self, rank: Rank, now: Instant) -> Result<Waiting<Replica>, Turned> {
        let join = |rank| self.lane.join(rank, || self.take_any(now));
        match join(rank) {
            Ok(waiting) => {
                if !self.lane.is_empty() {
                    self.recall();
                }
                Ok(waiting)
            }
            Err(Turned::Away) if self.recall() => join(Rank::Again),
            Err(turned) => Err(turned),
        }
    }

    /// Whether a health check has a permit that a request may ask for.
    pub fn is_any_lent(&self) -> bool {
        !self.loans.is_none()
    }

    /// Asks for a permit that a health check has.
    pub(super) fn recall(&self) -> bool {
        self.loans.recall(|replica| replica.is_ready())
    }

    pub(super) fn take_any(&self, now: Instant) -> Option<ReplicaPermit> {
        choose(&self.set.load().ready, None, now)
    }

    /// What a request of `rank` can expect if it waits; `None` as long as nothing was measured.
    pub fn forecast(&self, rank: Rank, now: Instant) -> Option<Forecast> {
        let set = self.set.load();
        let now = clock::millis(now);
        let (mut slots, mut measured, mut per_second, mut bounds) = (0usize, 0.0, 0.0, 0.0);
        for replica in &set.ready {
            if replica.limit() == 0 {
                continue;
            }
            slots = slots.saturating_add(replica.limit());
            if let Some((mean, bound)) = replica.pace().forecast(now) {
                let limit = as_f64(replica.limit());
                measured += limit;
                per_second += limit / mean.as_secs_f64();
                // Who is fast has more of the requests.
                bounds += limit / mean.as_secs_f64() * bound.as_secs_f64();
            }
        }
        if per_second == 0.0 {
            return None;
        }
        let service = Duration::try_from_secs_f64(bounds / per_second).unwrap_or(Duration::MAX);
        // Those not measured yet are taken to be like the rest.
        per_second *= as_f64(slots) / measured;
        let ahead = self.lane.ahead_of(rank);
        let wait = Duration::try_from_secs_f64((as_f64(ahead) + 1.0) / per_second).unwrap_or(Duration::MAX);
        Some(Forecast { slots, ahead, wait, service })
    }
}

fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// A permit of the least busy of `replicas` but `tried`; among equals of the one that was fastest of late, and from there
/// on of a random one, so that several front ends do not all choose the same.
pub(super) fn choose(replicas: &[Arc<Replica>], tried: Option<&Replica>, now: Instant) -> Option<ReplicaPermit> {
    let is_candidate =
        |replica: &&Arc<Replica>| replica.permits().is_free() && tried.is_none_or(|tried| tried.id() != replica.id());
    if let [only] = replicas {
        return Some(only).filter(is_candidate).and_then(ReplicaPermit::take);
    }
    let now = clock::millis(now);
    // Each is equally often the first.
    let (before, from) = replicas.split_at(fastrand::usize(..replicas.len().max(1)));
    loop {
        let candidates = from.iter().chain(before).filter(is_candidate).map(|replica| (replica.cost(now), replica));
        let (_, best) = candidates.reduce(|best, other| if other.0 < best.0 { other } else { best })?;
        // If another thread was faster it got on, and there is less to choose from.
        if let Some(permit) = ReplicaPermit::take(best) {
            return Some(permit);
        }
    }
}
