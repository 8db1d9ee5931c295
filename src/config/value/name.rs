//! The names of services, deployments and keys: they stand in URIs, header fields, metrics and logs, so all are plain.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::measure;
use crate::config::diagnostic::{Problem, quoted};

const LONGEST: usize = 32;

/// A service's name: `^[a-z]([-a-z0-9.]*[a-z0-9])?$`, 3 to 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_sound(text: &str) -> bool {
        (3..=LONGEST).contains(&text.len()) && is_plain(text, b"-.")
    }
}

impl FromStr for ServiceName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const RULE: &str =
            "3 to 32 of a-z, 0-9, \"-\" and \".\", beginning with a letter and not ending in \"-\" or \".\"";
        if Self::is_sound(text) {
            Ok(Self(text.into()))
        } else {
            Err(problem(text, "a service name", RULE, Self::is_sound))
        }
    }
}

/// So that a map by service name can be asked with the text of a request.
impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an environment, or of the group it belongs to: `^[a-zA-Z][-\w._()]*[a-zA-Z0-9]$`, 2 to 90 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvironmentName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const RULE: &str = "2 to 90 of letters, digits, \"-\", \"_\", \".\", \"(\" and \")\", beginning with a letter and ending \
                            in a letter or digit";
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.()".contains(&byte);
        let is_sound = (2..=90).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.ends_with(|last: char| last.is_ascii_alphanumeric())
            && text.bytes().all(is_inner);
        if is_sound {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::new(format!("expected the name of an environment or group, found {}", quoted(text))).remedy(RULE))
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A deployment's name, unique in its service: `^[a-z]([-a-z0-9]*[a-z0-9])?$`, up to 32 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentName(String);

impl DeploymentName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeploymentName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let sound = is_short_name(text);
        if sound { Ok(Self(text.to_owned())) } else { Err(problem(text, "a deployment name", SHORT, is_short_name)) }
    }
}

/// A key's name, unique in its service and written like a deployment's. It is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if is_short_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            // What was found is not shown: it may be the key itself, pasted by mistake.
            Err(Problem::new(format!("expected a key's name ({SHORT})")).found(measure(text)))
        }
    }
}

/// The rule of [`is_short_name`], as messages tell it.
const SHORT: &str = "1 to 32 of a-z, 0-9 and \"-\", beginning with a letter and not ending in \"-\"";

fn is_short_name(text: &str) -> bool {
    text.len() <= LONGEST && is_plain(text, b"-")
}

/// Lower case letters and digits, with `inside` between them; a letter first.
fn is_plain(text: &str, inside: &[u8]) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || inside.contains(byte))
}

fn problem(text: &str, what: &str, rule: &str, is_sound: fn(&str) -> bool) -> Problem {
    let problem = Problem::new(format!("expected {what} ({rule}), found {}", quoted(text)));
    let likely = text.trim().to_lowercase().replace(['_', ' '], "-");
    if is_sound(&likely) { problem.remedy(format!("for example {}", quoted(&likely))) } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_follow_the_rule() {
        for sound in ["iris", "a-1", "churn.v2", "abc", &"a".repeat(32)] {
            assert!(sound.parse::<ServiceName>().is_ok(), "{sound}");
        }
        for wrong in ["", "ab", "Iris", "1ris", "iris-", "iris.", "ir_is", "ïris", "iris/score", &"a".repeat(33)] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn deployment_names_follow_the_rule() {
        for sound in ["b", "blue", "blue-2"] {
            assert!(sound.parse::<DeploymentName>().is_ok(), "{sound}");
        }
        for wrong in ["", "-", "blue.2", "Blue", "blue-", &"a".repeat(33)] {
            assert!(wrong.parse::<DeploymentName>().is_err(), "{wrong}");
        }
    }
}
