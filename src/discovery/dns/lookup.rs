//! One lookup of a target: which questions are asked, one after the other or at once, and what their answers amount to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::MAX_ADDRESSES;
use super::found::{Addresses, Found, Known, Remembered, SHORT_TTL, ip_of, shorter};
use super::resolver::{Answer, LookupError, View};

/// Hosts of a service looked up at a time, each by two questions.
const AT_ONCE: usize = 16;

/// One lookup on its way. Its questions share what was known when it began, and when it ends.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) view: Arc<View>,
    pub(super) known: Arc<Known>,
    pub(super) deadline: Instant,
}

impl Lookup {
    /// Every address of the first name that has one, of those that `host` may stand for.
    pub(super) async fn host(&self, host: &str, port: u16) -> Result<Found, LookupError> {
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
    pub(super) async fn service(&self, service: &str) -> Result<Found, LookupError> {
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
