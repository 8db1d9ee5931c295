//! What the request path knows of the configuration: one snapshot, replaced whole when anything in it changes.

use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;

use super::limits::ServiceLimits;
use crate::config::{self, Auth, CnamePattern, ErrorFormat, HttpWhenTls, Limits, Paths, ReplicaAddress, TlsStatus};
use crate::telemetry::metrics::{DeploymentMetrics, Metrics};
use crate::tls::NameTable;
use crate::upstream::Replica;

/// Every service, and what holds for requests that belong to none.
#[derive(Debug)]
pub struct Catalog {
    pub tls_status: TlsStatus,
    pub http_when_tls: HttpWhenTls,
    /// The port of https URIs told to callers.
    pub https_port: u16,
    pub error_format: ErrorFormat,
    pub limits: Limits,
    /// The names for which callers have to show certificates, among all others; empty if there are none.
    guards: NameTable<Guard>,
    services: Vec<Service>,
    by_name: HashMap<Box<str>, usize>,
    /// Replicas that are no longer part of it and have requests in flight: one that comes back is the same one.
    departed: HashMap<ReplicaKey, Weak<Replica>>,
}

/// Whether callers have to show a certificate, and under which CNAME.
#[derive(Clone, Debug)]
struct Guard {
    cname: CnamePattern,
    asks_for_certificate: bool,
}

/// A named model.
#[derive(Debug)]
pub struct Service {
    pub name: Box<str>,
    /// The names it is served under; empty: every name.
    cnames: Vec<CnamePattern>,
    pub auth: Auth,
    pub scoring_timeout: Duration,
    /// Bytes.
    pub max_body: u64,
    pub error_format: ErrorFormat,
    pub(super) limits: ServiceLimits,
    deployments: Vec<Deployment>,
}

/// One version of a service.
#[derive(Debug)]
pub struct Deployment {
    pub name: Box<str>,
    /// The name as a field value.
    pub label: HeaderValue,
    /// Percent of the service's requests.
    traffic: u8,
    pub paths: Paths,
    pub replicas: Vec<Arc<Replica>>,
    pub metrics: Arc<DeploymentMetrics>,
}

impl Catalog {
    /// Makes the snapshot that `config` describes. `https_port` is the port that was bound, which may differ from the
    /// one configured when that is 0. A replica that was in `before` too is the same one, with its requests in flight,
    /// and limits go on counting.
    pub fn new(config: &config::Config, https_port: u16, metrics: &Metrics, before: Option<&Self>) -> Self {
        let known = before.map(Self::replicas).unwrap_or_default();
        let service_before = |name: &str| before?.services.get(*before?.by_name.get(name)?);
        let service = |service: &config::Service| {
            let limits =
                ServiceLimits::new(service, service_before(service.name.as_str()).map(|before| &before.limits));
            Service::new(service, metrics, &known, limits)
        };
        let services: Vec<_> = config.services.iter().map(service).collect();
        let by_name = services.iter().enumerate().map(|(index, service)| (service.name.clone(), index)).collect();
        Self {
            tls_status: config.tls.status,
            http_when_tls: config.frontend.http_when_tls,
            https_port,
            error_format: config.error_format,
            limits: config.limits.clone(),
            guards: guards(config),
            departed: departed(known, &services),
            services,
            by_name,
        }
    }

    /// The CNAME under which a caller has to show a certificate to be answered for `host`, if there is one.
    pub fn guard(&self, host: &str) -> Option<&CnamePattern> {
        if self.guards.is_empty() {
            return None;
        }
        self.guards.find(Some(host)).filter(|guard| guard.asks_for_certificate).map(|guard| &guard.cname)
    }

    fn replicas(&self) -> Known {
        let departed = self.departed.iter().filter_map(|(key, replica)| Some((key.clone(), replica.upgrade()?)));
        departed.chain(replicas(&self.services)).collect()
    }

    /// No service at all.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self {
            tls_status: TlsStatus::Enabled,
            http_when_tls: HttpWhenTls::Refuse,
            https_port: 443,
            error_format: ErrorFormat::Json,
            limits: Limits::default(),
            guards: NameTable::default(),
            services: Vec::new(),
            by_name: HashMap::new(),
            departed: HashMap::new(),
        }
    }

    pub fn services(&self) -> &[Service] {
        &self.services
    }
}

/// Service, deployment and address.
type ReplicaKey = (Box<str>, Box<str>, ReplicaAddress);

type Known = HashMap<ReplicaKey, Arc<Replica>>;

fn replicas(services: &[Service]) -> impl Iterator<Item = (ReplicaKey, Arc<Replica>)> {
    let deployments = services.iter().flat_map(|service| service.deployments.iter().map(move |one| (service, one)));
    deployments.flat_map(|(service, deployment)| {
        let key = |replica: &Replica| (service.name.clone(), deployment.name.clone(), replica.address().clone());
        deployment.replicas.iter().map(move |replica| (key(replica), Arc::clone(replica)))
    })
}

fn departed(mut known: Known, services: &[Service]) -> HashMap<ReplicaKey, Weak<Replica>> {
    for (key, _) in replicas(services) {
        known.remove(&key);
    }
    let busy = known.into_iter().filter(|(_, replica)| replica.in_flight() > 0);
    busy.map(|(key, replica)| (key, Arc::downgrade(&replica))).collect()
}

fn guards(config: &config::Config) -> NameTable<Guard> {
    let mut guards = NameTable::default();
    if config.cnames.iter().all(|cname| cname.client_ca_pem.is_none()) {
        return guards;
    }
    for cname in &config.cnames {
        let guard = Guard { cname: cname.name.clone(), asks_for_certificate: cname.client_ca_pem.is_some() };
        guards.insert(cname.name.as_str(), guard.clone());
        if config.tls.default_cname.as_ref() == Some(&cname.name) {
            guards.set_default(guard);
        }
    }
    guards
}

impl Service {
    fn new(service: &config::Service, metrics: &Metrics, known: &Known, limits: ServiceLimits) -> Self {
        let replica = |deployment: &config::Deployment, address: &ReplicaAddress| {
            let key = (service.name.as_str().into(), deployment.name.as_str().into(), address.clone());
            known.get(&key).map(Arc::clone).or_else(|| Replica::new(address.clone()))
        };
        let deployments = service.deployments.iter().map(|deployment| Deployment {
            name: deployment.name.as_str().into(),
            label: HeaderValue::from_str(&deployment.name).unwrap_or_else(|_| HeaderValue::from_static("")),
            traffic: deployment.traffic,
            paths: deployment.paths.clone(),
            replicas: deployment.source.listed().iter().filter_map(|one| replica(deployment, &one.address)).collect(),
            metrics: metrics.deployment(service.name.as_str(), &deployment.name),
        });
        Self {
            name: service.name.as_str().into(),
            cnames: service.cnames.clone(),
            auth: service.auth.clone(),
            scoring_timeout: service.scoring_timeout,
            max_body: service.max_body,
            error_format: service.error_format,
            limits,
            deployments: deployments.collect(),
        }
    }

    pub fn deployments(&self) -> &[Deployment] {
        &self.deployments
    }

    /// Whether callers need a key.
    pub fn is_keyed(&self) -> bool {
        matches!(self.auth, Auth::Keys(_))
    }

    fn is_served_under(&self, host: &str) -> bool {
        self.cnames.is_empty() || self.cnames.iter().any(|cname| cname.matches(host))
    }

    /// The deployment that a number drawn from 0 to 99 falls on, by the shares of the traffic.
    pub fn deployment_for(&self, drawn: u8) -> Option<usize> {
        let mut below = 0u32;
        self.deployments.iter().position(|deployment| {
            below += u32::from(deployment.traffic);
            u32::from(drawn) < below
        })
    }

    pub fn deployment_named(&self, name: &[u8]) -> Option<usize> {
        self.deployments.iter().position(|deployment| deployment.name.as_bytes() == name)
    }
}

/// One thread's hold on a snapshot. Requests count their hold on it here, so that threads do not fight over one
/// reference count.
pub type LocalCatalog = Rc<Arc<Catalog>>;

/// A service, and the snapshot it stands in for as long as a request needs it.
#[derive(Clone)]
pub struct ServiceRef {
    catalog: LocalCatalog,
    index: usize,
}

impl ServiceRef {
    /// The service of this name, if it is served under `host`.
    pub fn find(catalog: &LocalCatalog, name: &str, host: &str) -> Option<Self> {
        let index = *catalog.by_name.get(name)?;
        let found = Self { catalog: Rc::clone(catalog), index };
        found.is_served_under(host).then_some(found)
    }
}

impl Deref for ServiceRef {
    type Target = Service;

    fn deref(&self) -> &Service {
        // `find` is the only maker, and a snapshot never changes.
        &self.catalog.services[self.index]
    }
}
