//! What all requests of one connection share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Weak;

use http::HeaderValue;
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::tls::Handshake;

/// The other end of a connection.
pub struct Caller {
    pub peer: SocketAddr,
    /// The peer's address as `x-forwarded-for`.
    pub forwarded_for: HeaderValue,
    /// Absent on the plain HTTP listener.
    pub tls: Option<Handshake>,
    /// Requests that are being answered now.
    pub in_flight: Cell<u32>,
    /// When the last of them ended, or the connection began.
    pub idle_since: Cell<Instant>,
    /// The request that came last.
    pub newest: RefCell<Weak<Exchange>>,
    /// Whether an answer ended before its request was read to the end, so that bytes may still be arriving.
    pub left_unread: Cell<bool>,
}

impl Caller {
    pub fn plain(peer: SocketAddr) -> Self {
        Self::new(peer, None)
    }

    pub fn over_tls(peer: SocketAddr, handshake: Handshake) -> Self {
        Self::new(peer, Some(handshake))
    }

    fn new(peer: SocketAddr, tls: Option<Handshake>) -> Self {
        let address = peer.ip().to_canonical().to_string();
        Self {
            peer,
            forwarded_for: HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            tls,
            in_flight: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            newest: RefCell::default(),
            left_unread: Cell::new(false),
        }
    }

    /// Since when a part of the newest request's answer waits for the caller to take it.
    pub fn untaken_since(&self) -> Option<Instant> {
        self.newest.borrow().upgrade()?.untaken_since.get()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls.is_some() { "https" } else { "http" })
    }
}
