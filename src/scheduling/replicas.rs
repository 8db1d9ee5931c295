//! The replicas of one deployment: which there are, which of them take requests, and which is to have the next one.
//!
//! Requests read a snapshot of the set. Whoever changes it (discovery, health checks, a request that met a failure)
//! does so under a lock, swaps the snapshot, and has those who wait served.

mod choice;
mod looks;
mod membership;
mod news;
mod sharing;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::RetryBudget;
use super::clock;
use super::condition::{Condition, Failure, Out};
use super::loans::Loans;
use super::queue::{Lane, Queue, Slot};
use super::replica::Replica;
use crate::config::ReplicaAddress;

/// See the module.
#[derive(Debug)]
pub struct Replicas {
    service: Box<str>,
    lane: Arc<Lane<Replica>>,
    set: ArcSwap<Set>,
    members: Mutex<Members>,
    budget: RetryBudget,
    taken_out: [AtomicU64; Failure::KINDS.len()],
    /// Told when a look at a replica is due sooner than before.
    looks_changed: Notify,
    /// What health checks hold.
    loans: Loans<Replica>,
    /// Told when there is something to share out anew; absent where all of every replica is this process's.
    sharing: Option<Arc<Notify>>,
}

/// What requests choose from.
#[derive(Debug, Default)]
struct Set {
    all: Box<[Arc<Replica>]>,
    ready: Box<[Arc<Replica>]>,
}

#[derive(Debug)]
struct Members {
    /// The deployment's name.
    name: Arc<str>,
    settings: Settings,
    present: Vec<Member>,
    /// No longer present, and requests have a permit or may get one yet: one that comes back is the same one.
    departed: Vec<Arc<Replica>>,
    /// Whether any replica's health resource has ever answered a success: else it is the path that is wrong.
    path_works: bool,
}

#[derive(Debug)]
struct Member {
    replica: Arc<Replica>,
    condition: Condition,
}

/// What an operator can change about replicas that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests each may run at once, from wherever they come; [`ANY`](super::permits::ANY): any number.
    pub limit: usize,
    /// How often those that take requests are looked at; absent: never.
    pub look_interval: Option<Duration>,
}

/// What a request that has to wait can expect.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    /// Requests that can run at once.
    pub slots: usize,
    /// Those who would be served before it.
    pub ahead: usize,
    /// Until it gets a permit, on average.
    pub wait: Duration,
    /// How long hardly any request takes once it has one.
    pub service: Duration,
}

/// One replica as others see it.
#[derive(Clone, Debug)]
pub struct View {
    pub replica: Arc<Replica>,
    /// Why it takes no requests, if so.
    pub out: Option<Out>,
    /// Whether its health resource answered a success when it was last looked at and did not stay silent.
    pub healthy: bool,
    /// How it failed last, if it is in use all the same and was not found healthy since.
    pub trouble: Option<Failure>,
}

impl View {
    /// Whether it is in use although it fails, because too few others are left. One whose health resource alone answers an
    /// error may have another one than it is asked for: as long as it has scored, it does not fail.
    pub fn is_failing(&self) -> bool {
        let fails =
            |trouble: &Failure| !matches!(trouble, Failure::Unhealthy(_)) || self.replica.pace().mean().is_none();
        self.out.is_none() && self.trouble.as_ref().is_some_and(fails)
    }
}

impl Replicas {
    /// No replicas yet. Who waits for them counts in `queue`. Where this process is one of several that give replicas
    /// requests, `sharing` is told when there is something to share out ([`Replicas::shared`]).
    pub fn new(
        service: &str,
        deployment: &str,
        queue: Arc<Queue>,
        settings: Settings,
        sharing: Option<Arc<Notify>>,
    ) -> Self {
        Self {
            service: service.into(),
            lane: Arc::new(Lane::new(queue)),
            set: ArcSwap::default(),
            members: Mutex::new(Members {
                name: deployment.into(),
                settings,
                present: Vec::new(),
                departed: Vec::new(),
                path_works: false,
            }),
            budget: RetryBudget::new(),
            taken_out: Default::default(),
            looks_changed: Notify::new(),
            loans: Loans::new(),
            sharing,
        }
    }

    pub fn lane(&self) -> &Lane<Replica> {
        &self.lane
    }

    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// How often a replica was taken out, in the order of [`Failure::KINDS`].
    pub fn taken_out(&self) -> [u64; Failure::KINDS.len()] {
        std::array::from_fn(|kind| self.taken_out.get(kind).map_or(0, |count| count.load(Relaxed)))
    }

    pub fn views(&self) -> Vec<View> {
        let members = self.members();
        let views = members.present.iter().map(|member| View {
            replica: Arc::clone(&member.replica),
            out: member.condition.out.clone(),
            healthy: member.condition.proven,
            trouble: member.condition.trouble.clone(),
        });
        views.collect()
    }

    /// Whether any request is with a replica of this deployment, present or departed.
    pub fn is_busy(&self) -> bool {
        let members = self.members();
        let present = members.present.iter().map(|member| &member.replica);
        present.chain(&members.departed).any(|replica| replica.in_flight() > 0)
    }

    /// Makes the members what requests choose from, and serves those who wait.
    fn publish(&self, members: MutexGuard<'_, Members>) {
        let all = || members.present.iter().map(|member| &member.replica);
        let ready = all().filter(|replica| replica.is_ready()).map(Arc::clone).collect();
        self.set.store(Arc::new(Set { all: all().map(Arc::clone).collect(), ready }));
        // What is handed out may come back at once, with news of a failure.
        drop(members);
        self.lane.serve(|| self.take_any(Instant::now()));
        for _ in 0..self.lane.length() {
            if !self.recall() {
                break;
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn are(&self, addresses: &[ReplicaAddress]) -> bool {
        let present = self.present.iter().map(|member| member.replica.endpoint().address());
        self.present.len() == addresses.len() && present.eq(addresses)
    }

    fn find(&mut self, replica: &Replica) -> Option<&mut Member> {
        self.present.iter_mut().find(|member| member.replica.id() == replica.id())
    }

    /// How many take requests.
    fn ready(&self) -> usize {
        self.present.iter().filter(|member| !member.condition.is_out()).count()
    }

    /// Whether one more may be taken out. Where nobody listens there is no use in asking: all but the last may go. What
    /// requests can bring about, by being slow or by breaking a model, takes out half at most. What health checks say counts as
    /// long as they say better of another replica.
    fn may_leave(&self, failure: &Failure) -> bool {
        let (all, ready) = (self.present.len(), self.ready());
        match failure {
            Failure::Unreachable(_) => ready > 1,
            Failure::Closed | Failure::Silent(_) => all - ready < all / 2,
            Failure::Unhealthy(_) => {
                self.present.iter().any(|member| !member.condition.is_out() && member.condition.proven)
            }
        }
    }
}

impl Member {
    fn bring_back(&mut self, now: Instant, interval: Option<Duration>) {
        self.condition.bring_back(now, interval);
        self.replica.put_on_trial(clock::millis(now));
        self.replica.permits().set_open(true);
    }
}
