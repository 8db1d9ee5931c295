//! `/v1/replicas`: which replicas there are, how each of them is, and what waits for them. It reads what the scheduler
//! knows, and changes nothing.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::config::Source;
use crate::scheduling::{ANY, Out, View};
use crate::scoring::catalog::{Catalog, Deployment, Service};
use crate::telemetry::access::millis;

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    services: Vec<ServiceReport>,
}

/// One service, in the order of the configuration.
#[derive(Debug, Serialize)]
struct ServiceReport {
    name: Box<str>,
    deployments: Vec<DeploymentReport>,
}

/// One deployment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct DeploymentReport {
    name: Box<str>,
    source: SourceReport,
    /// Requests that wait for one of its replicas.
    queue_length: usize,
    /// See [`utilization`].
    utilization: Option<f64>,
    replicas: Vec<ReplicaReport>,
}

/// Who says which replicas there are.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum SourceReport {
    /// The configuration.
    Static,
    Dns {
        /// As the configuration has it.
        name: String,
    },
    Kubernetes {
        /// Absent: the front end's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        service: String,
        port: String,
    },
}

/// One replica.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct ReplicaReport {
    address: String,
    /// Whether it is given requests.
    ready: bool,
    #[serde(flatten)]
    out: Option<OutReport>,
    /// Whether the last look at its health resource found a success; false also before the first look. Absent where
    /// replicas in use are not looked at and none was.
    healthy: Option<bool>,
    /// How it failed last, if it is in use all the same because too few others are; absent once it was found healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    in_flight: usize,
    /// Requests it is given at a time; absent: any number.
    permits: Option<usize>,
    /// How long a request is with it, in milliseconds, as a moving average; absent: none was yet.
    mean_ms: Option<f64>,
}

/// Why it is given none.
#[derive(Debug, Serialize)]
struct OutReport {
    reason: String,
    #[serde(serialize_with = "time")]
    since: SystemTime,
}

impl Report {
    pub(super) fn of(catalog: &Catalog) -> Self {
        Self { services: catalog.services().iter().map(ServiceReport::of).collect() }
    }
}

impl ServiceReport {
    fn of(service: &Service) -> Self {
        let deployments = service.deployments().iter().map(DeploymentReport::of);
        Self { name: service.name.clone(), deployments: deployments.collect() }
    }
}

impl DeploymentReport {
    fn of(deployment: &Deployment) -> Self {
        let views = deployment.replicas.views();
        let queue_length = deployment.replicas.lane().length();
        let is_looked_at = deployment.health.interval.is_some();
        Self {
            name: deployment.name.clone(),
            source: match &deployment.source {
                Source::Static(_) => SourceReport::Static,
                Source::Dns { target, .. } => SourceReport::Dns { name: target.to_string() },
                Source::Kubernetes { target, .. } => SourceReport::Kubernetes {
                    namespace: target.namespace.as_ref().map(ToString::to_string),
                    service: target.service.to_string(),
                    port: target.port.to_string(),
                },
            },
            queue_length,
            utilization: utilization(&views, queue_length),
            replicas: views.into_iter().map(|view| ReplicaReport::of(view, is_looked_at)).collect(),
        }
    }
}

impl ReplicaReport {
    fn of(View { replica, out, healthy, trouble }: View, is_looked_at: bool) -> Self {
        Self {
            address: replica.endpoint().address().to_string(),
            ready: out.is_none(),
            healthy: (healthy || is_looked_at || out.is_some()).then_some(healthy),
            out: out.map(OutReport::of),
            trouble: trouble.map(|trouble| trouble.to_string()),
            in_flight: replica.in_flight(),
            permits: Some(replica.limit()).filter(|limit| *limit != ANY),
            mean_ms: replica.pace().mean().map(millis),
        }
    }
}

impl OutReport {
    fn of(Out { failure, since, .. }: Out) -> Self {
        let now = SystemTime::now();
        Self { reason: failure.to_string(), since: now.checked_sub(since.elapsed()).unwrap_or(now) }
    }
}

/// How much of what the replicas may run at once is asked for: the requests with them and those that wait, by the
/// permits of all of them. Those that are out count, for they are there and come back; whoever adds replicas by this
/// figure is not to answer one that is down with another.
///
/// `None`: there is no bound, or no replica.
pub(super) fn utilization(views: &[View], queued: usize) -> Option<f64> {
    let limits = || views.iter().map(|view| view.replica.limit());
    let slots: usize = limits().sum();
    if slots == 0 || limits().any(|limit| limit == ANY) {
        return None;
    }
    let busy: usize = views.iter().map(|view| view.replica.in_flight()).sum();
    #[expect(clippy::cast_precision_loss, reason = "requests and permits are far fewer than f64 can tell apart")]
    let ratio = (busy + queued) as f64 / slots as f64;
    Some(ratio)
}

/// To the second, in UTC.
fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_seconds(*time))
}
