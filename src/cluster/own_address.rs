//! Which of the front ends this one is: the address that the others reach it by.

use std::env;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::config::{Cluster, Members};

/// What Kubernetes tells a container of itself, by a `fieldRef` to `status.podIP`.
const POD_IP: &str = "POD_IP";

/// Outside of every network of one's own (RFC 5737): what leads there leads by the way that most takes.
const ELSEWHERE: (&str, u16) = ("203.0.113.1", 9);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{POD_IP} = \"{0}\" is not an IP address")]
    PodIp(String),
    #[error(
        "none of `members` is an address of this host with port {0}, or several are, so that it is not known which of \
         them is this front end; add its address to [cluster]: address = \"10.1.0.7:{0}\", or set {POD_IP}"
    )]
    NotListed(u16),
    #[error(
        "it is not known by which address the other front ends reach this one; add address = \"10.1.0.7:{0}\" to \
         [cluster], or set {POD_IP}"
    )]
    NoRoute(u16),
}

/// The address of this front end, whose cluster listener is bound to `bound`: what the configuration or `POD_IP` says, or
/// what is listened on; else the one of the listed that is this host's, or this host's on its way out.
///
/// # Errors
///
/// See [`AddressError`].
pub fn own_address(config: &Cluster, bound: SocketAddr) -> Result<SocketAddr, AddressError> {
    if let Some(address) = config.address {
        return Ok(address);
    }
    let port = bound.port();
    if let Some(text) = env::var_os(POD_IP).filter(|text| !text.is_empty()) {
        let text = text.to_string_lossy();
        let ip: IpAddr = text.trim().parse().map_err(|_| AddressError::PodIp(text.to_string()))?;
        return Ok(SocketAddr::new(ip.to_canonical(), port));
    }
    if !bound.ip().is_unspecified() {
        return Ok(SocketAddr::new(bound.ip().to_canonical(), port));
    }
    match &config.members {
        Members::Listed(listed) => {
            let is_own = |member: &&SocketAddr| member.port() == port && is_of_this_host(member.ip());
            let mut own = listed.iter().filter(is_own);
            match (own.next(), own.next()) {
                (Some(own), None) => Ok(*own),
                _ => Err(AddressError::NotListed(port)),
            }
        }
        Members::Dns(_) | Members::Kubernetes { .. } => {
            on_the_way_out().map(|ip| SocketAddr::new(ip, port)).ok_or(AddressError::NoRoute(port))
        }
    }
}

/// What is an address of this host can be bound.
fn is_of_this_host(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Nothing is sent: connecting such a socket only chooses the address.
fn on_the_way_out() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{FilePath, Location};

    fn config(members: &[&str]) -> Cluster {
        let at = Location::start_of(PathBuf::from("scorefront.toml").into());
        Cluster {
            listen: "0.0.0.0:8444".parse().unwrap(),
            address: None,
            secret_file: FilePath { path: PathBuf::new(), at },
            members: Members::Listed(members.iter().map(|member| member.parse().unwrap()).collect()),
        }
    }

    #[test]
    fn it_is_the_one_that_is_configured_or_bound_or_the_listed_one_of_this_host() {
        let own = |config: &Cluster, bound: &str| own_address(config, bound.parse().unwrap());
        let mut listed = config(&["192.0.2.1:8444", "127.0.0.1:8444", "127.0.0.1:9444"]);
        assert_eq!(own(&listed, "0.0.0.0:8444").unwrap(), "127.0.0.1:8444".parse().unwrap());
        assert!(matches!(own(&listed, "0.0.0.0:7000"), Err(AddressError::NotListed(7000))));
        assert!(own(&config(&["127.0.0.1:1", "127.0.0.2:1"]), "0.0.0.0:1").is_err());
        assert_eq!(own(&listed, "127.0.0.5:1").unwrap(), "127.0.0.5:1".parse().unwrap());
        listed.address = Some("192.0.2.9:1".parse().unwrap());
        assert_eq!(own(&listed, "127.0.0.5:1").unwrap(), "192.0.2.9:1".parse().unwrap());
    }
}
