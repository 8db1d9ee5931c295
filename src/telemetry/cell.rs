//! Counters and histograms that one thread writes and any thread reads.
//!
//! With a single writer an increment is a load and a store, not a locked instruction. Readers may see a histogram
//! between two of its stores; a scrape a moment later sees the rest.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the histograms' buckets, in microseconds: from a front end's own work (tens of microseconds) to
/// the longest scoring timeouts.
pub const BOUNDS_MICROS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

/// A count. Only the thread that owns it may call [`Counter::add`].
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations by [`BOUNDS_MICROS`]. Only the thread that owns it may call [`Histogram::observe`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one counts what is longer than every bound.
    buckets: [Counter; BOUNDS_MICROS.len() + 1],
    sum_nanos: Counter,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        // Without the divisions of 128 bits that the durations' own conversions are.
        let seconds = duration.as_secs();
        let micros = seconds.saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.increment();
        }
        self.sum_nanos.add(seconds.saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into()));
    }
}

/// Histograms of several threads, added up.
#[derive(Debug, Default, PartialEq)]
pub struct Total {
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    pub sum_nanos: u64,
}

impl Total {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(histogram.sum_nanos.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut total = Total::default();
        total.add(&histogram);
        assert_eq!(total.buckets[..2], [2, 1]);
        assert_eq!(total.buckets[17..], [1, 1]);
        assert_eq!(total.sum_nanos, 120_000_102_000);
    }
}
