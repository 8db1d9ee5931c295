//! Samples how long a worker thread takes to come round to a task that is ready. It changes nothing that the thread does.

use std::rc::Rc;

use tokio::task::yield_now;
use tokio::time::{Instant, interval};

use crate::scoring::worker::Worker;
use crate::telemetry::access::FLUSH_INTERVAL;
use crate::telemetry::busy::Busy;

/// Takes samples as often as the access log is handed on: a thread at rest wakes once for both.
pub(super) async fn sample(worker: Rc<Worker>) {
    let metrics = worker.thread_metrics();
    // Nobody else sets it.
    let _ = metrics.busy.set(Busy::of_this_thread());
    let mut ticks = interval(FLUSH_INTERVAL);
    loop {
        ticks.tick().await;
        let ready = Instant::now();
        // Everybody who is ready has a turn first, and those whom the sockets make ready meanwhile.
        yield_now().await;
        metrics.ready_wait.observe(ready.elapsed());
    }
}
