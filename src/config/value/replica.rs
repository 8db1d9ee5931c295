//! The address of a replica, `http://host:port`.
//!
//! It resolves nothing. Messages show only what an address is made of: what was pasted around it may be a secret.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::cname::check_dns_name;
use crate::config::diagnostic::{Problem, quoted};

/// The port of `http://host`.
const HTTP_PORT: u16 = 80;

/// Where a replica takes plain HTTP. Two addresses that are written alike, but for the case of letters, are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaAddress {
    /// An IP address in its canonical form, without brackets, or a DNS name in lower case.
    host: Arc<str>,
    port: u16,
}

impl ReplicaAddress {
    /// The replica at an address that was looked up; equal to the one written with the same address.
    pub fn of(address: SocketAddr) -> Self {
        // What stands for an IPv4 address in IPv6 is that address.
        Self { host: address.ip().to_canonical().to_string().into(), port: address.port() }
    }

    /// The IP address, without brackets, or the DNS name.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, an IPv6 host in brackets; the form of a `Host` field.
    pub fn authority(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ReplicaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for ReplicaAddress {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        // The last `@` of all: a password may hold a slash, and must not pass for a host.
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));

        let address = parse_authority(authority)?;
        let message = match scheme.as_deref() {
            None => "expected \"http://\" before the host",
            Some("https") => "TLS ends at the front end",
            Some("http") if user.is_some() => "a replica's address has no user or password",
            Some("http") if tail == "/" => "a replica's address ends after the port, without \"/\"",
            Some("http") if tail.starts_with('/') => "a replica's address has no path: that is the deployment's `path`",
            Some("http") if !tail.is_empty() => "a replica's address has no query or fragment",
            Some("http") => return Ok(address),
            Some(_) => "a replica is called by http:// and nothing else",
        };
        Err(Problem::new(message).remedy(format!("write {}", quoted(&format!("http://{authority}")))))
    }
}

fn parse_authority(authority: &str) -> Result<ReplicaAddress, Problem> {
    let problem = |why: &str| {
        let message = format!("expected \"http://host:port\", found the host and port {}: {why}", quoted(authority));
        Problem::new(message)
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        inner.parse::<Ipv6Addr>().map_err(|_| problem("this is not an IPv6 address"))?.to_string()
    } else if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(problem("an IPv6 address stands in brackets").remedy("write \"http://[::1]:5001\""));
    } else if let Ok(address) = host.parse::<Ipv4Addr>() {
        address.to_string()
    } else {
        let host = host.to_ascii_lowercase();
        // Underscores are no part of host names, but of the names Docker Compose gives to containers.
        check_dns_name(host.strip_suffix('.').unwrap_or(&host), "-_")
            .map_err(|why| problem(&format!("in the host, {why}")))?;
        host
    };
    let port = match port {
        None => HTTP_PORT,
        Some(port) => parse_port(port).ok_or_else(|| problem("a port is 1 to 65535"))?,
    };
    Ok(ReplicaAddress { host: host.into(), port })
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for (text, host, port, authority) in [
            ("http://10.1.0.11:5001", "10.1.0.11", 5001, "10.1.0.11:5001"),
            ("http://[2001:DB8::0:1]:5001", "2001:db8::1", 5001, "[2001:db8::1]:5001"),
            ("http://[::1]", "::1", 80, "[::1]:80"),
            ("HTTP://Churn-Blue.models.svc", "churn-blue.models.svc", 80, "churn-blue.models.svc:80"),
            ("http://my_model:1", "my_model", 1, "my_model:1"),
        ] {
            let address: ReplicaAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port(), &*address.authority()), (host, port, authority), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let wrong = [
            "",
            "http://",
            "http://:5001",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:5001/",
            "http://a/score",
            "http://a?b",
            "http://a#b",
            "http://u:p@a",
            "https://a",
            "a:5001",
            "grpc://a",
            "http://::1",
            "http://[::1",
            "http://[a]:1",
            "http://10.0.0.256",
            "http://a b",
            "http://*",
            "http://ü",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<ReplicaAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_that_was_looked_up_equals_the_written_one() {
        for (looked_up, written) in [
            ("10.1.0.11:5001", "http://10.1.0.11:5001"),
            ("[2001:db8::1]:5001", "http://[2001:DB8:0::1]:5001"),
            ("[::ffff:10.1.0.11]:5001", "http://10.1.0.11:5001"),
        ] {
            assert_eq!(Ok(ReplicaAddress::of(looked_up.parse().unwrap())), written.parse());
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for text in [
            "http://user:hunter2@model:5001",
            "http://model:5001/?code=hunter2",
            "http://user:hunter2@bad host",
            "http://user:hunter2/@x",
        ] {
            let problem = text.parse::<ReplicaAddress>().unwrap_err().to_string();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn an_authority_reads_back_as_itself(
            text in "http://([a-z][a-z0-9]{0,5}|1\\.2\\.3\\.[0-9]|\\[::[1-9]\\])(:[1-9][0-9]{0,3})?",
        ) {
            let address: ReplicaAddress = text.parse().unwrap();
            prop_assert_eq!(format!("http://{}", address.authority()).parse::<ReplicaAddress>(), Ok(address));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(http://)?\\PC{0,24}") {
            let _ = text.parse::<ReplicaAddress>();
        }
    }
}
