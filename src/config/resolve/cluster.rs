//! What `[cluster]` says: who the front ends are that share this one's replicas.

use std::collections::HashSet;

use super::{beside, kubernetes};
use crate::config::diagnostic::Diagnostics;
use crate::config::file::RawCluster;
use crate::config::table::Located;
use crate::config::{Cluster, Members, defaults};

/// Front ends of one cluster at most: each of them talks to every other one.
pub const MOST_MEMBERS: usize = 100;

pub(super) fn resolve(raw: RawCluster, diagnostics: &mut Diagnostics) -> Option<Cluster> {
    let listen = raw.listen.given().map(|given| (given.value, given.at.clone()));
    if let Some((listen, at)) = &listen
        && listen.port() == 0
    {
        let message = "`listen`: the other front ends have to know the port";
        diagnostics.error_with(at.clone(), message, format!("write \"{}\"", defaults::CLUSTER_LISTEN));
    }
    Some(Cluster {
        members: resolve_members(&raw, diagnostics)?,
        listen: raw.listen.value().unwrap_or(defaults::CLUSTER_LISTEN),
        address: raw.address.value(),
        secret_file: beside(&raw.secret_file?),
    })
}

fn resolve_members(raw: &RawCluster, diagnostics: &mut Diagnostics) -> Option<Members> {
    let RawCluster { members, dns, kubernetes, .. } = raw;
    if members.is_absent() && dns.is_absent() && kubernetes.is_absent() {
        let message =
            "[cluster] does not say who the front ends are: neither `members` nor `dns` nor `kubernetes` is in it";
        let remedy = "add members = [\"10.1.0.7:8444\", …], dns = \"scorefront-peers.scoring.svc:8444\", or kubernetes = \
                      { service = \"scorefront-peers\", port = 8444 }";
        diagnostics.error_with(raw.at.clone(), message, remedy);
        return None;
    }
    let given = [
        ("members", members.given().map(|given| &given.at)),
        ("dns", dns.given().map(|given| &given.at)),
        ("kubernetes", kubernetes.given().map(|given| &given.at)),
    ];
    let mut given = given.into_iter().filter_map(|(key, at)| Some((key, at?)));
    if let (Some((first, _)), Some((second, at))) = (given.next(), given.next()) {
        let message = format!(
            "`{second}` stands beside `{first}` in [cluster]: one alone of `members`, `dns` and `kubernetes` says who the \
             front ends are"
        );
        diagnostics.error_with(at.clone(), message, "delete one of the two");
        return None;
    }
    if let Some(listed) = members.given() {
        if listed.value.len() > MOST_MEMBERS {
            let message = format!("`members`: more than {MOST_MEMBERS} front ends");
            diagnostics.error_with(listed.at.clone(), message, "make several clusters of them");
        }
        check_each_once(&listed.value, diagnostics);
        return Some(Members::Listed(listed.value.iter().map(|member| member.value).collect()));
    }
    if let Some(target) = dns.given() {
        return Some(Members::Dns(target.value.clone()));
    }
    let Located { value, at } = kubernetes.given()?;
    Some(Members::Kubernetes { target: kubernetes::target(value)?, at: at.clone() })
}

fn check_each_once(members: &[Located<std::net::SocketAddr>], diagnostics: &mut Diagnostics) {
    let mut seen = HashSet::new();
    for Located { value, at } in members {
        if !seen.insert(value) {
            diagnostics.error_with(at.clone(), format!("`members`: {value} is listed twice"), "delete one of the two");
        }
    }
}
