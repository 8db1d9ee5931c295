//! Which hosts the names of a certificate stand for (RFC 9525 section 6), and what to say of a name they do not cover.

use std::net::IpAddr;

use super::finding::{Finding, Part, Severity, listed, quoted_text};

/// Whether a certificate with these names proves that we are `host`: a lower-case DNS name without trailing dot, or an
/// IP address. Only subjectAltName counts, and a wildcard stands for exactly one whole label.
pub(super) fn covers(names: &[Box<str>], addresses: &[IpAddr], host: &str) -> bool {
    let covers = |name: &str| match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == host,
    };
    if names.iter().any(|name| covers(name)) {
        return true;
    }
    !addresses.is_empty() && host.parse().is_ok_and(|address| addresses.contains(&address))
}

/// Whether a CNAME (exact, or `*.` and a name) may be served under these names.
pub(super) fn covers_cname(names: &[Box<str>], addresses: &[IpAddr], cname: &str) -> bool {
    match cname.strip_prefix("*.") {
        Some(_) => names.iter().any(|name| **name == *cname),
        None => covers(names, addresses, cname),
    }
}

/// What is wrong with the names, if they have to cover `cname`.
pub(super) fn check(names: &[Box<str>], addresses: &[IpAddr], cname: Option<&str>) -> Option<Finding> {
    let is_nameless = names.is_empty() && addresses.is_empty();
    match cname {
        Some(cname) if covers_cname(names, addresses, cname) => None,
        _ if is_nameless => Some(nameless(cname.unwrap_or("NAME"))),
        Some(cname) => Some(not_covered(names, addresses, cname)),
        None => None,
    }
}

fn nameless(cname: &str) -> Finding {
    let message = "the certificate has no name in its subjectAltName; callers look nowhere else, and not at its CN";
    error(message).remedy(format!("have it issued anew with the name: {}", request(cname)))
}

fn not_covered(names: &[Box<str>], addresses: &[IpAddr], cname: &str) -> Finding {
    let all: Vec<String> =
        names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string)).collect();
    let too_short = names.iter().find(|name| is_too_short(name, cname));
    let hint = too_short.map(|name| format!("; a wildcard stands for one label, so {name} does not cover it"));
    let message = format!("the certificate is for {}, not for {cname}{}", listed(&all, ", "), hint.unwrap_or_default());
    error(message).remedy(format!("serve it under a name it has, or have one issued for {cname}: {}", request(cname)))
}

/// Whether a wildcard covers some name above `cname`, or is one label too deep for it.
fn is_too_short(wildcard: &str, cname: &str) -> bool {
    let Some(parent) = wildcard.strip_prefix("*.") else { return false };
    let name = cname.strip_prefix("*.").unwrap_or(cname);
    name == parent || name.strip_suffix(parent).is_some_and(|labels| labels.ends_with('.'))
}

/// The command that makes a new key and a request for a certificate with the name.
pub(super) fn request(cname: &str) -> String {
    let subject = quoted_text(&format!("/CN={cname}"));
    let name = quoted_text(&format!("subjectAltName=DNS:{cname}"));
    format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout new-key.pem -out request.pem \
         -subj {subject} -addext {name}"
    )
}

fn error(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, Part::Chain, message)
}
