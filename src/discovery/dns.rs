//! Replicas by their names in DNS: what is asked, what of the answers is believed, and when it is asked again.
//!
//! DNS says that an address is gone by leaving it out, and a name server that has just started or has lost its upstream
//! leaves everything out. Requests sent to an address that another container has by now are as bad as requests sent to
//! none, so answers are believed, but the one that ends all replicas only when it comes twice; and silence or failure is
//! no answer at all.
//!
//! How a name server is reached is `resolver`'s part, and what this host says about it `system`'s; what is asked in one lookup
//! is `lookup`'s, and what is kept of it `found`'s.

mod found;
mod lookup;
mod resolver;
mod system;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::found::{Found, Known};
use self::lookup::Lookup;
pub use self::resolver::{LookupError, Resolver};
use crate::config::{DnsTarget, ReplicaAddress};

/// Addresses a target has at most; the highest of them are left out. A name is written by others and must not fill the
/// memory of every front end.
pub const MAX_ADDRESSES: usize = 1000;

/// How long what takes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The least time between lookups: a time to live of 0 asks for no cache, not for a question a request.
    soonest: Duration,
    /// The most time between lookups: containers come and go, whatever the time to live says.
    latest: Duration,
    /// How long after the first answer without addresses the second counts. A name server of Kubernetes has heard of
    /// all services some seconds after its start.
    confirm: Duration,
    /// The time between failing lookups, at first and at last, to which up to a quarter is added by chance: all front
    /// ends fail together and must not come back together.
    backoff: (Duration, Duration),
    /// How long one lookup takes at most, with all the questions it consists of.
    patience: Duration,
}

const PACE: Pace = Pace {
    soonest: Duration::from_secs(1),
    latest: Duration::from_secs(60),
    confirm: Duration::from_secs(5),
    backoff: (Duration::from_secs(1), Duration::from_secs(10)),
    patience: Duration::from_secs(5),
};

/// Looks `target` up again and again, for ever, and hands every set that differs from the one before to `publish`.
///
/// It is meant for the control thread, and a target that is not needed any more is dropped with the future. Nothing is
/// published before the first answer; an empty set is published as well, when it has been confirmed.
pub async fn follow(resolver: &Resolver, target: &DnsTarget, publish: impl FnMut(Vec<ReplicaAddress>)) -> Infallible {
    follow_at(PACE, resolver, target, publish).await
}

/// The replicas that DNS says `target` has, sorted; none if the name does not exist or has no addresses. It is asked
/// once, which takes up to 5 s.
///
/// # Errors
///
/// See [`LookupError`]: no name server gave an answer.
pub async fn look_up(resolver: &Resolver, target: &DnsTarget) -> Result<Vec<ReplicaAddress>, LookupError> {
    let deadline = Instant::now() + PACE.patience;
    let mut found = look_up_by(deadline, resolver, target, &Arc::default()).await?;
    found.cut();
    Ok(found.replicas())
}

async fn follow_at(
    pace: Pace,
    resolver: &Resolver,
    target: &DnsTarget,
    mut publish: impl FnMut(Vec<ReplicaAddress>),
) -> Infallible {
    let mut follower = Follower::new(pace, target);
    loop {
        let deadline = Instant::now() + pace.patience;
        let outcome = look_up_by(deadline, resolver, target, &follower.known).await;
        let wait = match outcome {
            Ok(found) => follower.hear(found, &mut publish),
            Err(error) => follower.fail(&error),
        };
        sleep(wait).await;
    }
}

/// What is remembered from one lookup of a target to the next.
struct Follower<'a> {
    pace: Pace,
    target: &'a DnsTarget,
    /// Absent: nothing yet, and what others have by this target is not known.
    published: Option<BTreeSet<SocketAddr>>,
    known: Arc<Known>,
    /// When an answer without addresses came that is not believed yet.
    empty_since: Option<Instant>,
    /// Lookups that failed since the last that did not.
    failures: u32,
    was_cut: bool,
}

impl<'a> Follower<'a> {
    fn new(pace: Pace, target: &'a DnsTarget) -> Self {
        Self { pace, target, published: None, known: Arc::default(), empty_since: None, failures: 0, was_cut: false }
    }

    /// Takes an answer, and says when to ask again.
    fn hear(&mut self, mut found: Found, publish: &mut impl FnMut(Vec<ReplicaAddress>)) -> Duration {
        let target = self.target;
        if self.failures > 0 {
            tracing::info!(dns = %target, failed = self.failures, "the replicas can be looked up again");
            self.failures = 0;
        }
        if let Some(wait) = self.doubt(&found) {
            return wait;
        }
        let was_cut = found.cut();
        if was_cut && !self.was_cut {
            tracing::warn!(dns = %target, "DNS names more than {MAX_ADDRESSES} replicas; the lowest are taken");
        }
        self.was_cut = was_cut;
        let wait = found.ttl.clamp(self.pace.soonest, self.pace.latest);
        if self.published.as_ref() != Some(&found.addresses) {
            publish(found.replicas());
            self.published = Some(found.addresses);
        }
        self.known = Arc::new(found.known);
        wait
    }

    /// Whether this answer has to come once more before it is believed: until when, then.
    fn doubt(&mut self, found: &Found) -> Option<Duration> {
        let was_empty = self.published.as_ref().is_some_and(BTreeSet::is_empty);
        if !found.addresses.is_empty() || was_empty {
            self.empty_since = None;
            return None;
        }
        let had_replicas = self.published.is_some();
        let Some(since) = self.empty_since else {
            self.empty_since = Some(Instant::now());
            if had_replicas {
                tracing::warn!(dns = %self.target, "DNS names no replica; those it named go on unless it says so again");
            }
            return Some(self.pace.confirm);
        };
        let left = self.pace.confirm.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        self.empty_since = None;
        tracing::warn!(dns = %self.target, "DNS names no replica, and said so twice: there is none");
        None
    }

    /// Notes that there was no answer, and says when to ask again.
    fn fail(&mut self, error: &LookupError) -> Duration {
        if self.failures == 0 {
            let goes_on = self.published.as_ref().map_or(0, BTreeSet::len);
            tracing::warn!(dns = %self.target, %error, goes_on, "the replicas cannot be looked up");
        }
        let (first, last) = self.pace.backoff;
        let wait = first.saturating_mul(1 << self.failures.min(8)).min(last);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 + fastrand::f64() / 4.0)
    }
}

async fn look_up_by(
    deadline: Instant,
    resolver: &Resolver,
    target: &DnsTarget,
    known: &Arc<Known>,
) -> Result<Found, LookupError> {
    let lookup = Lookup { view: resolver.view(), known: Arc::clone(known), deadline };
    match target {
        DnsTarget::Host { host, port } => lookup.host(host, *port).await,
        DnsTarget::Service { name } => lookup.service(name).await,
    }
}
