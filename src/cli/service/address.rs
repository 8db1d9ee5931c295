//! Where calls of a service go: the host, port and path of its URI, and the addresses of the front end behind the name, so
//! that a service can be called before anybody has made the DNS record.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};
use http::Uri;

use crate::admin::model::{AddressSource, Environment};
use crate::cli::admin::Client;

/// One resource of a service, and where the front end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub is_tls: bool,
    /// A CNAME, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// As it stands in `Host`.
    pub authority: String,
    pub path: String,
    /// In the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
}

impl Place {
    /// Where `uri` leads, at the front end that `client` asks.
    ///
    /// # Errors
    ///
    /// It is no URI of a service.
    pub fn of(uri: &str, client: &Client) -> anyhow::Result<Self> {
        let mut place = Self::parse(uri)?;
        let environment: Environment = client.get("/v1/env")?;
        // A load balancer may have a name alone; nobody is asked about an address.
        let mut public = (environment.public_ip_address.as_str(), place.port).to_socket_addrs().into_iter().flatten();
        let public = public.next().map(|address| address.ip());
        let candidates = candidates(public, environment.public_ip_address_source, client.remote_ip());
        place.addresses = candidates.into_iter().map(|ip| SocketAddr::new(ip, place.port)).collect();
        Ok(place)
    }

    fn parse(uri: &str) -> anyhow::Result<Self> {
        let parsed: Uri = uri.parse().with_context(|| format!("{uri:?} is no URI"))?;
        let (is_tls, usual) = match parsed.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => bail!("{uri:?} is no http or https URI"),
        };
        let authority = parsed.authority().with_context(|| format!("{uri:?} has no host"))?;
        Ok(Self {
            is_tls,
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(usual),
            authority: authority.as_str().to_owned(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            addresses: Vec::new(),
        })
    }
}

/// The front end's addresses, the likeliest first. On this machine it answers on the loopback address, unless it listens
/// on one of its own; from elsewhere it is reached as the callers reach it, or else as its management is.
fn candidates(public: Option<IpAddr>, source: AddressSource, remote: Option<IpAddr>) -> Vec<IpAddr> {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let public = public.map(|ip| if ip.is_unspecified() { here } else { ip });
    let ordered = match (remote, source) {
        (None, AddressSource::Listener | AddressSource::Loopback) => [public, Some(here)],
        (None, AddressSource::Configuration | AddressSource::LoadBalancer | AddressSource::Outbound) => {
            [Some(here), public]
        }
        (Some(_), AddressSource::Loopback) => [remote, None],
        (Some(_), _) => [public, remote],
    };
    let mut candidates: Vec<_> = ordered.into_iter().flatten().collect();
    candidates.dedup();
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_says_host_port_and_path() {
        let place = Place::parse("https://scoring.example.com/api/v1/service/iris/score").expect("a URI");
        assert_eq!((place.is_tls, place.host.as_str(), place.port), (true, "scoring.example.com", 443));
        assert_eq!(
            (place.authority.as_str(), place.path.as_str()),
            ("scoring.example.com", "/api/v1/service/iris/score")
        );
        let place = Place::parse("http://[::1]:8080/x?y").expect("a URI");
        assert_eq!((place.is_tls, place.host.as_str(), place.port), (false, "::1", 8080));
        assert_eq!((place.authority.as_str(), place.path.as_str()), ("[::1]:8080", "/x?y"));
        for wrong in ["", "/x", "ftp://a/", "https://"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_front_end_is_tried_where_it_is_likeliest() {
        let [here, public, remote] = ["127.0.0.1", "203.0.113.7", "198.51.100.1"].map(|ip| ip.parse().expect("an IP"));
        let of = |source, remote| candidates(Some(public), source, remote);
        assert_eq!(of(AddressSource::Configuration, None), [here, public]);
        assert_eq!(of(AddressSource::Listener, None), [public, here]);
        assert_eq!(of(AddressSource::Configuration, Some(remote)), [public, remote]);
        assert_eq!(candidates(Some(here), AddressSource::Loopback, None), [here]);
        assert_eq!(candidates(Some(here), AddressSource::Loopback, Some(remote)), [remote]);
    }
}
