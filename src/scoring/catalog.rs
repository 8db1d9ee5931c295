//! What the request path knows of the configuration: one snapshot, replaced whole when anything in it changes.

pub mod limits;
pub mod split;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use tokio::sync::Notify;

use self::limits::ServiceLimits;
use crate::config::{
    self, Auth, CnamePattern, Dns, ErrorFormat, HealthChecks, HttpWhenTls, Kubernetes, Limits, Paths, Source, StickyBy,
    TlsStatus,
};
use crate::scheduling::{ANY, Queue, Replicas, Settings};
use crate::telemetry::metrics::{DeploymentMetrics, Metrics};
use crate::tls::NameTable;

/// Every service, and what holds for requests that belong to none.
#[derive(Debug)]
pub struct Catalog {
    pub tls_status: TlsStatus,
    pub http_when_tls: HttpWhenTls,
    /// The port of https URIs told to callers.
    pub https_port: u16,
    /// The name that the cluster is called by: the first that is no wildcard.
    pub cname: Option<Box<str>>,
    pub error_format: ErrorFormat,
    pub limits: Limits,
    balancers: Box<[IpNet]>,
    /// What replicas are looked up by.
    pub dns: Dns,
    /// Where replicas are said by Kubernetes.
    pub kubernetes: Kubernetes,
    /// The names for which callers have to show certificates, among all others; empty if there are none.
    guards: NameTable<Guard>,
    services: Vec<Service>,
    by_name: HashMap<Box<str>, usize>,
    /// Deployments that are no longer part of it and have requests in flight, or may yet: one that comes back finds its
    /// replicas as busy as they are.
    departed: Known,
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
    pub max_queue_wait: Duration,
    max_queue: usize,
    pub queue: Arc<Queue>,
    pub limits: ServiceLimits,
    /// What tells callers apart that are to get the same deployment; absent: nothing.
    pub sticky_by: Option<StickyBy>,
    pub mirror: Option<Mirror>,
    deployments: Vec<Deployment>,
}

/// Which of a service's requests are copied, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Mirror {
    /// By its place in the service.
    pub deployment: usize,
    /// Of the requests that may be copied.
    pub percent: u8,
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
    pub health: HealthChecks,
    pub source: Source,
    settings: Settings,
    pub replicas: Arc<Replicas>,
    pub metrics: Arc<DeploymentMetrics>,
}

impl Catalog {
    /// Makes the snapshot that `config` describes. `https_port` is the port that was bound, which may differ from the
    /// one configured when that is 0; callers are told of another one if the configuration says so. What was in `before` too goes on as it is until [`Catalog::take_effect`]: replicas
    /// with their permits, queues with those who wait; limits go on counting. Where replicas are shared with other front
    /// ends, `sharing` is told of what there is to share out.
    pub fn new(
        config: &config::Config,
        https_port: u16,
        metrics: &Metrics,
        sharing: Option<&Arc<Notify>>,
        before: Option<&Self>,
    ) -> Self {
        let mut known = before.map(Self::known).unwrap_or_default();
        let service_before = |name: &str| before?.services.get(*before?.by_name.get(name)?);
        let service = |service: &config::Service| {
            let before = service_before(service.name.as_str()).map(|before| &before.limits);
            Service::new(service, metrics, sharing, &mut known, ServiceLimits::new(service, before))
        };
        let services: Vec<_> = config.services.iter().map(service).collect();
        let by_name = services.iter().enumerate().map(|(index, service)| (service.name.clone(), index)).collect();
        // What went before this change, and only `before` and `known` hold, can be forgotten. The permits in use do not tell:
        // a request that found it in an older snapshot may take another.
        known.retain(|key, replicas| {
            before.is_none_or(|before| !before.departed.contains_key(key)) || Arc::strong_count(replicas) > 2
        });
        Self {
            tls_status: config.tls.status,
            http_when_tls: config.frontend.http_when_tls,
            https_port: config.frontend.public_https_port.unwrap_or(https_port),
            cname: cname(config),
            error_format: config.error_format,
            limits: config.limits.clone(),
            balancers: config.frontend.proxy_protocol_from.clone().into(),
            dns: config.dns.clone(),
            kubernetes: config.kubernetes.clone(),
            guards: guards(config),
            departed: known,
            services,
            by_name,
        }
    }

    /// Has the queues and replicas that were in `before` too follow this snapshot, once it has taken the other's place.
    /// Who waits for what is gone looks for it here.
    pub fn take_effect(&self, before: &Self) {
        let mut gone = before.known();
        for service in &self.services {
            service.queue.set_max(service.max_queue);
            for deployment in &service.deployments {
                deployment.take_effect();
                gone.remove(&(service.name.clone(), deployment.name.clone()));
            }
        }
        // One that was renamed goes on.
        let here: HashSet<_> = self.deployments().map(|deployment| Arc::as_ptr(&deployment.replicas)).collect();
        gone.retain(|_, replicas| !here.contains(&Arc::as_ptr(replicas)));
        for replicas in gone.values() {
            replicas.set_closed(true);
        }
    }

    /// The CNAME under which a caller has to show a certificate to be answered for `host`, if there is one.
    pub fn guard(&self, host: &str) -> Option<&CnamePattern> {
        if self.guards.is_empty() {
            return None;
        }
        self.guards.find(Some(host)).filter(|guard| guard.asks_for_certificate).map(|guard| &guard.cname)
    }

    fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.services.iter().flat_map(|service| &service.deployments)
    }

    fn known(&self) -> Known {
        let present = self.services.iter().flat_map(|service| {
            let key = |deployment: &Deployment| (service.name.clone(), deployment.name.clone());
            service.deployments.iter().map(move |deployment| (key(deployment), Arc::clone(&deployment.replicas)))
        });
        self.departed.iter().map(|(key, replicas)| (key.clone(), Arc::clone(replicas))).chain(present).collect()
    }

    /// No service at all.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self {
            tls_status: TlsStatus::Enabled,
            http_when_tls: HttpWhenTls::Refuse,
            https_port: 443,
            cname: None,
            error_format: ErrorFormat::Json,
            limits: Limits::default(),
            balancers: Box::default(),
            dns: Dns::default(),
            kubernetes: Kubernetes::default(),
            guards: NameTable::default(),
            services: Vec::new(),
            by_name: HashMap::new(),
            departed: Known::new(),
        }
    }

    /// Whether a connection from there begins with whose it is.
    pub fn is_balancer(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.balancers.iter().any(|network| network.contains(&address))
    }

    pub fn services(&self) -> &[Service] {
        &self.services
    }
}

/// Replicas by service and deployment.
type Known = BTreeMap<(Box<str>, Box<str>), Arc<Replicas>>;

fn cname(config: &config::Config) -> Option<Box<str>> {
    let names = config.cnames.iter().map(|cname| cname.name.as_str());
    names.into_iter().find(|name| !name.starts_with('*')).map(Box::from)
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

/// What `deployment` of `service` was before it had this name: a deployment that is gone and had one of its replicas. Its
/// requests in flight are still with them.
fn take_renamed(
    service: &config::Service,
    deployment: &config::Deployment,
    known: &mut Known,
) -> Option<Arc<Replicas>> {
    let addresses = deployment.source.listed().iter().map(|replica| &replica.address).collect();
    let is_gone = |name: &str| service.deployments.iter().all(|deployment| deployment.name != name);
    let of_service = known.range((service.name.as_str().into(), Box::default())..);
    let mut of_service = of_service.take_while(|((name, _), _)| **name == *service.name.as_str());
    let (key, _) = of_service.find(|((_, name), replicas)| is_gone(name) && replicas.has_any(&addresses))?;
    let key = key.clone();
    known.remove(&key)
}

impl Service {
    fn new(
        service: &config::Service,
        metrics: &Metrics,
        sharing: Option<&Arc<Notify>>,
        known: &mut Known,
        limits: ServiceLimits,
    ) -> Self {
        let name = service.name.as_str();
        let any_deployment = known.range((name.into(), Box::default())..).next();
        let queue = any_deployment.filter(|((service, _), _)| &**service == name);
        let queue = queue.map(|(_, replicas)| Arc::clone(replicas.lane().queue()));
        let queue = queue.unwrap_or_else(|| Arc::new(Queue::new(service.max_queue)));
        let deployments = service.deployments.iter().map(|deployment| {
            let same = known.remove(&(name.into(), deployment.name.as_str().into()));
            let known = same.or_else(|| take_renamed(service, deployment, known));
            Deployment::new(name, deployment, metrics, sharing, &queue, known)
        });
        Self {
            name: name.into(),
            cnames: service.cnames.clone(),
            auth: service.auth.clone(),
            scoring_timeout: service.scoring_timeout,
            max_body: service.max_body,
            error_format: service.error_format,
            max_queue_wait: service.max_queue_wait,
            max_queue: service.max_queue,
            limits,
            sticky_by: service.sticky_by.clone(),
            mirror: service.mirror.as_ref().and_then(|mirror| {
                let is_mirrored = |deployment: &config::Deployment| deployment.name == mirror.deployment;
                let deployment = service.deployments.iter().position(is_mirrored)?;
                Some(Mirror { deployment, percent: mirror.percent })
            }),
            deployments: deployments.collect(),
            queue,
        }
    }

    pub fn deployments(&self) -> &[Deployment] {
        &self.deployments
    }

    /// The deployment that copies go to.
    pub fn mirrored(&self) -> Option<&Deployment> {
        self.deployments.get(self.mirror?.deployment)
    }

    /// Whether callers need a key.
    pub fn is_keyed(&self) -> bool {
        matches!(self.auth, Auth::Keys(_))
    }

    fn is_served_under(&self, host: &str) -> bool {
        self.cnames.is_empty() || self.cnames.iter().any(|cname| cname.matches(host))
    }

    /// The deployment that a number below [`split::PARTS`] falls on, by the shares of the traffic.
    pub fn deployment_for(&self, number: u16) -> Option<usize> {
        split::share_of(self.deployments.iter().map(|deployment| deployment.traffic), number)
    }

    pub fn deployment_named(&self, name: &[u8]) -> Option<usize> {
        self.deployments.iter().position(|deployment| deployment.name.as_bytes() == name)
    }
}

impl Deployment {
    fn new(
        service: &str,
        deployment: &config::Deployment,
        metrics: &Metrics,
        sharing: Option<&Arc<Notify>>,
        queue: &Arc<Queue>,
        known: Option<Arc<Replicas>>,
    ) -> Self {
        let name = deployment.name.as_str();
        let limit = match deployment.max_concurrent_requests {
            0 => ANY,
            limit => limit,
        };
        let settings = Settings { limit, look_interval: deployment.health.interval };
        let new = || Arc::new(Replicas::new(service, name, Arc::clone(queue), settings, sharing.cloned()));
        let is_new = known.is_none();
        let made = Self {
            name: name.into(),
            label: HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("")),
            traffic: deployment.traffic,
            paths: deployment.paths.clone(),
            health: deployment.health,
            source: deployment.source.clone(),
            settings,
            replicas: known.unwrap_or_else(new),
            metrics: metrics.deployment(service, name),
        };
        // Closed while it was away. Whoever finds it here is to be let in.
        made.replicas.set_closed(false);
        if is_new {
            // Nobody else knows it yet, and its first request is not to find it empty.
            made.take_effect();
        }
        made
    }

    fn take_effect(&self) {
        self.replicas.rename(&self.name);
        self.replicas.configure(self.settings);
        if let Source::Static(replicas) = &self.source {
            let addresses: Vec<_> = replicas.iter().map(|replica| replica.address.clone()).collect();
            self.replicas.set(&addresses);
        }
    }

    /// Its share of the service's requests, in percent.
    pub fn traffic(&self) -> u8 {
        self.traffic
    }

    /// Whether it has a share of the traffic.
    pub fn takes_calls(&self) -> bool {
        self.traffic > 0
    }

    /// Requests so far, from all threads.
    pub fn requests(&self) -> u64 {
        self.metrics.threads().iter().chain(self.metrics.handed()).map(|part| part.started.get()).sum()
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
        Self::named(catalog, name).filter(|found| found.is_served_under(host))
    }

    /// The service of this name, whatever it is served under.
    pub fn named(catalog: &LocalCatalog, name: &str) -> Option<Self> {
        let index = *catalog.by_name.get(name)?;
        Some(Self { catalog: Rc::clone(catalog), index })
    }
}

impl Deref for ServiceRef {
    type Target = Service;

    fn deref(&self) -> &Service {
        // `find` is the only maker, and a snapshot never changes.
        &self.catalog.services[self.index]
    }
}
