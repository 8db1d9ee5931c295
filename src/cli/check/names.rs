//! Whether callers that look a CNAME up come to this cluster.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Cname, CnamePattern, Config, Diagnostics, Location};

/// How long a name server may take, and the one that is asked after it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Names looked up at a time: each keeps a thread waiting.
const AT_ONCE: usize = 32;

/// Compares every CNAME with `public_ip_address`, and says the record to create where it leads elsewhere. A record may
/// be made later, or behind a load balancer's own address, so it is a warning.
pub(super) async fn resolve_all(config: &Config, diagnostics: &mut Diagnostics) {
    let Some(address) = config.frontend.public_ip_address else { return };
    let mut seen = HashSet::new();
    let mut cnames = config.cnames.iter().filter(|cname| seen.insert(&cname.name));
    let mut looking = JoinSet::new();
    loop {
        for Cname { name, at, .. } in cnames.by_ref().take(AT_ONCE - looking.len()) {
            looking.spawn(resolve(name.clone(), at.clone(), address));
        }
        match looking.join_next().await {
            Some(Ok(Some((at, problem, remedy)))) => diagnostics.warning_with(at, problem, remedy),
            Some(_) => {}
            None => return,
        }
    }
}

async fn resolve(cname: CnamePattern, at: Location, address: IpAddr) -> Option<(Location, String, String)> {
    // A wildcard record answers for whatever name is asked under it.
    let name = cname.as_str().replacen('*', "any", 1);
    let found: Vec<IpAddr> = match timeout(LOOKUP_TIMEOUT, lookup_host((name.as_str(), 443))).await {
        Ok(Ok(found)) => found.map(|address| address.ip().to_canonical()).collect(),
        // The library has no kind for it, only words.
        Ok(Err(error)) if !error.to_string().contains("Temporary failure") => Vec::new(),
        Ok(Err(_)) | Err(_) => {
            let problem = format!("{cname}: no name server answers");
            return Some((at, problem, "try again, or look at /etc/resolv.conf".to_owned()));
        }
    };
    if found.contains(&address.to_canonical()) {
        return None;
    }
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    let record = format!("{cname}. 300 IN {kind} {address}");
    Some(if found.is_empty() {
        (at, format!("{cname} does not resolve"), format!("create the record: {record}"))
    } else {
        let found: BTreeSet<_> = found.iter().map(IpAddr::to_string).collect();
        let found: Vec<_> = found.into_iter().collect();
        let problem = format!("{cname} leads to {}, not to public_ip_address {address}", found.join(" and "));
        (at, problem, format!("callers come here when its record is: {record}"))
    })
}
