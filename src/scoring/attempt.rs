//! One request's stay with one replica, and what it shows of the replica once it is over.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{Ending, Exchange, Upload};
use crate::scheduling::{Failure, Replica, ReplicaPermit};
use crate::upstream::Endpoint;

/// A request that is given up sooner than this shows nothing of a replica, however fast its model is as a rule.
const LEAST_SILENCE: Duration = Duration::from_millis(100);

/// Holds a permit. Dropped when the connection to the replica is put back or closed, however that came about.
pub struct Attempt {
    exchange: Rc<Exchange>,
    permit: ReplicaPermit,
    since: Instant,
    /// The end has been told already.
    is_told: bool,
}

impl Attempt {
    /// Begins one with the replica that `permit` is for.
    pub fn begin(exchange: Rc<Exchange>, permit: ReplicaPermit, since: Instant) -> Self {
        exchange.replica.replace(Some(Arc::clone(permit.slot())));
        Self { exchange, permit, since, is_told: false }
    }

    pub fn replica(&self) -> &Arc<Replica> {
        self.permit.slot()
    }

    /// Ends it with a failure that is none of the replica's.
    pub fn end(mut self) {
        self.is_told = true;
    }

    /// Ends it with a failure of the replica's own.
    pub fn fail(mut self, failure: Failure) {
        self.is_told = true;
        self.tell(failure);
    }

    fn tell(&self, failure: Failure) {
        if let Some(deployment) = self.exchange.deployment() {
            deployment.replicas.failed(self.replica(), failure);
        }
    }
}

impl AsRef<Endpoint> for Attempt {
    fn as_ref(&self) -> &Endpoint {
        self.permit.slot().endpoint()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let now = Instant::now();
        let held = now.saturating_duration_since(self.since);
        let replica = self.permit.slot();
        let exchange = &*self.exchange;
        if exchange.times.answered.get().is_some() {
            // One that fails at once is not the fastest, which would bring it the most requests: its errors can only
            // show it to be slower.
            if exchange.times.status.get().is_some_and(|status| status.is_server_error()) {
                replica.note_given_up(held, now);
                if let Some(deployment) = exchange.deployment() {
                    deployment.replicas.erred(replica);
                }
            } else {
                replica.note_answered(held, now);
            }
            if exchange.ending.get() == Ending::ReplicaBroke {
                self.tell(Failure::Closed);
            } else if !replica.is_ready()
                && let Some(deployment) = exchange.deployment()
            {
                deployment.replicas.answered(replica);
            }
            return;
        }
        // Given up, by the caller or because time ran out. As long as more of the request is to come that is no wonder.
        let is_its_turn = exchange.upload.get() == Upload::Complete || !exchange.awaits_body.get();
        if exchange.times.connected.get().is_none() || !is_its_turn {
            return;
        }
        let patience = match replica.pace().bound() {
            Some(usual) => usual.max(LEAST_SILENCE),
            None => exchange.service().map_or(Duration::MAX, |service| service.scoring_timeout),
        };
        replica.note_given_up(held, now);
        if held >= patience {
            self.tell(Failure::Silent(held));
        }
    }
}
