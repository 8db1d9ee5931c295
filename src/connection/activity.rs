//! What a connection is doing, and since when: the facts its one timer decides by.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

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
}

impl Activity {
    pub(super) fn new(caller: Rc<Caller>, limits: &Limits) -> Self {
        Self {
            caller,
            header_read_timeout: limits.header_read_timeout,
            idle_timeout: limits.idle_timeout,
            head_since: Cell::new(None),
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

    /// Notes that what was begun will never be whole, and says for how long it came.
    pub(super) fn end_head(&self) -> Duration {
        self.head_since.take().map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Whether a request has come whose answer is not over.
    fn is_answering(&self) -> bool {
        self.caller.in_flight.get() > 0
    }

    /// Lets go of what is kept of requests that are over.
    pub(super) fn forget_requests(&self) {
        self.caller.newest.take();
    }

    pub(super) fn caller(&self) -> Rc<Caller> {
        Rc::clone(&self.caller)
    }

    /// Whether no request has come yet.
    pub(super) fn is_unused(&self) -> bool {
        !self.caller.used.get()
    }

    /// Whether a head has begun to come that is not whole, and nothing is being answered.
    pub(super) fn has_begun_head(&self) -> bool {
        !self.is_answering() && self.head_since.get().is_some()
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.caller.idle_since.get()
    }

    /// How long a caller may leave an answer untaken. Another front end has callers of its own, and is to judge them first.
    pub(super) fn patience(&self) -> Duration {
        if self.caller.is_member { self.idle_timeout * 2 } else { self.idle_timeout }
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
                Some(since) => (since + self.patience(), Overdue::Stalled),
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
    async fn another_front_end_has_the_time_to_judge_its_own_caller() {
        let address = (Ipv4Addr::LOCALHOST, 1).into();
        for (caller, patience) in [(Caller::plain(address), 75), (Caller::member(address), 150)] {
            assert_eq!(Activity::new(Rc::new(caller), &limits()).patience(), Duration::from_secs(patience));
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
