//! Durations, sizes and shares as arguments, written as in `scorefront.toml`.

use std::time::Duration;

/// Milliseconds, none of them broken.
///
/// # Errors
///
/// What was expected.
pub fn millis(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    let millis = u64::try_from(duration.as_millis()).map_err(|_| "it is too long".to_owned())?;
    match Duration::from_millis(millis) == duration {
        true => Ok(millis),
        false => Err("expected whole milliseconds".to_owned()),
    }
}

/// The same above zero.
///
/// # Errors
///
/// What was expected.
pub fn positive_millis(text: &str) -> Result<u64, String> {
    match millis(text)? {
        0 => Err("expected a duration above zero".to_owned()),
        millis => Ok(millis),
    }
}

/// # Errors
///
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration such as 250ms, 10s or 5m, with its unit".to_owned())
}

/// Bytes, above zero.
///
/// # Errors
///
/// What was expected.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let parsed = text.split_at_checked(digits).and_then(|(number, unit)| {
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
        number.parse::<u64>().ok()?.checked_mul(factor)
    });
    parsed.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size such as 64KiB, 100MiB or 2GiB".to_owned())
}

/// `name=percent`.
///
/// # Errors
///
/// What was expected.
pub fn share(text: &str) -> Result<(String, u64), String> {
    let parsed = text.split_once('=').and_then(|(name, percent)| {
        let percent = percent.strip_suffix('%').unwrap_or(percent).parse().ok()?;
        (!name.is_empty() && percent <= 100).then(|| (name.to_owned(), percent))
    });
    parsed.ok_or_else(|| "expected a deployment and a percentage of 0 to 100, such as blue=90".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units() {
        assert_eq!(millis("60s"), Ok(60_000));
        assert_eq!(millis("0s"), Ok(0));
        assert_eq!(size("100MiB"), Ok(100 << 20));
        assert_eq!(size("1024"), Ok(1024));
        assert_eq!(share("blue=90"), Ok(("blue".to_owned(), 90)));
        assert_eq!(share("blue=90%"), Ok(("blue".to_owned(), 90)));
        for wrong in ["", "5", "ms", "-1s", "100us", "999999999999999999999s"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
        assert!(positive_millis("0ms").is_err());
        for wrong in ["", "0", "0MiB", "MiB", "1.5MiB", "-1", "1TiB", "99999999999999GiB", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "blue", "blue=", "=5", "blue=101", "blue=-1", "blue=x", "blue=5=6"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
