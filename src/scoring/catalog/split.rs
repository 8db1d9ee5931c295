//! Which part of a service's callers a request belongs to, so that traffic can be shared out by callers as well as by
//! requests.
//!
//! A request has a number below [`PARTS`], and the deployments' shares lie on that scale one after the other, in the order
//! of the configuration. With `sticky_by` the number is made from what tells callers apart, else it is drawn. Where the
//! shares move only those callers move whose numbers lie between the old border and the new one. Which replica of a
//! deployment answers is not decided here and does not depend on the caller.

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Key, StickyBy};

/// Numbers there are. Finer than the percent that shares are given in, so that finer shares would move nobody.
pub const PARTS: u16 = 10_000;

/// How many of [`PARTS`] are one percent.
const A_PERCENT: u16 = PARTS / 100;

/// What may tell a caller apart. The fields are those that came: some do not reach replicas.
pub struct Traits<'a> {
    pub key: Option<&'a Key>,
    pub address: &'a HeaderValue,
    pub headers: &'a HeaderMap,
}

impl<'a> Traits<'a> {
    /// What tells this caller apart; absent: nothing, so that its requests' numbers are drawn.
    pub fn told_by(&self, sticky_by: Option<&StickyBy>) -> Option<Cow<'a, [u8]>> {
        match sticky_by? {
            StickyBy::Key => self.key.map(|key| Cow::Borrowed(&key.hash.as_bytes()[..])),
            StickyBy::Address => Some(Cow::Borrowed(self.address.as_bytes())),
            StickyBy::Header(name) => value_of(name, self.headers).filter(|value| !value.is_empty()),
        }
    }

    /// The number of a request to `service`.
    pub fn number(&self, service: &str, sticky_by: Option<&StickyBy>) -> u16 {
        match self.told_by(sticky_by) {
            Some(told_by) => number_of(service, &told_by),
            None => fastrand::u16(..PARTS),
        }
    }
}

/// The first value of the field `name`; of `Cookie` all. HTTP/2 callers may send it in several fields, as they like,
/// which are one when they are joined so (RFC 9113 section 8.2.3).
fn value_of<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut value = Cow::Borrowed(values.next()?);
    if *name == COOKIE {
        for crumb in values {
            let joined = value.to_mut();
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb);
        }
    }
    Some(value)
}

/// The number of a caller, for ever the same: the first eight bytes of SHA-256 over the service's name, a zero byte, and what
/// tells the caller apart, as a big-endian number modulo [`PARTS`]. This hash is in the process in any case, and anybody can
/// check it with `sha256sum`; it is as even as any, whatever values look like. The name is in it so that the callers that
/// are first to get a new version of one service are not the same in all of them.
fn number_of(service: &str, told_by: &[u8]) -> u16 {
    let mut hash = Context::new(&SHA256);
    for part in [service.as_bytes(), &[0], told_by] {
        hash.update(part);
    }
    let hash = hash.finish();
    let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
    u16::try_from(u64::from_be_bytes(first) % u64::from(PARTS)).unwrap_or_default()
}

/// The place of the share that `number` falls on; shares are in percent.
pub fn share_of(shares: impl IntoIterator<Item = u8>, number: u16) -> Option<usize> {
    let mut below = 0u16;
    shares.into_iter().position(|share| {
        below = below.saturating_add(u16::from(share).saturating_mul(A_PERCENT));
        number < below
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shares that so many callers fall on.
    fn placed(service: &str, callers: u32, shares: &[u8]) -> Vec<usize> {
        let place =
            |caller| share_of(shares.iter().copied(), number_of(service, format!("caller-{caller}").as_bytes()));
        (0..callers).map(|caller| place(caller).expect("shares add up to 100")).collect()
    }

    #[test]
    fn numbers_are_those_that_sha256sum_gives() {
        // printf 'iris\000192.0.2.7' | sha256sum | cut -c 1-16, in hexadecimal, modulo 10,000.
        assert_eq!(number_of("iris", b"192.0.2.7"), 4141);
        assert_eq!(number_of("churn", b"192.0.2.7"), 8211);
    }

    #[test]
    fn cookies_are_one_field_and_others_are_not() {
        let mut headers = HeaderMap::new();
        for name in [COOKIE, http::header::ACCEPT] {
            assert_eq!(value_of(&name, &headers), None);
            for value in ["a=1", "b=2; c=3", "d=4"] {
                headers.append(&name, HeaderValue::from_static(value));
            }
        }
        assert_eq!(value_of(&COOKIE, &headers).as_deref(), Some(&b"a=1; b=2; c=3; d=4"[..]));
        assert_eq!(value_of(&http::header::ACCEPT, &headers).as_deref(), Some(&b"a=1"[..]));
    }

    #[test]
    fn every_share_gets_its_part_of_the_callers() {
        for shares in [&[90, 10][..], &[50, 50], &[1, 98, 1], &[20, 20, 20, 20, 20], &[0, 100, 0]] {
            let placed = placed("iris", 10_000, shares);
            for (place, share) in shares.iter().enumerate() {
                let expected = f64::from(*share) * 100.0;
                let deviation = (expected * (1.0 - f64::from(*share) / 100.0)).sqrt();
                let got = u32::try_from(placed.iter().filter(|other| **other == place).count()).expect("few");
                assert!((f64::from(got) - expected).abs() <= 5.0 * deviation, "{got} on {place} of {shares:?}");
            }
        }
    }

    #[test]
    fn a_moved_border_moves_those_beside_it_and_nobody_else() {
        let (before, after) = (placed("iris", 10_000, &[90, 10]), placed("iris", 10_000, &[80, 20]));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!((850..=1150).contains(&moved), "{moved} of 10,000");
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "none the other way");
    }

    #[test]
    fn the_first_callers_of_one_service_are_not_those_of_another() {
        let (iris, churn) = (placed("iris", 10_000, &[90, 10]), placed("churn", 10_000, &[90, 10]));
        let both = iris.iter().zip(&churn).filter(|(iris, churn)| **iris == 1 && **churn == 1).count();
        assert!((50..=150).contains(&both), "{both} of 10,000 are among a tenth of both");
    }

    proptest! {
        #[test]
        fn every_number_falls_on_a_share_above_zero(shares in prop::collection::vec(0_u8..=100, 1..8), number in 0..PARTS) {
            let all: u32 = shares.iter().copied().map(u32::from).sum();
            match share_of(shares.iter().copied(), number) {
                Some(place) => {
                    let below = |places: &[u8]| places.iter().copied().map(u32::from).sum::<u32>() * 100;
                    prop_assert!(below(&shares[..place]) <= u32::from(number));
                    prop_assert!(u32::from(number) < below(&shares[..=place]));
                }
                None => prop_assert!(all * 100 <= u32::from(number)),
            }
        }
    }
}
