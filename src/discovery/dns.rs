//! Replicas by their names in DNS: what is asked, what of the answers is believed, and when it is asked again.
//!
//! DNS says that an address is gone by leaving it out, and a name server that has just started or has lost its upstream
//! leaves everything out. Requests sent to an address that another container has by now are as bad as requests sent to
//! none, so answers are believed, but the one that ends all replicas only when it comes twice; and silence or failure is
//! no answer at all.
//!
//! How a name server is reached is `resolver`'s part, and what this host says about it `system`'s.

mod resolver;
mod system;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config::{DnsTarget, ReplicaAddress};
use resolver::{Answer, View};
pub use resolver::{LookupError, Resolver};

/// Addresses a target has at most; the highest of them are left out. A name is written by others and must not fill the
/// memory of every front end.
pub const MAX_ADDRESSES: usize = 1000;

/// Addresses of a target, or of a name, while they are gathered: one more than may be, which shows that there are more.
const GATHERED: usize = MAX_ADDRESSES + 1;

/// Addresses remembered for the hosts of a service, of all together. Hosts may share addresses, so they are more than
/// the target has.
const MAX_KNOWN: usize = 4 * MAX_ADDRESSES;

/// What is believed for as long as this: answers that come without a time to live, such as those of `/etc/hosts`, and
/// such as are incomplete.
const SHORT_TTL: Duration = Duration::from_secs(5);

/// Hosts of a service looked up at a time, each by two questions.
const AT_ONCE: usize = 16;

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

/// What each question was answered with when it last was: the addresses, and nothing for SRV.
///
/// A question that fails while others about the same target are answered keeps the addresses it had, for the same
/// reason that a target does whose questions all fail.
type Known = HashMap<(Name, RecordType), Vec<IpAddr>>;

/// One lookup's outcome.
#[derive(Debug, Default)]
struct Found {
    addresses: BTreeSet<SocketAddr>,
    /// How long the shortest-lived part of it holds.
    ttl: Duration,
    known: Known,
}

impl Found {
    /// Adds each of `ips` at each of `ports`, in ascending order: what two answers hold is multiplied by host, and
    /// must not fill the memory meanwhile.
    fn add(&mut self, ips: &BTreeSet<IpAddr>, ports: &BTreeSet<u16>) {
        for address in ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))) {
            if !insert_low(&mut self.addresses, address, GATHERED) {
                return;
            }
        }
    }

    /// Keeps no more than [`MAX_ADDRESSES`], always the same ones; says whether there were more.
    fn cut(&mut self) -> bool {
        let are_more = self.addresses.len() > MAX_ADDRESSES;
        while self.addresses.len() > MAX_ADDRESSES {
            self.addresses.pop_last();
        }
        are_more
    }

    fn replicas(&self) -> Vec<ReplicaAddress> {
        self.addresses.iter().copied().map(ReplicaAddress::of).collect()
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

/// One lookup on its way. Its questions share what was known when it began, and when it ends.
#[derive(Clone)]
struct Lookup {
    view: Arc<View>,
    known: Arc<Known>,
    deadline: Instant,
}

impl Lookup {
    /// Every address of the first name that has one, of those that `host` may stand for.
    async fn host(&self, host: &str, port: u16) -> Result<Found, LookupError> {
        let mut missing = Missing::default();
        if let Some(ips) = self.view.hosts.get(host) {
            let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            return Ok(Found { addresses, ttl: SHORT_TTL, known: Known::new() });
        }
        for name in self.view.names(host)? {
            match self.addresses(&name).await {
                Ok(Addresses { ips, ttl, known }) if !ips.is_empty() => {
                    let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                    return Ok(Found { addresses, ttl, known });
                }
                Ok(Addresses { ttl, .. }) => missing.note_none(ttl),
                Err(error) => missing.note_failure(error, self.has_known(&name))?,
            }
        }
        missing.into_outcome()
    }

    /// The hosts of the service with the lowest priority there is, each at its port. RFC 2782 has the others for when
    /// those cannot be reached, which is not for a lookup to say; and weights are not heeded: the scheduler goes by how
    /// busy a replica is.
    async fn service(&self, service: &str) -> Result<Found, LookupError> {
        let mut missing = Missing::default();
        for name in self.view.names(service)? {
            match self.view.ask(&name, RecordType::SRV, self.deadline).await {
                Ok(answer) if !answer.records.is_empty() => {
                    let mut found = self.service_hosts(answer).await?;
                    found.known.insert((name, RecordType::SRV), Vec::new());
                    return Ok(found);
                }
                Ok(answer) => missing.note_none(answer.ttl.unwrap_or(SHORT_TTL)),
                Err(error) => missing.note_failure(error, self.has_known(&name))?,
            }
        }
        missing.into_outcome()
    }

    async fn service_hosts(&self, answer: Answer) -> Result<Found, LookupError> {
        let mut found = Found { ttl: answer.ttl.unwrap_or(SHORT_TTL), ..Found::default() };
        let ports = ports_by_host(&answer.records);
        let mut given = given_along(&answer.additionals);
        let mut remembered = Remembered::default();
        let mut hosts = ports.keys();
        let mut looking = JoinSet::new();
        let mut failure = None;
        loop {
            for host in hosts.by_ref().take(AT_ONCE - looking.len()) {
                let (lookup, host, given) = (self.clone(), host.clone(), given.remove(host));
                looking.spawn(async move {
                    let outcome = match given {
                        Some(given) => Ok(given),
                        None => lookup.service_host(&host).await,
                    };
                    (host, outcome)
                });
            }
            match looking.join_next().await {
                Some(Ok((host, Ok(Addresses { ips, ttl, known })))) => {
                    if let Some(ports) = ports.get(&host) {
                        found.add(&ips, ports);
                    }
                    found.ttl = found.ttl.min(ttl);
                    remembered.add(known);
                }
                Some(Ok((_, Err(error)))) => failure = Some(error),
                // A bug in one question, which has been reported, is worth no more than its failure.
                Some(Err(_)) => found.ttl = found.ttl.min(SHORT_TTL),
                None => break,
            }
        }
        found.known = remembered.into_known();
        match failure {
            Some(error) if found.addresses.is_empty() => Err(error),
            Some(_) => {
                found.ttl = found.ttl.min(SHORT_TTL);
                Ok(found)
            }
            None => Ok(found),
        }
    }

    /// A host that stands in an SRV record: the name as it is, and what was known of it if nobody can say more.
    async fn service_host(&self, host: &Name) -> Result<Addresses, LookupError> {
        if let Some(ips) = self.view.hosts.get(&host.to_ascii()) {
            return Ok(Addresses { ips: ips.iter().copied().collect(), ttl: SHORT_TTL, known: Known::new() });
        }
        match self.addresses(host).await {
            Err(error) => {
                let mut kept = Addresses { ttl: SHORT_TTL, ..Addresses::default() };
                kept.keep(host, RecordType::A, &self.known);
                kept.keep(host, RecordType::AAAA, &self.known);
                if kept.ips.is_empty() { Err(error) } else { Ok(kept) }
            }
            found => found,
        }
    }

    /// The A and AAAA records of `name`, together. One of the two questions may fail if the other has addresses.
    async fn addresses(&self, name: &Name) -> Result<Addresses, LookupError> {
        let ask = |kind| self.view.ask(name, kind, self.deadline);
        let (a, aaaa) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
        let mut found = Addresses { ttl: Duration::MAX, ..Addresses::default() };
        let mut none_ttl = None;
        let mut failed = Vec::new();
        for (kind, answer) in [(RecordType::A, a), (RecordType::AAAA, aaaa)] {
            match answer {
                Ok(answer) => {
                    let ips: Vec<IpAddr> = answer.records.iter().filter_map(ip_of).collect();
                    let ttl = answer.ttl.unwrap_or(SHORT_TTL);
                    if ips.is_empty() {
                        none_ttl = shorter(none_ttl, Some(ttl));
                    } else {
                        found.add(name, kind, ips, ttl);
                    }
                }
                Err(error) => failed.push((kind, error)),
            }
        }
        if found.ips.is_empty() {
            found.ttl = none_ttl.unwrap_or(SHORT_TTL);
            return failed.into_iter().next().map_or(Ok(found), |(_, error)| Err(error));
        }
        for (kind, _) in failed {
            found.keep(name, kind, &self.known);
            found.ttl = found.ttl.min(SHORT_TTL);
        }
        Ok(found)
    }

    fn has_known(&self, name: &Name) -> bool {
        [RecordType::A, RecordType::AAAA, RecordType::SRV]
            .into_iter()
            .any(|kind| self.known.contains_key(&(name.clone(), kind)))
    }
}

/// What one name has.
#[derive(Debug, Default)]
struct Addresses {
    ips: BTreeSet<IpAddr>,
    ttl: Duration,
    known: Known,
}

impl Addresses {
    /// Adds the lowest of `ips`, so that they are always the same ones.
    fn add(&mut self, name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>, ttl: Duration) {
        let mut lowest = BTreeSet::new();
        for ip in ips {
            insert_low(&mut lowest, ip, GATHERED);
        }
        for ip in &lowest {
            insert_low(&mut self.ips, *ip, GATHERED);
        }
        self.ttl = self.ttl.min(ttl);
        self.known.insert((name.clone(), kind), lowest.into_iter().collect());
    }

    /// Goes on with what a question was answered with before.
    fn keep(&mut self, name: &Name, kind: RecordType, known: &Known) {
        if let Some(ips) = known.get(&(name.clone(), kind)) {
            self.add(name, kind, ips.iter().copied(), SHORT_TTL);
        }
    }
}

/// What the hosts of a service have, for the next lookup: of every question that it had addresses, and the lowest
/// [`MAX_KNOWN`] of all those.
#[derive(Debug, Default)]
struct Remembered {
    questions: Known,
    ips: BTreeSet<(IpAddr, Name, RecordType)>,
}

impl Remembered {
    fn add(&mut self, known: Known) {
        for ((name, kind), ips) in known {
            for ip in ips {
                if !insert_low(&mut self.ips, (ip, name.clone(), kind), MAX_KNOWN) {
                    break;
                }
            }
            self.questions.insert((name, kind), Vec::new());
        }
    }

    fn into_known(self) -> Known {
        let mut known = self.questions;
        for (ip, name, kind) in self.ips {
            known.entry((name, kind)).or_default().push(ip);
        }
        known
    }
}

/// Inserts `item` unless `set` has `most` lower ones; then no higher item has to be tried.
fn insert_low<T: Ord>(set: &mut BTreeSet<T>, item: T, most: usize) -> bool {
    if set.len() >= most && set.last().is_some_and(|last| item > *last) {
        return false;
    }
    set.insert(item);
    if set.len() > most {
        set.pop_last();
    }
    true
}

/// How it stands with the names that were asked for in vain, of those that a short name may stand for.
#[derive(Debug, Default)]
struct Missing {
    ttl: Option<Duration>,
    failure: Option<LookupError>,
}

impl Missing {
    fn note_none(&mut self, ttl: Duration) {
        self.ttl = shorter(self.ttl, Some(ttl));
    }

    /// Goes on with the next name if a server failed on this one, as the C library does; a search domain that nobody
    /// serves must not hide those behind it. Not so if this name has answered before: the next may be other replicas.
    fn note_failure(&mut self, error: LookupError, has_answered: bool) -> Result<(), LookupError> {
        if has_answered || !error.concerns_one_name() {
            return Err(error);
        }
        self.failure.get_or_insert(error);
        Ok(())
    }

    /// Nothing was found; that is an answer if every name had one.
    fn into_outcome(self) -> Result<Found, LookupError> {
        let found = Found { ttl: self.ttl.unwrap_or(SHORT_TTL), ..Found::default() };
        self.failure.map_or(Ok(found), Err)
    }
}

/// The shorter of the times that are there.
fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The ports by host, of the records of the lowest priority. The host `.` says that there is no service (RFC 2782).
fn ports_by_host(records: &[Record]) -> BTreeMap<Name, BTreeSet<u16>> {
    let all = || {
        records.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        })
    };
    let lowest = all().map(|srv| srv.priority).min();
    let mut ports = BTreeMap::<Name, BTreeSet<u16>>::new();
    for srv in all().filter(|srv| Some(srv.priority) == lowest && !srv.target.is_root() && srv.port != 0) {
        if ports.len() < MAX_ADDRESSES || ports.contains_key(&srv.target) {
            ports.entry(srv.target.clone()).or_default().insert(srv.port);
        }
    }
    ports
}

/// The addresses by host that the name server gave along with the SRV records, which RFC 2782 allows in place of asking
/// for them.
fn given_along(additionals: &[Record]) -> HashMap<Name, Addresses> {
    let mut records = HashMap::<(&Name, RecordType), (Vec<IpAddr>, u32)>::new();
    for record in additionals {
        if let Some(ip) = ip_of(record) {
            let (ips, ttl) = records.entry((&record.name, record.record_type())).or_insert((Vec::new(), u32::MAX));
            ips.push(ip);
            *ttl = record.ttl.min(*ttl);
        }
    }
    let mut given = HashMap::<Name, Addresses>::new();
    for ((host, kind), (ips, ttl)) in records {
        let none = || Addresses { ttl: Duration::MAX, ..Addresses::default() };
        given.entry(host.clone()).or_insert_with(none).add(host, kind, ips, Duration::from_secs(ttl.into()));
    }
    given
}

/// The address in an A or AAAA record, if a replica can have it: `0.0.0.0` would lead to this very host.
fn ip_of(record: &Record) -> Option<IpAddr> {
    let ip = match &record.data {
        RData::A(address) => IpAddr::V4(address.0),
        RData::AAAA(address) => IpAddr::V6(address.0),
        _ => return None,
    };
    let ip = ip.to_canonical();
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}
