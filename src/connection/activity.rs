//! What a connection is doing, and since when: the facts its one timer decides by.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::http1_framing::Violation;
use crate::config::Limits;
use crate::scoring::caller::Caller;

/// How a caller kept us waiting for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A message's head, or an HTTP/2 frame, was begun and not finished.
    Head,
    /// Nothing was asked.
    Idle,
    /// An answer was ready, and the caller did not take it.
    Stalled,
}

pub(super) struct Activity {
    caller: Rc<Caller>,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    head_since: Cell<Option<Instant>>,
    in_body: Cell<bool>,
    violation: Cell<Option<Violation>>,
    unflushed: Cell<bool>,
    held: Cell<usize>,
}

impl Activity {
    pub(super) fn new(caller: Rc<Caller>, limits: &Limits) -> Self {
        Self {
            caller,
            header_read_timeout: limits.header_read_timeout,
            idle_timeout: limits.idle_timeout,
            head_since: Cell::new(None),
            in_body: Cell::new(false),
            violation: Cell::new(None),
            unflushed: Cell::new(false),
            held: Cell::new(0),
        }
    }

    /// Notes whether a head has been begun and is not yet whole.
    pub(super) fn set_in_head(&self, in_head: bool) {
        // A head nearly always comes in one piece, and then nobody reads the clock.
        match (in_head, self.head_since.get()) {
            (true, None) => self.head_since.set(Some(Instant::now())),
            (false, Some(_)) => self.head_since.set(None),
            _ => {}
        }
    }

    /// Notes whether the body that is read has not come to its end.
    pub(super) fn set_in_body(&self, in_body: bool) {
        self.in_body.set(in_body);
    }

    pub(super) fn set_violation(&self, violation: Violation) {
        self.violation.set(Some(violation));
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    pub(super) fn set_unflushed(&self, unflushed: bool) {
        self.unflushed.set(unflushed);
    }

    /// Whether something may be written that is no answer to a request.
    pub(super) fn may_speak(&self) -> bool {
        self.caller.in_flight.get() == 0 && !self.unflushed.get()
    }

    /// Notes how many bytes of later messages wait for the answer to this one.
    pub(super) fn set_held(&self, bytes: usize) {
        self.held.set(bytes);
    }

    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// Whether a request has come whose answer is not over.
    pub(super) fn is_answering(&self) -> bool {
        self.caller.in_flight.get() > 0
    }

    /// Whether nothing of a request or an answer is anywhere: all that was asked is answered, and written.
    pub(super) fn is_at_rest(&self) -> bool {
        self.may_speak()
            && self.head_since.get().is_none()
            && !self.in_body.get()
            && self.held.get() == 0
            && self.violation.get().is_none()
    }

    /// Lets go of what is kept of requests that are over.
    pub(super) fn forget_requests(&self) {
        self.caller.newest.take();
    }

    pub(super) fn set_left_unread(&self) {
        self.caller.left_unread.set(true);
    }

    /// Whether bytes the caller has sent may still be on their way.
    pub(super) fn left_unread(&self) -> bool {
        self.caller.left_unread.get()
    }

    pub(super) fn caller(&self) -> Rc<Caller> {
        Rc::clone(&self.caller)
    }

    /// Whether no request has come yet.
    pub(super) fn is_unused(&self) -> bool {
        !self.caller.used.get()
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.caller.idle_since.get()
    }

    /// How long a caller may leave an answer untaken.
    pub(super) fn patience(&self) -> Duration {
        self.idle_timeout
    }

    /// Nothing that begins now is overdue before this has passed.
    pub(super) fn longest_pause(&self) -> Duration {
        self.header_read_timeout.min(self.idle_timeout)
    }

    /// When to ask again, or what is overdue.
    pub(super) fn look_again(&self, now: Instant) -> Result<Instant, Overdue> {
        let idle_since = self.caller.idle_since.get();
        let (due, overdue) = if self.caller.in_flight.get() > 0 {
            match self.caller.untaken_since() {
                Some(since) => (since + self.idle_timeout, Overdue::Stalled),
                None => (now + self.longest_pause(), Overdue::Stalled),
            }
        } else {
            match self.head_since.get() {
                // A head that follows a request still being answered has waited for us, not we for it.
                Some(since) => (since.max(idle_since) + self.header_read_timeout, Overdue::Head),
                None => (idle_since + self.idle_timeout, Overdue::Idle),
            }
        };
        if due <= now { Err(overdue) } else { Ok(due.min(now + self.longest_pause())) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn limits() -> Limits {
        Limits {
            max_connections: 1,
            tls_handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_overdue_after_the_idle_timeout_and_a_begun_head_after_its_own() {
        let caller = Rc::new(Caller::plain((Ipv4Addr::LOCALHOST, 1).into()));
        let activity = Activity::new(Rc::clone(&caller), &limits());
        let begin = Instant::now();
        assert_eq!(activity.look_again(begin), Ok(begin + Duration::from_secs(10)));
        assert_eq!(activity.look_again(begin + Duration::from_secs(74)), Ok(begin + Duration::from_secs(75)));
        assert_eq!(activity.look_again(begin + Duration::from_secs(75)), Err(Overdue::Idle));

        tokio::time::advance(Duration::from_secs(1)).await;
        activity.set_in_head(true);
        tokio::time::advance(Duration::from_secs(5)).await;
        activity.set_in_head(true);
        assert_eq!(activity.look_again(begin + Duration::from_secs(11)), Err(Overdue::Head));
        caller.in_flight.set(1);
        assert!(activity.look_again(begin + Duration::from_secs(11)).is_ok(), "a request is being answered");
        activity.set_in_head(false);
        assert!(activity.look_again(begin + Duration::from_secs(500)).is_ok(), "answers may take long");
    }
}
