//! Polls a connection to its end, or until the caller has kept it waiting for too long, or the process closes.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Overdue};
use super::{Common, LAST_WORDS};

/// How long, while the process closes, a new connection is left for the request that it was opened for, and any for the
/// rest of a head that has begun.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A connection of either protocol.
pub(super) trait Connection {
    /// Reads, answers and writes what it can; ready at the end, however that came.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Answers what is there and takes nothing more.
    fn drain(&mut self);

    /// Looks after what the connection's own clock does not see.
    fn look_after(&mut self, _now: Instant, _patience: Duration) {}

    /// Whether there is something to do a little later.
    fn wants_tick(&self) -> bool {
        false
    }

    /// It is a little later.
    fn tick(&mut self) {}
}

/// See the module.
pub(super) async fn drive(
    activity: &Activity,
    Common { drain, ticks, .. }: &Common,
    connection: &mut impl Connection,
) -> Option<Overdue> {
    let mut alarm = pin!(sleep_until(Instant::now() + activity.longest_pause()));
    let mut closed = pin!(drain.closed());
    let mut next_tick = None;
    let mut waiting_for_close = false;
    let mut told = false;
    let mut closing_since = None;
    let mut leaving = None;
    poll_fn(|cx| {
        if next_tick.is_some_and(|tick| tick <= ticks.count()) {
            next_tick = None;
            connection.tick();
        }
        if connection.poll(cx).is_ready() {
            return Poll::Ready(leaving);
        }
        // After what has come is read: it may be half a request.
        if !told {
            // A task's waker never changes, so waiting once is enough; after that the flag says it all.
            let waiting = mem::replace(&mut waiting_for_close, true);
            if drain.is_closing() || (!waiting && closed.as_mut().poll(cx).is_ready()) {
                // One that has not been used, or is just being used again, would lose the request that is on its way.
                let now = Instant::now();
                let closing_since = *closing_since.get_or_insert(now);
                let patience = match (activity.has_begun_head(), activity.is_unused()) {
                    (true, _) => closing_since + FIRST_REQUEST,
                    (false, true) => activity.idle_since() + FIRST_REQUEST,
                    (false, false) => now,
                };
                if now < patience {
                    let earlier = alarm.deadline().min(patience);
                    alarm.as_mut().reset(earlier);
                } else if activity.has_begun_head() {
                    return Poll::Ready(Some(Overdue::Head));
                } else {
                    told = true;
                    connection.drain();
                    if connection.poll(cx).is_ready() {
                        return Poll::Ready(leaving);
                    }
                }
            }
        }
        if next_tick.is_none() && connection.wants_tick() {
            next_tick = Some(ticks.count() + 1);
            ticks.wake_at_next(cx);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            connection.look_after(now, activity.patience());
            match activity.look_again(now) {
                Ok(later) => alarm.as_mut().reset(later),
                // Nobody was late with anything: it ends in good order (close_notify, GOAWAY).
                Err(Overdue::Idle) if leaving.is_none() => {
                    leaving = Some(Overdue::Idle);
                    connection.drain();
                    alarm.as_mut().reset(now + LAST_WORDS);
                    if connection.poll(cx).is_ready() {
                        return Poll::Ready(leaving);
                    }
                }
                Err(overdue) => return Poll::Ready(Some(overdue)),
            }
        }
        Poll::Pending
    })
    .await
}
