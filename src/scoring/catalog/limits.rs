//! How much callers may ask of a service: requests in a time, and requests at a time; for all callers of the service
//! together, and for those of each key.
//!
//! Counts are exact across threads. Each limit is one atomic number, and nothing is locked or waited for. The numbers of
//! the configuration stand in the snapshot; the counts outlive it, as long as the service and the key keep their names.
//! A limit that is new counts from the requests that come after it. What refusals say is told in
//! [`error`](crate::scoring::error).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::config::{self, Auth, Rate, RequestLimits};

/// A second, in the unit of [`RateLimit`].
const SECOND: u64 = 1_000_000_000;

/// All limits of one service.
#[derive(Debug)]
pub struct ServiceLimits {
    all: Limits,
    /// By the keys' places in the service.
    keys: Vec<(Box<str>, Limits)>,
}

/// What a request holds of its key's limit and of its service's until it is over.
pub type Admission = [Option<InFlight>; 2];

/// A limit that a request would exceed.
#[derive(Debug, PartialEq, Eq)]
pub struct Excess<'a> {
    /// The name of the key whose limit it is; absent: the service's own.
    pub key: Option<&'a str>,
    pub kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of requests a second; `retry_after` is when the next one may come, if nobody else does.
    Rate { per_second: u32, retry_after: Duration },
    /// Of requests at once.
    InFlight { max: usize },
}

impl ServiceLimits {
    /// The limits that `service` has, with the counts of `before`.
    pub fn new(service: &config::Service, before: Option<&Self>) -> Self {
        let keys = match &service.auth {
            Auth::Keys(keys) => &keys[..],
            Auth::Open => &[],
        };
        let key_before = |name: &str| {
            let (_, limits) = before?.keys.iter().find(|(other, _)| **other == *name)?;
            Some(limits)
        };
        let now = now();
        let keys = keys.iter().map(|key| (&*key.name, Limits::new(key.limits, key_before(&key.name), now)));
        Self {
            all: Limits::new(service.limits, before.map(|before| &before.all), now),
            keys: keys.map(|(name, limits)| (name.into(), limits)).collect(),
        }
    }

    /// Lets a request in that came with this key, or says which limit is in its way. A request that is refused leaves
    /// no trace in any of them.
    ///
    /// What it takes before it is refused others miss for a moment, so the key's own limits come first: a key that asks
    /// for more than its own is in nobody else's way. The service's rate is looked at before a place is taken; a place
    /// is then held in vain only where another request had the last token just now, and nobody gets in anyway.
    pub fn admit(&self, key: Option<usize>) -> Result<Admission, Excess<'_>> {
        let key = key.and_then(|key| self.keys.get(key)).filter(|(_, limits)| limits.is_any());
        if key.is_none() && !self.all.is_any() {
            return Ok([None, None]);
        }
        let of_key = |kind| Excess { key: key.map(|(name, _)| &**name), kind };
        let of_all = |kind| Excess { key: None, kind };
        let key_limits = key.map(|(_, limits)| limits);
        let now = now();
        // Places are given back when they are dropped.
        let key_in_flight = key_limits.map_or(Ok(None), Limits::begin).map_err(of_key)?;
        key_limits.map_or(Ok(()), |limits| limits.take(now)).map_err(of_key)?;
        let all_in_flight = self.all.admit(now).map_err(|kind| {
            if let Some(limits) = key_limits {
                limits.give_back();
            }
            of_all(kind)
        })?;
        Ok([key_in_flight, all_in_flight])
    }
}

/// What may be asked, and what is.
#[derive(Debug)]
struct Limits {
    may: RequestLimits,
    /// Absent if there has been no limit since the process began.
    counts: Option<Arc<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    rate: RateLimit,
    in_flight: InFlightLimit,
}

impl Limits {
    fn new(may: RequestLimits, before: Option<&Self>, now: u64) -> Self {
        let is_any = may.rate.is_some() || may.max_in_flight.is_some();
        let counts = before.and_then(|before| before.counts.clone()).or_else(|| is_any.then(Arc::default));
        if let (Some(counts), Some(rate)) = (&counts, may.rate) {
            counts.rate.adjust(before.and_then(|before| before.may.rate).unwrap_or(rate), rate, now);
        }
        Self { may, counts }
    }

    fn is_any(&self) -> bool {
        self.may.rate.is_some() || self.may.max_in_flight.is_some()
    }

    /// A place and a token, or neither.
    fn admit(&self, now: u64) -> Result<Option<InFlight>, Kind> {
        self.look(now)?;
        let in_flight = self.begin()?;
        self.take(now)?;
        Ok(in_flight)
    }

    fn begin(&self) -> Result<Option<InFlight>, Kind> {
        let (Some(max), Some(counts)) = (self.may.max_in_flight, &self.counts) else { return Ok(None) };
        if counts.in_flight.enter(max) { Ok(Some(InFlight(Arc::clone(counts)))) } else { Err(Kind::InFlight { max }) }
    }

    /// Whether there is a token.
    fn look(&self, now: u64) -> Result<(), Kind> {
        self.ask(|limit, rate| limit.look(rate, now))
    }

    fn take(&self, now: u64) -> Result<(), Kind> {
        self.ask(|limit, rate| limit.take(rate, now))
    }

    fn ask(&self, ask: impl FnOnce(&RateLimit, Rate) -> Result<(), Duration>) -> Result<(), Kind> {
        let (Some(rate), Some(counts)) = (self.may.rate, &self.counts) else { return Ok(()) };
        ask(&counts.rate, rate).map_err(|retry_after| Kind::Rate { per_second: rate.per_second, retry_after })
    }

    fn give_back(&self) {
        if let (Some(rate), Some(counts)) = (self.may.rate, &self.counts) {
            counts.rate.give_back(rate);
        }
    }
}

/// A bucket of tokens, as one number: the time at which it will be full again (nanoseconds since [`now`] began to
/// count), or any time before now if it is full.
///
/// This is the generic cell rate algorithm in its form of virtual scheduling (ITU-T Recommendation I.371, annex A). A
/// token takes `T = 1 s / per_second` to come back, and the bucket holds `burst` of them. With `full = max(stored, now)`
/// there are `burst - (full - now) / T` tokens in it: a request may have one if `full - now <= (burst - 1) * T`, and
/// moves `full` by `T`. Otherwise there will be one after `full - now - (burst - 1) * T`. No timer refills anything.
#[derive(Debug, Default)]
struct RateLimit(AtomicU64);

/// `T`, rounded up to the nanosecond, so that never more than was configured comes through: at a million a second that
/// costs at most a thousandth.
fn interval(rate: Rate) -> u64 {
    SECOND.div_ceil(u64::from(rate.per_second.max(1)))
}

/// How long an empty bucket takes to fill; at most 10^15, a million times a second.
fn capacity(rate: Rate) -> u64 {
    interval(rate).saturating_mul(u64::from(rate.burst.max(1)))
}

/// How long there will be no token in a bucket that is full at `stored`; absent: there is one now.
fn until_token(stored: u64, rate: Rate, now: u64) -> Option<Duration> {
    let tolerance = capacity(rate) - interval(rate);
    let missing = stored.saturating_sub(now).checked_sub(tolerance)?;
    (missing > 0).then(|| Duration::from_nanos(missing))
}

impl RateLimit {
    /// Takes a token, or says after which time there will be one.
    fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let taken = self.0.try_update(Relaxed, Relaxed, |stored| {
            until_token(stored, rate, now).is_none().then(|| stored.max(now) + interval(rate))
        });
        taken.map(drop).map_err(|stored| until_token(stored, rate, now).unwrap_or_default())
    }

    /// What [`take`](Self::take) would say now; it takes nothing.
    fn look(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        until_token(self.0.load(Relaxed), rate, now).map_or(Ok(()), Err)
    }

    /// Puts a token back that was taken a moment ago. It does not overfill the bucket: a time that is past counts as
    /// now.
    fn give_back(&self, rate: Rate) {
        let interval = interval(rate);
        let _ = self.0.try_update(Relaxed, Relaxed, |stored| Some(stored.saturating_sub(interval)));
    }

    /// Has as many tokens missing at the rate `to` as there were at `from`, but not more than its bucket holds.
    fn adjust(&self, from: Rate, to: Rate, now: u64) {
        let (old, new) = (u128::from(interval(from)), u128::from(interval(to)));
        let _ = self.0.try_update(Relaxed, Relaxed, |stored| {
            // The product of two numbers of 64 bits.
            let missing = u128::from(stored.saturating_sub(now)) * new / old;
            let missing = u64::try_from(missing).unwrap_or(u64::MAX).min(capacity(to));
            (from != to || missing < stored.saturating_sub(now)).then_some(now.saturating_add(missing))
        });
    }
}

/// How many requests are under way.
#[derive(Debug, Default)]
struct InFlightLimit(AtomicUsize);

impl InFlightLimit {
    fn enter(&self, max: usize) -> bool {
        self.0.try_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1)).is_ok()
    }
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Counts>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.0.fetch_sub(1, Relaxed);
    }
}

/// Nanoseconds since this was first asked in this process; enough for 584 years.
fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// The same bucket as one would write it down: what is in it, in parts of a token, and when that was so.
    struct Bucket {
        level: u64,
        at: u64,
    }

    impl Bucket {
        fn take(&mut self, rate: Rate, now: u64) -> Result<(), Duration> {
            self.level = capacity(rate).min(self.level + (now - self.at));
            self.at = now;
            let missing = interval(rate).saturating_sub(self.level);
            if missing > 0 {
                return Err(Duration::from_nanos(missing));
            }
            self.level -= interval(rate);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn it_is_a_bucket_of_tokens(
            per_second in prop_oneof![1_u32..20, 1_u32..=1_000_000],
            burst in prop_oneof![1_u32..5, 1_u32..=1_000_000],
            start in 0_u64..SECOND,
            steps in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let (limit, mut bucket) = (RateLimit::default(), Bucket { level: capacity(rate), at: start });
            let mut now = start;
            for (thousandths, gives_back) in steps {
                now += interval(rate) * thousandths / 1_000;
                let told = limit.look(rate, now);
                let taken = limit.take(rate, now);
                prop_assert_eq!(told, taken);
                if gives_back && taken.is_ok() {
                    limit.give_back(rate);
                    bucket.level = capacity(rate).min(bucket.level + (now - bucket.at));
                    bucket.at = now;
                } else {
                    prop_assert_eq!(taken, bucket.take(rate, now));
                }
            }
        }

        #[test]
        fn what_is_told_to_wait_is_enough_and_not_too_much(
            per_second in 1_u32..=1_000_000,
            burst in 1_u32..50,
            now in 0_u64..SECOND,
        ) {
            let (rate, limit) = (Rate { per_second, burst }, RateLimit::default());
            for _ in 0..burst {
                prop_assert_eq!(limit.take(rate, now), Ok(()));
            }
            let wait = u64::try_from(limit.take(rate, now).expect_err("it is empty").as_nanos()).expect("short");
            prop_assert!(limit.take(rate, now + wait - 1).is_err());
            prop_assert_eq!(limit.take(rate, now + wait), Ok(()));
        }

        #[test]
        fn another_rate_changes_no_count(
            from in (1_u32..1_000_000, 1_u32..100),
            to in (1_u32..1_000_000, 1_u32..100),
            taken in 0_u32..100,
        ) {
            let [from, to] = [from, to].map(|(per_second, burst)| Rate { per_second, burst });
            let limit = RateLimit::default();
            let taken = taken.min(from.burst);
            for _ in 0..taken {
                prop_assert_eq!(limit.take(from, 0), Ok(()));
            }
            limit.adjust(from, to, 0);
            for _ in taken..to.burst {
                prop_assert_eq!(limit.take(to, 0), Ok(()));
            }
            prop_assert_eq!(limit.take(to, 0), Err(Duration::from_nanos(interval(to))));
        }
    }

    fn limits(rate: Option<(u32, u32)>, max_in_flight: Option<usize>) -> RequestLimits {
        RequestLimits { rate: rate.map(|(per_second, burst)| Rate { per_second, burst }), max_in_flight }
    }

    /// A service whose keys `one` and `two` have these limits.
    fn service(all: RequestLimits, keys: [RequestLimits; 2], before: Option<&ServiceLimits>) -> ServiceLimits {
        let counts = |key: usize| before.and_then(|before| Some(&before.keys.get(key)?.1));
        ServiceLimits {
            all: Limits::new(all, before.map(|before| &before.all), now()),
            keys: vec![
                ("one".into(), Limits::new(keys[0], counts(0), now())),
                ("two".into(), Limits::new(keys[1], counts(1), now())),
            ],
        }
    }

    #[test]
    fn threads_together_get_what_there_is_and_no_more() {
        let (rate, limit) = (Rate { per_second: 1, burst: 1_000 }, RateLimit::default());
        let (in_flight, holders) = (InFlightLimit::default(), AtomicUsize::new(0));
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..5_000)
                            .filter(|_| {
                                if in_flight.enter(2) {
                                    assert!(holders.fetch_add(1, Relaxed) < 2);
                                    holders.fetch_sub(1, Relaxed);
                                    in_flight.0.fetch_sub(1, Relaxed);
                                }
                                limit.take(rate, 7).is_ok()
                            })
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((taken, in_flight.0.load(Relaxed)), (1_000, 0));
    }

    #[test]
    fn who_is_refused_by_one_limit_keeps_nothing_of_the_others() {
        let limits = service(limits(Some((1, 1)), Some(3)), [limits(Some((1, 2)), Some(2)), limits(None, None)], None);
        let first = limits.admit(Some(0)).expect("room");
        let refused = limits.admit(Some(0)).expect_err("the service's one token is gone");
        assert!(matches!(refused, Excess { key: None, kind: Kind::Rate { per_second: 1, .. } }), "{refused:?}");
        // It has given back the key's token, and both its places: else the key's limits would be in the way first.
        for _ in 0..3 {
            let refused = limits.admit(Some(0)).expect_err("still");
            assert!(matches!(refused, Excess { key: None, kind: Kind::Rate { .. } }), "{refused:?}");
        }
        drop(first);
        assert_eq!(limits.all.counts.as_ref().expect("counts").in_flight.0.load(Relaxed), 0);
    }

    #[test]
    fn a_key_is_told_its_own_limit_and_leaves_room_for_the_others() {
        let limits = service(limits(None, Some(2)), [limits(None, Some(1)), limits(None, None)], None);
        let one = limits.admit(Some(0)).expect("room");
        let refused = limits.admit(Some(0)).expect_err("one at once");
        assert_eq!(refused, Excess { key: Some("one"), kind: Kind::InFlight { max: 1 } });
        let two = limits.admit(Some(1)).expect("room");
        let refused = limits.admit(Some(1)).expect_err("two at once");
        assert_eq!(refused, Excess { key: None, kind: Kind::InFlight { max: 2 } });
        drop((one, two));
        limits.admit(Some(0)).expect("room again");
    }

    #[test]
    fn who_is_above_its_own_limits_is_in_nobodys_way() {
        let above = limits(Some((1, 1)), Some(1));
        let limits = service(limits(None, Some(1)), [above, limits(None, None)], None);
        // A token is back in some three hundred years.
        limits.keys[0].1.counts.as_ref().expect("counts").rate.0.store(u64::MAX / 2, Relaxed);
        let done = AtomicBool::new(false);
        let refused = thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        drop(limits.admit(Some(0)));
                    }
                });
            }
            let refused = (0..200_000).filter(|_| limits.admit(Some(1)).is_err()).count();
            done.store(true, Relaxed);
            refused
        });
        assert_eq!(refused, 0);
    }

    #[test]
    fn whose_limit_is_told_first() {
        let (rate, at_once) = (Some((1, 1)), Some(1));
        let any = [limits(rate, at_once), limits(None, at_once), limits(rate, None), limits(None, None)];
        for (of_all, of_key) in any.iter().flat_map(|of_all| any.iter().map(move |of_key| (*of_all, *of_key))) {
            let limits = service(of_all, [of_key, limits(None, None)], None);
            let _held = limits.admit(Some(0)).expect("the first of all");
            let told = limits.admit(Some(0)).err().map(|excess| (excess.key, matches!(excess.kind, Kind::Rate { .. })));
            let order = [
                (of_key.max_in_flight.is_some(), (Some("one"), false)),
                (of_key.rate.is_some(), (Some("one"), true)),
                (of_all.rate.is_some(), (None, true)),
                (of_all.max_in_flight.is_some(), (None, false)),
            ];
            assert_eq!(told, order.into_iter().find(|(is_there, _)| *is_there).map(|(_, excess)| excess));
        }
    }

    #[test]
    fn counts_outlive_the_numbers() {
        let none = [limits(None, None), limits(None, None)];
        let before = service(limits(Some((1, 2)), Some(2)), none, None);
        let held = before.admit(None).expect("room");
        // Also through a configuration without a limit.
        let without = service(limits(None, None), none, Some(&before));
        without.admit(None).expect("no limit");
        let after = service(limits(Some((1, 2)), Some(1)), none, Some(&without));
        let refused = after.admit(None).expect_err("one is under way");
        assert_eq!(refused.kind, Kind::InFlight { max: 1 });
        drop(held);
        drop(after.admit(None).expect("room, and the second token"));
        assert!(matches!(after.admit(None).expect_err("no third").kind, Kind::Rate { .. }));
    }

    #[test]
    fn what_has_no_limit_counts_nothing() {
        let none = service(limits(None, None), [limits(None, None), limits(None, None)], None);
        assert!(none.all.counts.is_none());
        assert!(none.admit(Some(0)).expect("no limit").iter().all(Option::is_none));
    }
}
