//! Which Service of Kubernetes has the replicas of a deployment, and under which port.
//!
//! It asks no Kubernetes: that is [`crate::discovery`]'s part.

use std::fmt;
use std::str::FromStr;

use toml::de::DeValue;

use super::{integer, text};
use crate::config::diagnostic::{Problem, quoted};

/// A Service whose endpoints are the replicas of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KubernetesTarget {
    /// Absent: the front end's own, which its pod or its kubeconfig says.
    pub namespace: Option<KubernetesName>,
    pub service: KubernetesName,
    pub port: KubernetesPort,
}

/// A name of an object: `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, up to 63 characters (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesName(Box<str>);

/// Which port of the pods is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KubernetesPort {
    /// By its number in the pods.
    Number(u16),
    /// By its name in the Service; the number may differ from pod to pod.
    Name(KubernetesName),
}

impl KubernetesName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_sound(text: &str) -> bool {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    }
}

impl FromStr for KubernetesName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const RULE: &str = "1 to 63 of a-z, 0-9 and \"-\", beginning and ending with a letter or digit";
        if Self::is_sound(text) {
            return Ok(Self(text.into()));
        }
        let problem = Problem::new(format!("expected a name as Kubernetes has them ({RULE}), found {}", quoted(text)));
        let first = text.split('.').next().unwrap_or_default();
        Err(match first.len() < text.len() && Self::is_sound(first) {
            true => problem.remedy(format!("write {} alone, without its domain", quoted(first))),
            false => problem,
        })
    }
}

impl fmt::Display for KubernetesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KubernetesPort {
    /// A number, or a text with the name.
    pub fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        const EXPECTED: &str = "a port of the pods such as 5001, or its name such as \"http\"";
        match value {
            DeValue::Integer(_) => integer(value, EXPECTED, 1..=u16::MAX).map(Self::Number),
            _ => {
                let name = text(value, EXPECTED)?;
                match name.parse::<u16>() {
                    Ok(_) => Err(Problem::new(format!("expected {EXPECTED}, found {}", quoted(name)))
                        .remedy("leave out the quotes")),
                    Err(_) => name.parse().map(Self::Name),
                }
            }
        }
    }
}

impl FromStr for KubernetesPort {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return text.parse().map(Self::Name);
        }
        // `05` is a number too, but no way to write a port.
        match text.parse().ok().filter(|port| *port > 0 && !text.starts_with('0')) {
            Some(port) => Ok(Self::Number(port)),
            None => Err(Problem::new(format!("a port is 1 to 65535, found {}", quoted(text)))),
        }
    }
}

impl fmt::Display for KubernetesPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// `namespace/service:port`, or without the namespace: how commands and logs name it.
impl fmt::Display for KubernetesTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl FromStr for KubernetesTarget {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const EXPECTED: &str = "expected \"service:port\" or \"namespace/service:port\"";
        let Some((service, port)) = text.rsplit_once(':') else {
            let problem = Problem::new(format!("{EXPECTED}, found {}: the port is missing", quoted(text)));
            return Err(problem.remedy(format!("write {}", quoted(&format!("{text}:5001")))));
        };
        let (namespace, service) = match service.split_once('/') {
            Some((namespace, service)) => (Some(namespace.parse()?), service),
            None => (None, service),
        };
        Ok(Self { namespace, service: service.parse()?, port: port.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_is_written_in_one_word() {
        let target: KubernetesTarget = "models/churn-green:5001".parse().unwrap();
        assert_eq!(target.namespace.as_ref().map(KubernetesName::as_str), Some("models"));
        assert_eq!((target.service.as_str(), &target.port), ("churn-green", &KubernetesPort::Number(5001)));
        let target: KubernetesTarget = "churn:http".parse().unwrap();
        assert_eq!((target.namespace, target.port), (None, KubernetesPort::Name("http".parse().unwrap())));
        for wrong in
            ["", "churn", "churn:", ":5001", "/churn:1", "a/b/c:1", "Churn:1", "churn:0", "churn:065", "c:65536"]
        {
            assert!(wrong.parse::<KubernetesTarget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_domain_is_no_part_of_a_name() {
        let told = "churn.models.svc".parse::<KubernetesName>().unwrap_err().to_string();
        assert!(told.ends_with("write \"churn\" alone, without its domain"), "{told}");
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_again(text in "([a-z0-9]{1,3}/)?[a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?:([1-9][0-9]{0,3}|[a-z]{1,8})") {
            let target: KubernetesTarget = text.parse().unwrap();
            prop_assert_eq!(target.to_string(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}") {
            let _ = (text.parse::<KubernetesTarget>(), KubernetesPort::read(&DeValue::String(text.as_str().into())));
        }
    }
}
