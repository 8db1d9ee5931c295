//! What each deployment of the catalog needs besides requests: somebody who looks at its replicas' health and, where they
//! are looked up, at which there are. It follows the catalog; the work itself is done in [`crate::health`] and
//! [`crate::discovery`].

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, spawn_local};

use crate::config::{DnsTarget, Source};
use crate::discovery::dns::{self, Resolver};
use crate::health;
use crate::scheduling::Replicas;
use crate::scoring::catalog::{Catalog, Deployment};

/// Tends the deployments of `catalog`, for ever. `changed` is told when another one has taken its place.
pub(super) async fn tend(catalog: Arc<ArcSwap<Catalog>>, changed: Arc<Notify>) {
    let mut dns = catalog.load().dns.clone();
    let places = Rc::new(Semaphore::new(health::AT_ONCE));
    let mut resolver = Rc::new(Resolver::of(&dns));
    let mut tended: HashMap<(Box<str>, Box<str>), Tended> = HashMap::new();
    loop {
        let current = catalog.load_full();
        if dns != current.dns {
            dns.clone_from(&current.dns);
            resolver = Rc::new(Resolver::of(&dns));
        }
        let mut before = std::mem::take(&mut tended);
        for service in current.services() {
            for deployment in service.deployments() {
                let key = (service.name.clone(), deployment.name.clone());
                let mut tasks = match before.remove(&key) {
                    Some(tasks) if Arc::ptr_eq(&tasks.replicas, &deployment.replicas) => tasks,
                    _ => Tended::nothing_of(&deployment.replicas),
                };
                tasks.follow(deployment, &resolver, &places);
                tended.insert(key, tasks);
            }
        }
        // What is left in `before` is gone, and its tasks with it.
        drop(before);
        changed.notified().await;
    }
}

/// What is done for one deployment.
struct Tended {
    replicas: Arc<Replicas>,
    health: Option<(Task, (Uri, Duration))>,
    discovery: Option<(Task, DnsTarget, Rc<Resolver>)>,
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

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
    fn follow(&mut self, deployment: &Deployment, resolver: &Rc<Resolver>, places: &Rc<Semaphore>) {
        // Paths were checked when they were read.
        let path = Uri::try_from(&deployment.paths.health).unwrap_or_default();
        let wanted = (path, deployment.health.timeout);
        if self.health.as_ref().is_none_or(|(_, done)| *done != wanted) {
            let watch = health::watch(Arc::clone(&self.replicas), wanted.0.clone(), wanted.1, Rc::clone(places));
            self.health = Some((Task(spawn_local(watch).abort_handle()), wanted));
        }
        match &deployment.source {
            Source::Static(_) => self.discovery = None,
            Source::Dns { target, .. } if self.is_looked_up(target, resolver) => {}
            Source::Dns { target, .. } => {
                let followed = (target.clone(), Rc::clone(resolver));
                let (replicas, resolver, target) = (Arc::clone(&self.replicas), Rc::clone(resolver), target.clone());
                let follow = async move {
                    let publish = |addresses: Vec<_>| {
                        tracing::info!(%target, replicas = addresses.len(), "replicas looked up");
                        replicas.set(&addresses);
                    };
                    dns::follow(&resolver, &target, publish).await
                };
                self.discovery = Some((Task(spawn_local(follow).abort_handle()), followed.0, followed.1));
            }
        }
    }

    /// Whether `target` is asked for by `resolver` already.
    fn is_looked_up(&self, target: &DnsTarget, resolver: &Rc<Resolver>) -> bool {
        self.discovery.as_ref().is_some_and(|(_, done, by)| done == target && Rc::ptr_eq(by, resolver))
    }
}
