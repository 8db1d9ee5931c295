//! How many requests may be with something at once, counted exactly across threads, without a lock.
//!
//! Nothing here waits: who finds no permit goes to the [`super::queue`].

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use super::sync::{AtomicBool, AtomicU64, fence};

/// The limit that is none: as many as are asked for.
pub const ANY: usize = u32::MAX as usize;

/// A number of permits, and whether new requests may take one.
#[derive(Debug)]
pub struct Permits {
    /// The limit in the upper half and what is taken in the lower one, so that nobody takes a permit by a limit that has
    /// been lowered meanwhile: whoever lowers it knows from then on how many are out at most.
    state: AtomicU64,
    open: AtomicBool,
}

impl Permits {
    /// `limit` permits; [`ANY`] for any number of them, 0 for none.
    pub fn new(limit: usize) -> Self {
        Self { state: AtomicU64::new(packed(0, limit)), open: AtomicBool::new(true) }
    }

    pub fn used(&self) -> usize {
        used(self.state.load(Relaxed))
    }

    /// [`ANY`] means that there is none.
    pub fn limit(&self) -> usize {
        limit(self.state.load(Relaxed))
    }

    /// Fewer than are taken now take effect as they are given back.
    pub fn set_limit(&self, limit: usize) {
        let mut state = self.state.load(Relaxed);
        while let Err(now) = self.state.compare_exchange_weak(state, packed(used(state), limit), AcqRel, Relaxed) {
            state = now;
        }
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
        has_room(self.state.load(Relaxed))
    }

    /// Takes one if there is one, open or not.
    pub(super) fn try_take(&self) -> bool {
        let mut state = self.state.load(Relaxed);
        while has_room(state) {
            match self.state.compare_exchange_weak(state, state + 1, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// What is read after this is no older than the giving back. Who waits makes itself seen first and looks for a
    /// permit afterwards, with the same fence between: so one of the two sees the other.
    pub(super) fn give_back(&self) {
        self.state.fetch_sub(1, AcqRel);
        fence(SeqCst);
    }
}

fn packed(used: usize, limit: usize) -> u64 {
    ((limit.min(ANY) as u64) << 32) | used as u64
}

fn used(state: u64) -> usize {
    (state & 0xffff_ffff) as usize
}

fn limit(state: u64) -> usize {
    (state >> 32) as usize
}

fn has_room(state: u64) -> bool {
    used(state) < limit(state)
}
