//! Where requests are sent.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::HeaderValue;

use crate::config::ReplicaAddress;

/// One address that takes requests over HTTP/1.1.
#[derive(Debug)]
pub struct Endpoint {
    /// Different for every endpoint of the process's life; pools go by it.
    id: usize,
    address: ReplicaAddress,
    /// What is sent as `Host`.
    authority: HeaderValue,
}

impl Endpoint {
    /// `None` if the address cannot stand in a `Host` field.
    pub fn new(address: ReplicaAddress) -> Option<Self> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(0);
        let authority = HeaderValue::try_from(address.authority()).ok()?;
        Some(Self { id: NEXT_ID.fetch_add(1, Relaxed), address, authority })
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
}
