//! Services that no file defines: what they all have in common, and the service that one of them is.
//!
//! Which there are is [`crate::discovery`]'s part.

use std::time::{Duration, SystemTime};

use super::{
    Auth, Deployment, ErrorFormat, HealthChecks, Key, KubernetesName, KubernetesPort, KubernetesTarget, Location,
    Paths, RequestLimits, Service, ServiceName, Source, defaults,
};

/// `kubernetes.discover_services`, with `[defaults]` filled in: each Service of Kubernetes with these labels is a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Where it is written in the configuration.
    pub at: Location,
    /// Absent: the front end's own.
    pub namespace: Option<KubernetesName>,
    /// Which Services are meant, by their labels.
    pub selector: String,
    /// The port of their pods.
    pub port: KubernetesPort,
    /// Who may call those that have no keys of their own.
    pub auth: Auth,
    pub scoring_timeout: Duration,
    /// Bytes.
    pub max_body: u64,
    pub error_format: ErrorFormat,
    pub max_queue_wait: Duration,
    pub max_queue: usize,
    pub paths: Paths,
    pub max_concurrent_requests: usize,
    pub health: HealthChecks,
}

/// A Service of Kubernetes that has the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// What it is called by, which is not always its own name.
    pub name: ServiceName,
    pub namespace: KubernetesName,
    pub service: KubernetesName,
    /// Its own; none: those of all.
    pub keys: Vec<Key>,
    pub created_at: Option<SystemTime>,
}

impl Discovered {
    /// The service that `labelled` is.
    pub fn service(&self, labelled: &Labelled) -> Service {
        let Labelled { name, namespace, service, keys, created_at } = labelled;
        let target =
            KubernetesTarget { namespace: Some(namespace.clone()), service: service.clone(), port: self.port.clone() };
        let auth = match &self.auth {
            Auth::Keys(_) if !keys.is_empty() => Auth::Keys(keys.clone()),
            common => common.clone(),
        };
        Service {
            name: name.clone(),
            at: self.at.clone(),
            written: written(name, &target),
            from_kubernetes: Some(format!("{namespace}/{service}")),
            created_at: *created_at,
            cnames: Vec::new(),
            auth,
            scoring_timeout: self.scoring_timeout,
            max_body: self.max_body,
            error_format: self.error_format,
            max_queue_wait: self.max_queue_wait,
            max_queue: self.max_queue,
            limits: RequestLimits::default(),
            sticky_by: None,
            mirror: None,
            deployments: vec![Deployment {
                name: defaults::DEPLOYMENT_NAME.to_owned(),
                traffic: 100,
                paths: self.paths.clone(),
                max_concurrent_requests: self.max_concurrent_requests,
                health: self.health,
                source: Source::Kubernetes { target, at: self.at.clone() },
            }],
        }
    }
}

/// The table that an operator would write for it.
fn written(name: &ServiceName, target: &KubernetesTarget) -> toml::Table {
    let text = |text: &dyn ToString| toml::Value::String(text.to_string());
    let mut kubernetes = toml::Table::new();
    if let Some(namespace) = &target.namespace {
        kubernetes.insert("namespace".to_owned(), text(namespace));
    }
    kubernetes.insert("service".to_owned(), text(&target.service));
    kubernetes.insert(
        "port".to_owned(),
        match &target.port {
            KubernetesPort::Number(number) => toml::Value::Integer((*number).into()),
            KubernetesPort::Name(name) => text(name),
        },
    );
    let mut table = toml::Table::new();
    table.insert("name".to_owned(), text(name));
    table.insert("kubernetes".to_owned(), toml::Value::Table(kubernetes));
    table
}
