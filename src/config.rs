//! What the operator wrote, as meaning.
//!
//! Text becomes a [`Config`] in two stages, once: `file` reads one TOML file as it is written, every value with its
//! place; `resolve` joins the files, fills in [`defaults`] and checks what belongs together. After that nothing in
//! the program looks at TOML again. This room opens configuration files and nothing else: certificates are opened by
//! [`crate::environment`], sockets by [`crate::listener`].

pub mod defaults;
pub mod diagnostic;
mod discovered;
mod file;
mod include;
mod overlay;
mod protocol;
mod resolve;
mod source;
mod table;
mod value;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity};
pub use discovered::{Discovered, Labelled};
pub use include::Sources;
pub use overlay::Overlay;
pub use protocol::Paths;
pub use source::open_regular;
pub use value::{
    CnamePattern, DnsTarget, EnvironmentName, KeyHash, KubernetesName, KubernetesPort, KubernetesTarget,
    ReplicaAddress, ServiceName, StickyBy,
};

/// The whole configuration of one front end: `scorefront.toml` and the files it includes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What stands in the main file, but for services.
    pub written: toml::Table,
    pub environment: Environment,
    pub frontend: Frontend,
    pub tls: Tls,
    pub reload: Reload,
    pub cnames: Vec<Cname>,
    pub admin: Admin,
    pub limits: Limits,
    pub dns: Dns,
    pub kubernetes: Kubernetes,
    pub cluster: Option<Cluster>,
    pub log: Log,
    /// The form of errors that belong to no service, such as an unknown path.
    pub error_format: ErrorFormat,
    pub services: Vec<Service>,
}

impl Config {
    /// How many watches of Kubernetes it asks for: one for each namespace with endpoints that are named, and one for
    /// each other thing that is read there.
    pub fn kubernetes_watches(&self) -> usize {
        let deployments = self.services.iter().flat_map(|service| &service.deployments);
        let replicas = deployments.filter_map(|deployment| match &deployment.source {
            Source::Kubernetes { target, .. } => Some(target),
            Source::Static(_) | Source::Dns { .. } => None,
        });
        let members = self.cluster.iter().filter_map(|cluster| match &cluster.members {
            Members::Kubernetes { target, .. } => Some(target),
            Members::Listed(_) | Members::Dns(_) => None,
        });
        let namespaces: HashSet<_> = replicas.chain(members).map(|target| &target.namespace).collect();
        let Kubernetes { discovered, front_end_service, .. } = &self.kubernetes;
        namespaces.len() + usize::from(discovered.is_some()) + usize::from(front_end_service.is_some())
    }
}

/// `[environment]`: what operators call the cluster. Nothing is served otherwise because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub name: Option<EnvironmentName>,
    /// What it is managed together with.
    pub resource_group: Option<EnvironmentName>,
    pub cluster_type: ClusterType,
    pub created_on: Option<SystemTime>,
    pub description: Option<String>,
}

/// What an environment is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterType {
    /// Callers.
    #[default]
    Acs,
    /// Development on one machine, without TLS and keys.
    Local,
}

/// `[frontend]`: where callers connect and how the process runs. Read at start-up only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub http_when_tls: HttpWhenTls,
    /// Worker threads; 0 asks for one per CPU this process may use.
    pub threads: usize,
    /// How long new connections are still taken after a stop was asked for.
    pub drain_grace: Duration,
    /// How long requests in flight may go on after that.
    pub drain_timeout: Duration,
    /// Balancers that say before each connection whose it is, by the PROXY protocol. It has to be said by them, and is
    /// believed of nobody else.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The address callers reach this cluster by, which its CNAMEs have to lead to.
    pub public_ip_address: Option<IpAddr>,
    /// The ports callers reach it by, where something before it has others than it listens on.
    pub public_https_port: Option<u16>,
    pub public_http_port: Option<u16>,
}

/// What the plain HTTP listener answers while TLS is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpWhenTls {
    /// 403, naming the https URI.
    Refuse,
    /// 308 to the https URI.
    Redirect,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub status: TlsStatus,
    pub min_version: TlsVersion,
    pub default_cname: Option<CnamePattern>,
    /// The secrets that session tickets are sealed with; absent: a random one for the life of the process.
    pub ticket_keys: Option<FilePath>,
}

/// `[reload]`: how changes of files are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether the kernel is asked to tell of changes (inotify).
    pub watch: bool,
    /// How often every file is looked at in any case.
    pub poll_interval: Duration,
}

/// Whether scoring calls are carried over TLS (`Enabled`) or plain HTTP (`Disabled`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStatus {
    Disabled,
    Enabled,
}

/// The lowest TLS version offered to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// One `[[cname]]` table: a DNS name and the PEM pair served for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cname {
    pub name: CnamePattern,
    /// Where the name is written in the configuration.
    pub at: Location,
    /// The chain, leaf first.
    pub cert_pem: FilePath,
    pub key_pem: FilePath,
    /// The authorities of callers' certificates, which are asked for if this is there.
    pub client_ca_pem: Option<FilePath>,
    /// The certificates that those authorities revoked.
    pub client_crl_pem: Option<FilePath>,
}

/// A file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// Absolute, or relative to the process.
    pub path: PathBuf,
    /// Where it is written in the configuration.
    pub at: Location,
}

impl FilePath {
    /// As messages name it.
    pub fn display(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// `[admin]`: the operators' own listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: AdminListen,
    /// A file holding the bearer token that `/metrics` asks for; there when `listen` is not loopback or
    /// unix, unless operators show certificates.
    pub token_file: Option<FilePath>,
    /// Absent: it is spoken to in the clear.
    pub tls: Option<AdminTls>,
}

/// How the admin listener ends TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// The chain, leaf first.
    pub cert_pem: FilePath,
    pub key_pem: FilePath,
    /// The authorities of operators' certificates, which are asked for if this is there.
    pub client_ca_pem: Option<FilePath>,
}

/// Characters that a token has at least.
pub const MIN_TOKEN: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl AdminListen {
    /// As whoever asks there has to write it. What comes through the file system is in the clear in any case.
    pub fn url(&self, is_tls: bool) -> String {
        match self {
            Self::Tcp(address) if is_tls => format!("https://{address}"),
            Self::Tcp(_) | Self::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[limits]`: what one process grants its callers, whoever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_connections: usize,
    pub tls_handshake_timeout: Duration,
    pub header_read_timeout: Duration,
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: defaults::MAX_CONNECTIONS,
            tls_handshake_timeout: defaults::TLS_HANDSHAKE_TIMEOUT,
            header_read_timeout: defaults::HEADER_READ_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
        }
    }
}

/// `[dns]`: what `dns = …` of deployments is looked up by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Asked in turn, the one that answered last first; empty: what this host asks by (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
}

/// `[kubernetes]`: where its API is, and what is read there besides the replicas of deployments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// Absent: what `KUBECONFIG` names, or else the service account of the pod.
    pub kubeconfig: Option<FilePath>,
    /// Services that the files do not define.
    pub discovered: Option<Discovered>,
    /// The Service of type `LoadBalancer` that callers reach this cluster by.
    pub front_end_service: Option<FrontEndService>,
}

/// A Service of Kubernetes that leads to the front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontEndService {
    /// Absent: the front end's own.
    pub namespace: Option<KubernetesName>,
    pub service: KubernetesName,
}

/// `[cluster]`: the front ends that share the replicas of one cluster. Absent: this is the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where the others hand requests over.
    pub listen: SocketAddr,
    /// What the others know this one by; absent: found out.
    pub address: Option<SocketAddr>,
    /// A file holding the secrets that front ends of the cluster know each other by, one a line.
    pub secret_file: FilePath,
    pub members: Members,
}

/// Where the front ends of a cluster are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// The operator lists them, oneself among them.
    Listed(Vec<SocketAddr>),
    /// Their addresses are looked up.
    Dns(DnsTarget),
    /// They are the endpoints of a Service of Kubernetes; `at` is where that is written.
    Kubernetes { target: KubernetesTarget, at: Location },
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// A filter such as `info` or `scorefront=debug`.
    pub level: String,
    /// Whether each request gets a line on standard output.
    pub access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Json,
    Text,
}

/// The form of errors that the front end itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    Json,
    Text,
}

/// One `[[service]]`, `[defaults]` filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// Where the name is written in the configuration.
    pub at: Location,
    /// What stands in its table, defaults not filled in.
    pub written: toml::Table,
    /// `namespace/name` of the Service that it was made of; absent: a file defines it.
    pub from_kubernetes: Option<String>,
    pub created_at: Option<SystemTime>,
    /// The names it is served under; empty: every name.
    pub cnames: Vec<CnamePattern>,
    pub auth: Auth,
    pub scoring_timeout: Duration,
    /// Bytes.
    pub max_body: u64,
    pub error_format: ErrorFormat,
    /// How long a request may wait for a replica with room; zero: not at all.
    pub max_queue_wait: Duration,
    /// How many requests may wait for one at a time; 0: none.
    pub max_queue: usize,
    /// What all its callers together may ask of it.
    pub limits: RequestLimits,
    /// What requests have in common that get the same deployment while the shares stay; absent: each is drawn alone.
    pub sticky_by: Option<StickyBy>,
    pub mirror: Option<Mirror>,
    /// At least one; the shares add up to 100.
    pub deployments: Vec<Deployment>,
}

/// Who may call a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever has one of these bearer keys; no name twice. None at all, which no file can say: nobody.
    Keys(Vec<Key>),
    Open,
}

/// One key of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What logs and messages call it; `primary` and `secondary` are the names of the two that have a key of their own
    /// in `[[service]]`.
    pub name: String,
    pub hash: KeyHash,
    pub priority: Priority,
    /// What those who call with this key may ask of the service.
    pub limits: RequestLimits,
}

impl Key {
    /// One that asks for nothing but to be let in.
    pub fn plain(name: &str, hash: KeyHash) -> Self {
        Self { name: name.to_owned(), hash, priority: defaults::PRIORITY, limits: RequestLimits::default() }
    }
}

/// How much may be asked of a service at a time; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    pub rate: Option<Rate>,
    /// Requests from their head to the end of their answer; above zero.
    pub max_in_flight: Option<usize>,
}

/// How many requests may begin in a time: a bucket of `burst` tokens, filled with `per_second` tokens a second, of which
/// a request takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, above zero.
    pub per_second: u32,
    /// Requests, above zero.
    pub burst: u32,
}

/// Who goes first among requests that wait for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    High,
    Normal,
    Low,
}

/// A deployment that is sent copies of a service's requests, and whose answers nobody gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The name of one of the service's deployments, whose own share of the traffic is 0.
    pub deployment: String,
    /// The share of the requests that are copied, 1 to 50.
    pub percent: u8,
}

/// One version of a service and its share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub name: String,
    /// Percent.
    pub traffic: u8,
    pub paths: Paths,
    /// Requests that one replica is given at a time; 0: as many as come.
    pub max_concurrent_requests: usize,
    pub health: HealthChecks,
    pub source: Source,
}

/// How a deployment's replicas are asked whether they are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChecks {
    /// From one question to the next; absent: those in use are not asked, those taken out of use still are.
    pub interval: Option<Duration>,
    /// How long an answer may take; above zero.
    pub timeout: Duration,
}

/// Where a deployment's replicas come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator lists them; each once.
    Static(Vec<Replica>),
    /// Their addresses are looked up; `at` is where that is written.
    Dns { target: DnsTarget, at: Location },
    /// They are the endpoints of a Service of Kubernetes; `at` is where that is written.
    Kubernetes { target: KubernetesTarget, at: Location },
}

impl Source {
    /// The replicas that are listed; none where they are looked up.
    pub fn listed(&self) -> &[Replica] {
        match self {
            Self::Static(replicas) => replicas,
            Self::Dns { .. } | Self::Kubernetes { .. } => &[],
        }
    }
}

/// One container address, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub address: ReplicaAddress,
    pub at: Location,
}

/// Reads `path` and every file it includes.
///
/// # Errors
///
/// Everything that is wrong, not only the first of it; warnings come along in either case.
pub fn load(path: &Path) -> Result<(Config, Diagnostics), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    match load_partly(path, &mut diagnostics) {
        (Some(config), _) if !diagnostics.has_errors() => Ok((config, diagnostics)),
        _ => Err(diagnostics),
    }
}

/// What can be made out of `path`, with stand-ins for what is wrong: good for finding more mistakes, and to be served
/// only if `diagnostics` has no errors. The sources are those to look at again in either case.
pub fn load_partly(path: &Path, diagnostics: &mut Diagnostics) -> (Option<Config>, Sources) {
    load_over(path, &Overlay::default(), diagnostics)
}

/// The same of the files as they would be with `overlay`.
pub fn load_over(path: &Path, overlay: &Overlay, diagnostics: &mut Diagnostics) -> (Option<Config>, Sources) {
    let (file, sources) = file::read_with_includes(path, overlay, diagnostics);
    (resolve::resolve(path, file, diagnostics), sources)
}
