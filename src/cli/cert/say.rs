//! How the commands of `cert` write: times with the days that are left, findings, lists.

use std::time::SystemTime;

pub(super) use crate::cli::output::{err, out, row};
use crate::tls::facts::{Facts, date};
use crate::tls::{Finding, Part, Severity};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// Whole days from `now` to `time`; negative once it is over.
pub(super) fn days_left(time: SystemTime, now: SystemTime) -> i64 {
    let days = |seconds: u64| i64::try_from(seconds / SECONDS_A_DAY).unwrap_or(i64::MAX);
    match time.duration_since(now) {
        Ok(left) => days(left.as_secs()),
        Err(over) => -days(over.duration().as_secs()),
    }
}

/// When a certificate ends, in UTC and in days.
pub(super) fn expiry(facts: &Facts, now: SystemTime) -> String {
    let (end, days) = (date(facts.not_after), days_left(facts.not_after, now));
    match facts.not_after < now {
        true => format!("{end}  (over for {} days)", -days),
        false => format!("{end}  ({days} days left)"),
    }
}

/// Every name it is good for.
pub(super) fn names(facts: &Facts) -> Vec<String> {
    let addresses = facts.addresses.iter().map(ToString::to_string);
    facts.names.iter().map(ToString::to_string).chain(addresses).collect()
}

/// `error: certificate: what is wrong; the remedy`.
pub(in crate::cli) fn finding(subject: &str, finding: &Finding) -> String {
    format!("{}: {subject}: {finding}", severity(finding.severity))
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

pub(super) fn part(part: Part) -> &'static str {
    match part {
        Part::Chain => "certificate",
        Part::Key => "key",
    }
}

/// Adds a line for each of `values`, with the label before the first.
pub(super) fn list(text: &mut String, label: &str, values: &[String]) {
    match values {
        [] => row(text, label, "none"),
        [first, others @ ..] => {
            row(text, label, first);
            for other in others {
                row(text, "", other);
            }
        }
    }
}
