//! What there is to say of certificates that can be read: whether it is their time, whether they are meant for this, and
//! whether callers take their keys and signatures.

use std::time::{Duration, SystemTime};

use super::facts::{Facts, KeyKind, date};
use super::finding::{Finding, Part, Severity};
use super::names;

/// Browsers and libraries have refused shorter RSA keys for years (CA/Browser Forum, since 2014).
const MIN_RSA_BITS: usize = 2048;

/// Days before its end at which a certificate is spoken of, each time more urgently. A month is what it takes to have
/// one issued by hand; a day is the last chance.
const STAGES: [u8; 4] = [1, 7, 14, 30];

const RENEW: &str = "have it renewed and put the new one in its place";
const NEWER_INTERMEDIATE: &str = "put the authority's current one in its place; the authority offers it for download";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The smallest of 30, 14, 7 and 1 days within which `not_after` is, and 0 when it is over.
pub(super) fn expiry_stage(not_after: SystemTime, now: SystemTime) -> Option<u8> {
    match not_after.duration_since(now) {
        Err(_) => Some(0),
        Ok(left) => STAGES.into_iter().find(|days| left <= DAY * u32::from(*days)),
    }
}

/// Everything about a chain, leaf first. `cname` is only for the remedies.
pub(super) fn check(chain: &[Facts], cname: Option<&str>, now: SystemTime) -> Vec<Finding> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Vec::new() };
    let mut findings = Vec::new();
    findings.extend(time(leaf, "the certificate", RENEW, now));
    findings.extend(purpose(leaf));
    findings.extend(key(leaf, "the certificate", &reissue(cname)));
    if !leaf.is_self_issued {
        findings.extend(signature(leaf, "the certificate"));
    }
    if leaf.is_self_issued && !leaf.is_ca {
        findings.push(self_signed());
    }
    for (index, intermediate) in intermediates.iter().enumerate() {
        let found = check_intermediate(intermediate, now);
        // Only the leaf's own issuer is on every caller's way. Further up stand authorities that many callers trust by
        // themselves, signed across by an older one for the rest, often long after that one has expired.
        let weakened = found.into_iter().map(|finding| match finding.severity {
            Severity::Error if index > 0 => Finding { severity: Severity::Warning, ..finding },
            _ => finding,
        });
        findings.extend(weakened);
    }
    findings
}

fn check_intermediate(intermediate: &Facts, now: SystemTime) -> Vec<Finding> {
    let who = format!("the intermediate {}", intermediate.subject);
    let remedy = "ask the authority for a chain that callers take";
    let time = time(intermediate, &who, NEWER_INTERMEDIATE, now);
    let key = key(intermediate, &who, remedy);
    time.into_iter().chain(authority(intermediate, &who)).chain(key).chain(signature(intermediate, &who)).collect()
}

fn time(facts: &Facts, who: &str, remedy: &str, now: SystemTime) -> Option<Finding> {
    let ends = date(facts.not_after);
    if let Ok(until) = facts.not_before.duration_since(now)
        && !until.is_zero()
    {
        let message = format!("{who} is not valid before {}, in {}", date(facts.not_before), span(until));
        return Some(error(message).remedy("wait, or set this machine's clock right if it is wrong"));
    }
    match expiry_stage(facts.not_after, now)? {
        0 => {
            let since = now.duration_since(facts.not_after).unwrap_or_default();
            Some(error(format!("{who} expired on {ends}, {} ago", span(since))).remedy(remedy))
        }
        _ => {
            let left = facts.not_after.duration_since(now).unwrap_or_default();
            Some(warning(format!("{who} expires on {ends}, in {}", span(left))).remedy(remedy))
        }
    }
}

fn purpose(leaf: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !leaf.is_for_servers {
        let message =
            "the certificate is not for servers: its extendedKeyUsage has no serverAuth, so callers refuse it";
        findings.push(error(message).remedy("have it issued anew with extendedKeyUsage = serverAuth"));
    }
    if !leaf.may_sign && !matches!(leaf.key, KeyKind::Rsa { .. }) {
        let message = "the certificate's keyUsage has no digitalSignature, which its kind of key needs in a handshake; \
                       strict callers refuse it";
        findings.push(warning(message).remedy("have it issued anew with keyUsage = digitalSignature"));
    }
    if leaf.is_ca {
        let message = "the certificate is that of an authority (CA:TRUE); some callers refuse it, and whoever holds its \
                       key can issue others";
        findings.push(warning(message).remedy("have a server certificate issued by it, and keep its key elsewhere"));
    }
    findings
}

fn self_signed() -> Finding {
    let message = "the certificate is self-signed: only callers that were given it to trust can verify it";
    Finding::new(Severity::Note, Part::Chain, message)
}

fn authority(intermediate: &Facts, who: &str) -> Option<Finding> {
    let message =
        format!("{who} may not issue certificates: its basicConstraints have no CA:TRUE, so callers refuse it");
    (!intermediate.is_ca).then(|| error(message).remedy("have it issued anew with basicConstraints = critical,CA:TRUE"))
}

fn key(facts: &Facts, who: &str, remedy: &str) -> Option<Finding> {
    let message = match &facts.key {
        KeyKind::Rsa { bits } if *bits < MIN_RSA_BITS => {
            format!("{who} has a key of {bits} bits (RSA); callers refuse less than {MIN_RSA_BITS}")
        }
        kind if !is_usable(kind) => format!("{who} has a key of a kind that callers do not take: {kind}"),
        _ => return None,
    };
    Some(error(message).remedy(remedy))
}

/// Whether rustls signs with it and callers commonly verify it.
pub(super) fn is_usable(kind: &KeyKind) -> bool {
    match kind {
        KeyKind::Rsa { bits } => *bits >= MIN_RSA_BITS,
        KeyKind::Ed25519 => true,
        KeyKind::Ecdsa { curve } => matches!(curve.as_str(), "P-256" | "P-384" | "P-521"),
        KeyKind::Other(_) => false,
    }
}

/// Not asked of what signed itself: nobody verifies that.
fn signature(facts: &Facts, who: &str) -> Option<Finding> {
    let message = format!("{who} is signed with a broken method ({}), so callers refuse it", facts.signature);
    facts.has_weak_signature().then(|| error(message).remedy("have it issued anew, signed with SHA-256"))
}

fn reissue(cname: Option<&str>) -> String {
    format!("make a new key and have a certificate issued for it: {}", names::request(cname.unwrap_or("NAME")))
}

/// How long, in the largest unit that says it well.
fn span(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (count, unit) = match (minutes / (24 * 60), minutes / 60) {
        (days @ 2.., _) => (days, "day"),
        (_, hours @ 2..) => (hours, "hour"),
        _ => (minutes, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn error(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, Part::Chain, message)
}

fn warning(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, Part::Chain, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_expiry_are_crossed_one_after_the_other() {
        let end = SystemTime::UNIX_EPOCH + DAY * 100;
        let stage = |days_left: u32| expiry_stage(end, end - DAY * days_left);
        assert_eq!(
            [31, 30, 15, 14, 8, 7, 2, 1, 0].map(stage),
            [None, Some(30), Some(30), Some(14), Some(14), Some(7), Some(7), Some(1), Some(1)]
        );
        assert_eq!(expiry_stage(end, end + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_span_is_said_in_a_unit_that_suits_it() {
        assert_eq!(span(Duration::from_secs(60)), "1 minute");
        assert_eq!(span(DAY), "24 hours");
        assert_eq!(span(DAY * 3), "3 days");
    }
}
