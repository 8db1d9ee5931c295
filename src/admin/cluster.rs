//! `/v1/cluster`: the front ends that share the replicas, as this one sees them, and which of them has which deployment. It
//! reads what they have agreed on, and changes nothing.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::scoring::catalog::{Catalog, Deployment};

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Report {
    /// This front end; absent where it is the only one.
    own: Option<SocketAddr>,
    /// Whether every slot that is to be this front end's is, and all see the same members.
    settled: bool,
    members: Vec<MemberReport>,
    services: Vec<ServiceReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing to know, in a document")]
struct MemberReport {
    address: SocketAddr,
    /// Whether it has a part in the cluster; not so one that is leaving, or gone.
    member: bool,
    /// Whether it answered when it was asked last.
    answers: bool,
    leaving: bool,
    /// Whether it sees the same members.
    agrees: bool,
    /// Requests that were handed over to it.
    handed_over: u64,
}

#[derive(Debug, Serialize)]
struct ServiceReport {
    name: Box<str>,
    deployments: Vec<DeploymentReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct DeploymentReport {
    name: Box<str>,
    /// Who has its slots; absent where each front end may give its replicas as many requests as come.
    owners: Option<Vec<OwnerReport>>,
    /// What this front end may give its replicas at once now; while it settles less than what is to be its own.
    slots: Option<usize>,
}

#[derive(Debug, Serialize)]
struct OwnerReport {
    address: SocketAddr,
    slots: usize,
}

impl Report {
    pub(super) fn of(cluster: Option<&Cluster>, catalog: &Catalog) -> Self {
        let Some(cluster) = cluster else {
            return Self { own: None, settled: true, members: Vec::new(), services: Vec::new() };
        };
        let services = catalog.services().iter().map(|service| ServiceReport {
            name: service.name.clone(),
            deployments: service.deployments().iter().map(|deployment| report(cluster, deployment)).collect(),
        });
        Self {
            own: Some(cluster.own()),
            settled: cluster.is_settled(),
            members: members(cluster),
            services: services.collect(),
        }
    }
}

fn members(cluster: &Cluster) -> Vec<MemberReport> {
    let plan = cluster.plan();
    let (own, leaving) = (cluster.own(), cluster.members().is_leaving());
    let own = MemberReport {
        address: own,
        member: plan.members.contains(&own),
        answers: true,
        leaving,
        agrees: true,
        handed_over: 0,
    };
    let others = cluster.members().standing().into_iter().map(|other| MemberReport {
        address: other.address,
        member: plan.members.contains(&other.address),
        answers: other.answers,
        leaving: other.leaving,
        agrees: other.agrees,
        handed_over: plan.other(other.address).map_or(0, |member| member.handed_over.load(Relaxed)),
    });
    let mut members: Vec<_> = std::iter::once(own).chain(others).collect();
    members.sort_by_key(|member| member.address);
    members
}

fn report(cluster: &Cluster, deployment: &Deployment) -> DeploymentReport {
    let home = cluster.home(&deployment.replicas);
    let owner = |(address, slots): &(SocketAddr, usize)| OwnerReport { address: *address, slots: *slots };
    DeploymentReport {
        name: deployment.name.clone(),
        owners: home.map(|home| home.owners.iter().map(owner).collect()),
        slots: slots(deployment),
    }
}

/// What a front end may give the replicas of `deployment` at once; `None` where that is not shared.
pub(super) fn slots(deployment: &Deployment) -> Option<usize> {
    let (replicas, _) = deployment.replicas.shared()?;
    Some(replicas.iter().map(|replica| replica.limit()).sum())
}
