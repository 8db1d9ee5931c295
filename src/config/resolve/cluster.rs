//! What `[cluster]` says: who the front ends are that share this one's replicas.

use std::collections::HashSet;

use super::beside;
use crate::config::diagnostic::Diagnostics;
use crate::config::file::RawCluster;
use crate::config::table::{Field, Located};
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
    let members = match (raw.members, raw.dns) {
        (Field::Given(Located { at, .. }), Field::Given(_)) => {
            let message = "`members` and `dns` in [cluster] both say who the front ends are";
            diagnostics.error_with(at, message, "delete one of the two");
            return None;
        }
        (Field::Given(listed), _) => {
            if listed.value.len() > MOST_MEMBERS {
                let message = format!("`members`: more than {MOST_MEMBERS} front ends");
                diagnostics.error_with(listed.at.clone(), message, "make several clusters of them");
            }
            check_each_once(&listed.value, diagnostics);
            Members::Listed(listed.value.into_iter().map(|member| member.value).collect())
        }
        (_, Field::Given(target)) => Members::Dns(target.value),
        (Field::Absent, Field::Absent) => {
            let message = "[cluster] does not say who the front ends are";
            let remedy = "add members = [\"10.1.0.7:8444\", …], or dns = \"scorefront-peers.scoring.svc:8444\"";
            diagnostics.error_with(raw.at, message, remedy);
            return None;
        }
        _ => return None,
    };
    Some(Cluster {
        listen: raw.listen.value().unwrap_or(defaults::CLUSTER_LISTEN),
        address: raw.address.value(),
        secret_file: beside(&raw.secret_file?),
        members,
    })
}

fn check_each_once(members: &[Located<std::net::SocketAddr>], diagnostics: &mut Diagnostics) {
    let mut seen = HashSet::new();
    for Located { value, at } in members {
        if !seen.insert(value) {
            diagnostics.error_with(at.clone(), format!("`members`: {value} is listed twice"), "delete one of the two");
        }
    }
}
