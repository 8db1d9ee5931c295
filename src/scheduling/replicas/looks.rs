//! What looks at replicas from time to time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::Replicas;
use crate::scheduling::condition::{Failure, Health, UNHEALTHY_CHECKS};
use crate::scheduling::permits::ANY;
use crate::scheduling::replica::{Replica, ReplicaPermit};

impl Replicas {
    /// Another health resource is looked at from now on: what was found so far says nothing of it.
    pub fn forget_health(&self) {
        let now = Instant::now();
        let mut members = self.members();
        members.path_works = false;
        let interval = members.settings.look_interval;
        for member in &mut members.present {
            let condition = &mut member.condition;
            (condition.proven, condition.unhealthy) = (false, 0);
            if condition.is_out() || interval.is_some() {
                condition.look_at = Some(now);
            }
        }
    }

    /// When the next look is due.
    pub fn next_look(&self) -> Option<Instant> {
        self.members().present.iter().filter_map(|member| member.condition.look_at).min()
    }

    /// Done when [`Replicas::next_look`] may have become earlier.
    pub async fn looks_changed(&self) {
        self.looks_changed.notified().await;
    }

    /// Up to `room` replicas to be looked at now, each of which is to be told of by [`Replicas::looked`].
    pub fn due(&self, now: Instant, room: usize) -> Vec<Arc<Replica>> {
        let mut members = self.members();
        let due = members.present.iter_mut().filter(|member| member.condition.look_at.is_some_and(|at| at <= now));
        let due = due.take(room).map(|member| {
            member.condition.look_at = None;
            Arc::clone(&member.replica)
        });
        due.collect()
    }

    /// Looks at a replica by `look` without ever standing in the way of a request: `None` if it is busy, which proves
    /// that it is alive, or if a request needs the permit that the look has. That is given back when the look is over and
    /// its connection closed.
    pub async fn unless_wanted<T>(&self, replica: &Arc<Replica>, look: impl Future<Output = T>) -> Option<T> {
        match replica.limit() {
            ANY => return Some(look.await),
            // It may be busy with requests of others, who look at it themselves.
            0 => return None,
            _ => {}
        }
        let is_idle = replica.in_flight() == 0;
        let permit = is_idle.then(|| ReplicaPermit::take(replica)).flatten()?;
        let mut loan = pin!(self.loans.lend(permit));
        // In here, so that it is dropped before the loan.
        let mut look = pin!(look);
        tokio::select! {
            biased;
            () = loan.as_mut() => None,
            found = look.as_mut() => Some(found),
        }
    }

    /// Notes what a look at `replica` found; `None`: that it was not the time for one.
    pub fn looked(&self, replica: &Replica, found: Option<Health>) {
        let now = Instant::now();
        let mut members = self.members();
        let (name, interval) = (Arc::clone(&members.name), members.settings.look_interval);
        let is_success = matches!(&found, Some(Health::Answered(status)) if status.is_success());
        members.path_works |= is_success;
        let path_works = members.path_works;
        let Some(member) = members.find(replica) else { return };
        if !matches!(&found, Some(Health::Silent) | None) {
            member.condition.proven = is_success;
            member.condition.trouble = member.condition.trouble.take().filter(|_| !is_success);
        }
        member.condition.look_later(now, interval);
        match found {
            Some(Health::Answered(status)) => {
                if member.condition.is_out() && (is_success || !path_works) {
                    self.say_back(&name, member, now);
                    member.bring_back(now, interval);
                    self.publish(members);
                } else if !member.condition.is_out() && member.condition.found(is_success, now) >= UNHEALTHY_CHECKS {
                    drop(members);
                    self.failed(replica, Failure::Unhealthy(status));
                } else if member.condition.doubted {
                    self.looks_changed.notify_one();
                }
            }
            Some(Health::Unreachable(why)) => {
                drop(members);
                self.failed(replica, Failure::Unreachable(why));
            }
            // It was not the time for a look: what is doubted is looked at again soon, until that tells.
            None => {
                if member.condition.look_again(now) {
                    self.looks_changed.notify_one();
                }
            }
            Some(Health::Silent | Health::Closed) => member.condition.doubted = false,
        }
    }
}
