//! How many retries there may be: a failing deployment must not be asked twice as often as one that works.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// One retry for so many requests: half of what Envoy and Linkerd grant by default. A replica that cannot be reached is
/// out after its first failure, so few are needed.
const REQUESTS_PER_RETRY: f64 = 10.0;

/// Retries a second there may be in any case: with few requests, a tenth of them is none.
const A_SECOND: f64 = 1.0;

/// Retries that can be saved up, and are there at first.
const SAVED: f64 = 10.0;

/// The retries of one deployment. Only those who retry look at it.
#[derive(Debug)]
pub struct RetryBudget(Mutex<State>);

#[derive(Debug)]
struct State {
    left: f64,
    requests: u64,
    at: Instant,
}

impl RetryBudget {
    pub fn new() -> Self {
        Self(Mutex::new(State { left: SAVED, requests: 0, at: Instant::now() }))
    }

    /// Takes one retry if there is one left, after `requests` in all so far.
    pub fn spend(&self, requests: u64, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = u32::try_from(requests.saturating_sub(state.requests)).unwrap_or(u32::MAX);
        let earned =
            f64::from(since) / REQUESTS_PER_RETRY + now.saturating_duration_since(state.at).as_secs_f64() * A_SECOND;
        state.left = (state.left + earned).min(SAVED);
        state.requests = requests;
        state.at = now;
        let enough = state.left >= 1.0;
        if enough {
            state.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tenth_of_the_requests_may_be_retried() {
        let (budget, now) = (RetryBudget::new(), Instant::now());
        let retried = (1..=10_000).filter(|requests| budget.spend(*requests, now)).count();
        assert!((1_000..=1_011).contains(&retried), "{retried}");
    }

    #[test]
    fn one_a_second_may_be_in_any_case() {
        let (budget, now) = (RetryBudget::new(), Instant::now());
        while budget.spend(0, now) {}
        assert!(!budget.spend(0, now + Duration::from_millis(900)));
        assert!(budget.spend(0, now + Duration::from_millis(1_100)));
    }

    #[test]
    fn no_more_than_ten_are_saved_up() {
        let (budget, later) = (RetryBudget::new(), Instant::now() + Duration::from_secs(3_600));
        assert_eq!((0..100).filter(|_| budget.spend(1_000_000, later)).count(), 10);
    }
}
