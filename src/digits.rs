//! Numbers as text on the way of a request, by hand: `format!` took a twentieth of a small request's own time.

use std::time::Duration;

/// Digits of the largest number.
const MOST_DIGITS: usize = 20;

/// There are never so many digits.
const NO_POINT: usize = usize::MAX;

/// Microseconds are told to the last of them, as thousandths of a millisecond.
const DECIMALS: usize = 3;

/// Appends `number` in decimal.
pub fn push_decimal(text: &mut Vec<u8>, number: u64) {
    push::<10, NO_POINT>(text, number, 1);
}

/// Appends `number` in lower-case hexadecimal.
pub fn push_hexadecimal(text: &mut Vec<u8>, number: u64) {
    push::<16, NO_POINT>(text, number, 1);
}

/// Appends `duration` in milliseconds with three decimals.
pub fn push_millis(text: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
    push::<10, DECIMALS>(text, micros, DECIMALS + 1);
}

/// At least so many digits, and a point before the last `POINT` of them. The base is known when this is compiled, so
/// that nothing is divided.
fn push<const BASE: u64, const POINT: usize>(text: &mut Vec<u8>, mut number: u64, at_least: usize) {
    // From the back.
    let mut digits = [0; MOST_DIGITS + 1];
    let mut place = digits.len();
    let mut written = 0;
    while (number > 0 || written < at_least) && place > 0 {
        if written == POINT && place > 1 {
            place -= 1;
            digits[place] = b'.';
        }
        place -= 1;
        digits[place] = b"0123456789abcdef".get(usize::try_from(number % BASE).unwrap_or(0)).copied().unwrap_or(b'?');
        number /= BASE;
        written += 1;
    }
    text.extend_from_slice(digits.get(place..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        push(&mut text);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn the_largest_and_the_smallest_fit() {
        assert_eq!(text(|text| push_decimal(text, u64::MAX)), u64::MAX.to_string());
        assert_eq!(text(|text| push_millis(text, Duration::ZERO)), "0.000");
        assert_eq!(text(|text| push_millis(text, Duration::MAX)), format!("{}.615", u64::MAX / 1000));
    }

    proptest! {
        #[test]
        fn numbers_are_as_format_writes_them(number: u64, micros in 0..10_000_000_000u64) {
            prop_assert_eq!(text(|text| push_decimal(text, number)), format!("{number}"));
            prop_assert_eq!(text(|text| push_hexadecimal(text, number)), format!("{number:x}"));
            let expected = format!("{}.{:03}", micros / 1_000, micros % 1_000);
            prop_assert_eq!(text(|text| push_millis(text, Duration::from_micros(micros))), expected);
        }
    }
}
