//! How many requests may be with something at once, counted exactly across threads, without a lock.
//!
//! Nothing here waits: who finds no permit goes to the [`super::queue`].

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use super::sync::{AtomicBool, AtomicUsize, fence};

/// A number of permits, and whether new requests may take one.
#[derive(Debug)]
pub struct Permits {
    used: AtomicUsize,
    /// 0: as many as are asked for.
    limit: AtomicUsize,
    open: AtomicBool,
}

impl Permits {
    /// `limit` permits, or any number of them if it is 0.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(limit), open: AtomicBool::new(true) }
    }

    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// 0 means that there is none.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Fewer than are taken now take effect as they are given back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Whether requests that wait may be given one. Those who have one keep it.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// Whether one could be taken now.
    pub fn is_free(&self) -> bool {
        has_room(self.used(), self.limit())
    }

    /// Takes one if there is one, open or not.
    pub(super) fn try_take(&self) -> bool {
        let limit = self.limit();
        let mut used = self.used();
        while has_room(used, limit) {
            match self.used.compare_exchange_weak(used, used + 1, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
        false
    }

    /// What is read after this is no older than the giving back. Who waits makes itself seen first and looks for a
    /// permit afterwards, with the same fence between: so one of the two sees the other.
    pub(super) fn give_back(&self) {
        self.used.fetch_sub(1, AcqRel);
        fence(SeqCst);
    }
}

fn has_room(used: usize, limit: usize) -> bool {
    limit == 0 || used < limit
}
