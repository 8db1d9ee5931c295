//! Who is asked which replicas and which front ends there are: one resolver of names and one Kubernetes for all who ask on
//! the control thread, so that a namespace is watched once, whoever wants to know of it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Display;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::{AbortHandle, spawn_local};

use crate::config::{self, DnsTarget, KubernetesTarget, ReplicaAddress};
use crate::discovery::dns::{self, Resolver};
use crate::discovery::kubernetes::standing::Standing;
use crate::discovery::kubernetes::{self, Cluster, Which};
use crate::scoring::catalog::Catalog;

/// See the module.
pub(super) struct Sources {
    standing: Arc<Standing>,
    /// Each with what it was made of.
    resolver: RefCell<Option<(config::Dns, Rc<Resolver>)>>,
    cluster: RefCell<Option<(Option<PathBuf>, Rc<Cluster>)>>,
}

impl Sources {
    /// What is found out about Kubernetes by the way is noted in `standing`.
    pub fn new(standing: Arc<Standing>) -> Self {
        Self { standing, resolver: RefCell::default(), cluster: RefCell::default() }
    }

    /// What looks names up as `catalog` says: the same as before, if that says the same.
    pub fn resolver(&self, catalog: &Catalog) -> Rc<Resolver> {
        let mut known = self.resolver.borrow_mut();
        match &*known {
            Some((config, resolver)) if *config == catalog.dns => Rc::clone(resolver),
            _ => {
                let resolver = Rc::new(Resolver::of(&catalog.dns));
                *known = Some((catalog.dns.clone(), Rc::clone(&resolver)));
                resolver
            }
        }
    }

    /// The Kubernetes that `catalog` names: the same as before, if that names the same.
    pub fn cluster(&self, catalog: &Catalog) -> Rc<Cluster> {
        let kubeconfig = catalog.kubernetes.kubeconfig.as_ref().map(|file| &file.path);
        let mut known = self.cluster.borrow_mut();
        match &*known {
            Some((config, cluster)) if config.as_ref() == kubeconfig => Rc::clone(cluster),
            _ => {
                let cluster = Rc::new(Cluster::of(&catalog.kubernetes, Arc::clone(&self.standing)));
                *known = Some((kubeconfig.cloned(), Rc::clone(&cluster)));
                cluster
            }
        }
    }
}

/// By whom and by what addresses are looked up.
#[derive(Clone)]
pub(super) enum Followed {
    Dns(Rc<Resolver>, DnsTarget),
    Kubernetes(Rc<Cluster>, KubernetesTarget, Which),
}

impl PartialEq for Followed {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dns(by, target), Self::Dns(other_by, other)) => Rc::ptr_eq(by, other_by) && target == other,
            (Self::Kubernetes(by, target, which), Self::Kubernetes(other_by, other, other_which)) => {
                Rc::ptr_eq(by, other_by) && (target, which) == (other, other_which)
            }
            _ => false,
        }
    }
}

impl Followed {
    /// Hands every set of addresses that differs from the one before to `publish`, with what it was looked up by, until
    /// what is returned is dropped.
    pub fn start(self, mut publish: impl FnMut(&dyn Display, Vec<ReplicaAddress>) + 'static) -> Task {
        Task::of(async move {
            match self {
                Self::Dns(resolver, target) => dns::follow(&resolver, &target, |found| publish(&target, found)).await,
                Self::Kubernetes(cluster, target, which) => {
                    kubernetes::follow(&cluster, &target, which, |found| publish(&target, found)).await
                }
            }
        })
    }
}

/// A task that ends when this is dropped.
pub(super) struct Task(AbortHandle);

impl Task {
    pub fn of(work: impl Future<Output = Infallible> + 'static) -> Self {
        Self(spawn_local(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
