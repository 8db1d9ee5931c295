//! What a single value may be: text becomes a duration, a size, an address or a name, or a [`Problem`] that says what
//! was expected and what was found.
//!
//! Nothing here knows where a value stands, which key it belongs to, or any other value.

mod cname;
mod dns;
mod key;
mod kubernetes;
mod name;
mod replica;
mod sticky;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use toml::de::DeValue;

use super::AdminListen;
use super::diagnostic::{Problem, nearest, quoted};

pub use cname::CnamePattern;
pub use dns::DnsTarget;
pub use key::{HOW_TO_HASH, KeyHash};
pub use kubernetes::{KubernetesName, KubernetesPort, KubernetesTarget};
pub use name::{DeploymentName, EnvironmentName, KeyName, ServiceName};
pub use replica::ReplicaAddress;
pub use sticky::StickyBy;

/// Longer is a slip, and keeps sums with the clock far from overflowing.
const LONGEST_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the kernel has room for in a unix socket's address, less the closing zero.
const LONGEST_UNIX_PATH: usize = 107;

/// A duration that may be zero.
pub fn duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    const EXPECTED: &str = "a duration such as \"250ms\", \"10s\" or \"5m\"";
    if let DeValue::Integer(number) = value {
        return Err(unexpected(EXPECTED, value).remedy(format!("with its unit, seconds are \"{number}s\"")));
    }
    let text = text(value, EXPECTED)?;
    let duration = humantime::parse_duration(text).map_err(|_| {
        let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let problem = unexpected(EXPECTED, value);
        if digits_only { problem.remedy(format!("with its unit, seconds are \"{text}s\"")) } else { problem }
    })?;
    if duration > LONGEST_DURATION {
        return Err(Problem::new(format!("expected at most \"365d\", found {}", quoted(text))));
    }
    Ok(duration)
}

/// A duration above zero.
pub fn positive_duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    match duration(value)? {
        Duration::ZERO => Err(Problem::new("expected a duration above zero, found zero")
            .remedy("there is no \"never\": write the longest time you would wait")),
        duration => Ok(duration),
    }
}

/// A size in bytes, above zero.
pub fn size(value: &DeValue<'_>) -> Result<u64, Problem> {
    const EXPECTED: &str = "a size such as \"64KiB\", \"100MiB\" or \"2GiB\"";
    let bytes = match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| Problem::new(format!("expected {EXPECTED}, found {number}")))?,
        _ => parse_size(text(value, EXPECTED)?).ok_or_else(|| {
            unexpected(EXPECTED, value).remedy("units are B, KiB, MiB, GiB (1024 each) and KB, MB, GB (1000 each)")
        })?,
    };
    if bytes == 0 {
        return Err(Problem::new("expected a size above zero, found zero")
            .remedy("there is no \"unlimited\": write the largest size you would take"));
    }
    Ok(bytes)
}

fn parse_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An integer from `range`.
pub fn integer<T>(value: &DeValue<'_>, expected: &str, range: std::ops::RangeInclusive<T>) -> Result<T, Problem>
where
    T: Copy + PartialOrd + std::fmt::Display + TryFrom<i128>,
{
    let DeValue::Integer(number) = value else {
        let problem = unexpected(expected, value);
        let quoted = value.as_str().is_some_and(|text| text.parse::<i128>().is_ok());
        return Err(if quoted { problem.remedy("leave out the quotes") } else { problem });
    };
    i128::from_str_radix(number.as_str(), number.radix())
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| Problem::new(format!("expected {} to {}, found {number}", range.start(), range.end())))
}

/// `true` or `false`.
pub fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    if let DeValue::Boolean(value) = value {
        return Ok(*value);
    }
    let problem = unexpected("true or false", value);
    match value.as_str() {
        Some("true" | "false") => Err(problem.remedy("leave out the quotes")),
        _ => Err(problem),
    }
}

/// One of `words`.
pub fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Problem> {
    let mut expected = String::new();
    for (index, (word, _)) in words.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == words.len() => " or ",
            _ => ", ",
        };
        let _ = write!(expected, "{separator}\"{word}\"");
    }
    let names = || words.iter().map(|(word, _)| *word);
    if let DeValue::Float(number) = value {
        let problem = unexpected(&expected, value);
        return Err(match names().find(|name| *name == number.as_str()) {
            Some(name) => problem.remedy(format!("put it in quotes: \"{name}\"")),
            None => problem,
        });
    }
    let text = text(value, &expected)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let problem = unexpected(&expected, value);
        match nearest(text, names()) {
            Some(name) => problem.remedy(format!("did you mean \"{name}\"?")),
            None => problem,
        }
    })
}

/// An IP address and port to listen on.
pub fn listen_address(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    const EXPECTED: &str = "an IP address and port such as \"0.0.0.0:8443\" or \"[::]:8443\"";
    if let DeValue::Integer(port) = value {
        return Err(unexpected(EXPECTED, value).remedy(format!("for every address write \"0.0.0.0:{port}\"")));
    }
    let text = text(value, EXPECTED)?;
    text.parse().map_err(|_| {
        let problem = unexpected(EXPECTED, value);
        match text.rsplit_once(':') {
            Some(("" | "*", port)) => {
                problem.remedy(format!("for every address write {}", quoted(&format!("0.0.0.0:{port}"))))
            }
            Some((host, _)) if host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':') => {
                problem.remedy("host names are not taken for listen addresses: write the IP address")
            }
            _ => problem,
        }
    })
}

/// Where the admin API listens: an address, or `unix:` and an absolute path.
pub fn admin_listen(value: &DeValue<'_>) -> Result<AdminListen, Problem> {
    const EXPECTED: &str = "an address such as \"127.0.0.1:8900\", or \"unix:/run/scorefront/admin.sock\"";
    let text = text(value, EXPECTED)?;
    let Some(path) = text.strip_prefix("unix:") else {
        return listen_address(value).map(AdminListen::Tcp);
    };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(unexpected("an absolute path after \"unix:\"", value));
    }
    if path.len() > LONGEST_UNIX_PATH {
        let message =
            format!("a unix socket's path has at most {LONGEST_UNIX_PATH} bytes, this one has {}", path.len());
        return Err(Problem::new(message).remedy("use a shorter directory"));
    }
    Ok(AdminListen::Unix(PathBuf::from(path)))
}

/// A file's path, as written.
pub fn path(value: &DeValue<'_>) -> Result<PathBuf, Problem> {
    const EXPECTED: &str = "a file's path";
    match text(value, EXPECTED)? {
        "" => Err(unexpected(EXPECTED, value)),
        text if text.contains('\0') => Err(Problem::new("a path cannot hold a zero byte")),
        text => Ok(Path::new(text).to_owned()),
    }
}

/// One IP address, without a port.
pub fn ip_address(value: &DeValue<'_>) -> Result<IpAddr, Problem> {
    const EXPECTED: &str = "an IP address such as \"203.0.113.7\"";
    let text = text(value, EXPECTED)?;
    text.parse().map_err(|_| unexpected(EXPECTED, value))
}

pub const NETWORKS: &str = "addresses and networks such as \"10.0.0.0/8\" or \"192.0.2.7\"";

/// A network (RFC 4632 section 3.1), or one address.
pub fn network(value: &DeValue<'_>) -> Result<IpNet, Problem> {
    const EXPECTED: &str = "an address or a network such as \"192.0.2.7\" or \"10.0.0.0/8\"";
    let text = text(value, EXPECTED)?;
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network: IpNet = network.map_err(|_| unexpected(EXPECTED, value))?;
    let network = canonical(network);
    if network.addr() == network.network() {
        return Ok(network);
    }
    let problem = Problem::new(format!("{} is an address within the network {}", quoted(text), network.trunc()));
    Err(problem.remedy(format!("write {}, or the address alone", quoted(&network.trunc().to_string()))))
}

/// An IPv4 network that is written as IPv6 has it (RFC 4291 section 2.5.5.2), as which nobody connects.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network.addr().to_canonical() {
        IpAddr::V4(address) => network.prefix_len().checked_sub(96).map(|length| (address, length)),
        IpAddr::V6(_) => None,
    };
    match (network, mapped) {
        (IpNet::V6(_), Some((address, length))) => IpNet::new(address.into(), length).unwrap_or(network),
        _ => network,
    }
}

/// A time in UTC, written as TOML has times or as a text.
pub fn time(value: &DeValue<'_>) -> Result<SystemTime, Problem> {
    const EXPECTED: &str = "a time in UTC such as 2026-11-26T21:00:00Z";
    let parsed = match value {
        DeValue::Datetime(time) => humantime::parse_rfc3339(&time.to_string()),
        _ => humantime::parse_rfc3339(text(value, EXPECTED)?),
    };
    parsed.map_err(|_| unexpected(EXPECTED, value))
}

/// Where a name server is asked: an IP address, and a port if it is not the one of DNS (RFC 1035, section 4.2).
pub fn name_server(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    const EXPECTED: &str = "the IP address of a name server, such as \"10.0.0.10\" or \"10.0.0.10:53\"";
    const PORT: u16 = 53;
    let text = text(value, EXPECTED)?;
    let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)));
    match address {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(address),
        _ => Err(unexpected(EXPECTED, value)),
    }
}

/// Where a front end of the cluster is, for the others.
pub fn member_address(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    const EXPECTED: &str = "the IP address and port of a front end, such as \"10.1.0.7:8444\"";
    match text(value, EXPECTED)?.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => {
            Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        _ => Err(unexpected(EXPECTED, value)),
    }
}

/// A log filter: a level, or `target=level` pairs separated by commas.
pub fn log_filter(value: &DeValue<'_>) -> Result<String, Problem> {
    const EXPECTED: &str = "a level such as \"info\" or levels by target such as \"info,scorefront::tls=debug\"";
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = text(value, EXPECTED)?;
    for directive in filter.split(',') {
        let (target, level) =
            directive.split_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
        let target_sound = target.is_none_or(|target| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        });
        if !target_sound || !LEVELS.contains(&level) {
            let remedy = match nearest(level, LEVELS) {
                Some(near) if near != level => format!("did you mean \"{near}\"?"),
                _ => format!("levels are {}", LEVELS.join(", ")),
            };
            return Err(unexpected(EXPECTED, value).remedy(remedy));
        }
    }
    Ok(filter.to_owned())
}

/// Which objects of Kubernetes are meant, by their labels. What its parts mean is for Kubernetes to judge.
pub fn label_selector(value: &DeValue<'_>) -> Result<String, Problem> {
    const EXPECTED: &str = "a label selector such as \"isazuremlapp=true\"";
    const LONGEST: usize = 1000;
    let selector = text(value, EXPECTED)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/=!(), ".contains(&byte);
    if selector.trim().is_empty() || selector.len() > LONGEST || !selector.bytes().all(is_plain) {
        return Err(unexpected(EXPECTED, value));
    }
    Ok(selector.to_owned())
}

/// Any text; `expected` says what it should be when it is something else.
pub fn text<'a>(value: &'a DeValue<'_>, expected: &str) -> Result<&'a str, Problem> {
    value.as_str().ok_or_else(|| unexpected(expected, value))
}

/// How messages speak of a value that is not what it should be.
pub fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        other => kind(other).to_owned(),
    }
}

/// What `parse` makes of a value that may be a key, pasted in the wrong place: nobody is told what it says.
pub fn unshown<T>(value: &DeValue<'_>, parse: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>) -> Result<T, Problem> {
    parse(value).map_err(|problem| match value {
        DeValue::String(text) if problem.found.is_some() => problem.found(measure(text)),
        _ => problem,
    })
}

/// How messages speak of a text that they must not show.
pub fn measure(text: &str) -> String {
    match text.chars().count() {
        1 => "a string of 1 character".to_owned(),
        length => format!("a string of {length} characters"),
    }
}

/// What sort of value this is, without what it says, where that may be a secret.
pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn unexpected(expected: &str, found: &DeValue<'_>) -> Problem {
    Problem::new(format!("expected {expected}")).found(describe(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn zero_is_a_duration_only_where_it_makes_sense() {
        assert_eq!(duration(&string("0s")), Ok(Duration::ZERO));
        assert!(positive_duration(&string("0s")).is_err());
    }

    #[test]
    fn log_filters_are_levels_by_target() {
        for sound in ["info", "scorefront=debug", "warn,scorefront::tls=trace,hyper=off"] {
            assert!(log_filter(&string(sound)).is_ok(), "{sound}");
        }
        for wrong in ["", "inof", "scorefront", "=info", "info,", "a b=info", "scorefront=loud"] {
            assert!(log_filter(&string(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_a_key_is_not_shown() {
        for (wrong, length) in [("", "0 characters"), ("é", "1 character"), ("hunter2", "7 characters")] {
            let told = unshown(&string(wrong), boolean).unwrap_err().to_string();
            assert_eq!(told, format!("expected true or false, found a string of {length}"));
        }
        let told = unshown(&DeValue::Boolean(true), |value| word(value, &[("high", ())])).unwrap_err().to_string();
        assert_eq!(told, "expected \"high\", found a boolean");
    }

    proptest! {
        #[test]
        fn durations_are_the_number_times_the_unit(number in 0_u64..1000, unit in 0_usize..4) {
            let (name, factor) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)][unit];
            let expected = Duration::from_millis(number * factor);
            prop_assert_eq!(duration(&string(&format!("{number}{name}"))), Ok(expected));
        }

        #[test]
        fn sizes_are_the_number_times_the_unit(number in 1_u64..1 << 33, unit in 0_usize..7) {
            let (name, base, power) =
                [("B", 1, 0), ("KB", 1000, 1), ("KiB", 1024, 1), ("MB", 1000, 2), ("MiB", 1024, 2),
                 ("GB", 1000, 3), ("GiB", 1024, 3)]
                    [unit];
            prop_assert_eq!(size(&string(&format!("{number}{name}"))), Ok(number * u64::pow(base, power)));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let value = string(&text);
            let _ = (duration(&value), size(&value), listen_address(&value), admin_listen(&value), log_filter(&value));
        }

        #[test]
        fn sizes_that_do_not_fit_are_refused(number in (u64::MAX >> 30) + 1..) {
            let text = format!("{number}GiB");
            prop_assert!(size(&string(&text)).is_err());
        }
    }
}
