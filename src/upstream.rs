//! Carries a request to a replica and its answer back: connections, their reuse, and what failed when.
//!
//! HTTP/1.1 is spoken here by hand, in parts: what is sent (`request`, `sending`), the head of an answer (`head`), where its
//! body ends (`framing`), and the body itself (`answer`). A client library hands requests, answers and the parts of
//! bodies from one task to another; here a connection is a socket and the bytes that were read of it, and whoever asks
//! drives it in the request's own task. So no request ever waits for another task to be scheduled, and dropping it
//! closes the connection at once, which is how a replica learns that nobody waits any more.
//!
//! Each worker thread has its own [`Pool`]; threads share nothing. This room knows nothing of services, callers or routes.

pub mod answer;
mod endpoint;
mod framing;
mod head;
mod link;
pub mod pool;
pub mod request;
mod sending;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{Empty, Full};
use tokio::time::{Instant, timeout_at};

pub use answer::AnswerBody;
pub use endpoint::Endpoint;
use head::Head;
pub use head::is_hop_by_hop;
use link::Link;
pub use pool::Pool;
pub use request::Request;
use sending::{SendError, Sending};

/// How long a connection to a replica may take to open. It leaves room for one lost SYN, which the kernel repeats
/// after a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A request's body.
pub trait Upload: Body<Data = Bytes> + Unpin {
    /// Takes back what was read last, none of which was sent.
    fn take_back(&mut self, data: Bytes);
}

impl Upload for Empty<Bytes> {
    fn take_back(&mut self, _: Bytes) {}
}

impl Upload for Full<Bytes> {
    fn take_back(&mut self, data: Bytes) {
        // It is read in one piece.
        *self = Self::new(data);
    }
}

/// Why a replica gave no answer. What the caller gave along to be held comes back.
#[derive(Debug)]
pub enum Failure<B, H> {
    /// Nothing of the request left this process: its body is handed back, and it may go elsewhere.
    Unsent { body: B, held: H, cause: ConnectError },
    /// The replica may have seen some or all of it.
    Sent { held: H, cause: AnswerError },
}

/// Why no connection to a replica could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("not open within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It was open, and broke before anything could be sent.
    #[error("closed at once: {0}")]
    Closed(io::Error),
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

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("closed before the answer was whole")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer is no HTTP: {0}")]
    Malformed(&'static str),
    #[error("the answer is over a limit: {0}")]
    TooLarge(&'static str),
    /// The rest of the request cannot be had, or is not what was announced.
    #[error("the request broke off")]
    Request,
}

impl AnswerError {
    /// Whether the replica did answer, with something that cannot be passed on.
    pub fn is_of_the_answer(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::TooLarge(_))
    }
}

/// Where the fields of an answer go.
pub struct Fields<'a> {
    /// Taken for them once there is an answer: a map that is not needed any more has the space that a new one would need.
    pub room: &'a mut HeaderMap,
    pub is_wanted: fn(&HeaderName) -> bool,
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
/// Of the answer's fields `fields` gets those that concern more than the connection (RFC 9110 section 7.6.1).
///
/// There is no deadline in here: drop the future to give up, which closes the connection.
///
/// # Errors
///
/// See [`Failure`]. A connection that had been idle and turns out to be closed is no failure: the next one is taken.
pub async fn send<B: Upload, H: AsRef<Endpoint>>(
    pool: &Rc<Pool>,
    request: Request<B>,
    times: &Times,
    held: H,
    connect_timeout: Duration,
    fields: &mut Fields<'_>,
) -> Result<Response<AnswerBody<B, H>>, Failure<B, H>> {
    let to_head = request.is_head;
    let mut sending = Sending::new(request);
    loop {
        let endpoint = held.as_ref();
        let now = Instant::now();
        let (link, is_reused, connected) = match pool.take(endpoint, now) {
            Some(link) => (link, true, now),
            None => {
                times.connected.set(None);
                match Link::connect(endpoint, connect_timeout).await {
                    Ok(link) => (link, false, Instant::now()),
                    Err(cause) => return Err(Failure::Unsent { body: sending.into_body(), held, cause }),
                }
            }
        };
        times.connected.set(Some(connected));
        let mut dialogue = Dialogue { link, sending, to_head };
        match poll_fn(|cx| dialogue.poll_head(cx, fields)).await {
            Ok(head) => {
                let now = Instant::now();
                times.answered.set(Some(now));
                times.status.set(Some(head.response.status()));
                let place = head.keeps_alive.then(|| (Rc::clone(pool), endpoint.id()));
                let (body, framing) = (dialogue, head.framing);
                return Ok(head.response.map(|()| AnswerBody::begin(body, framing, place, held, now)));
            }
            Err(Broken::Unsent(_)) if is_reused => sending = dialogue.sending,
            Err(Broken::Unsent(cause)) => {
                let (body, cause) = (dialogue.sending.into_body(), ConnectError::Closed(cause));
                return Err(Failure::Unsent { body, held, cause });
            }
            Err(Broken::Sent(cause)) => return Err(Failure::Sent { held, cause }),
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
    let link = Link::connect(endpoint, limit).await.map_err(ProbeError::Connect)?;
    let mut request = Request::new(&Method::GET, path.path_and_query().map_or("/", PathAndQuery::as_str), Empty::new());
    request.field(&HOST, endpoint.authority().as_bytes());
    request.field(&CONNECTION, b"close");
    let mut dialogue = Dialogue { link, sending: Sending::new(request), to_head: false };
    let mut fields = Fields { room: &mut HeaderMap::new(), is_wanted: |_| false };
    match timeout_at(began + limit, poll_fn(|cx| dialogue.poll_head(cx, &mut fields))).await {
        Ok(Ok(head)) => Ok(head.response.status()),
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

/// A request on its way over a connection, to which the answer comes back.
struct Dialogue<B> {
    link: Link,
    sending: Sending<B>,
    /// Whether it is HEAD, whose answer has no body.
    to_head: bool,
}

/// Why a dialogue ended before there was a head.
enum Broken {
    Unsent(io::Error),
    Sent(AnswerError),
}

impl<B: Upload> Dialogue<B> {
    /// Sends what can be sent, and reads the head of the answer when it comes.
    fn poll_head(&mut self, cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Poll<Result<Head, Broken>> {
        match self.sending.poll(&mut self.link, cx) {
            Poll::Ready(Err(SendError::Body)) => return Poll::Ready(Err(Broken::Sent(AnswerError::Request))),
            Poll::Ready(Err(SendError::Io(error))) if !self.sending.is_begun() => {
                return Poll::Ready(Err(Broken::Unsent(error)));
            }
            // A replica may close its side once it has answered: what it said is still to be read.
            Poll::Ready(Ok(()) | Err(SendError::Io(_))) | Poll::Pending => {}
        }
        // What would be read now answers nothing, and takes the room of fields that another connection may need.
        if !self.sending.is_begun() {
            return Poll::Pending;
        }
        self.link.poll_head(cx, self.to_head, fields).map_err(Broken::Sent)
    }
}
