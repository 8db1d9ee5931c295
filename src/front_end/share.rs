//! Shares the replicas of the catalog out among the front ends of the cluster, and keeps that up: it follows the catalog,
//! the replicas and the members. How is decided in [`crate::cluster`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use crate::cluster::plan::{Deployment, Sharer};
use crate::cluster::{Cluster, exchange};
use crate::config::{Config, DnsTarget, Members, ReplicaAddress};
use crate::discovery::dns::{self, Resolver};
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
    let mut named = Named::default();
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
#[derive(Default)]
struct Named {
    by: Option<Members>,
    lookup: Option<Lookup>,
}

/// A task that ends when this is dropped.
struct Lookup(AbortHandle);

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Named {
    fn follow(&mut self, cluster: &Arc<Cluster>, config: &Config, catalog: &Catalog) {
        // Without the table, which waits for a restart, it goes on as it was.
        let Some(wanted) = config.cluster.as_ref().map(|cluster| &cluster.members) else { return };
        if self.by.as_ref() == Some(wanted) {
            return;
        }
        self.by = Some(wanted.clone());
        self.lookup = None;
        match wanted {
            Members::Listed(listed) => cluster.set_named(listed.iter().copied().collect()),
            Members::Dns(target) => {
                let look_up = look_up(Arc::clone(cluster), target.clone(), Rc::new(Resolver::of(&catalog.dns)));
                self.lookup = Some(Lookup(spawn_local(look_up).abort_handle()));
            }
        }
    }
}

async fn look_up(cluster: Arc<Cluster>, target: DnsTarget, resolver: Rc<Resolver>) -> Infallible {
    let publish = |addresses: Vec<ReplicaAddress>| cluster.set_named(addresses.iter().filter_map(socket).collect());
    dns::follow(&resolver, &target, publish).await
}

/// What was looked up are addresses.
fn socket(address: &ReplicaAddress) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.host().parse().ok()?, address.port()))
}
