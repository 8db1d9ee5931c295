//! A service, its keys and its deployments.

use std::time::{Duration, SystemTime};

use toml::de::DeValue;

use super::kubernetes::{RawKubernetesTarget, read_kubernetes_target};
use super::{read_cname_pattern, read_key_hash};
use crate::config::diagnostic::{Location, Problem};
use crate::config::protocol::{self, Protocol};
use crate::config::table::{Field, Located, Table};
use crate::config::value::{
    self, CnamePattern, DeploymentName, DnsTarget, KeyHash, KeyName, ReplicaAddress, ServiceName, StickyBy,
};
use crate::config::{ErrorFormat, Priority};

/// More requests a second is a slip: one front end does not carry as many.
const MOST_A_SECOND: u32 = 1_000_000;

/// More requests at a time is one too.
const MOST_IN_FLIGHT: usize = 1_000_000;

/// Percent of a service's requests. More would rather be a share of the traffic: each copy costs as much as a request.
const MOST_MIRRORED: u8 = 50;

/// What can stand in `[defaults]` and in a `[[service]]`.
pub struct RawServiceSettings {
    pub scoring_timeout: Field<Duration>,
    pub max_body: Field<u64>,
    pub auth: Field<bool>,
    pub error_format: Field<ErrorFormat>,
    pub max_queue_wait: Field<Duration>,
    pub max_queue: Field<usize>,
    pub care: RawCare,
}

/// What can stand in `[defaults]`, in a `[[service]]` and in a `[[service.deployment]]`: how replicas are treated.
pub struct RawCare {
    pub max_concurrent_requests: Field<usize>,
    pub health_interval: Field<Duration>,
    pub health_timeout: Field<Duration>,
}

pub struct RawService {
    /// Where its table begins.
    pub at: Location,
    pub written: toml::Table,
    pub name: Option<Located<ServiceName>>,
    pub created_at: Field<SystemTime>,
    pub cnames: Field<Vec<Located<CnamePattern>>>,
    pub primary_key_sha256: Field<KeyHash>,
    pub secondary_key_sha256: Field<KeyHash>,
    pub keys: Field<Vec<RawKey>>,
    pub settings: RawServiceSettings,
    pub limits: RawRequestLimits,
    pub sticky_by: Field<StickyBy>,
    pub mirror: Field<RawMirror>,
    /// The short form of a single deployment.
    pub target: RawTarget,
    pub deployments: Field<Vec<RawDeployment>>,
}

pub struct RawKey {
    /// Where its table begins.
    pub at: Location,
    pub name: Option<Located<KeyName>>,
    pub sha256: Option<Located<KeyHash>>,
    pub priority: Field<Priority>,
    pub limits: RawRequestLimits,
}

/// What can stand in a `[[service]]`, for all its callers, and in a `[[service.key]]`.
pub struct RawRequestLimits {
    pub max_requests_per_second: Field<u32>,
    pub burst: Field<u32>,
    pub max_requests_in_flight: Field<usize>,
}

pub struct RawMirror {
    pub deployment: Option<Located<DeploymentName>>,
    pub percent: Option<Located<u8>>,
}

pub struct RawDeployment {
    /// Where its table begins.
    pub at: Location,
    pub name: Option<Located<DeploymentName>>,
    pub traffic: Field<u8>,
    pub care: RawCare,
    pub target: RawTarget,
}

/// What can stand in a `[[service.deployment]]` and, as its short form, in a `[[service]]`.
pub struct RawTarget {
    pub protocol: Field<Protocol>,
    pub path: Field<String>,
    pub health_path: Field<String>,
    pub model: Field<String>,
    pub replicas: Field<Vec<Located<ReplicaAddress>>>,
    pub dns: Field<DnsTarget>,
    pub kubernetes: Field<RawKubernetesTarget>,
}

pub(super) fn read_service(table: &mut Table<'_, '_>) -> RawService {
    RawService {
        at: table.at(),
        written: table.written(),
        name: table
            .required("name", "\"iris\"", |value| value::text(value, "a service name such as \"iris\"")?.parse()),
        created_at: table.optional("created_at", value::time),
        cnames: table.list("cnames", "DNS names", read_cname_pattern),
        primary_key_sha256: table.optional("primary_key_sha256", read_key_hash),
        secondary_key_sha256: table.optional("secondary_key_sha256", read_key_hash),
        keys: table.tables("key", "[[service.key]]", "in [[service.key]]", read_key),
        settings: read_service_settings(table),
        limits: read_request_limits(table),
        sticky_by: table.optional("sticky_by", |value| value::text(value, StickyBy::EXPECTED)?.parse()),
        mirror: table.inline("mirror", "in `mirror`", "{ deployment = \"green\", percent = 10 }", read_mirror),
        target: read_target(table),
        deployments: table.tables("deployment", "[[service.deployment]]", "in [[service.deployment]]", read_deployment),
    }
}

fn read_key(table: &mut Table<'_, '_>) -> RawKey {
    // Where the hash of a key belongs somebody pastes the key itself.
    table.hide();
    RawKey {
        at: table.at(),
        name: table
            .required("name", "\"batch\"", |value| value::text(value, "a key's name such as \"batch\"")?.parse()),
        sha256: table.required(
            "sha256",
            &format!("\"…\" with the 64 digits that this prints: {}", value::HOW_TO_HASH),
            read_key_hash,
        ),
        priority: table.optional("priority", |value| {
            value::word(value, &[("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)])
        }),
        limits: read_request_limits(table),
    }
}

fn read_request_limits(table: &mut Table<'_, '_>) -> RawRequestLimits {
    RawRequestLimits {
        max_requests_per_second: table.optional("max_requests_per_second", |value| {
            value::integer(value, "an integer such as 50", 1..=MOST_A_SECOND)
        }),
        burst: table.optional("burst", |value| value::integer(value, "an integer such as 100", 1..=MOST_A_SECOND)),
        max_requests_in_flight: table.optional("max_requests_in_flight", |value| {
            value::integer(value, "an integer such as 20", 1..=MOST_IN_FLIGHT)
        }),
    }
}

fn read_mirror(table: &mut Table<'_, '_>) -> RawMirror {
    RawMirror {
        deployment: table.required("deployment", "\"green\"", read_deployment_name),
        percent: table
            .required("percent", "10", |value| value::integer(value, "an integer such as 10", 1..=MOST_MIRRORED)),
    }
}

fn read_deployment(table: &mut Table<'_, '_>) -> RawDeployment {
    RawDeployment {
        at: table.at(),
        name: table.required("name", "\"blue\"", read_deployment_name),
        traffic: table.optional("traffic", |value| value::integer(value, "an integer such as 90", 0..=100)),
        care: read_care(table),
        target: read_target(table),
    }
}

pub(super) fn read_service_settings(table: &mut Table<'_, '_>) -> RawServiceSettings {
    RawServiceSettings {
        scoring_timeout: table.optional("scoring_timeout", value::positive_duration),
        max_body: table.optional("max_body", value::size),
        auth: table.optional("auth", |value| value::unshown(value, value::boolean)),
        error_format: table.optional("error_format", |value| {
            value::word(value, &[("json", ErrorFormat::Json), ("text", ErrorFormat::Text)])
        }),
        max_queue_wait: table.optional("max_queue_wait", value::duration),
        max_queue: table.optional("max_queue", |value| value::integer(value, "an integer such as 100", 0..=100_000)),
        care: read_care(table),
    }
}

fn read_care(table: &mut Table<'_, '_>) -> RawCare {
    RawCare {
        max_concurrent_requests: table.optional("max_concurrent_requests_per_replica", |value| {
            value::integer(value, "an integer such as 1", 0..=65_535)
        }),
        health_interval: table.optional("health_interval", value::duration),
        health_timeout: table.optional("health_timeout", value::positive_duration),
    }
}

fn read_target(table: &mut Table<'_, '_>) -> RawTarget {
    RawTarget {
        protocol: table.optional("protocol", |value| value::word(value, &Protocol::WORDS)),
        path: table.optional("path", protocol::path),
        health_path: table.optional("health_path", protocol::path),
        model: table.optional("model", protocol::model),
        replicas: table.list("replicas", "addresses such as \"http://10.1.0.11:5001\"", |value| {
            value::text(value, "an address such as \"http://10.1.0.11:5001\"")?.parse()
        }),
        dns: table.optional("dns", |value| value::text(value, "a name such as \"models.svc:5001\"")?.parse()),
        kubernetes: read_kubernetes_target(table, ["\"models\"", "\"churn\"", "5001"]),
    }
}

fn read_deployment_name(value: &DeValue<'_>) -> Result<DeploymentName, Problem> {
    value::text(value, "a deployment name such as \"blue\"")?.parse()
}
