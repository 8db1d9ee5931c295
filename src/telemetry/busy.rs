//! How busy a worker thread is, as its runtime and the kernel count it anyway: read by whoever asks, at no cost to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

/// One thread's figures.
#[derive(Debug)]
pub struct Busy {
    runtime: RuntimeMetrics,
    /// What the kernel's scheduler says of the thread; absent where it says nothing.
    schedstat: Option<PathBuf>,
}

impl Busy {
    /// Those of this thread and the runtime that it drives, within which this is called.
    pub fn of_this_thread() -> Self {
        // It points to `<pid>/task/<tid>`, which other threads can read too.
        let thread = fs::read_link("/proc/thread-self").ok();
        let schedstat = thread.map(|thread| Path::new("/proc").join(thread).join("schedstat"));
        Self { runtime: Handle::current().metrics(), schedstat }
    }

    /// How long it had something to do, whether or not it had a CPU; the rest of the time it waited for events. Brought up
    /// to date whenever it comes to wait, or has run some sixty tasks.
    pub fn time(&self) -> Duration {
        self.runtime.worker_total_busy_duration(0)
    }

    /// How long it was ready to run and had no CPU, because others had it or the container's share was used up. Absent once
    /// the thread has ended, and where the kernel does not say.
    pub fn waited_for_cpu(&self) -> Option<Duration> {
        // Nanoseconds on a CPU, nanoseconds waiting for one, and how often it got one.
        let figures = fs::read_to_string(self.schedstat.as_ref()?).ok()?;
        figures.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::*;

    const WHILE: Duration = Duration::from_millis(200);

    #[test]
    fn a_thread_is_busy_while_a_task_holds_it_and_not_while_all_wait() {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let busy = runtime.block_on(async { Busy::of_this_thread() });
        let time_of = async |held: bool| {
            let before = busy.time();
            if held {
                thread::sleep(WHILE);
            } else {
                sleep(WHILE).await;
            }
            // The figure follows when the thread next looks for events.
            yield_now().await;
            yield_now().await;
            busy.time().saturating_sub(before)
        };
        let held = runtime.block_on(time_of(true));
        let waited = runtime.block_on(time_of(false));
        assert!(held >= WHILE && waited < WHILE / 2, "held: {held:?}, waited: {waited:?}");
        assert!(busy.waited_for_cpu().is_some());
    }
}
