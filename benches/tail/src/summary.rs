//! Figures as JSON.

use std::fmt::Write as _;
use std::time::Duration;

/// `{"count":…,"p50":…,…}`, in milliseconds; percentiles by nearest rank, `null` where there is none.
pub fn distribution(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let mut text = format!("{{\"count\":{}", times.len());
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        let rank = (share * times.len() as f64).ceil() as usize;
        let time = times.get(rank.saturating_sub(1)).map_or_else(|| "null".to_owned(), |time| milliseconds(*time));
        let _ = write!(text, ",\"{name}\":{time}");
    }
    text + "}"
}

pub fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// `{"name":value,…}` of values that are JSON.
pub fn object<K: std::fmt::Display, V: std::fmt::Display>(fields: impl IntoIterator<Item = (K, V)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}
