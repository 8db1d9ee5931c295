//! What threads share, and how it is replaced: by what the files say, and by the services that Kubernetes names besides.
//!
//! The files are the state, and what they define wins. A service that Kubernetes names is written nowhere: it is there for
//! as long as it is named.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::admin::{SharedToken, SharedTransport};
use crate::cluster::Cluster;
use crate::config::{AdminListen, Auth, Config, Labelled};
use crate::environment::Environment;
use crate::scoring::catalog::Catalog;
use crate::telemetry::metrics::Metrics;
use crate::tls::SharedTable;

/// What is replaced.
pub(super) struct Parts {
    pub https_port: u16,
    pub metrics: Arc<Metrics>,
    /// What is served, which has services that the files do not have.
    pub config: Arc<ArcSwap<Config>>,
    pub certificates: SharedTable,
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub token: SharedToken,
    pub transport: SharedTransport,
    pub cluster: Option<Arc<Cluster>>,
    /// What `admin.listen` was when its address was bound.
    pub listens_on: AdminListen,
    pub catalog_changed: Arc<Notify>,
}

/// See the module. Two threads have something to say: the one that follows the files, and the one that follows Kubernetes.
pub(super) struct Published {
    parts: Parts,
    said: Mutex<Said>,
}

/// What each of them said last.
struct Said {
    files: Arc<Config>,
    labelled: Vec<Labelled>,
    /// Services that the files and Kubernetes name, as the log has them.
    overruled: BTreeMap<String, String>,
    /// Services that nobody may call, as the log has them.
    keyless: BTreeSet<String>,
}

impl Published {
    pub fn new(parts: Parts) -> Self {
        let files = parts.config.load_full();
        let said =
            Mutex::new(Said { files, labelled: Vec::new(), overruled: BTreeMap::new(), keyless: BTreeSet::new() });
        Self { parts, said }
    }

    /// Has what the files hold now be served.
    pub fn follow(&self, environment: &Environment) {
        let parts = &self.parts;
        // Names come before the services that are called by them.
        parts.certificates.store(Arc::new(environment.table()));
        let token = environment.token();
        // As long as another address waits for a restart, the one that is bound keeps its guard.
        if token.is_some() || environment.config().admin.listen == parts.listens_on {
            parts.token.store(Arc::new(token));
        }
        parts.transport.store(Arc::new(environment.admin_transport()));
        if let Some(cluster) = &parts.cluster {
            cluster.set_secrets(environment.cluster_secrets());
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&said.files, environment.config()) {
            said.files = Arc::clone(environment.config());
            self.publish(&mut said);
        }
    }

    /// Has these be the services that Kubernetes names.
    pub fn follow_labelled(&self, labelled: Vec<Labelled>) {
        tracing::info!(services = labelled.len(), "services discovered in Kubernetes");
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.labelled = labelled;
        self.publish(&mut said);
    }

    fn publish(&self, said: &mut Said) {
        let config = said.together();
        let parts = &self.parts;
        let before = parts.catalog.load_full();
        let sharing = parts.cluster.as_ref().map(|cluster| &cluster.sharing);
        let catalog = Arc::new(Catalog::new(&config, parts.https_port, &parts.metrics, sharing, Some(&before)));
        parts.config.store(config);
        parts.catalog.store(Arc::clone(&catalog));
        catalog.take_effect(&before);
        parts.catalog_changed.notify_one();
        if let Some(sharing) = sharing {
            sharing.notify_one();
        }
    }
}

impl Said {
    fn together(&mut self) -> Arc<Config> {
        let Some(discovered) = self.files.kubernetes.discovered.as_ref().filter(|_| !self.labelled.is_empty()) else {
            return Arc::clone(&self.files);
        };
        let defined: HashSet<_> = self.files.services.iter().map(|service| &service.name).collect();
        let (overruled, new): (Vec<_>, Vec<_>) = self.labelled.iter().partition(|one| defined.contains(&one.name));
        let overruled = overruled.into_iter();
        let overruled: BTreeMap<_, _> =
            overruled.map(|one| (one.name.to_string(), format!("{}/{}", one.namespace, one.service))).collect();
        for (service, kubernetes) in overruled.iter().filter(|(name, _)| !self.overruled.contains_key(*name)) {
            tracing::warn!(
                service,
                kubernetes,
                "a file defines this service, and not the Service of Kubernetes that is called the same"
            );
        }
        self.overruled = overruled;
        let mut config = Config::clone(&self.files);
        config.services.extend(new.into_iter().map(|one| discovered.service(one)));
        let keyless = config.services.iter().filter(|service| service.auth == Auth::Keys(Vec::new()));
        let keyless: BTreeSet<_> = keyless.map(|service| service.name.to_string()).collect();
        for service in keyless.difference(&self.keyless) {
            tracing::warn!(
                service,
                "it asks for a key and has none, so that nobody can call it; annotate its Service, or set primary_key_sha256 in kubernetes.discover_services"
            );
        }
        self.keyless = keyless;
        Arc::new(config)
    }
}
