//! A service's settings as arguments: one flag each, and the field of the management API that it stands for.

use serde_json::{Map, Value};

use super::quantity::{millis, positive_millis, share, size};
use super::{deployment, place};
use crate::admin::model::{DeploymentSettings, Kubernetes, Mirror, ServiceSettings};
use crate::cli::cert::cname;
use crate::config::{CnamePattern, StickyBy};

/// Those whose paths the front end knows.
const PROTOCOLS: [&str; 7] = ["azureml", "kserve-v1", "kserve-v2", "mlflow", "sagemaker", "tfserving", "torchserve"];

/// Each flag that can be taken back, and its field.
pub const FIELDS: [(&str, &str); 23] = [
    ("replica", "replicas"),
    ("dns", "dns"),
    ("kubernetes", "kubernetes"),
    ("deployment", "deployments"),
    ("protocol", "protocol"),
    ("path", "path"),
    ("health-path", "healthPath"),
    ("model", "model"),
    ("replica-max-concurrent-requests", "maxConcurrentRequestsPerContainer"),
    ("scoring-timeout", "scoringTimeoutMs"),
    ("max-queue-wait", "maxQueueWaitMs"),
    ("max-queue", "maxQueue"),
    ("max-body", "maxBodyBytes"),
    ("auth", "authEnabled"),
    ("cname", "cnames"),
    ("sticky-by", "stickyBy"),
    ("mirror", "mirror"),
    ("max-requests-per-second", "maxRequestsPerSecond"),
    ("burst", "burst"),
    ("max-requests-in-flight", "maxRequestsInFlight"),
    ("health-interval", "healthIntervalMs"),
    ("health-timeout", "healthTimeoutMs"),
    ("error-format", "errorFormat"),
];

/// What a service in its short form says of its only deployment.
pub const TARGET_FIELDS: [&str; 7] = ["replicas", "dns", "kubernetes", "protocol", "path", "healthPath", "model"];

/// Where the replicas are.
#[derive(Debug, clap::Args)]
#[group(id = "source", multiple = false)]
pub struct Source {
    /// The address of a replica, http://HOST:PORT; several may be given
    #[arg(long, value_name = "URL", num_args = 1.., value_delimiter = ',', value_parser = place::replica, group = "source")]
    pub replica: Vec<String>,
    /// What replicas are looked up by: HOST:PORT, or an SRV name
    #[arg(long, value_name = "HOST:PORT", value_parser = place::dns, group = "source")]
    pub dns: Option<String>,
    /// A Service of Kubernetes whose endpoints are the replicas, and its pods' port or that port's name
    #[arg(long, value_name = "[NAMESPACE/]SERVICE:PORT", value_parser = place::kubernetes, group = "source")]
    pub kubernetes: Option<Kubernetes>,
    /// A version with a share of the calls, name=blue,traffic=90,replica=http://HOST:PORT; several may be given. It can
    /// have a dns, kubernetes, protocol, path, health-path, model, replica-max-concurrent-requests, health-interval and
    /// health-timeout of its own
    #[arg(long, value_name = "SPEC", num_args = 1.., value_parser = deployment::parse, group = "source")]
    pub deployment: Vec<DeploymentSettings>,
}

/// Everything else.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// How the replicas are called
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(PROTOCOLS))]
    protocol: Option<String>,
    /// The replicas' path for scores, in place of the protocol's
    #[arg(long)]
    path: Option<String>,
    /// The replicas' path for their health, in place of the protocol's
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// The model's name in the protocol's paths
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Calls that one replica is given at a time; 0: as many as come
    #[arg(long, value_name = "N")]
    replica_max_concurrent_requests: Option<u64>,
    /// How long an answer may take, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = positive_millis)]
    scoring_timeout: Option<u64>,
    /// How long a call may wait for a replica, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = millis)]
    max_queue_wait: Option<u64>,
    /// Calls that may wait at a time
    #[arg(long, value_name = "N")]
    max_queue: Option<u64>,
    /// The largest body, such as 100MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_body: Option<u64>,
    /// Whether calls need a key
    #[arg(long, value_name = "BOOL")]
    auth: Option<bool>,
    /// The CNAMEs it is served under; by default every one
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', value_parser = cname)]
    cname: Vec<CnamePattern>,
    /// What calls have in common that get the same deployment: key, address or header:NAME
    #[arg(long, value_name = "WHAT", value_parser = sticky_by)]
    sticky_by: Option<String>,
    /// Sends copies of so many percent of the calls to a deployment without traffic
    #[arg(long, value_name = "DEPLOYMENT=PERCENT", value_parser = share)]
    mirror: Option<(String, u64)>,
    /// Calls that may begin in a second
    #[arg(long, value_name = "N")]
    max_requests_per_second: Option<u64>,
    /// Calls that may begin at once
    #[arg(long, value_name = "N")]
    burst: Option<u64>,
    /// Calls that may be going on at a time
    #[arg(long, value_name = "N")]
    max_requests_in_flight: Option<u64>,
    /// How often replicas are asked for their health, such as 10s; 0s: those in use are not
    #[arg(long, value_name = "DURATION", value_parser = millis)]
    health_interval: Option<u64>,
    /// How long they may take to answer that, such as 2s
    #[arg(long, value_name = "DURATION", value_parser = positive_millis)]
    health_timeout: Option<u64>,
    /// The form of the front end's own errors
    #[arg(long, value_name = "FORM", value_parser = ["json", "text"])]
    error_format: Option<String>,
}

fn sticky_by(text: &str) -> Result<String, String> {
    text.parse::<StickyBy>().map(|_| text.to_owned()).map_err(|problem| problem.to_string())
}

/// What the flags say; what they do not say is absent.
pub fn of(source: &Source, settings: &Settings) -> ServiceSettings {
    let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let cnames: Vec<_> = settings.cname.iter().map(|cname| cname.as_str().to_owned()).collect();
    let mirror = settings.mirror.clone();
    ServiceSettings {
        cnames: given(&cnames),
        auth_enabled: settings.auth,
        scoring_timeout_ms: settings.scoring_timeout,
        max_queue_wait_ms: settings.max_queue_wait,
        max_queue: settings.max_queue,
        max_body_bytes: settings.max_body,
        error_format: settings.error_format.clone(),
        sticky_by: settings.sticky_by.clone(),
        mirror: mirror.map(|(deployment, percent)| Mirror { deployment, percent }),
        max_requests_per_second: settings.max_requests_per_second,
        burst: settings.burst,
        max_requests_in_flight: settings.max_requests_in_flight,
        max_concurrent_requests_per_container: settings.replica_max_concurrent_requests,
        health_interval_ms: settings.health_interval,
        health_timeout_ms: settings.health_timeout,
        protocol: settings.protocol.clone(),
        path: settings.path.clone(),
        health_path: settings.health_path.clone(),
        model: settings.model.clone(),
        replicas: given(&source.replica),
        dns: source.dns.clone(),
        kubernetes: source.kubernetes.clone(),
        deployments: (!source.deployment.is_empty()).then(|| source.deployment.clone()),
    }
}

/// As fields, without those that are absent.
pub fn fields(settings: &ServiceSettings) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(settings)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_flag_and_every_flag_a_field() {
        let all = serde_json::json!({
            "cnames": [], "authEnabled": true, "scoringTimeoutMs": 1, "maxQueueWaitMs": 1, "maxQueue": 1,
            "maxBodyBytes": 1, "errorFormat": "", "stickyBy": "", "mirror": {"deployment": "", "percent": 1},
            "maxRequestsPerSecond": 1, "burst": 1, "maxRequestsInFlight": 1,
            "maxConcurrentRequestsPerContainer": 1, "healthIntervalMs": 1, "healthTimeoutMs": 1, "protocol": "",
            "path": "", "healthPath": "", "model": "", "replicas": [], "dns": "", "deployments": [],
            "kubernetes": {"service": "", "port": 1},
        });
        let known = fields(&serde_json::from_value(all).expect("settings")).expect("fields");
        let mut flagged: Vec<_> = FIELDS.iter().map(|(_, field)| *field).collect();
        flagged.sort_unstable();
        assert_eq!(flagged, known.keys().map(String::as_str).collect::<Vec<_>>());
        assert!(TARGET_FIELDS.iter().all(|field| known.contains_key(*field)));
    }
}
