//! How long this machine kept the callers, or the front end, from running although they had something to do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(5);

/// What is older is forgotten: no request takes longer.
const MEMORY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Lag(RefCell<VecDeque<(Instant, Duration)>>);

impl Lag {
    /// Measures it, for ever.
    pub async fn measure(&self, process: u32) {
        let mut waited = waited(process);
        loop {
            let began = Instant::now();
            sleep(TICK).await;
            let now = Instant::now();
            let before = std::mem::replace(&mut waited, self::waited(process));
            let lag = (now - began).saturating_sub(TICK) + waited.saturating_sub(before);
            let mut lags = self.0.borrow_mut();
            while lags.front().is_some_and(|(at, _)| now - *at > MEMORY) {
                lags.pop_front();
            }
            lags.push_back((now, lag));
        }
    }

    /// The sum of it over the last `time`, and what is not known of yet.
    pub fn within(&self, time: Duration) -> Duration {
        let now = Instant::now();
        let lags = self.0.borrow();
        let unknown = lags.back().map(|(at, _)| (now - *at).saturating_sub(TICK)).unwrap_or_default();
        let known = lags.iter().rev().take_while(|(at, _)| now - *at <= time + TICK).map(|(_, lag)| *lag);
        known.sum::<Duration>() + unknown
    }
}

/// How long the threads of `process` have waited for a CPU, as the kernel counts it; of the one that waited longest.
fn waited(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
    });
    waited.max().unwrap_or_default()
}
