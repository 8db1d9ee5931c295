//! How many changes may be asked for: enough for any script, and no more than the disk and the log can follow.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Changes a second, in the long run: each is some writes that wait for the disk.
const PER_SECOND: f64 = 100.0;

/// Changes that may come at once.
const BURST: f64 = 200.0;

/// A bucket of tokens, one of which a change takes.
#[derive(Debug)]
pub struct Pace(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Bucket { tokens: BURST, filled: Instant::now() }))
    }
}

impl Pace {
    /// # Errors
    ///
    /// How long it takes until there is a token again.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Result<(), Duration> {
        let mut bucket = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * PER_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / PER_SECOND));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_bounded_and_there_is_room_again_in_time() {
        let pace = Pace::default();
        let now = Instant::now();
        assert!((0..200).all(|_| pace.take_at(now).is_ok()));
        let wait = pace.take_at(now).expect_err("none is left");
        assert!(wait <= Duration::from_millis(10));
        assert!(pace.take_at(now + wait).is_ok());
        assert!((0..100).filter(|_| pace.take_at(now + Duration::from_millis(510)).is_ok()).count() <= 51);
    }
}
