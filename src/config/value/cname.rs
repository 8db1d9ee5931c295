//! A CNAME: the DNS name, or the wildcard, that scoring calls use.
//!
//! It resolves nothing and opens no certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::diagnostic::{Problem, quoted};

/// An exact DNS name, or `*.` and a DNS name, where the star stands for one label. In lower case, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CnamePattern(Arc<str>);

impl CnamePattern {
    /// As it would be written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether `host`, a name without port and of any case, is covered.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self.0.strip_prefix("*.") {
            None => host.eq_ignore_ascii_case(&self.0),
            Some(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
            }
        }
    }
}

impl FromStr for CnamePattern {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = |why: &str| Problem::new(format!("expected a DNS name, found {}: {why}", quoted(text)));
        if text.parse::<IpAddr>().is_ok() {
            return Err(problem("an IP address is not a name").remedy("write the name that callers use"));
        }
        if text.contains(['/', ':', '@']) {
            return Err(problem("it holds more than a name").remedy("leave out \"https://\", the port and the path"));
        }
        if !text.is_ascii() {
            return Err(problem("it holds characters other than ASCII").remedy("write its A-label form (xn--…)"));
        }
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let exact = lower.strip_prefix("*.").unwrap_or(&lower);
        if exact.contains('*') {
            return Err(problem("a star stands for the whole first label").remedy("write it as \"*.example.com\""));
        }
        check_dns_name(exact, "-").map_err(|why| problem(&why))?;
        Ok(Self(lower.into()))
    }
}

impl fmt::Display for CnamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `name`, in lower case, has the form of a DNS name, or why not. `inside` are the characters that may stand
/// within a label besides letters and digits.
pub fn check_dns_name(name: &str, inside: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > 253 {
        return Err("it is longer than 253 characters".to_owned());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label".to_owned());
        }
        if label.len() > 63 {
            return Err("it has a label longer than 63 characters".to_owned());
        }
        if let Some(wrong) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !inside.contains(*c)) {
            return Err(format!("{wrong:?} cannot stand in it"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label begins or ends with \"-\"".to_owned());
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it ends in a number, which only IP addresses do".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_kept_in_lower_case_without_the_final_dot() {
        let name: CnamePattern = "Scoring.Example.COM.".parse().unwrap();
        assert_eq!(name.as_str(), "scoring.example.com");
        assert!(!name.is_wildcard());
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let wrong = [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a*.com",
            "*.*.com",
            "10.0.0.1",
            "10.0.1",
            "::1",
            "[::1]",
            "https://a.com",
            "a.com:443",
            "bücher.example",
            "a b.com",
            &"a".repeat(64),
            &"a.".repeat(128),
        ];
        for wrong in wrong {
            assert!(wrong.parse::<CnamePattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let pattern: CnamePattern = "*.models.example.com".parse().unwrap();
        assert!(pattern.matches("iris.models.example.com"));
        assert!(pattern.matches("IRIS.Models.example.com."));
        for other in ["models.example.com", ".models.example.com", "a.b.models.example.com", "iris-models.example.com"]
        {
            assert!(!pattern.matches(other), "{other}");
        }
    }

    proptest! {
        // Few labels, so that names and patterns often meet.
        #[test]
        fn matching_is_label_by_label(
            pattern in "(\\*\\.)?[ab](\\.[ab]){0,2}",
            host in "[abAB](\\.[abAB]){0,3}",
        ) {
            let lower = host.to_lowercase();
            let (wanted, labels): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), lower.split('.').collect());
            let expected = wanted.len() == labels.len() && wanted.iter().zip(&labels).all(|(w, l)| *w == "*" || w == l);
            prop_assert_eq!(pattern.parse::<CnamePattern>().unwrap().matches(&host), expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}", host in "\\PC{0,24}") {
            if let Ok(pattern) = text.parse::<CnamePattern>() {
                pattern.matches(&host);
                prop_assert_eq!(pattern.as_str().parse::<CnamePattern>(), Ok(pattern));
            }
        }
    }
}
