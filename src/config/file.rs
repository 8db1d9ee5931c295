//! The configuration files as they are written: which keys there are, and where each value stands.
//!
//! Defaults, and whatever takes two values to judge, are for [`super::resolve`].

mod kubernetes;
mod service;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use toml::de::DeValue;

pub use self::kubernetes::{RawDiscovered, RawKubernetes, RawKubernetesTarget};
use self::kubernetes::{read_kubernetes, read_kubernetes_target};
pub use self::service::{
    RawCare, RawDeployment, RawKey, RawMirror, RawRequestLimits, RawService, RawServiceSettings, RawTarget,
};
use self::service::{read_service, read_service_settings};
use super::diagnostic::{Diagnostics, Location, Problem};
use super::include::Sources;
use super::overlay::Overlay;
use super::source::Source;
use super::table::{self, Field, Located, Table};
use super::value::{self, CnamePattern, DnsTarget, EnvironmentName, KeyHash};
use super::{AdminListen, ClusterType, HttpWhenTls, LogFormat, TlsStatus, TlsVersion};

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
    pub proxy_protocol_from: Field<Vec<Located<IpNet>>>,
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

pub struct RawCluster {
    /// Where its table begins.
    pub at: Location,
    pub listen: Field<SocketAddr>,
    pub address: Field<SocketAddr>,
    pub secret_file: Option<Located<PathBuf>>,
    pub members: Field<Vec<Located<SocketAddr>>>,
    pub dns: Field<DnsTarget>,
    pub kubernetes: Field<RawKubernetesTarget>,
}

pub struct RawLog {
    pub format: Field<LogFormat>,
    pub level: Field<String>,
    pub access: Field<bool>,
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
        proxy_protocol_from: table.list("proxy_protocol_from", value::NETWORKS, value::network),
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
    let kubernetes = table.section("kubernetes", "in [kubernetes]", read_kubernetes);
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
        kubernetes: read_kubernetes_target(table, ["\"scoring\"", "\"scorefront-peers\"", "8444"]),
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

fn read_key_hash(value: &DeValue<'_>) -> Result<KeyHash, Problem> {
    value::text(value, "the SHA-256 of a key as 64 hexadecimal digits")?.parse()
}
