//! A thread's coarse clock, for what connections do a little after they came to rest: one timer for all of them, and
//! none while nobody waits.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// How often it ticks.
pub(super) const PERIOD: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct Ticks {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    asked: Notify,
}

impl Ticks {
    /// Ticks for those who wait, for ever.
    pub async fn run(&self) {
        loop {
            self.asked.notified().await;
            sleep(PERIOD).await;
            self.count.set(self.count.get() + 1);
            for waker in self.waiting.take() {
                waker.wake();
            }
        }
    }

    /// How often it has ticked.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Has this task woken at the next tick.
    pub(super) fn wake_at_next(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            self.asked.notify_one();
        }
        waiting.push(cx.waker().clone());
    }
}
