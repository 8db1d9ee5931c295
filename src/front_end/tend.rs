//! What each deployment of the catalog needs besides requests: somebody who looks at its replicas' health and, where they
//! are looked up, at which there are; and what else Kubernetes is asked. It follows the catalog; the work itself is done in
//! [`crate::health`] and [`crate::discovery`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, spawn_local};

use crate::config::{self, Discovered, DnsTarget, FrontEndService, KubernetesTarget, Labelled, ReplicaAddress, Source};
use crate::discovery::dns::{self, Resolver};
use crate::discovery::kubernetes::standing::Standing;
use crate::discovery::kubernetes::{self, Cluster};
use crate::health;
use crate::scheduling::Replicas;
use crate::scoring::catalog::{Catalog, Deployment, Service};

/// Who is told what Kubernetes says besides replicas.
pub(super) struct Told {
    pub standing: Arc<Standing>,
    /// The services that it names.
    pub labelled: Box<dyn Fn(Vec<Labelled>)>,
}

/// Tends the deployments of `catalog`, for ever. `changed` is told when another one has taken its place.
pub(super) async fn tend(catalog: Arc<ArcSwap<Catalog>>, changed: Arc<Notify>, told: Told) {
    let told = Rc::new(told);
    let mut sources = Sources::of(&catalog.load(), &told.standing);
    let places = Rc::new(Semaphore::new(health::AT_ONCE));
    let mut tended: HashMap<(Box<str>, Box<str>), Tended> = HashMap::new();
    let mut others = Others::default();
    told.standing.expect(watches(&catalog.load()));
    loop {
        let current = catalog.load_full();
        sources.follow(&current, &told.standing);
        let mut before = std::mem::take(&mut tended);
        for service in current.services() {
            for deployment in service.deployments() {
                let key = (service.name.clone(), deployment.name.clone());
                let mut tasks = match before.remove(&key) {
                    Some(tasks) if Arc::ptr_eq(&tasks.replicas, &deployment.replicas) => tasks,
                    _ => Tended::nothing_of(&deployment.replicas),
                };
                tasks.follow(deployment, &sources, &places);
                tended.insert(key, tasks);
            }
        }
        others.follow(&current.kubernetes, &sources.cluster, &told);
        // What is left in `before` is gone, and its tasks with it.
        drop(before);
        changed.notified().await;
    }
}

/// How many watches of Kubernetes `catalog` asks for.
fn watches(catalog: &Catalog) -> usize {
    let deployments = catalog.services().iter().flat_map(Service::deployments);
    let namespaces: HashSet<_> = deployments
        .filter_map(|deployment| match &deployment.source {
            Source::Kubernetes { target, .. } => Some(&target.namespace),
            Source::Static(_) | Source::Dns { .. } => None,
        })
        .collect();
    let config::Kubernetes { discovered, front_end_service, .. } = &catalog.kubernetes;
    namespaces.len() + usize::from(discovered.is_some()) + usize::from(front_end_service.is_some())
}

fn kubeconfig(catalog: &Catalog) -> Option<PathBuf> {
    catalog.kubernetes.kubeconfig.as_ref().map(|file| file.path.clone())
}

/// Who is asked which replicas there are.
struct Sources {
    dns: config::Dns,
    resolver: Rc<Resolver>,
    kubeconfig: Option<PathBuf>,
    cluster: Rc<Cluster>,
}

impl Sources {
    fn of(catalog: &Catalog, standing: &Arc<Standing>) -> Self {
        Self {
            dns: catalog.dns.clone(),
            resolver: Rc::new(Resolver::of(&catalog.dns)),
            kubeconfig: kubeconfig(catalog),
            cluster: Rc::new(Cluster::of(&catalog.kubernetes, Arc::clone(standing))),
        }
    }

    /// Asks others if `catalog` names others.
    fn follow(&mut self, catalog: &Catalog, standing: &Arc<Standing>) {
        if self.dns != catalog.dns {
            self.dns.clone_from(&catalog.dns);
            self.resolver = Rc::new(Resolver::of(&catalog.dns));
        }
        let kubeconfig = kubeconfig(catalog);
        if self.kubeconfig != kubeconfig {
            self.kubeconfig = kubeconfig;
            self.cluster = Rc::new(Cluster::of(&catalog.kubernetes, Arc::clone(standing)));
        }
    }
}

/// What is done for one deployment.
struct Tended {
    replicas: Arc<Replicas>,
    health: Option<(Task, (Uri, Duration))>,
    discovery: Option<(Task, Followed)>,
}

/// By whom and by what replicas are looked up.
#[derive(Clone)]
enum Followed {
    Dns(Rc<Resolver>, DnsTarget),
    Kubernetes(Rc<Cluster>, KubernetesTarget),
}

impl PartialEq for Followed {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dns(by, target), Self::Dns(other_by, other)) => Rc::ptr_eq(by, other_by) && target == other,
            (Self::Kubernetes(by, target), Self::Kubernetes(other_by, other)) => {
                Rc::ptr_eq(by, other_by) && target == other
            }
            _ => false,
        }
    }
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Task {
    fn of(work: impl Future<Output = std::convert::Infallible> + 'static) -> Self {
        Self(spawn_local(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tended {
    fn nothing_of(replicas: &Arc<Replicas>) -> Self {
        Self { replicas: Arc::clone(replicas), health: None, discovery: None }
    }

    /// Has done what `deployment` asks for now; what is done already goes on.
    fn follow(&mut self, deployment: &Deployment, sources: &Sources, places: &Rc<Semaphore>) {
        // Paths were checked when they were read.
        let path = Uri::try_from(&deployment.paths.health).unwrap_or_default();
        let wanted = (path, deployment.health.timeout);
        if self.health.as_ref().is_none_or(|(_, done)| *done != wanted) {
            let watch = health::watch(Arc::clone(&self.replicas), wanted.0.clone(), wanted.1, Rc::clone(places));
            self.health = Some((Task::of(watch), wanted));
        }
        let wanted = match &deployment.source {
            Source::Static(_) => None,
            Source::Dns { target, .. } => Some(Followed::Dns(Rc::clone(&sources.resolver), target.clone())),
            Source::Kubernetes { target, .. } => {
                Some(Followed::Kubernetes(Rc::clone(&sources.cluster), target.clone()))
            }
        };
        if self.discovery.as_ref().map(|(_, done)| done) != wanted.as_ref() {
            self.discovery = wanted.map(|wanted| (wanted.clone().start(&self.replicas), wanted));
        }
    }
}

impl Followed {
    /// Has `replicas` be those that are found from now on.
    fn start(self, replicas: &Arc<Replicas>) -> Task {
        let replicas = Arc::clone(replicas);
        let publish = move |target: &dyn std::fmt::Display, addresses: Vec<ReplicaAddress>| {
            tracing::info!(source = %target, replicas = addresses.len(), "replicas looked up");
            replicas.set(&addresses);
        };
        match self {
            Self::Dns(resolver, target) => {
                Task::of(async move { dns::follow(&resolver, &target, |found| publish(&target, found)).await })
            }
            Self::Kubernetes(cluster, target) => {
                Task::of(async move { kubernetes::follow(&cluster, &target, |found| publish(&target, found)).await })
            }
        }
    }
}

/// What is followed in Kubernetes besides the replicas of deployments.
#[derive(Default)]
struct Others {
    labelled: Option<(Task, (Rc<Cluster>, Discovered))>,
    address: Option<(Task, (Rc<Cluster>, FrontEndService))>,
}

impl Others {
    fn follow(&mut self, config: &config::Kubernetes, cluster: &Rc<Cluster>, told: &Rc<Told>) {
        let wanted = config.discovered.as_ref();
        let is_same = |done: &(Rc<Cluster>, Discovered), new: &Discovered| {
            let asked = |one: &Discovered| (one.namespace.clone(), one.selector.clone());
            Rc::ptr_eq(&done.0, cluster) && asked(&done.1) == asked(new)
        };
        if !matches!((&self.labelled, wanted), (Some((_, done)), Some(new)) if is_same(done, new)) {
            if self.labelled.take().is_some() && wanted.is_none() {
                (told.labelled)(Vec::new());
            }
            self.labelled = wanted.map(|wanted| {
                let followed = (Rc::clone(cluster), wanted.clone());
                let (cluster, wanted, told) = (Rc::clone(cluster), wanted.clone(), Rc::clone(told));
                let follow =
                    async move { kubernetes::follow_labelled(&cluster, &wanted, |all| (told.labelled)(all)).await };
                (Task::of(follow), followed)
            });
        }
        let wanted = config.front_end_service.as_ref();
        let is_same = |done: &(Rc<Cluster>, FrontEndService), new: &FrontEndService| {
            Rc::ptr_eq(&done.0, cluster) && done.1 == *new
        };
        if !matches!((&self.address, wanted), (Some((_, done)), Some(new)) if is_same(done, new)) {
            told.standing.set_public_address(None);
            self.address = wanted.map(|wanted| {
                let followed = (Rc::clone(cluster), wanted.clone());
                let (cluster, wanted, told) = (Rc::clone(cluster), wanted.clone(), Rc::clone(told));
                let publish = move |address: Option<IpAddr>| told.standing.set_public_address(address);
                let follow = async move { kubernetes::follow_address(&cluster, &wanted, publish).await };
                (Task::of(follow), followed)
            });
        }
    }
}
