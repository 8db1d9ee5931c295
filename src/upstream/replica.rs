//! One container that answers scoring calls, and how busy it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::HeaderValue;

use crate::config::ReplicaAddress;

/// A replica, shared by all threads.
#[derive(Debug)]
pub struct Replica {
    /// Different for every replica of the process's life; pools go by it.
    id: usize,
    address: ReplicaAddress,
    /// What the replica is told as `Host`.
    authority: HeaderValue,
    in_flight: AtomicUsize,
}

impl Replica {
    /// A replica at `address`; `None` if the address cannot stand in a `Host` field.
    pub fn new(address: ReplicaAddress) -> Option<Arc<Self>> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(0);
        let authority = HeaderValue::try_from(address.authority()).ok()?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Some(Arc::new(Self { id, address, authority, in_flight: AtomicUsize::new(0) }))
    }

    pub fn id(&self) -> usize {
        self.id
    }

    pub fn address(&self) -> &ReplicaAddress {
        &self.address
    }

    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Requests that are with this replica now, from all threads.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request that is with a replica.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

impl InFlight {
    pub fn replica(&self) -> &Replica {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The replica with the fewest requests in flight, other than `except`; among equals a random one, so that threads
/// and front ends do not all choose the same.
pub fn least_busy<'a>(replicas: &'a [Arc<Replica>], except: Option<&Replica>) -> Option<&'a Arc<Replica>> {
    if let [only] = replicas {
        return Some(only).filter(|replica| except.is_none_or(|except| except.id != replica.id));
    }
    let (before, from) = replicas.split_at(fastrand::usize(..=replicas.len()));
    let candidates = from.iter().chain(before).filter(|replica| except.is_none_or(|except| except.id != replica.id));
    candidates.min_by_key(|replica| replica.in_flight())
}
