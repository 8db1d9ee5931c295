//! What all requests of one connection share.

pub mod certificate;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use self::certificate::CallerCertificate;
use super::incoming::Incoming;
use crate::tls::Handshake;

/// How long what a caller still sends is waited for, read and thrown away after an answer that came before the end of its
/// request, or that is the last. Closed or reset with unread bytes, the answer might not arrive (RFC 9112 section 9.6).
pub const LINGER: Duration = Duration::from_secs(2);

/// A request that is being answered, as far as its connection has to know of it.
pub trait Answering {
    /// Since when a part of the answer waits for the caller to take it.
    fn untaken_since(&self) -> Option<Instant>;
}

/// The other end of a connection.
pub struct Caller {
    /// Address and port.
    pub peer: Box<str>,
    /// The peer's address as `x-forwarded-for`.
    pub forwarded_for: HeaderValue,
    /// Absent on the plain HTTP listener.
    pub tls: Option<Handshake>,
    /// Whether it is another front end of the cluster, or says so: it came to where those hand requests over.
    pub is_member: bool,
    /// What the caller showed of itself, where it was asked to.
    pub certificate: Option<Box<CallerCertificate>>,
    /// Requests that are being answered now.
    pub in_flight: Cell<u32>,
    /// Whether there has been a request.
    pub used: Cell<bool>,
    /// When the last of them ended, or the connection began.
    pub idle_since: Cell<Instant>,
    /// The request that came last.
    pub newest: RefCell<Option<Weak<dyn Answering>>>,
    /// Bytes of its requests' bodies that are gathered before a replica is asked.
    pub gathered: Cell<u64>,
    /// Bodies over HTTP/2 whose answer ended before they did.
    unread: RefCell<Unread>,
}

impl Caller {
    pub fn plain(peer: SocketAddr) -> Self {
        Self::new(peer, None)
    }

    /// One that came to where front ends of the cluster hand requests over.
    pub fn member(peer: SocketAddr) -> Self {
        Self { is_member: true, ..Self::new(peer, None) }
    }

    pub fn over_tls(peer: SocketAddr, handshake: Handshake) -> Self {
        Self::new(peer, Some(handshake))
    }

    fn new(peer: SocketAddr, tls: Option<Handshake>) -> Self {
        let certificate = tls.as_ref().and_then(|handshake| handshake.caller.as_ref());
        let certificate = certificate.map(|certificate| Box::new(CallerCertificate::new(certificate)));
        let address = peer.ip().to_canonical().to_string();
        Self {
            peer: peer.to_string().into(),
            forwarded_for: HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            tls,
            is_member: false,
            certificate,
            in_flight: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            newest: RefCell::default(),
            gathered: Cell::new(0),
            unread: RefCell::default(),
        }
    }

    /// Since when a part of the newest request's answer waits for the caller to take it.
    pub fn untaken_since(&self) -> Option<Instant> {
        self.newest.borrow().as_ref()?.upgrade()?.untaken_since()
    }

    /// Has the rest of a body that nobody wants read and thrown away for a while. HTTP/2 would reset its stream
    /// otherwise, and some callers drop the answer that came with the reset.
    pub fn leave_unread(&self, body: Incoming) {
        self.unread.borrow_mut().bodies.push_back((body, Instant::now() + LINGER));
    }

    /// Reads what has come of such bodies, and lets go of those for which it is time.
    pub fn poll_unread(&self, cx: &mut Context<'_>) {
        let Unread { bodies, alarm } = &mut *self.unread.borrow_mut();
        while !bodies.is_empty() {
            let now = Instant::now();
            bodies.retain_mut(|(body, until)| *until > now && has_more(body, cx));
            // The first was left first.
            let Some((_, until)) = bodies.front() else { break };
            let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(*until)));
            if alarm.deadline() != *until {
                alarm.as_mut().reset(*until);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
        }
        *alarm = None;
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls.is_some() { "https" } else { "http" })
    }
}

/// Bodies, each with when to let go of it.
#[derive(Default)]
struct Unread {
    bodies: VecDeque<(Incoming, Instant)>,
    /// For the first of them.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Throws away what has come of a body; false at its end.
fn has_more(body: &mut Incoming, cx: &mut Context<'_>) -> bool {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return false,
            Poll::Pending => return true,
        }
    }
}
