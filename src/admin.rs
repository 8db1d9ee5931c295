//! What operators and their machines ask a running front end: is it alive, is it ready, how is it doing. It has a
//! listener and a thread of its own, so that no scrape costs a scoring call anything.

mod metrics;
pub mod model;
mod replicas;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::config::{self, AdminListen, TlsStatus};
use crate::environment::Token;
use crate::listener;
use crate::reload;
use crate::scoring::catalog::Catalog;
use crate::shutdown::Phase;
use crate::telemetry::metrics::Metrics;
use crate::tls::SharedTable;

/// Connections at a time: a few scrapers, probes and people.
const MAX_CONNECTIONS: usize = 64;

/// How long one connection may live. Scrapers open a new one without noticing.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

const PATHS: &str = "/livez, /readyz, /metrics, /v1/certificates, /v1/replicas and /v1/reload";

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
    pub phases: watch::Receiver<Phase>,
    pub metrics: Arc<Metrics>,
    pub certificates: SharedTable,
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub token: SharedToken,
    pub reload: reload::Handle,
}

/// The bearer token that operators send, swapped when its file changes; `None` if none is asked for.
pub type SharedToken = Arc<ArcSwap<Option<Token>>>;

impl Admin {
    /// Answers until the front end is stopped.
    pub async fn serve(self, listener: AdminListener) {
        let mut phases = self.phases.clone();
        let server = Rc::new(Server { admin: self, room: Semaphore::new(MAX_CONNECTIONS) });
        let accept = async {
            match listener.socket {
                ListenerSocket::Tcp(socket) => match TcpListener::from_std(socket) {
                    Ok(socket) => server.accept_all(async || socket.accept().await.map(|(stream, _)| stream)).await,
                    Err(error) => tracing::error!(%error, "no admin listener"),
                },
                ListenerSocket::Unix(socket) => match UnixListener::from_std(socket) {
                    Ok(socket) => server.accept_all(async || socket.accept().await.map(|(stream, _)| stream)).await,
                    Err(error) => tracing::error!(%error, "no admin listener"),
                },
            }
        };
        tokio::select! {
            () = accept => {}
            _ = phases.wait_for(|phase| *phase == Phase::Stopped) => {}
        }
        if let AdminListen::Unix(path) = listener.address {
            let _ = fs::remove_file(path);
        }
    }
}

struct Server {
    admin: Admin,
    room: Semaphore,
}

impl Server {
    async fn accept_all<S>(self: &Rc<Self>, accept: impl AsyncFn() -> io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        loop {
            match accept().await {
                Ok(stream) => {
                    let server = Rc::clone(self);
                    spawn_local(async move { server.serve_one(stream).await });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept admin connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_one<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S) {
        // Closing at once is the clearest answer when there are too many.
        let Ok(_place) = self.room.try_acquire() else { return };
        let answer = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        // How it ends is the other side's business.
        let _ = timeout(MAX_CONNECTION_AGE, connection).await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let allowed = match path {
            "/livez" | "/readyz" | "/metrics" | "/v1/certificates" | "/v1/replicas" => "GET, HEAD",
            "/v1/reload" => "POST",
            _ => return text(StatusCode::NOT_FOUND, format!("No such path; there are {PATHS}.\n")),
        };
        if !allowed.split(", ").any(|method| request.method() == method) {
            let answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("This path takes {allowed}.\n"));
            return with(answer, ALLOW, allowed);
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.reason_not_to_be_ready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            // Probes of an orchestrator cannot hold a secret; everything else can.
            _ if !self.is_authorized(request) => {
                let answer = text(StatusCode::UNAUTHORIZED, "Send the token as Authorization: Bearer.\n");
                with(answer, WWW_AUTHENTICATE, "Bearer")
            }
            "/v1/reload" => self.reload().await,
            "/v1/certificates" => self.certificates(),
            "/v1/replicas" => json(StatusCode::OK, &replicas::Report::of(&self.admin.catalog.load())),
            _ => self.metrics(),
        }
    }

    /// Answers when it is done, with what was taken and what was not: 422 if anything was not.
    async fn reload(&self) -> Response<Full<Bytes>> {
        match self.admin.reload.reload().await {
            Ok(report) if report.is_all_taken() => json(StatusCode::OK, &report),
            Ok(report) => json(StatusCode::UNPROCESSABLE_ENTITY, &report),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    }

    fn certificates(&self) -> Response<Full<Bytes>> {
        let status = &self.admin.reload.standing().status;
        json(StatusCode::OK, &serde_json::json!({ "certificates": status.certificates, "others": status.others }))
    }

    fn reason_not_to_be_ready(&self) -> Option<&'static str> {
        if *self.admin.phases.borrow() != Phase::Running {
            Some("not ready: shutting down\n")
        } else if self.admin.catalog.load().tls_status == TlsStatus::Enabled
            && self.admin.certificates.load().is_empty()
        {
            Some("not ready: no certificate is loaded\n")
        } else {
            None
        }
    }

    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        let token = self.admin.token.load();
        let Some(token) = &**token else { return true };
        // An empty one stands for a file that holds none.
        if token.is_empty() {
            return false;
        }
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| given.strip_prefix(b"Bearer "));
        given.is_some_and(|given| verify_slices_are_equal(given.trim_ascii(), token).is_ok())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match metrics::render(&self.admin) {
            Ok(body) => with(text(StatusCode::OK, body), CONTENT_TYPE, metrics::CONTENT_TYPE),
            Err(error) => {
                tracing::error!(%error, "metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be written.\n")
            }
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            with(text(status, body), CONTENT_TYPE, "application/json")
        }
        Err(error) => {
            tracing::error!(%error, "JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written.\n")
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with<B>(mut response: Response<B>, name: HeaderName, value: &'static str) -> Response<B> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
