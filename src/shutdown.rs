//! How a running front end stops: signals and the admin API on one side, each worker thread's connections on the other.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::Config;

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
    /// Nobody is served any more, and how it went can be asked for a moment longer.
    Ended,
}

/// How long a stop may take: what was configured when it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// Connections are still taken.
    pub grace: Duration,
    /// Calls are finished after that.
    pub timeout: Duration,
}

/// Those of the stop that was asked for; empty as long as none was.
pub type SharedDrainTimes = Arc<OnceLock<DrainTimes>>;

impl DrainTimes {
    pub fn of(config: &Config) -> Self {
        Self { grace: config.frontend.drain_grace, timeout: config.frontend.drain_timeout }
    }
}

impl Phase {
    /// Goes on to this phase, unless it was reached before.
    pub fn reach(self, phase: &watch::Sender<Self>) {
        phase.send_if_modified(|now| {
            let is_new = *now < self;
            *now = self.max(*now);
            is_new
        });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_never_left_for_one_before() {
        let (phase, mut seen) = watch::channel(Phase::Running);
        for (next, now, is_told) in [
            (Phase::Draining, Phase::Draining, true),
            (Phase::Draining, Phase::Draining, false),
            (Phase::Closing, Phase::Closing, true),
            (Phase::Draining, Phase::Closing, false),
            (Phase::Stopped, Phase::Stopped, true),
            (Phase::Ended, Phase::Ended, true),
        ] {
            next.reach(&phase);
            assert_eq!(seen.has_changed().ok(), Some(is_told), "{next:?}");
            assert_eq!(*seen.borrow_and_update(), now);
        }
    }
}
