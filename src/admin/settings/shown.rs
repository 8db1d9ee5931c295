//! From the configuration to JSON.

use super::super::model::{DeploymentSettings, Kubernetes, KubernetesPort, Mirror, ServiceSettings};
use crate::config::{self, ErrorFormat};

/// What is written of `service`; what has its default is absent.
pub fn of(service: &config::Service) -> ServiceSettings {
    let written = &service.written;
    let has = |key: &str| written.contains_key(key);
    // In the short form the only deployment's settings stand in the service's own table.
    let only = service.deployments.first();
    let target = Target::of(written);
    ServiceSettings {
        cnames: texts(written, "cnames"),
        auth_enabled: written.get("auth").and_then(toml::Value::as_bool),
        scoring_timeout_ms: has("scoring_timeout").then(|| millis(service.scoring_timeout)),
        max_queue_wait_ms: has("max_queue_wait").then(|| millis(service.max_queue_wait)),
        max_queue: number(written, "max_queue"),
        max_body_bytes: has("max_body").then_some(service.max_body),
        error_format: has("error_format").then(|| match service.error_format {
            ErrorFormat::Json => "json".to_owned(),
            ErrorFormat::Text => "text".to_owned(),
        }),
        sticky_by: text(written, "sticky_by"),
        mirror: service
            .mirror
            .as_ref()
            .map(|mirror| Mirror { deployment: mirror.deployment.clone(), percent: mirror.percent.into() }),
        max_requests_per_second: number(written, "max_requests_per_second"),
        burst: number(written, "burst"),
        max_requests_in_flight: number(written, "max_requests_in_flight"),
        max_concurrent_requests_per_container: number(written, "max_concurrent_requests_per_replica"),
        health_interval_ms: only.filter(|_| has("health_interval")).map(health_interval),
        health_timeout_ms: only.filter(|_| has("health_timeout")).map(|only| millis(only.health.timeout)),
        protocol: target.protocol,
        path: target.path,
        health_path: target.health_path,
        model: target.model,
        replicas: target.replicas,
        dns: target.dns,
        kubernetes: target.kubernetes,
        deployments: deployments(service),
    }
}

fn deployments(service: &config::Service) -> Option<Vec<DeploymentSettings>> {
    let tables = service.written.get("deployment")?.as_array()?.iter().filter_map(toml::Value::as_table);
    let of = |(written, deployment): (&toml::Table, &config::Deployment)| {
        let has = |key: &str| written.contains_key(key);
        let target = Target::of(written);
        DeploymentSettings {
            name: deployment.name.clone(),
            traffic: number(written, "traffic"),
            max_concurrent_requests_per_container: number(written, "max_concurrent_requests_per_replica"),
            health_interval_ms: has("health_interval").then(|| health_interval(deployment)),
            health_timeout_ms: has("health_timeout").then(|| millis(deployment.health.timeout)),
            protocol: target.protocol,
            path: target.path,
            health_path: target.health_path,
            model: target.model,
            replicas: target.replicas,
            dns: target.dns,
            kubernetes: target.kubernetes,
        }
    };
    Some(tables.zip(&service.deployments).map(of).collect())
}

/// What a service in its short form and a deployment have in common.
struct Target {
    protocol: Option<String>,
    path: Option<String>,
    health_path: Option<String>,
    model: Option<String>,
    replicas: Option<Vec<String>>,
    dns: Option<String>,
    kubernetes: Option<Kubernetes>,
}

impl Target {
    fn of(written: &toml::Table) -> Self {
        Self {
            protocol: text(written, "protocol"),
            path: text(written, "path"),
            health_path: text(written, "health_path"),
            model: text(written, "model"),
            replicas: texts(written, "replicas"),
            dns: text(written, "dns"),
            kubernetes: written.get("kubernetes").and_then(toml::Value::as_table).and_then(kubernetes),
        }
    }
}

fn kubernetes(table: &toml::Table) -> Option<Kubernetes> {
    Some(Kubernetes {
        namespace: text(table, "namespace"),
        service: text(table, "service")?,
        port: match number(table, "port") {
            Some(number) => KubernetesPort::Number(number.try_into().ok()?),
            None => KubernetesPort::Name(text(table, "port")?),
        },
    })
}

fn text(table: &toml::Table, key: &str) -> Option<String> {
    table.get(key)?.as_str().map(str::to_owned)
}

fn texts(table: &toml::Table, key: &str) -> Option<Vec<String>> {
    let texts = table.get(key)?.as_array()?.iter().filter_map(toml::Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

fn number(table: &toml::Table, key: &str) -> Option<u64> {
    table.get(key)?.as_integer().and_then(|number| u64::try_from(number).ok())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn health_interval(deployment: &config::Deployment) -> u64 {
    deployment.health.interval.map_or(0, millis)
}
