//! One request's stay with one replica, and what it shows of the replica once it is over.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::catalog::{Deployment, ServiceRef};
use crate::scheduling::{Failure, Replica, ReplicaPermit};
use crate::upstream::{AnswerError, ConnectError, Endpoint, Times};

/// A replica that opens no connection in less time than this may be well. One that lost a packet, which is repeated after a
/// second, is out for the fraction of a second until it is looked at.
const LEAST_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A request that is given up sooner than this shows nothing of a replica, however fast its model is as a rule.
const LEAST_SILENCE: Duration = Duration::from_millis(100);

/// On whose behalf a replica is asked: a caller's request, or a copy of one.
pub trait Errand {
    fn service(&self) -> Option<&ServiceRef>;
    fn deployment(&self) -> Option<&Deployment>;
    fn times(&self) -> &Times;

    /// Whether it is the replica that has to do something: all of the request is there, or more than it has taken.
    fn is_replicas_turn(&self) -> bool;

    /// Whether the replica broke off in the middle of its answer.
    fn is_answer_broken(&self) -> bool;

    /// Notes which replica it is with.
    fn note_replica(&self, _replica: &Arc<Replica>) {}
}

/// Holds a permit. Dropped when the connection to the replica is put back or closed, however that came about.
pub struct Attempt<E: Errand> {
    errand: Rc<E>,
    permit: ReplicaPermit,
    since: Instant,
    /// The end has been told already.
    is_told: bool,
}

impl<E: Errand> Attempt<E> {
    /// Begins one with the replica that `permit` is for.
    pub fn begin(errand: Rc<E>, permit: ReplicaPermit, since: Instant) -> Self {
        errand.note_replica(permit.slot());
        Self { errand, permit, since, is_told: false }
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

    /// Ends it without a connection to send the request over.
    pub fn fail_to_connect(self, cause: &ConnectError) {
        if cause.is_our_own() {
            return self.end();
        }
        match cause {
            // So little time says nothing of a replica; a caller can give any of them as little.
            ConnectError::Timeout(limit) if *limit < LEAST_CONNECT_TIMEOUT => self.doubt(),
            ConnectError::Closed(_) => self.fail(Failure::Closed),
            ConnectError::Io(_) | ConnectError::Timeout(_) => self.fail(Failure::Unreachable(cause.to_string())),
        }
    }

    /// Ends it because no answer could be had once it was sent.
    pub fn fail_to_answer(self, cause: &AnswerError) {
        // What is no HTTP, or more of it than is taken, is an answer too, and its model's affair.
        if cause.is_of_the_answer() { self.end() } else { self.fail(Failure::Closed) }
    }

    /// Ends it with something that is a reason to look at the replica's health.
    fn doubt(mut self) {
        self.is_told = true;
        if let Some(deployment) = self.errand.deployment() {
            deployment.replicas.doubt(self.replica());
        }
    }

    fn tell(&self, failure: Failure) {
        if let Some(deployment) = self.errand.deployment() {
            deployment.replicas.failed(self.replica(), failure);
        }
    }
}

impl<E: Errand> AsRef<Endpoint> for Attempt<E> {
    fn as_ref(&self) -> &Endpoint {
        self.permit.slot().endpoint()
    }
}

impl<E: Errand> Drop for Attempt<E> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let now = Instant::now();
        let held = now.saturating_duration_since(self.since);
        let replica = self.permit.slot();
        let errand = &*self.errand;
        if errand.times().answered.get().is_some() {
            // One that fails at once is not the fastest, which would bring it the most requests: its errors can only
            // show it to be slower.
            if errand.times().status.get().is_some_and(|status| status.is_server_error()) {
                replica.note_given_up(held, now);
                if let Some(deployment) = errand.deployment() {
                    deployment.replicas.doubt(replica);
                }
            } else {
                replica.note_answered(held, now);
            }
            if errand.is_answer_broken() {
                self.tell(Failure::Closed);
            } else if !replica.is_ready()
                && let Some(deployment) = errand.deployment()
            {
                deployment.replicas.answered(replica);
            }
            return;
        }
        // Given up, by the caller or because time ran out. As long as more of the request is to come that is no wonder.
        if errand.times().connected.get().is_none() || !errand.is_replicas_turn() {
            return;
        }
        let patience = match replica.pace().bound() {
            Some(usual) => usual.max(LEAST_SILENCE),
            None => errand.service().map_or(Duration::MAX, |service| service.scoring_timeout),
        };
        replica.note_given_up(held, now);
        if held >= patience {
            self.tell(Failure::Silent(held));
        }
    }
}
