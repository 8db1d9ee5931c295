//! How a running front end stops: signals on one side, each worker thread's connections on the other.

use std::cell::Cell;

use tokio::sync::Notify;

/// How far the process is on its way out. Only ever goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Running,
    /// No longer ready; connections are still taken, and callers are asked to open their next one elsewhere.
    Draining,
    /// No connection is taken; what is in flight is finished.
    Closing,
    /// What is still in flight is cut.
    Stopped,
}

/// One thread's word to its connections that they shall end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: Cell<bool>,
    told: Notify,
}

impl Drain {
    /// Asks every connection to answer what it has and to take nothing more.
    pub fn close(&self) {
        self.closing.set(true);
        self.told.notify_waiters();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Returns when [`Drain::close`] has been called.
    pub async fn closed(&self) {
        let told = self.told.notified();
        if !self.closing.get() {
            told.await;
        }
    }
}
