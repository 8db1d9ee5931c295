//! One thread's idle connections, by endpoint.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Endpoint;
use super::link::Link;

/// How long a connection may stay idle. It has to end before the replica ends it, else a request meets the close on
/// its way: gunicorn closes after 2 s unless told otherwise, Node and uvicorn after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How often connections past [`IDLE_TIMEOUT`], or closed by the replica, are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Idle connections kept a replica. A thread that had more at once rarely needs them again.
const MAX_IDLE: usize = 256;

/// Connections waiting for their next request. The one used last goes first, so that a lull empties the pool.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<usize, Vec<Idle>>>,
}

struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    /// A connection to `endpoint` that can be used at once.
    pub(super) fn take(&self, endpoint: &Endpoint, now: Instant) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&endpoint.id())?;
        while let Some(candidate) = stack.pop() {
            if now.saturating_duration_since(candidate.since) < IDLE_TIMEOUT && candidate.link.is_quiet() {
                return Some(candidate.link);
            }
        }
        None
    }

    /// Keeps a connection to the endpoint with this id for the next request, if it can take one. A replica that closes
    /// its connections never gets here with an open one, so none is ever parked on it.
    pub(super) fn put(&self, endpoint: usize, mut link: Link, since: Instant) {
        if !link.seems_quiet() {
            return;
        }
        // Nor has it space that it does not need as long as it is here.
        link.read = BytesMut::new();
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(endpoint).or_default();
        if stack.len() < MAX_IDLE {
            stack.push(Idle { link, since });
        }
    }

    /// Closes what has been idle too long, for ever.
    pub async fn sweep(&self) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            self.idle.borrow_mut().retain(|_, stack| {
                stack.retain(|idle| now.duration_since(idle.since) < IDLE_TIMEOUT && idle.link.seems_quiet());
                !stack.is_empty()
            });
        }
    }
}
