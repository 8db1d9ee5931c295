//! What requests have to tell of a replica: that it failed them, that it answered, or that its answer is doubtful.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{Member, Replicas};
use crate::scheduling::clock;
use crate::scheduling::condition::Failure;
use crate::scheduling::queue::Slot;
use crate::scheduling::replica::Replica;

/// A failure that comes no sooner than this after the last one is logged, also if it changes nothing.
const LOG_AGAIN: Duration = Duration::from_secs(10);

impl Replicas {
    /// Notes that `replica` failed a request, which takes it out unless it is among the last.
    pub fn failed(&self, replica: &Replica, failure: Failure) {
        let now = Instant::now();
        let mut members = self.members();
        let may_leave = members.may_leave(&failure);
        let (name, interval) = (Arc::clone(&members.name), members.settings.look_interval);
        let deployment = &*name;
        let Some(member) = members.find(replica) else { return };
        replica.put_on_trial(clock::millis(now));
        let failed = member.condition.failed.replace(now);
        if member.condition.is_out() {
            return;
        }
        let address = replica.endpoint().address();
        let service = &*self.service;
        if may_leave {
            tracing::warn!(service, deployment, replica = %address, reason = %failure, "replica taken out");
            if let Some(count) = self.taken_out.get(failure.index()) {
                count.fetch_add(1, Relaxed);
            }
            replica.permits().set_open(false);
            member.condition.take_out(failure, now);
            self.publish(members);
            self.looks_changed.notify_one();
            return;
        }
        if failed.is_none_or(|failed| now.duration_since(failed) > LOG_AGAIN) {
            tracing::warn!(
                service, deployment, replica = %address, reason = %failure,
                "replica failed, and stays in use because too few others are left"
            );
        }
        member.condition.note_trouble(failure, now, interval);
        self.looks_changed.notify_one();
    }

    /// Notes that `replica` answered a request, which is proof enough that it is back, unless it is its health resource that
    /// says otherwise.
    pub fn answered(&self, replica: &Replica) {
        if replica.is_ready() {
            return;
        }
        let now = Instant::now();
        let mut members = self.members();
        let (name, interval) = (Arc::clone(&members.name), members.settings.look_interval);
        if let Some(member) = members.find(replica).filter(|member| member.condition.may_answer_back()) {
            self.say_back(&name, member, now);
            member.bring_back(now, interval);
            self.publish(members);
        }
    }

    /// Notes that `replica` answered a request with an error of its own, or opened no connection in what little time there
    /// was. That may be the request's fault, so it takes out nothing; but one that fails everything is fast and free, and would
    /// draw most requests until its next health check.
    pub fn doubt(&self, replica: &Replica) {
        let now = Instant::now();
        if !replica.is_ready() || !replica.doubt(clock::millis(now)) {
            return;
        }
        let mut members = self.members();
        let interval = members.settings.look_interval;
        if let Some(member) = members.find(replica) {
            member.condition.doubt(now, interval);
            self.looks_changed.notify_one();
        }
    }

    pub(super) fn say_back(&self, deployment: &str, member: &Member, now: Instant) {
        let out = member.condition.out.as_ref().map(|out| now.duration_since(out.since)).unwrap_or_default();
        tracing::info!(
            service = &*self.service, deployment, replica = %member.replica.endpoint().address(),
            out_ms = out.as_millis(), "replica back"
        );
    }
}
