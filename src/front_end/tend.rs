//! What each deployment of the catalog needs besides requests: somebody who looks at its replicas' health and, where they
//! are looked up, at which there are; and what else Kubernetes is asked. It follows the catalog; the work itself is done in
//! [`crate::health`] and [`crate::discovery`].

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use tokio::sync::{Notify, Semaphore};

use super::sources::{Followed, Sources, Task};
use crate::config::{self, Discovered, FrontEndService, Labelled, Source};
use crate::discovery::kubernetes::standing::{PublicAddress, Standing};
use crate::discovery::kubernetes::{self, Cluster, Which};
use crate::health;
use crate::scheduling::Replicas;
use crate::scoring::catalog::{Catalog, Deployment};

/// Who is told what Kubernetes says besides replicas.
pub(super) struct Told {
    pub standing: Arc<Standing>,
    /// The services that it names.
    pub labelled: Box<dyn Fn(Vec<Labelled>)>,
}

/// Tends the deployments of `catalog`, for ever. `changed` is told when another one has taken its place.
pub(super) async fn tend(catalog: Arc<ArcSwap<Catalog>>, changed: Arc<Notify>, sources: Rc<Sources>, told: Told) {
    let told = Rc::new(told);
    let places = Rc::new(Semaphore::new(health::AT_ONCE));
    let mut tended: HashMap<(Box<str>, Box<str>), Tended> = HashMap::new();
    let mut others = Others::default();
    loop {
        let current = catalog.load_full();
        let mut before = std::mem::take(&mut tended);
        for service in current.services() {
            for deployment in service.deployments() {
                let key = (service.name.clone(), deployment.name.clone());
                let mut tasks = match before.remove(&key) {
                    Some(tasks) if Arc::ptr_eq(&tasks.replicas, &deployment.replicas) => tasks,
                    _ => Tended::nothing_of(&deployment.replicas),
                };
                tasks.follow(deployment, &current, &sources, &places);
                tended.insert(key, tasks);
            }
        }
        others.follow(&current.kubernetes, &sources.cluster(&current), &told);
        // What is left in `before` is gone, and its tasks with it.
        drop(before);
        changed.notified().await;
    }
}

/// What is done for one deployment.
struct Tended {
    replicas: Arc<Replicas>,
    health: Option<(Task, (Uri, Duration))>,
    discovery: Option<(Task, Followed)>,
}

impl Tended {
    fn nothing_of(replicas: &Arc<Replicas>) -> Self {
        Self { replicas: Arc::clone(replicas), health: None, discovery: None }
    }

    /// Has done what `deployment` asks for now; what is done already goes on.
    fn follow(&mut self, deployment: &Deployment, catalog: &Catalog, sources: &Sources, places: &Rc<Semaphore>) {
        // Paths were checked when they were read.
        let path = Uri::try_from(&deployment.paths.health).unwrap_or_default();
        let wanted = (path, deployment.health.timeout);
        if self.health.as_ref().is_none_or(|(_, done)| *done != wanted) {
            let watch = health::watch(Arc::clone(&self.replicas), wanted.0.clone(), wanted.1, Rc::clone(places));
            self.health = Some((Task::of(watch), wanted));
        }
        let wanted = match &deployment.source {
            Source::Static(_) => None,
            Source::Dns { target, .. } => Some(Followed::Dns(sources.resolver(catalog), target.clone())),
            Source::Kubernetes { target, .. } => {
                Some(Followed::Kubernetes(sources.cluster(catalog), target.clone(), Which::Serving))
            }
        };
        if self.discovery.as_ref().map(|(_, done)| done) != wanted.as_ref() {
            self.discovery = wanted.map(|wanted| {
                let replicas = Arc::clone(&self.replicas);
                let found = wanted.clone().start(move |source, addresses| {
                    tracing::info!(%source, replicas = addresses.len(), "replicas looked up");
                    replicas.set(&addresses);
                });
                (found, wanted)
            });
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
                let publish = move |address: Option<PublicAddress>| told.standing.set_public_address(address);
                let follow = async move { kubernetes::follow_address(&cluster, &wanted, publish).await };
                (Task::of(follow), followed)
            });
        }
    }
}
