//! Shares the replicas of the catalog out among the front ends of the cluster, and keeps that up: it follows the catalog,
//! the replicas and the members. How is decided in [`crate::cluster`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::sources::{Followed, Sources, Task};
use crate::cluster::plan::{Deployment, Sharer};
use crate::cluster::{Cluster, exchange};
use crate::config::{Config, Members, ReplicaAddress};
use crate::discovery::kubernetes::{Family, Which};
use crate::scoring::catalog::Catalog;
use crate::shutdown::Phase;

/// How often it is looked whether there is anything to share out anew that nobody told of, and whether all still agree.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same while slots are on their way from one front end to another.
const QUICK_INTERVAL: Duration = Duration::from_millis(20);

/// Shares out for ever, and gives up all there is once the process is to end.
pub(super) async fn share(
    cluster: Arc<Cluster>,
    catalog: Arc<ArcSwap<Catalog>>,
    config: Arc<ArcSwap<Config>>,
    sources: Rc<Sources>,
    mut phases: watch::Receiver<Phase>,
) {
    spawn_local(exchange::follow(Arc::clone(&cluster)));
    let leaving = Arc::clone(&cluster);
    spawn_local(async move {
        if phases.wait_for(|phase| *phase >= Phase::Draining).await.is_ok() {
            leaving.leave();
        }
    });
    let mut sharer = Sharer::new(Arc::clone(&cluster));
    let mut named = Named { sources, by: None, lookup: None };
    let mut looked_at = None::<Instant>;
    loop {
        let now = Instant::now();
        // While slots are awaited there is nothing else to do but to see whether they have come.
        let is_due = looked_at.is_none_or(|then| now - then >= INTERVAL);
        let current = catalog.load_full();
        named.follow(&cluster, &config.load(), &current);
        if is_due {
            looked_at = Some(now);
            let deployments = current.services().iter().flat_map(|service| {
                let of_service = service.deployments().iter();
                of_service.map(|deployment| Deployment {
                    service: &service.name,
                    name: &deployment.name,
                    replicas: &deployment.replicas,
                })
            });
            sharer.share(&deployments.collect::<Vec<_>>(), now);
        } else {
            sharer.settle(now);
        }
        let pause = if sharer.is_done() && cluster.is_settled() { INTERVAL } else { QUICK_INTERVAL };
        if timeout(pause, cluster.sharing.notified()).await.is_ok() {
            looked_at = None;
        }
    }
}

/// Who says which front ends there are.
struct Named {
    sources: Rc<Sources>,
    by: Option<By>,
    lookup: Option<Task>,
}

#[derive(PartialEq)]
enum By {
    Listed(Vec<SocketAddr>),
    LookedUp(Followed),
}

impl Named {
    fn follow(&mut self, cluster: &Arc<Cluster>, config: &Config, catalog: &Catalog) {
        // Without the table, which waits for a restart, it goes on as it was.
        let Some(table) = &config.cluster else { return };
        let wanted = match &table.members {
            Members::Listed(listed) => By::Listed(listed.clone()),
            Members::Dns(target) => By::LookedUp(Followed::Dns(self.sources.resolver(catalog), target.clone())),
            Members::Kubernetes { target, .. } => {
                // Whether one takes calls is not for Kubernetes to say: one that is not ready yet, or is ending, may have
                // slots. And each is to be known by the address that it knows itself by.
                let which = Which::Any(Family::of(cluster.own().ip()));
                By::LookedUp(Followed::Kubernetes(self.sources.cluster(catalog), target.clone(), which))
            }
        };
        if self.by.as_ref() == Some(&wanted) {
            return;
        }
        self.lookup = match &wanted {
            By::Listed(listed) => {
                cluster.set_named(listed.iter().copied().collect());
                None
            }
            By::LookedUp(followed) => {
                let cluster = Arc::clone(cluster);
                Some(followed.clone().start(move |source, addresses| {
                    tracing::info!(%source, front_ends = addresses.len(), "front ends of the cluster looked up");
                    cluster.set_named(addresses.iter().filter_map(socket).collect());
                }))
            }
        };
        self.by = Some(wanted);
    }
}

/// What was looked up are addresses.
fn socket(address: &ReplicaAddress) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.host().parse().ok()?, address.port()))
}
