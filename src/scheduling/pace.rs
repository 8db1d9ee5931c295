//! How long a replica has a request, as measured: the mean, and how far from it a request is likely to be.
//!
//! Both are moving averages as TCP keeps them of round trips (RFC 6298 section 2), with a longer memory: service times
//! of models vary more than those of a network. Threads that write at the same time may lose a sample to each other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock;

/// One sample counts for an eighth of the mean.
const WEIGHT: u64 = 8;

/// A sample counts as at most so many times the mean, so that one request out of the ordinary does not pass for the
/// ordinary.
const MOST: u64 = 8;

/// So many mean deviations above the mean lie 99.5 % of times that are exponentially distributed, the widest spread
/// that service times commonly have.
const DEVIATIONS: u64 = 6;

/// So many samples are needed before anybody is told what to expect.
const ENOUGH: u64 = 8;

/// What was measured is believed half as much after so many milliseconds without another sample.
const HALF_LIFE: u64 = 10_000;

/// The measured pace of one replica.
#[derive(Debug, Default)]
pub struct Pace {
    /// In microseconds; 0 while there is no sample.
    mean: AtomicU64,
    /// The mean of the distances from the mean, in microseconds.
    deviation: AtomicU64,
    /// When the last sample came, by [`clock::millis`].
    sampled: AtomicU64,
    samples: AtomicU64,
}

impl Pace {
    /// A request was there for `held`.
    pub fn observe(&self, held: Duration, now: u64) {
        let (mean, deviation) = (self.mean.load(Relaxed), self.deviation.load(Relaxed));
        let held = clock::micros(held);
        let (mean, deviation) = if mean == 0 {
            (held, held / 2)
        } else {
            let held = held.min(mean.saturating_mul(MOST));
            (towards(mean, held), towards(deviation, mean.abs_diff(held)))
        };
        self.mean.store(mean.max(1), Relaxed);
        self.deviation.store(deviation, Relaxed);
        self.sampled.store(now, Relaxed);
        self.samples.store(self.samples.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// A request was there for `held` and was given up: it would have taken longer.
    pub fn observe_at_least(&self, held: Duration, now: u64) {
        if clock::micros(held) > self.mean.load(Relaxed) {
            self.observe(held, now);
        }
    }

    /// How long a request is there on average.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.mean.load(Relaxed);
        (mean > 0).then(|| Duration::from_micros(mean))
    }

    /// How long hardly any request takes.
    pub fn bound(&self) -> Option<Duration> {
        let bound = self.deviation.load(Relaxed).saturating_mul(DEVIATIONS).saturating_add(self.mean.load(Relaxed));
        self.mean().map(|_| Duration::from_micros(bound))
    }

    /// What a request can expect: the mean, and what hardly any exceeds. Less the longer ago it was measured, and nothing as
    /// long as that was seldom.
    pub fn forecast(&self, now: u64) -> Option<(Duration, Duration)> {
        if self.samples.load(Relaxed) < ENOUGH {
            return None;
        }
        let bound = self.bound()?.checked_div(1 << self.age(now).min(20)).unwrap_or_default();
        Some((Duration::from_micros(self.recent(now).max(1)), bound))
    }

    /// In half-lives.
    fn age(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.sampled.load(Relaxed)) / HALF_LIFE).unwrap_or(u32::MAX)
    }

    /// The mean in microseconds, less the longer ago it was measured: who was slow once gets another try.
    pub fn recent(&self, now: u64) -> u64 {
        self.mean.load(Relaxed).checked_shr(self.age(now)).unwrap_or(0)
    }
}

fn towards(average: u64, sample: u64) -> u64 {
    average.saturating_sub(average / WEIGHT).saturating_add(sample / WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_steady_replica_is_known_exactly() {
        let pace = Pace::default();
        assert_eq!((pace.mean(), pace.bound()), (None, None));
        for _ in 0..200 {
            pace.observe(20 * MS, 1);
        }
        let (mean, bound) = (pace.mean().unwrap(), pace.bound().unwrap());
        assert!(mean.abs_diff(20 * MS) < MS && bound.abs_diff(20 * MS) < MS, "{mean:?} {bound:?}");
    }

    #[test]
    fn exponential_times_are_bounded_at_some_five_means() {
        let pace = Pace::default();
        let mut random = fastrand::Rng::with_seed(1);
        let (mut mean, mut bound) = (0.0, 0.0);
        for _ in 0..20_000 {
            pace.observe(MS.mul_f64(-20.0 * (1.0 - random.f64()).ln()), 1);
            mean += pace.mean().unwrap().as_secs_f64() / 20.0;
            bound += pace.bound().unwrap().as_secs_f64() / 20.0;
        }
        assert!((18.0..22.0).contains(&mean) && (95.0..120.0).contains(&bound), "{mean} {bound}");
    }

    #[test]
    fn one_request_out_of_the_ordinary_does_not_pass_for_the_ordinary() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.observe(50 * MS, 1);
        }
        pace.observe(Duration::from_secs(60), 1);
        assert!(pace.mean().unwrap() < 100 * MS, "{:?}", pace.mean());
    }

    #[test]
    fn what_was_slow_long_ago_is_worth_a_try() {
        let pace = Pace::default();
        pace.observe(80 * MS, 1);
        assert_eq!([1, 10_001, 20_001, 900_001].map(|now| pace.recent(now)), [80_000, 40_000, 20_000, 0]);
    }
}
