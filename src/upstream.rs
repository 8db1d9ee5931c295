//! Carries a request to a replica and its answer back: connections, their reuse, and what failed when.
//!
//! Each worker thread has its own [`Pool`]; threads share nothing. A
//! connection is driven inside the task of the request that uses it, so no request ever waits for another task to be
//! scheduled, and dropping the request closes the connection at once, which is how a replica learns that nobody
//! waits any more. This room knows nothing of services, callers or routes.

pub mod answer;
mod endpoint;
mod link;
pub mod pool;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, StatusCode, Uri};
use http_body::Body;
use http_body_util::Empty;
use hyper::{Request, Response, Version};
use tokio::time::{Instant, timeout_at};

pub use answer::AnswerBody;
pub use endpoint::Endpoint;
use link::Link;
pub use pool::Pool;

/// How long a connection to a replica may take to open. It leaves room for one lost SYN, which the kernel repeats
/// after a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a replica gave no answer. What the caller gave along to be held comes back.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, and only when something failed")]
pub enum Failure<B, H> {
    /// Nothing of the request left this process: it is handed back and may go elsewhere.
    Unsent { request: Request<B>, held: H, cause: ConnectError },
    /// The replica may have seen some or all of it.
    Sent { held: H, cause: hyper::Error },
}

/// Why no connection to a replica could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("not open within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// Whether it is this process that lacks what a connection takes: descriptors, ports or memory.
    pub fn is_our_own(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io(error) = self else { return false };
        let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
    }
}

/// When the stages of a call were reached, also of one that was given up.
#[derive(Debug, Default)]
pub struct Times {
    /// A connection was at hand.
    pub connected: Cell<Option<Instant>>,
    /// The head of the answer was there.
    pub answered: Cell<Option<Instant>>,
    /// And what it said.
    pub status: Cell<Option<StatusCode>>,
}

/// Sends `request` to the endpoint that `held` stands for and waits for the head of its answer. The body follows as it is
/// read. `held` is dropped once the connection is put back or closed. A connection that has to be opened has
/// `connect_timeout` to do so.
///
/// There is no deadline in here: drop the future to give up, which closes the connection.
///
/// # Errors
///
/// See [`Failure`]. A connection that had been idle and turns out to be closed is no failure: the next one is taken.
pub async fn send<B, H>(
    pool: &Rc<Pool<B>>,
    mut request: Request<B>,
    times: &Times,
    held: H,
    connect_timeout: Duration,
) -> Result<Response<AnswerBody<B, H>>, Failure<B, H>>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: AsRef<Endpoint>,
{
    loop {
        let endpoint = held.as_ref();
        let (mut link, reused) = match pool.take(endpoint) {
            Some(link) => (link, true),
            None => {
                times.connected.set(None);
                match Link::connect(endpoint, connect_timeout).await {
                    Ok(link) => (link, false),
                    Err(cause) => return Err(Failure::Unsent { request, held, cause }),
                }
            }
        };
        times.connected.set(Some(Instant::now()));
        match link.send(request).await {
            Ok(answer) => {
                times.answered.set(Some(Instant::now()));
                times.status.set(Some(answer.status()));
                // hyper would speak HTTP/1.0 on it from now on, which cannot carry a body of unknown length.
                let place = (answer.version() == Version::HTTP_11).then(|| (Rc::clone(pool), endpoint.id()));
                return Ok(answer.map(|body| AnswerBody::new(body, link, place, held)));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => request = unsent,
                Some(request) => return Err(Failure::Unsent { request, held, cause: error.into_error().into() }),
                None => return Err(Failure::Sent { held, cause: error.into_error() }),
            },
        }
    }
}

/// Asks `endpoint` for `path` on a connection of its own that is closed afterwards: the status, unless it takes longer than
/// `limit`.
///
/// # Errors
///
/// See [`ProbeError`].
pub async fn probe(endpoint: &Endpoint, path: Uri, limit: Duration) -> Result<StatusCode, ProbeError> {
    let began = Instant::now();
    let mut link = Link::connect(endpoint, limit).await.map_err(ProbeError::Connect)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, endpoint.authority().clone());
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    match timeout_at(began + limit, link.send(request)).await {
        Ok(Ok(answer)) => Ok(answer.status()),
        Ok(Err(_)) => Err(ProbeError::Closed),
        Err(_) => Err(ProbeError::Silent),
    }
}

/// Why there is no answer to a [`probe`].
#[derive(Debug)]
pub enum ProbeError {
    Connect(ConnectError),
    /// It was closed before there was one.
    Closed,
    /// It did not come in time.
    Silent,
}
