//! What the replicas of a deployment are looked up by in DNS.
//!
//! It looks nothing up: that is [`crate::discovery`]'s part.

use std::fmt;
use std::str::FromStr;

use super::cname::check_dns_name;
use crate::config::diagnostic::{Problem, quoted};

/// A name whose records are the replicas of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsTarget {
    /// `host:port`: one replica for each A and AAAA record of the host.
    Host { host: String, port: u16 },
    /// `_service._tcp.domain`: one replica for each address of each SRV record (RFC 2782), at the record's port.
    Service { name: String },
}

impl fmt::Display for DnsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Service { name } => f.write_str(name),
        }
    }
}

impl FromStr for DnsTarget {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const EXPECTED: &str = "expected \"host:port\", or an SRV name such as \"_http._tcp.models.svc\"";
        let problem = |why: &str| Problem::new(format!("{EXPECTED}, found {}: {why}", quoted(text)));
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let name = name.to_ascii_lowercase();
        if name.contains('/') || port.is_some_and(|port| port.contains('/')) {
            return Err(problem("it is a name, without \"http://\" and without a path"));
        }
        if name.parse::<std::net::IpAddr>().is_ok() || port.is_some_and(|port| port.contains(':')) {
            return Err(problem("this is an address").remedy("write replicas = [\"http://address:port\"]"));
        }
        // Underscores begin the first two labels of SRV names, and stand in names Docker Compose gives to containers.
        let plain = name.strip_prefix('_').map_or_else(|| name.clone(), |rest| rest.replacen("._", ".", 1));
        check_dns_name(plain.strip_suffix('.').unwrap_or(&plain), "-_").map_err(|why| problem(&why))?;
        // `+1` and `05` are numbers too, but no way to write a port: such a value is a slip.
        let plain = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        match port {
            Some(port) => match port.parse().ok().filter(|_| plain(port)) {
                Some(port) => Ok(Self::Host { host: name, port }),
                None => Err(problem("a port is 1 to 65535, without zeros before it")),
            },
            None if name.starts_with('_') => Ok(Self::Service { name }),
            None => Err(problem("the port is missing").remedy(format!("write {}", quoted(&format!("{name}:5001"))))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_port_and_a_service_has_none() {
        let read = |text: &str| text.parse::<DnsTarget>();
        assert_eq!(
            read("Churn-Blue.models.svc:5001"),
            Ok(DnsTarget::Host { host: "churn-blue.models.svc".to_owned(), port: 5001 })
        );
        assert_eq!(
            read("_http._tcp.models.svc."),
            Ok(DnsTarget::Service { name: "_http._tcp.models.svc.".to_owned() })
        );
        for wrong in [
            "",
            "models",
            "models:",
            "models:0",
            "a:05",
            "models:65536",
            "models:+1",
            ":5001",
            "10.0.0.1:5001",
            "::1",
            "[::1]:5001",
            "http://models:5001",
            "models:5001/score",
            "a b:1",
            "*.models:1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
