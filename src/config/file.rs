//! The configuration files as they are written: which keys there are, and where each value stands.
//!
//! Defaults, and whatever takes two values to judge, are for [`super::resolve`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use toml::de::DeValue;

use super::diagnostic::{Diagnostics, Location, Problem};
use super::include::Sources;
use super::overlay::Overlay;
use super::protocol::{self, Protocol};
use super::source::Source;
use super::table::{self, Field, Located, Table};
use super::value::{
    self, CnamePattern, DeploymentName, DnsTarget, EnvironmentName, KeyHash, KeyName, KubernetesName, KubernetesPort,
    ReplicaAddress, ServiceName, StickyBy,
};
use super::{AdminListen, ClusterType, ErrorFormat, HttpWhenTls, LogFormat, Priority, TlsStatus, TlsVersion};

/// More requests a second is a slip: one front end does not carry as many.
const MOST_A_SECOND: u32 = 1_000_000;

/// More requests at a time is one too.
const MOST_IN_FLIGHT: usize = 1_000_000;

/// Percent of a service's requests. More would rather be a share of the traffic: each copy costs as much as a request.
const MOST_MIRRORED: u8 = 50;

/// The main file, with the `[[cname]]` and `[[service]]` tables of the files it includes at the end of its own.
pub struct RawFile {
    /// Whether everything could be read. If not, what seems to be missing may only be unread.
    pub complete: bool,
    /// The main file without its services.
    pub written: toml::Table,
    pub environment: RawEnvironment,
    pub frontend: RawFrontend,
    pub tls: RawTls,
    pub reload: RawReload,
    pub admin: RawAdmin,
    pub limits: RawLimits,
    pub dns: RawDns,
    pub kubernetes: RawKubernetes,
    pub cluster: Field<RawCluster>,
    pub log: RawLog,
    pub defaults: RawServiceSettings,
    pub cnames: Vec<RawCname>,
    pub services: Vec<RawService>,
}

pub struct RawEnvironment {
    pub name: Field<EnvironmentName>,
    pub resource_group: Field<EnvironmentName>,
    pub cluster_type: Field<ClusterType>,
    pub created_on: Field<SystemTime>,
    pub description: Field<String>,
}

pub struct RawFrontend {
    pub https: Field<SocketAddr>,
    pub http: Field<SocketAddr>,
    pub http_when_tls: Field<HttpWhenTls>,
    pub threads: Field<usize>,
    pub drain_grace: Field<Duration>,
    pub drain_timeout: Field<Duration>,
    pub public_ip_address: Field<IpAddr>,
    pub public_https_port: Field<u16>,
    pub public_http_port: Field<u16>,
}

pub struct RawTls {
    pub status: Field<TlsStatus>,
    pub min_version: Field<TlsVersion>,
    pub default_cname: Field<CnamePattern>,
    pub ticket_keys: Field<PathBuf>,
}

pub struct RawReload {
    pub watch: Field<bool>,
    pub poll_interval: Field<Duration>,
}

pub struct RawCname {
    pub name: Option<Located<CnamePattern>>,
    pub cert_pem: Option<Located<PathBuf>>,
    pub key_pem: Option<Located<PathBuf>>,
    pub client_ca_pem: Field<PathBuf>,
    pub client_crl_pem: Field<PathBuf>,
}

pub struct RawAdmin {
    pub listen: Field<AdminListen>,
    pub token_file: Field<PathBuf>,
    pub cert_pem: Field<PathBuf>,
    pub key_pem: Field<PathBuf>,
    pub client_ca_pem: Field<PathBuf>,
}

pub struct RawLimits {
    pub max_connections: Field<usize>,
    pub tls_handshake_timeout: Field<Duration>,
    pub header_read_timeout: Field<Duration>,
    pub idle_timeout: Field<Duration>,
}

pub struct RawDns {
    pub servers: Field<Vec<Located<SocketAddr>>>,
}

pub struct RawKubernetes {
    pub kubeconfig: Field<PathBuf>,
    pub discover_services: Field<RawDiscovered>,
    pub front_end_service: Field<RawFrontEndService>,
}

/// Services that Kubernetes names.
pub struct RawDiscovered {
    pub namespace: Field<KubernetesName>,
    pub selector: Field<String>,
    pub port: Field<KubernetesPort>,
    pub primary_key_sha256: Field<KeyHash>,
    pub secondary_key_sha256: Field<KeyHash>,
}

pub struct RawFrontEndService {
    pub namespace: Field<KubernetesName>,
    pub service: Option<Located<KubernetesName>>,
}

/// A Service that has the replicas of a deployment.
pub struct RawKubernetesTarget {
    pub namespace: Field<KubernetesName>,
    pub service: Option<Located<KubernetesName>>,
    pub port: Option<Located<KubernetesPort>>,
}

pub struct RawCluster {
    /// Where its table begins.
    pub at: Location,
    pub listen: Field<SocketAddr>,
    pub address: Field<SocketAddr>,
    pub secret_file: Option<Located<PathBuf>>,
    pub members: Field<Vec<Located<SocketAddr>>>,
    pub dns: Field<DnsTarget>,
}

pub struct RawLog {
    pub format: Field<LogFormat>,
    pub level: Field<String>,
    pub access: Field<bool>,
}

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

/// Reads the main file at `path` and all it includes. No [`RawFile`] if there is no text to read; everything wrong is in
/// `diagnostics`.
pub fn read_with_includes(path: &Path, overlay: &Overlay, diagnostics: &mut Diagnostics) -> (Option<RawFile>, Sources) {
    let mut sources = Sources::of(path);
    let Some(source) = Source::read(path, &Location::start_of(path.into()), overlay, diagnostics) else {
        return (None, sources);
    };
    let (mut main, includes) = table::document(&source, diagnostics, read_main);
    let (included, all_found) = sources.include(&includes, overlay, diagnostics);
    main.complete &= all_found;
    for (included, wanted_at) in included {
        let Some(source) = Source::read_found(&included, &wanted_at, overlay, diagnostics) else {
            main.complete = false;
            continue;
        };
        let tables = table::document(&source, diagnostics, read_included);
        main.complete &= tables.complete;
        main.cnames.extend(tables.cnames);
        main.services.extend(tables.services);
    }
    (Some(main), sources)
}

fn read_main(table: &mut Table<'_, '_>) -> (RawFile, Vec<Located<String>>) {
    let include = table.list("include", "patterns such as \"services/*.toml\"", read_pattern);
    let environment = table.section("environment", "in [environment]", |table| RawEnvironment {
        name: table.optional("name", read_environment_name),
        resource_group: table.optional("resource_group", read_environment_name),
        cluster_type: table.optional("cluster_type", |value| {
            value::word(value, &[("ACS", ClusterType::Acs), ("Local", ClusterType::Local)])
        }),
        created_on: table.optional("created_on", value::time),
        description: table.optional("description", |value| value::text(value, "a text").map(str::to_owned)),
    });
    let frontend = table.section("frontend", "in [frontend]", |table| RawFrontend {
        https: table.optional("https", value::listen_address),
        http: table.optional("http", value::listen_address),
        http_when_tls: table.optional("http_when_tls", |value| {
            value::word(value, &[("refuse", HttpWhenTls::Refuse), ("redirect", HttpWhenTls::Redirect)])
        }),
        threads: table.optional("threads", |value| value::integer(value, "an integer such as 4", 0..=1024)),
        drain_grace: table.optional("drain_grace", value::duration),
        drain_timeout: table.optional("drain_timeout", value::duration),
        public_ip_address: table.optional("public_ip_address", value::ip_address),
        public_https_port: table.optional("public_https_port", read_port),
        public_http_port: table.optional("public_http_port", read_port),
    });
    let tls = table.section("tls", "in [tls]", |table| RawTls {
        status: table.optional("status", |value| {
            value::word(value, &[("Enabled", TlsStatus::Enabled), ("Disabled", TlsStatus::Disabled)])
        }),
        min_version: table.optional("min_version", |value| {
            value::word(value, &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)])
        }),
        default_cname: table.optional("default_cname", read_cname_pattern),
        ticket_keys: table.optional("ticket_keys", value::path),
    });
    let reload = table.section("reload", "in [reload]", |table| RawReload {
        watch: table.optional("watch", value::boolean),
        poll_interval: table.optional("poll_interval", value::positive_duration),
    });
    let admin = table.section("admin", "in [admin]", |table| RawAdmin {
        listen: table.optional("listen", value::admin_listen),
        token_file: table.optional("token_file", value::path),
        cert_pem: table.optional("cert_pem", value::path),
        key_pem: table.optional("key_pem", value::path),
        client_ca_pem: table.optional("client_ca_pem", value::path),
    });
    let limits = table.section("limits", "in [limits]", |table| RawLimits {
        max_connections: table
            .optional("max_connections", |value| value::integer(value, "an integer such as 10000", 1..=10_000_000)),
        tls_handshake_timeout: table.optional("tls_handshake_timeout", value::positive_duration),
        header_read_timeout: table.optional("header_read_timeout", value::positive_duration),
        idle_timeout: table.optional("idle_timeout", value::positive_duration),
    });
    let dns = table.section("dns", "in [dns]", |table| RawDns {
        servers: table.list("servers", "addresses of name servers", value::name_server),
    });
    let kubernetes = table.section("kubernetes", "in [kubernetes]", |table| RawKubernetes {
        kubeconfig: table.optional("kubeconfig", value::path),
        discover_services: table.inline(
            "discover_services",
            "in `discover_services`",
            "{ namespace = \"models\" }",
            read_discovered,
        ),
        front_end_service: table.inline(
            "front_end_service",
            "in `front_end_service`",
            "{ service = \"scorefront\" }",
            |table| RawFrontEndService {
                namespace: table.optional("namespace", read_kubernetes_name),
                service: table.required("service", "\"scorefront\"", read_kubernetes_name),
            },
        ),
    });
    let cluster = table.inline("cluster", "in [cluster]", CLUSTER_EXAMPLE, read_cluster);
    let log = table.section("log", "in [log]", |table| RawLog {
        format: table.optional("format", |value| {
            value::word(value, &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)])
        }),
        level: table.optional("level", value::log_filter),
        access: table.optional("access", value::boolean),
    });
    let defaults = table.section("defaults", "in [defaults]", read_service_settings);
    let mut written = table.written();
    written.remove("service");
    let Tables { cnames, services, complete } = read_tables(table);
    let complete = complete && !matches!(include, Field::Invalid);
    let file = RawFile {
        complete,
        written,
        environment,
        frontend,
        tls,
        reload,
        admin,
        limits,
        dns,
        kubernetes,
        cluster,
        log,
        defaults,
        cnames,
        services,
    };
    (file, include.value().unwrap_or_default())
}

/// What an operator could write for `[cluster]` in one line.
const CLUSTER_EXAMPLE: &str = "{ secret_file = \"cluster.secret\", dns = \"scorefront-peers.scoring.svc:8444\" }";

fn read_cluster(table: &mut Table<'_, '_>) -> RawCluster {
    let address = |value: &DeValue<'_>| value::member_address(value);
    RawCluster {
        at: table.at(),
        listen: table.optional("listen", value::listen_address),
        address: table.optional("address", address),
        secret_file: table.required("secret_file", "\"cluster.secret\"", value::path),
        members: table.list("members", "addresses such as \"10.1.0.7:8444\"", address),
        dns: table.optional("dns", |value| value::text(value, "a name such as \"peers.scoring.svc:8444\"")?.parse()),
    }
}

fn read_included(table: &mut Table<'_, '_>) -> Tables {
    for key in [
        "include",
        "environment",
        "frontend",
        "tls",
        "reload",
        "admin",
        "limits",
        "dns",
        "kubernetes",
        "cluster",
        "log",
        "defaults",
    ] {
        table.refuse(key, || {
            Problem::new(format!("`{key}` can stand in the main file only"))
                .remedy("move it there; an included file holds [[service]] and [[cname]] tables")
        });
    }
    read_tables(table)
}

/// What both the main file and an included one may hold.
struct Tables {
    cnames: Vec<RawCname>,
    services: Vec<RawService>,
    complete: bool,
}

fn read_tables(table: &mut Table<'_, '_>) -> Tables {
    let cnames = table.tables("cname", "[[cname]]", "in [[cname]]", |table| RawCname {
        name: table.required("name", "\"scoring.example.com\"", read_cname_pattern),
        cert_pem: table.required("cert_pem", "\"certs/scoring.example.com/cert.pem\"", value::path),
        key_pem: table.required("key_pem", "\"certs/scoring.example.com/key.pem\"", value::path),
        client_ca_pem: table.optional("client_ca_pem", value::path),
        client_crl_pem: table.optional("client_crl_pem", value::path),
    });
    let services = table.tables("service", "[[service]]", "in [[service]]", read_service);
    let complete = table.is_complete() && !matches!(cnames, Field::Invalid) && !matches!(services, Field::Invalid);
    Tables { cnames: cnames.value().unwrap_or_default(), services: services.value().unwrap_or_default(), complete }
}

fn read_service(table: &mut Table<'_, '_>) -> RawService {
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

fn read_service_settings(table: &mut Table<'_, '_>) -> RawServiceSettings {
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
        kubernetes: table.inline(
            "kubernetes",
            "in `kubernetes`",
            "{ namespace = \"models\", service = \"churn\", port = 5001 }",
            |table| RawKubernetesTarget {
                namespace: table.optional("namespace", read_kubernetes_name),
                service: table.required("service", "\"churn\"", read_kubernetes_name),
                port: table.required("port", "5001", KubernetesPort::read),
            },
        ),
    }
}

fn read_discovered(table: &mut Table<'_, '_>) -> RawDiscovered {
    RawDiscovered {
        namespace: table.optional("namespace", read_kubernetes_name),
        selector: table.optional("selector", value::label_selector),
        port: table.optional("port", KubernetesPort::read),
        primary_key_sha256: table.optional("primary_key_sha256", read_key_hash),
        secondary_key_sha256: table.optional("secondary_key_sha256", read_key_hash),
    }
}

fn read_kubernetes_name(value: &DeValue<'_>) -> Result<KubernetesName, Problem> {
    value::text(value, "a name such as \"models\"")?.parse()
}

fn read_pattern(value: &DeValue<'_>) -> Result<String, Problem> {
    match value::text(value, "a file or pattern such as \"services/*.toml\"")? {
        "" => Err(Problem::new("expected a file or pattern such as \"services/*.toml\", found \"\"")),
        pattern => Ok(pattern.to_owned()),
    }
}

fn read_cname_pattern(value: &DeValue<'_>) -> Result<CnamePattern, Problem> {
    value::text(value, "a DNS name such as \"scoring.example.com\"")?.parse()
}

fn read_environment_name(value: &DeValue<'_>) -> Result<EnvironmentName, Problem> {
    value::text(value, "a name such as \"my-cluster\"")?.parse()
}

fn read_port(value: &DeValue<'_>) -> Result<u16, Problem> {
    value::integer(value, "a port such as 443", 1..=u16::MAX)
}

fn read_deployment_name(value: &DeValue<'_>) -> Result<DeploymentName, Problem> {
    value::text(value, "a deployment name such as \"blue\"")?.parse()
}

fn read_key_hash(value: &DeValue<'_>) -> Result<KeyHash, Problem> {
    value::text(value, "the SHA-256 of a key as 64 hexadecimal digits")?.parse()
}
