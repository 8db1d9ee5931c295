//! What holds where the operator wrote nothing: each default once, with its reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{AdminListen, ErrorFormat, HttpWhenTls, LogFormat, Priority, TlsStatus, TlsVersion};

/// `frontend.https`: every address, and a port that an unprivileged container may bind.
pub const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

/// `frontend.http_when_tls`: a redirect would come too late, the caller's key has already crossed the net in the clear.
pub const HTTP_WHEN_TLS: HttpWhenTls = HttpWhenTls::Refuse;

/// `frontend.threads`: one for each CPU this process may use.
pub const THREADS: usize = 0;

/// `frontend.drain_grace`: what load balancers and Kubernetes endpoints need to learn that this process is going.
pub const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// `frontend.drain_timeout`: half of a default `scoring_timeout`; calls that take longer are rare. With the grace it is
/// more than the 30 seconds Kubernetes gives unless told otherwise, which `docs/configuration.md` says.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `tls.status`: scoring calls carry keys.
pub const TLS_STATUS: TlsStatus = TlsStatus::Enabled;

/// `tls.min_version`: still asked for by older clients, and sound with the cipher suites rustls has.
pub const TLS_MIN_VERSION: TlsVersion = TlsVersion::V1_2;

/// `reload.watch`: a change is live within a fraction of a second.
pub const RELOAD_WATCH: bool = true;

/// `reload.poll_interval`: file systems that tell of no change (NFS, FUSE, a subPath mount) are noticed in bearable
/// time; 20,000 files cost some 30 ms of one CPU each time.
pub const RELOAD_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// `admin.listen`: reachable from this host alone, because no token is asked for there.
pub const ADMIN_LISTEN: AdminListen = AdminListen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8900));

/// `limits.max_connections`: at some tens of kB each, a few hundred MB at worst.
pub const MAX_CONNECTIONS: usize = 10_000;

/// `limits.tls_handshake_timeout`: several round trips of a slow mobile link.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// `limits.header_read_timeout`: headers come in one packet or two; longer is a slow-headers attack.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// `limits.idle_timeout`: longer than the 60 seconds of common load balancers, so that they close first and never send
/// a request into a connection that is being closed here.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// `cluster.listen`: every address, and the port after that of `frontend.https`.
pub const CLUSTER_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8444);

/// `log.format`: text for people, JSON for collectors.
pub const LOG_FORMAT: LogFormat = LogFormat::Auto;

/// `log.level`: what an operator needs to follow a reload, nothing per request.
pub const LOG_LEVEL: &str = "info";

/// `log.access`: the first thing looked at when a call went wrong; it costs a microsecond a request.
pub const LOG_ACCESS: bool = true;

/// `defaults.scoring_timeout`: the time Azure Machine Learning gives a scoring call.
pub const SCORING_TIMEOUT: Duration = Duration::from_secs(60);

/// `defaults.max_body`, in bytes: room for a batch of images.
pub const MAX_BODY: u64 = 100 * 1024 * 1024;

/// `defaults.auth`: a model is open to everybody only if somebody says so.
pub const AUTH: bool = true;

/// `defaults.error_format`: most clients parse what they get.
pub const ERROR_FORMAT: ErrorFormat = ErrorFormat::Json;

/// `defaults.max_queue_wait`: the time Azure Machine Learning has a call wait for a replica.
pub const MAX_QUEUE_WAIT: Duration = Duration::from_millis(500);

/// `defaults.max_queue`: in half a second, what a few dozen replicas answer of a quick model; more would wait in vain.
pub const MAX_QUEUE: usize = 100;

/// `defaults.max_concurrent_requests_per_replica`: the number of Azure Machine Learning, and the one that is right for
/// containers with a single worker process, which most are.
pub const MAX_CONCURRENT_REQUESTS: usize = 1;

/// `defaults.health_interval`: the time from one probe to the next in Kubernetes, unless told otherwise.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// `defaults.health_timeout`: the time Azure Machine Learning gives a probe; a replica that is slower to say that it is
/// ready is not.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// `service.key.priority`: in the middle, so that some can go before it and others after.
pub const PRIORITY: Priority = Priority::Normal;

/// `kubernetes.discover_services.selector`: the label that Azure Machine Learning gives to the Services of its models.
pub const DISCOVERED_SELECTOR: &str = "isazuremlapp=true";

/// `kubernetes.discover_services.port`: where the containers of Azure Machine Learning listen.
pub const DISCOVERED_PORT: u16 = 5001;

/// The name of the one deployment that a service with `replicas` of its own has.
pub const DEPLOYMENT_NAME: &str = "default";
