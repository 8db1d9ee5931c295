//! What one worker thread brings to every request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::catalog::{Catalog, LocalCatalog};
use crate::cluster::Cluster;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{DeploymentMetrics, Metrics, RequestMetrics, ThreadMetrics};
use crate::upstream::Pool;

/// One thread's own state; nothing in it is locked, and nothing but the snapshot and the counts is shared.
pub struct Worker {
    index: usize,
    shared: Arc<ArcSwap<Catalog>>,
    local: RefCell<LocalCatalog>,
    /// The front ends that share the replicas; absent where this is the only one.
    pub cluster: Option<Arc<Cluster>>,
    pub pool: Rc<Pool>,
    /// Copies of requests under way.
    pub copies: Cell<usize>,
    pub metrics: Arc<Metrics>,
    pub access: AccessLog,
    /// Bytes of small bodies that are gathered before a replica is asked.
    pub gathered: Cell<u64>,
    /// Whether callers are asked to take their next request elsewhere.
    pub draining: Cell<bool>,
    /// Whether what is under way is cut now.
    pub cutting: Cell<bool>,
}

impl Worker {
    pub fn new(
        index: usize,
        shared: Arc<ArcSwap<Catalog>>,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
        access: AccessLog,
    ) -> Self {
        let local = RefCell::new(Rc::new(shared.load_full()));
        let pool = Rc::default();
        let (copies, gathered) = (Cell::new(0), Cell::new(0));
        let (draining, cutting) = (Cell::new(false), Cell::new(false));
        Self { index, shared, local, cluster, pool, copies, metrics, access, gathered, draining, cutting }
    }

    /// The snapshot that holds now.
    pub fn catalog(&self) -> LocalCatalog {
        let mut local = self.local.borrow_mut();
        let current = self.shared.load();
        if !Arc::ptr_eq(&current, &local) {
            *local = Rc::new(Arc::clone(&current));
        }
        Rc::clone(&local)
    }

    /// This thread's own figures of its connections.
    pub fn thread_metrics(&self) -> &ThreadMetrics {
        // There are as many as there are workers, by construction in `front_end`.
        &self.metrics.threads[self.index]
    }

    /// The same of requests that other front ends handed over.
    pub fn handed_part<'a>(&self, metrics: &'a DeploymentMetrics) -> &'a RequestMetrics {
        metrics.handed_thread(self.index)
    }

    /// This thread's own part of a deployment's figures.
    pub fn part<'a>(&self, metrics: &'a DeploymentMetrics) -> &'a RequestMetrics {
        metrics.thread(self.index)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A worker that serves nothing.
    pub(crate) fn worker() -> Rc<Worker> {
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::empty()));
        let metrics = Arc::new(Metrics::new(1, Arc::default()));
        Rc::new(Worker::new(0, catalog, None, metrics, AccessLog::new(None, false)))
    }
}
