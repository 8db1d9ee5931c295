//! What operators and their machines ask a running front end: is it alive, is it ready, how is it doing; and what they
//! change: the cluster, its services, their keys. It has a listener and a thread of its own, so that nothing that is asked
//! here costs a scoring call anything.
//!
//! The files are the state: a change is written to them, and then taken from them like any other. `router` has the paths;
//! each of the other files is about what one of them is about.

mod answer;
mod cluster;
mod documented;
pub mod drain;
mod environment;
mod keys;
mod metrics;
pub mod model;
mod operations;
pub mod pace;
mod replicas;
pub mod router;
mod service;
mod services;
mod settings;
mod state;

use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cluster::Cluster;
use crate::config::{self, AdminListen, Config};
use crate::discovery::kubernetes::standing::Standing;
use crate::environment::draft::Draft;
use crate::environment::report::Taking;
use crate::environment::{AdminTransport, Token};
use crate::listener;
use crate::reload;
use crate::scoring::catalog::Catalog;
use crate::shutdown::{Phase, SharedDrainTimes};
use crate::telemetry::metrics::Metrics;
use crate::tls::{SharedTable, distinguished_name};
use answer::Problem;
use drain::LastAsked;
use pace::Pace;

/// Connections at a time: a few scrapers, probes and people.
const MAX_CONNECTIONS: usize = 64;

/// How long one connection may live. Scrapers open a new one without noticing.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers may take that are still on their way when the front end has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How often a change is made up while somebody edits the files by hand.
const ATTEMPTS: u32 = 5;

/// The wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("listen = \"{address}\": {error}{}", listener::remedy(.error))]
    Bind { address: String, error: io::Error },
}

/// The bound listener.
pub struct AdminListener {
    socket: ListenerSocket,
    address: AdminListen,
}

enum ListenerSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl AdminListener {
    /// Where it listens; the port is the real one.
    pub fn address(&self) -> AdminListen {
        self.address.clone()
    }
}

/// Binds the listener.
///
/// # Errors
///
/// See [`AdminError`].
pub fn bind(config: &config::Admin) -> Result<AdminListener, AdminError> {
    let (socket, address) = match &config.listen {
        AdminListen::Tcp(address) => {
            let failed = |error| AdminError::Bind { address: address.to_string(), error };
            let socket = std::net::TcpListener::bind(address).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            let bound = socket.local_addr().map_err(failed)?;
            (ListenerSocket::Tcp(socket), AdminListen::Tcp(bound))
        }
        AdminListen::Unix(path) => {
            let failed = |error| AdminError::Bind { address: format!("unix:{}", path.display()), error };
            remove_stale_socket(path).map_err(failed)?;
            let socket = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            (ListenerSocket::Unix(socket), AdminListen::Unix(path.clone()))
        }
    };
    Ok(AdminListener { socket, address })
}

/// A socket that nobody listens on is what a front end leaves that was killed.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name exists and is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => fs::remove_file(path),
    }
}

/// What the answers are made of.
pub struct Admin {
    pub phase: watch::Sender<Phase>,
    pub metrics: Arc<Metrics>,
    pub certificates: SharedTable,
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub token: SharedToken,
    pub transport: SharedTransport,
    pub reload: reload::Handle,
    /// The front ends that share the replicas; absent where this is the only one.
    pub cluster: Option<Arc<Cluster>>,
    /// The configuration that is served.
    pub config: Arc<ArcSwap<Config>>,
    /// Where callers connect.
    pub bound: Callers,
    /// The main file.
    pub main: PathBuf,
    /// How things stand with Kubernetes.
    pub kubernetes: Arc<Standing>,
    /// Who makes a change, one at a time, in the order of their coming.
    pub turn: Arc<Mutex<()>>,
    pub pace: Pace,
    pub drain_times: SharedDrainTimes,
    pub last_asked: LastAsked,
}

/// Where callers connect; the ports are the real ones.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
}

/// The bearer token that operators send, swapped when its file changes; `None` if none is asked for.
pub type SharedToken = Arc<ArcSwap<Option<Token>>>;

/// How the listener is spoken to, swapped when its files change.
pub type SharedTransport = Arc<ArcSwap<AdminTransport>>;

/// Who asks, as far as the connection tells.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// The subject of the certificate that was shown.
    Certified(SocketAddr, String),
    /// A process of this user.
    Unix(Option<u32>),
}

impl Peer {
    fn certified_by<S>(self, stream: &TlsStream<S>) -> Self {
        let subject = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(|leaf| {
            let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
            distinguished_name(leaf.subject())
        });
        match (self, subject) {
            (Self::Tcp(address), Some(subject)) => Self::Certified(address, subject),
            (peer, _) => peer,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Certified(address, subject) => write!(f, "{subject} from {address}"),
            Self::Unix(Some(uid)) => write!(f, "uid {uid}"),
            Self::Unix(None) => f.write_str("unix socket"),
        }
    }
}

impl Admin {
    /// Has `edit` make up a change, which is judged whole, written, and served when this is over. It goes on to its end
    /// also if whoever asked for it does not wait. Where a hand was faster, `edit` makes it up again.
    async fn change<T: Send + 'static>(
        &self,
        edit: impl Fn(&mut Draft) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (main, turn, reload) = (self.main.clone(), Arc::clone(&self.turn), self.reload.clone());
        let change = tokio::spawn(async move {
            // To the end: what is read again is what was written, and nothing that somebody else is about to change.
            let _turn = turn.lock_owned().await;
            let written = spawn_blocking(move || {
                let mut attempts = 0;
                loop {
                    attempts += 1;
                    match write(&main, &edit) {
                        Err(problem) if problem.is_overtaken() && attempts < ATTEMPTS => {}
                        written => return written,
                    }
                }
            });
            let (value, files) = written.await.map_err(|error| Problem::internal("The change broke off", &error))??;
            if files.is_empty() {
                return Ok(value);
            }
            let report = reload.changed(&files).await?;
            match report.config.result {
                Taking::Refused => Err(Problem::not_taken(&report.config.errors)),
                Taking::Taken | Taking::Unchanged => Ok(value),
            }
        });
        change.await.map_err(|error| Problem::internal("The change broke off", &error))?
    }

    /// What `read` finds in files that several changes belong together in, while none is being made.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let _turn = self.turn.lock().await;
        spawn_blocking(read).await.map_err(|error| Problem::internal("The files could not be read", &error))
    }

    /// Answers until the front end has ended, and whoever follows its stop was told.
    pub async fn serve(self, listener: AdminListener) {
        let mut phases = self.phase.subscribe();
        let admin = Arc::new(self);
        let server = Rc::new(Server {
            router: router::router(Arc::clone(&admin)),
            transport: Arc::clone(&admin.transport),
            room: Semaphore::new(MAX_CONNECTIONS),
            asked: Semaphore::new(MAX_CONNECTIONS),
            closing: watch::Sender::new(false),
        });
        let accept = async {
            match listener.socket {
                ListenerSocket::Tcp(socket) => match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let accept = async || socket.accept().await.map(|(stream, peer)| (stream, Peer::Tcp(peer)));
                        server.accept_all(accept).await;
                    }
                    Err(error) => tracing::error!(%error, "no admin listener"),
                },
                ListenerSocket::Unix(socket) => match UnixListener::from_std(socket) {
                    Ok(socket) => {
                        let accept = async || {
                            let (stream, _) = socket.accept().await?;
                            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                            Ok((stream, Peer::Unix(uid)))
                        };
                        server.accept_all(accept).await;
                    }
                    Err(error) => tracing::error!(%error, "no admin listener"),
                },
            }
        };
        let ended = async {
            // The sender is in `admin`.
            let _ = phases.wait_for(|phase| *phase == Phase::Ended).await;
            admin.last_asked.told().await;
        };
        tokio::select! {
            () = accept => {}
            () = ended => {}
        }
        server.close().await;
        if let AdminListen::Unix(path) = listener.address {
            let _ = fs::remove_file(path);
        }
    }
}

/// The files that are others now, beside what `edit` gives.
fn write<T>(main: &Path, edit: &impl Fn(&mut Draft) -> Result<T, Problem>) -> Result<(T, Vec<PathBuf>), Problem> {
    let mut draft = Draft::begin(main)?;
    let value = edit(&mut draft)?;
    draft.judge()?;
    Ok((value, draft.commit()?))
}

struct Server {
    router: Router,
    transport: SharedTransport,
    /// For connections.
    room: Semaphore,
    /// For those of them that something was asked over: there is as much.
    asked: Semaphore,
    closing: watch::Sender<bool>,
}

impl Server {
    /// Ends every connection, those that something was asked over once the answer is out.
    async fn close(&self) {
        self.closing.send_replace(true);
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        // Who does not take an answer in this time does without.
        let _ = timeout(LAST_ANSWERS, self.asked.acquire_many(all)).await;
    }

    async fn accept_all<S>(self: &Rc<Self>, accept: impl AsyncFn() -> io::Result<(S, Peer)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        loop {
            match accept().await {
                Ok((stream, peer)) => {
                    let server = Rc::clone(self);
                    spawn_local(async move { server.serve_one(stream, peer).await });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept admin connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_one<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S, peer: Peer) {
        // Closing at once is the clearest answer when there are too many.
        let Ok(_place) = self.room.try_acquire() else { return };
        let transport = self.transport.load_full();
        match (&*transport, peer) {
            // What comes through the file system stays on this host.
            (AdminTransport::Plain, peer) | (_, peer @ Peer::Unix(_)) => self.answer_all(stream, peer).await,
            (AdminTransport::Tls(config), peer) => {
                let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
                match timeout(HEADER_READ_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => {
                        let peer = peer.certified_by(&stream);
                        self.answer_all(stream, peer).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "admin: no handshake"),
                    Err(_) => tracing::debug!("admin: the handshake took too long"),
                }
            }
            (AdminTransport::Unready, _) => tracing::debug!("admin: there is no certificate yet"),
        }
    }

    async fn answer_all<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S, peer: Peer) {
        let asked = OnceCell::new();
        let answer = service_fn(|mut request: Request<Incoming>| {
            asked.get_or_init(|| self.asked.try_acquire().ok());
            request.extensions_mut().insert(peer.clone());
            self.router.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let mut closing = self.closing.subscribe();
        let driven = async {
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = closing.wait_for(|closing| *closing) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        };
        // How it ends is the other side's business.
        let _ = timeout(MAX_CONNECTION_AGE, driven).await;
    }
}
