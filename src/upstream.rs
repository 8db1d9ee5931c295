//! Carries a request to a replica and its answer back: connections, their reuse, and what failed when.
//!
//! Each worker thread has its own [`Pool`]; threads share nothing but a replica's count of requests in flight. A
//! connection is driven inside the task of the request that uses it, so no request ever waits for another task to be
//! scheduled, and dropping the request closes the connection at once, which is how a replica learns that nobody
//! waits any more. This room knows nothing of services, callers or routes.

pub mod answer;
mod link;
pub mod pool;
pub mod replica;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::{Request, Response, Version};
use tokio::time::Instant;

pub use answer::AnswerBody;
use link::Link;
pub use pool::Pool;
pub use replica::Replica;

/// How long a connection to a replica may take to open. It leaves room for one lost SYN, which the kernel repeats
/// after a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a replica gave no answer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, and only when something failed")]
pub enum Failure<B> {
    /// Nothing of the request left this process: it is handed back and may go elsewhere.
    Unsent { request: Request<B>, cause: ConnectError },
    /// The replica may have seen some or all of it.
    Sent(hyper::Error),
}

/// Why no connection to a replica could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// When the stages of a call were reached, also of one that was given up.
#[derive(Debug, Default)]
pub struct Times {
    /// A connection was at hand.
    pub connected: Cell<Option<Instant>>,
    /// The head of the answer was there.
    pub answered: Cell<Option<Instant>>,
}

/// Sends `request` to `replica` and waits for the head of its answer. The body follows as it is read.
///
/// There is no deadline in here: drop the future to give up, which closes the connection.
///
/// # Errors
///
/// See [`Failure`]. A connection that had been idle and turns out to be closed is no failure: the next one is taken.
pub async fn send<B>(
    pool: &Rc<Pool<B>>,
    replica: &Arc<Replica>,
    mut request: Request<B>,
    times: &Times,
) -> Result<Response<AnswerBody<B>>, Failure<B>>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let in_flight = replica.enter();
    loop {
        let (mut link, reused) = match pool.take(replica) {
            Some(link) => (link, true),
            None => match Link::connect(replica).await {
                Ok(link) => (link, false),
                Err(cause) => return Err(Failure::Unsent { request, cause }),
            },
        };
        times.connected.set(Some(Instant::now()));
        match link.send(request).await {
            Ok(answer) => {
                times.answered.set(Some(Instant::now()));
                // hyper would speak HTTP/1.0 on it from now on, which cannot carry a body of unknown length.
                let pool = (answer.version() == Version::HTTP_11).then(|| Rc::clone(pool));
                return Ok(answer.map(|body| AnswerBody::new(body, link, pool, in_flight)));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => request = unsent,
                Some(request) => return Err(Failure::Unsent { request, cause: error.into_error().into() }),
                None => return Err(Failure::Sent(error.into_error())),
            },
        }
    }
}
