//! What this host says about looking names up: `/etc/resolv.conf` and `/etc/hosts`. Nothing is asked here.
//!
//! Both are small files of the host itself, so they are read where they are needed, on the thread that needs them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hickory_resolver::proto::rr::Name;

use crate::config::open_regular;

/// The port of DNS (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Bytes of a file that are read. Lists of unwanted hosts make an `/etc/hosts` long.
const MAX_FILE: u64 = 4 << 20;

/// Search domains that are heeded, as many as Kubernetes allows. Each may cost two questions a lookup.
const MAX_SEARCH: usize = 32;

/// The most that `ndots` means (resolv.conf(5)).
const MAX_NDOTS: u32 = 15;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
    /// The port of the name servers in `resolv_conf`, which has no way to write one.
    pub port: u16,
}

impl Files {
    pub fn system() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: DNS_PORT }
    }

    /// What differs when a file was written or replaced.
    pub fn stamps(&self) -> Stamps {
        Stamps(Some([stamp(&self.resolv_conf), stamp(&self.hosts)]))
    }

    /// # Errors
    ///
    /// Why there are no name servers, for people.
    pub fn read_conf(&self) -> Result<Conf, String> {
        let path = self.resolv_conf.display();
        let text = read(&self.resolv_conf).map_err(|error| format!("{path}: {error}"))?;
        let conf = Conf::parse(&text, self.port);
        if conf.servers.is_empty() { Err(format!("{path} has no line \"nameserver\"")) } else { Ok(conf) }
    }

    pub fn read_hosts(&self) -> io::Result<Hosts> {
        read(&self.hosts).map(|text| Hosts::parse(&text))
    }
}

/// See [`Files::stamps`]; the default is that of files never looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Option<[Option<Stamp>; 2]>);

/// Device, inode, size, and seconds and nanoseconds of the last change of content and of anything.
type Stamp = ([u64; 3], [i64; 4]);

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    Some((
        [about.dev(), about.ino(), about.size()],
        [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()],
    ))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_regular(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// What counts of a `resolv.conf`. Timeouts do not: a lookup has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    pub servers: Vec<SocketAddr>,
    /// Full names.
    pub search: Vec<Name>,
    /// A name with as many dots is asked for as it is before it is with a domain.
    pub ndots: usize,
}

impl Default for Conf {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1 }
    }
}

impl Conf {
    /// Lines and options that nobody knows are passed over, as the C library does.
    fn parse(text: &[u8], port: u16) -> Self {
        let (conf, _) = resolv_conf::Config::parse_with_errors(text);
        let full = |domain: &String| {
            let mut name = Name::from_ascii(domain).ok()?;
            name.set_fqdn(true);
            (!name.is_root()).then_some(name)
        };
        Self {
            servers: conf.nameservers.iter().map(|server| SocketAddr::new(server.into(), port)).collect(),
            search: conf.get_last_search_or_domain().filter_map(full).take(MAX_SEARCH).collect(),
            ndots: usize::try_from(conf.ndots.min(MAX_NDOTS)).unwrap_or(1),
        }
    }
}

/// Addresses by name, hosts(5).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    fn parse(text: &[u8]) -> Self {
        let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
        for line in String::from_utf8_lossy(text).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            for name in words {
                hosts.entry(plain(name)).or_default().push(address.to_canonical());
            }
        }
        Self(hosts)
    }

    /// The addresses of `name`, whether or not it ends with a dot; at least one.
    pub fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(&plain(name)).map(Vec::as_slice)
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_writes_is_read() {
        let text = b"search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n\
                     nameserver fd00::a\noptions ndots:5 nobody-knows-this\nnonsense\n";
        let conf = Conf::parse(text, 53);
        assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        let search: Vec<_> = conf.search.iter().map(Name::to_ascii).collect();
        assert_eq!(search, ["ns.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]);
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn a_domain_is_searched_and_the_root_is_not() {
        assert_eq!(Conf::parse(b"domain models.example\n", 53).search.len(), 1);
        assert_eq!(Conf::parse(b"search .\n", 53).search, []);
        assert_eq!(Conf::parse(b"options ndots:99\n\xff\xfe\n", 53).ndots, 15);
    }

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let hosts = Hosts::parse(b"127.0.0.1 localhost\n10.0.0.7\tModel.example m # comment\n::1 localhost\nbad x\n");
        assert_eq!(hosts.get("localhost").unwrap().len(), 2);
        assert_eq!(hosts.get("MODEL.example."), Some(&["10.0.0.7".parse().unwrap()][..]));
        assert_eq!(hosts.get("m"), hosts.get("model.example"));
        assert_eq!((hosts.get("x"), hosts.get("comment")), (None, None));
    }
}
