//! Runs an HTTP/2 connection's streams as tasks of their own, on its own thread, and ends those whose caller opened
//! no window for the answer for too long: such a stream would hold a replica for as long as the caller likes.

use std::cell::RefCell;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use crate::scoring::caller::{Answering, Caller};

/// Tasks noted before those that have ended are forgotten.
const PRUNE_AT: usize = 2 * super::super::MAX_STREAMS as usize;

/// hyper's way to start a stream. Clones start streams of the same connection.
#[derive(Clone)]
pub(super) struct LocalExecutor {
    streams: Rc<Streams>,
}

/// The streams of one connection.
pub(super) struct Streams {
    caller: Rc<Caller>,
    running: RefCell<Vec<(Weak<dyn Answering>, AbortHandle)>>,
}

impl LocalExecutor {
    pub(super) fn new(caller: Rc<Caller>) -> Self {
        Self { streams: Rc::new(Streams { caller, running: RefCell::default() }) }
    }

    pub(super) fn streams(&self) -> Rc<Streams> {
        Rc::clone(&self.streams)
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        let task = spawn_local(stream).abort_handle();
        // hyper starts a stream's task right after it has called the service.
        let Some(exchange) = self.streams.caller.newest.take() else { return };
        let mut running = self.streams.running.borrow_mut();
        if running.len() >= PRUNE_AT {
            running.retain(|(exchange, _)| exchange.strong_count() > 0);
        }
        running.push((exchange, task));
    }
}

impl Streams {
    /// Ends the streams whose answer the caller has not taken for `patience`, and says how many.
    pub(super) fn end_stalled(&self, now: Instant, patience: Duration) -> u64 {
        let mut ended = 0;
        self.running.borrow_mut().retain(|(exchange, task)| {
            let Some(exchange) = exchange.upgrade() else { return false };
            let stalled = exchange.untaken_since().is_some_and(|since| since + patience <= now);
            if stalled {
                task.abort();
                ended += 1;
            }
            !stalled
        });
        ended
    }
}
