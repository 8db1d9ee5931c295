//! What lookups find, and how much of it is kept: names are written by others and must not fill the memory.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::MAX_ADDRESSES;
use crate::config::ReplicaAddress;

/// Addresses of a target, or of a name, while they are gathered: one more than may be, which shows that there are more.
pub(super) const GATHERED: usize = MAX_ADDRESSES + 1;

/// Addresses remembered for the hosts of a service, of all together. Hosts may share addresses, so they are more than
/// the target has.
pub(super) const MAX_KNOWN: usize = 4 * MAX_ADDRESSES;

/// What is believed for as long as this: answers that come without a time to live, such as those of `/etc/hosts`, and
/// such as are incomplete.
pub(super) const SHORT_TTL: Duration = Duration::from_secs(5);

/// What each question was answered with when it last was: the addresses, and nothing for SRV.
///
/// A question that fails while others about the same target are answered keeps the addresses it had, for the same
/// reason that a target does whose questions all fail.
pub(super) type Known = HashMap<(Name, RecordType), Vec<IpAddr>>;

/// One lookup's outcome.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) addresses: BTreeSet<SocketAddr>,
    /// How long the shortest-lived part of it holds.
    pub(super) ttl: Duration,
    pub(super) known: Known,
}

impl Found {
    /// Adds each of `ips` at each of `ports`, in ascending order: what two answers hold is multiplied by host, and
    /// must not fill the memory meanwhile.
    pub(super) fn add(&mut self, ips: &BTreeSet<IpAddr>, ports: &BTreeSet<u16>) {
        for address in ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))) {
            if !insert_low(&mut self.addresses, address, GATHERED) {
                return;
            }
        }
    }

    /// Keeps no more than [`MAX_ADDRESSES`], always the same ones; says whether there were more.
    pub(super) fn cut(&mut self) -> bool {
        let are_more = self.addresses.len() > MAX_ADDRESSES;
        while self.addresses.len() > MAX_ADDRESSES {
            self.addresses.pop_last();
        }
        are_more
    }

    pub(super) fn replicas(&self) -> Vec<ReplicaAddress> {
        self.addresses.iter().copied().map(ReplicaAddress::of).collect()
    }
}

/// What one name has.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) ips: BTreeSet<IpAddr>,
    pub(super) ttl: Duration,
    pub(super) known: Known,
}

impl Addresses {
    /// Adds the lowest of `ips`, so that they are always the same ones.
    pub(super) fn add(&mut self, name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>, ttl: Duration) {
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
    pub(super) fn keep(&mut self, name: &Name, kind: RecordType, known: &Known) {
        if let Some(ips) = known.get(&(name.clone(), kind)) {
            self.add(name, kind, ips.iter().copied(), SHORT_TTL);
        }
    }
}

/// What the hosts of a service have, for the next lookup: of every question that it had addresses, and the lowest
/// [`MAX_KNOWN`] of all those.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    questions: Known,
    ips: BTreeSet<(IpAddr, Name, RecordType)>,
}

impl Remembered {
    pub(super) fn add(&mut self, known: Known) {
        for ((name, kind), ips) in known {
            for ip in ips {
                if !insert_low(&mut self.ips, (ip, name.clone(), kind), MAX_KNOWN) {
                    break;
                }
            }
            self.questions.insert((name, kind), Vec::new());
        }
    }

    pub(super) fn into_known(self) -> Known {
        let mut known = self.questions;
        for (ip, name, kind) in self.ips {
            known.entry((name, kind)).or_default().push(ip);
        }
        known
    }
}

/// Inserts `item` unless `set` has `most` lower ones; then no higher item has to be tried.
pub(super) fn insert_low<T: Ord>(set: &mut BTreeSet<T>, item: T, most: usize) -> bool {
    if set.len() >= most && set.last().is_some_and(|last| item > *last) {
        return false;
    }
    set.insert(item);
    if set.len() > most {
        set.pop_last();
    }
    true
}

/// The shorter of the times that are there.
pub(super) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The address in an A or AAAA record, if a replica can have it: `0.0.0.0` would lead to this very host.
pub(super) fn ip_of(record: &Record) -> Option<IpAddr> {
    let ip = match &record.data {
        RData::A(address) => IpAddr::V4(address.0),
        RData::AAAA(address) => IpAddr::V6(address.0),
        _ => return None,
    };
    let ip = ip.to_canonical();
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}
