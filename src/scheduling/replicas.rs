//! The replicas of one deployment: which there are, which of them take requests, and which is to have the next one.
//!
//! Requests read a snapshot of the set. Whoever changes it (discovery, health checks, a request that met a failure)
//! does so under a lock, swaps the snapshot, and has those who wait served.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::RetryBudget;
use super::clock;
use super::condition::{Condition, Failure, Health, Out, UNHEALTHY_CHECKS};
use super::loans::Loans;
use super::permits::ANY;
use super::queue::{Lane, Queue, Rank, Slot, Turned, Waiting};
use super::replica::{Replica, ReplicaPermit};
use crate::config::ReplicaAddress;
use crate::upstream::Endpoint;

#[cfg(test)]
mod tests;

/// A failure that comes no sooner than this after the last one is logged, also if it changes nothing.
const LOG_AGAIN: Duration = Duration::from_secs(10);

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
    /// Requests each may run at once, from wherever they come; [`ANY`]: any number.
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

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What requests ask for.
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
    fn recall(&self) -> bool {
        self.loans.recall(|replica| replica.is_ready())
    }

    fn take_any(&self, now: Instant) -> Option<ReplicaPermit> {
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
fn choose(replicas: &[Arc<Replica>], tried: Option<&Replica>, now: Instant) -> Option<ReplicaPermit> {
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

/// What changes the set.
impl Replicas {
    /// Makes `addresses` the replicas there are. One that stays keeps its permits, its pace and its condition; one that goes
    /// finishes what it has in flight.
    pub fn set(&self, addresses: &[ReplicaAddress]) {
        let now = Instant::now();
        let mut members = self.members();
        if members.are(addresses) {
            return;
        }
        let is_first = members.present.is_empty();
        let before = std::mem::take(&mut members.present);
        let (mut stay, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|member| addresses.contains(member.replica.endpoint().address()));
        let mut departed = std::mem::take(&mut members.departed);
        // One that nothing else holds can be forgotten. The permits in use do not tell: a request that read the set before
        // this change, or the last one, may take another.
        departed.retain(|replica| Arc::strong_count(replica) > 1);
        let (interval, limit) = (members.settings.look_interval, self.first_limit(members.settings.limit));
        for address in addresses {
            let is = |replica: &Replica| replica.endpoint().address() == address;
            if stay.iter().any(|member| is(&member.replica)) {
                continue;
            }
            let back = departed.iter().position(|replica| is(replica)).map(|index| departed.swap_remove(index));
            let Some(replica) = back.or_else(|| self.new_replica(address, limit)) else { continue };
            if !is_first {
                replica.put_on_trial(clock::millis(now));
            }
            replica.permits().set_limit(limit);
            replica.permits().set_open(true);
            stay.push(Member { replica, condition: Condition::new(now, interval) });
        }
        departed.extend(gone.into_iter().map(|member| {
            member.replica.permits().set_open(false);
            member.replica
        }));
        members.present = stay;
        members.departed = departed;
        if members.ready() == 0 {
            // Those that are left are out, and the last is never out.
            for member in &mut members.present {
                member.bring_back(now, interval);
            }
        }
        self.publish(members);
        self.looks_changed.notify_one();
        self.share_out();
    }

    fn new_replica(&self, address: &ReplicaAddress, limit: usize) -> Option<Arc<Replica>> {
        let endpoint = Endpoint::new(address.clone())?;
        Some(Arc::new(Replica::new(endpoint, limit, Arc::clone(&self.lane))))
    }

    pub fn configure(&self, settings: Settings) {
        let mut members = self.members();
        if members.settings == settings {
            return;
        }
        let was_any = members.settings.limit == ANY;
        members.settings = settings;
        let Members { present, departed, .. } = &*members;
        for replica in present.iter().map(|member| &member.replica).chain(departed) {
            // What is shared out follows; until then it stays.
            if self.sharing.is_none() || was_any || settings.limit == ANY {
                replica.permits().set_limit(self.first_limit(settings.limit));
            }
        }
        let now = Instant::now();
        for member in members.present.iter_mut().filter(|member| !member.condition.is_out()) {
            member.condition.look_later(now, settings.look_interval);
        }
        self.publish(members);
        self.looks_changed.notify_one();
        self.share_out();
    }

    /// Sends away who waits, because the deployment is gone; opened again when it is back.
    pub fn set_closed(&self, closed: bool) {
        self.lane.set_closed(closed);
    }

    /// Goes on as the deployment `name`. Who waits is sent to look for it there.
    pub fn rename(&self, name: &str) {
        let mut members = self.members();
        if *members.name != *name {
            members.name = name.into();
            drop(members);
            self.lane.send_away();
        }
    }

    /// Whether any of `addresses` is a replica of this deployment.
    pub fn has_any(&self, addresses: &HashSet<&ReplicaAddress>) -> bool {
        self.members().present.iter().any(|member| addresses.contains(member.replica.endpoint().address()))
    }

    /// Notes that `replica` failed a request, which takes it out unless it is among the last.
    pub fn failed(&self, replica: &Replica, failure: Failure) {
        let now = Instant::now();
        let mut members = self.members();
        let may_leave = members.may_leave(&failure);
        let name = Arc::clone(&members.name);
        let deployment = &*name;
        let Some(member) = members.find(replica) else { return };
        replica.put_on_trial(clock::millis(now));
        let failed = member.condition.failed.replace(now);
        if member.condition.is_out() {
            return;
        }
        let address = replica.endpoint().address();
        let service = &*self.service;
        if may_leave {
            tracing::warn!(service, deployment, replica = %address, reason = %failure, "replica taken out");
            if let Some(count) = self.taken_out.get(failure.index()) {
                count.fetch_add(1, Relaxed);
            }
            replica.permits().set_open(false);
            member.condition.take_out(failure, now);
            self.publish(members);
            self.looks_changed.notify_one();
            return;
        }
        if failed.is_none_or(|failed| now.duration_since(failed) > LOG_AGAIN) {
            tracing::warn!(
                service, deployment, replica = %address, reason = %failure,
                "replica failed, and stays in use because too few others are left"
            );
        }
        member.condition.trouble = Some(failure);
    }

    /// Notes that `replica` answered a request, which is proof enough that it is back, unless it is its health resource that
    /// says otherwise.
    pub fn answered(&self, replica: &Replica) {
        if replica.is_ready() {
            return;
        }
        let now = Instant::now();
        let mut members = self.members();
        let (name, interval) = (Arc::clone(&members.name), members.settings.look_interval);
        if let Some(member) = members.find(replica).filter(|member| member.condition.may_answer_back()) {
            self.say_back(&name, member, now);
            member.bring_back(now, interval);
            self.publish(members);
        }
    }

    /// Notes that `replica` answered a request with an error of its own, or opened no connection in what little time there
    /// was. That may be the request's fault, so it takes out nothing; but one that fails everything is fast and free, and would
    /// draw most requests until its next health check.
    pub fn doubt(&self, replica: &Replica) {
        let now = Instant::now();
        if !replica.is_ready() || !replica.doubt(clock::millis(now)) {
            return;
        }
        let mut members = self.members();
        let interval = members.settings.look_interval;
        if let Some(member) = members.find(replica) {
            member.condition.doubt(now, interval);
            self.looks_changed.notify_one();
        }
    }

    fn say_back(&self, deployment: &str, member: &Member, now: Instant) {
        let out = member.condition.out.as_ref().map(|out| now.duration_since(out.since)).unwrap_or_default();
        tracing::info!(
            service = &*self.service, deployment, replica = %member.replica.endpoint().address(),
            out_ms = out.as_millis(), "replica back"
        );
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
}

/// What shares replicas out among several processes.
impl Replicas {
    /// The replicas there are and the requests each may run at once, from wherever they come; `None` if there is nothing to
    /// share out. The permits of each are for the caller to set, as the part that is this process's.
    pub fn shared(&self) -> Option<(Vec<Arc<Replica>>, usize)> {
        let members = self.members();
        let limit = members.settings.limit;
        let all = || members.present.iter().map(|member| Arc::clone(&member.replica)).collect();
        (self.sharing.is_some() && limit != ANY).then(|| (all(), limit))
    }

    /// Notes that there are permits now of `replicas` that had none here: they are looked at, and those who wait are served.
    pub fn note_gained(&self, replicas: &[Arc<Replica>]) {
        let now = Instant::now();
        let mut members = self.members();
        if members.settings.look_interval.is_some() {
            for replica in replicas {
                if let Some(member) = members.find(replica) {
                    member.condition.look_at = Some(now);
                }
            }
            self.looks_changed.notify_one();
        }
        drop(members);
        self.lane.serve(|| self.take_any(now));
    }

    /// What a replica may be given before anything of it was shared out.
    fn first_limit(&self, limit: usize) -> usize {
        if self.sharing.is_some() && limit != ANY { 0 } else { limit }
    }

    fn share_out(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.notify_one();
        }
    }
}

/// What looks at replicas from time to time.
impl Replicas {
    /// Another health resource is looked at from now on: what was found so far says nothing of it.
    pub fn forget_health(&self) {
        let now = Instant::now();
        let mut members = self.members();
        members.path_works = false;
        let interval = members.settings.look_interval;
        for member in &mut members.present {
            let condition = &mut member.condition;
            (condition.proven, condition.unhealthy) = (false, 0);
            if condition.is_out() || interval.is_some() {
                condition.look_at = Some(now);
            }
        }
    }

    /// When the next look is due.
    pub fn next_look(&self) -> Option<Instant> {
        self.members().present.iter().filter_map(|member| member.condition.look_at).min()
    }

    /// Done when [`Replicas::next_look`] may have become earlier.
    pub async fn looks_changed(&self) {
        self.looks_changed.notified().await;
    }

    /// Up to `room` replicas to be looked at now, each of which is to be told of by [`Replicas::looked`].
    pub fn due(&self, now: Instant, room: usize) -> Vec<Arc<Replica>> {
        let mut members = self.members();
        let due = members.present.iter_mut().filter(|member| member.condition.look_at.is_some_and(|at| at <= now));
        let due = due.take(room).map(|member| {
            member.condition.look_at = None;
            Arc::clone(&member.replica)
        });
        due.collect()
    }

    /// Looks at a replica by `look` without ever standing in the way of a request: `None` if it is busy, which proves
    /// that it is alive, or if a request needs the permit that the look has. That is given back when the look is over and
    /// its connection closed.
    pub async fn unless_wanted<T>(&self, replica: &Arc<Replica>, look: impl Future<Output = T>) -> Option<T> {
        match replica.limit() {
            ANY => return Some(look.await),
            // It may be busy with requests of others, who look at it themselves.
            0 => return None,
            _ => {}
        }
        let is_idle = replica.in_flight() == 0;
        let permit = is_idle.then(|| ReplicaPermit::take(replica)).flatten()?;
        let mut loan = pin!(self.loans.lend(permit));
        // In here, so that it is dropped before the loan.
        let mut look = pin!(look);
        tokio::select! {
            biased;
            () = loan.as_mut() => None,
            found = look.as_mut() => Some(found),
        }
    }

    /// Notes what a look at `replica` found; `None`: that it was not the time for one.
    pub fn looked(&self, replica: &Replica, found: Option<Health>) {
        let now = Instant::now();
        let mut members = self.members();
        let (name, interval) = (Arc::clone(&members.name), members.settings.look_interval);
        let is_success = matches!(&found, Some(Health::Answered(status)) if status.is_success());
        members.path_works |= is_success;
        let path_works = members.path_works;
        let Some(member) = members.find(replica) else { return };
        member.condition.look_later(now, interval);
        if !matches!(&found, Some(Health::Silent) | None) {
            member.condition.proven = is_success;
            member.condition.trouble = member.condition.trouble.take().filter(|_| !is_success);
        }
        match found {
            Some(Health::Answered(status)) => {
                if member.condition.is_out() && (is_success || !path_works) {
                    self.say_back(&name, member, now);
                    member.bring_back(now, interval);
                    self.publish(members);
                } else if !member.condition.is_out() && member.condition.found(is_success, now) >= UNHEALTHY_CHECKS {
                    drop(members);
                    self.failed(replica, Failure::Unhealthy(status));
                } else if member.condition.doubted {
                    self.looks_changed.notify_one();
                }
            }
            Some(Health::Unreachable(why)) => {
                drop(members);
                self.failed(replica, Failure::Unreachable(why));
            }
            // It was not the time for a look: what is doubted is looked at again soon, until that tells.
            None => {
                if member.condition.look_again(now) {
                    self.looks_changed.notify_one();
                }
            }
            Some(Health::Silent | Health::Closed) => member.condition.doubted = false,
        }
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
