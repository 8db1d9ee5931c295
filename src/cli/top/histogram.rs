//! Times by the bounds of a histogram's buckets: added up, what came to them between two looks, and how long most took.

/// How many took at most each bound, in seconds; the last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Adds a bucket, counted from 0 on, to the one of the same bound.
    pub fn add(&mut self, bound: f64, count: f64) {
        let place = self.0.partition_point(|(other, _)| *other < bound);
        match self.0.get_mut(place) {
            Some((other, counted)) if *other >= bound => *counted += count,
            _ => self.0.insert(place, (bound, count)),
        }
    }

    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// What came since `before`; all of it if that was another one, which had more.
    pub fn since(&self, before: &Self) -> Self {
        let had = |bound: f64| {
            before.0.iter().find(|(other, _)| bound.total_cmp(other).is_eq()).map_or(0.0, |(_, count)| *count)
        };
        if before.count() > self.count() {
            return self.clone();
        }
        Self(self.0.iter().map(|(bound, count)| (*bound, (count - had(*bound)).max(0.0))).collect())
    }

    /// How long the quickest `part` of them took at most, in seconds, as Prometheus' `histogram_quantile` has it: within a
    /// bucket they count as spread evenly, and beyond the last finite bound nothing is known but that. Absent without any.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.count();
        if all <= 0.0 {
            return None;
        }
        let wanted = all * part;
        let mut lower = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && *count > lower.1 {
                if bound.is_infinite() {
                    break;
                }
                return Some(lower.0 + (bound - lower.0) * ((wanted - lower.1) / (count - lower.1)).max(0.0));
            }
            if bound.is_finite() {
                lower = (*bound, *count);
            }
        }
        Some(lower.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, f64::INFINITY];

    fn of(times: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        for bound in BOUNDS {
            let count = times.iter().filter(|time| **time <= bound).count();
            histogram.add(bound, f64::from(u32::try_from(count).expect("few")));
        }
        histogram
    }

    #[test]
    fn a_bucket_is_taken_for_even() {
        assert_eq!(of(&[]).quantile(0.5), None);
        let half = of(&[0.05; 4]).quantile(0.5).expect("there are some");
        assert!((half - 0.055).abs() < 1e-9, "{half}");
        assert_eq!(of(&[5.0; 4]).quantile(0.5), Some(1.0), "longer than every bound");
        assert_eq!(of(&[0.0005, 5.0]).quantile(0.5), Some(0.001));
    }

    #[test]
    fn one_that_began_anew_is_not_compared_with_what_it_was() {
        let (before, now) = (of(&[0.5; 10]), of(&[0.05; 3]));
        assert_eq!(now.since(&before), now);
    }

    proptest! {
        #[test]
        fn a_quantile_is_in_the_bucket_of_the_true_one(
            before in prop::collection::vec(0.0_f64..2.0, 0..40),
            mut times in prop::collection::vec(0.0_f64..2.0, 1..40),
            part in 0.01_f64..1.0,
        ) {
            let both = of(&[&before[..], &times].concat());
            let found = both.since(&of(&before)).quantile(part).expect("there are some");
            times.sort_by(f64::total_cmp);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "few")]
            let place = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1;
            let bucket = BOUNDS.iter().position(|bound| times[place] <= *bound).expect("the last is infinite");
            let lower = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] };
            let upper = if bucket == 4 { 1.0 } else { BOUNDS[bucket] };
            prop_assert!((lower..=upper).contains(&found), "{found} of {lower} to {upper}");
        }

        #[test]
        fn a_larger_part_takes_no_less(times in prop::collection::vec(0.0_f64..2.0, 1..40)) {
            let histogram = of(&times);
            let quantiles: Vec<_> = (1..=100).filter_map(|part| histogram.quantile(f64::from(part) / 100.0)).collect();
            prop_assert!(quantiles.is_sorted(), "{quantiles:?}");
        }

        #[test]
        fn parts_add_up(one in prop::collection::vec(0.0_f64..2.0, 0..20), other in prop::collection::vec(0.0_f64..2.0, 0..20)) {
            let mut sum = of(&one);
            for (bound, count) in of(&other).0 {
                sum.add(bound, count);
            }
            prop_assert_eq!(sum, of(&[one, other].concat()));
        }
    }
}
