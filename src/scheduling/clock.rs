//! The time as what several threads share keeps it: a number.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since the first time that was asked about, at least 1.
pub fn millis(now: Instant) -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*BEGAN.get_or_init(|| now));
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// A whole number of microseconds, at least 1.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}
