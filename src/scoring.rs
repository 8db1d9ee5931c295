//! The way of a scoring request, top to bottom: `observe` opens its [`Exchange`], [`judge`](mod@judge) settles what its head
//! alone settles (host, route, key, limits, deployment), `dispatch` finds a permit or a place in the queue, asks a replica, and
//! hands back its answer.
//!
//! Everything a caller can do wrong becomes a [`Refusal`] and a response in `observe`. Bytes of bodies only
//! pass through ([`body`]); sockets are the business of [`crate::connection`] on one side and [`crate::upstream`] on
//! the other.

mod attempt;
pub mod body;
pub mod caller;
pub mod catalog;
mod copy;
mod dispatch;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod forward;
pub mod handover;
pub mod headers;
mod holder;
mod id;
pub mod incoming;
pub mod judge;
mod mirror;
mod observe;
pub mod worker;

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http::header::EXPECT;
use tokio::time::{Instant, timeout_at};
use tower::{Service, ServiceBuilder};

use self::body::{GATHERED, RequestBody, ResponseBody};
use self::caller::Caller;
use self::error::Refusal;
use self::exchange::Exchange;
use self::forward::Asked;
use self::headers::AZUREML_MODEL_DEPLOYMENT;
use self::holder::Holder;
use self::incoming::Upload;
use self::judge::{Judged, judge};
use self::observe::Call;
use self::worker::Worker;
use crate::upstream::AnswerBody;

pub use id::RequestId;
pub use observe::{Observe, refuse_unreadable};

/// How long the small body of a request that is refused may take to come. It is sent with the head as a rule.
const REFUSED_BODY: Duration = Duration::from_millis(100);

/// The request path for the calls of one connection.
pub fn service(worker: Rc<Worker>, caller: Rc<Caller>) -> Observe<Score> {
    ServiceBuilder::new().layer_fn(|score| Observe::new(score, Rc::clone(&worker), Rc::clone(&caller))).service(Score)
}

/// Answers calls from replicas.
#[derive(Clone, Copy, Debug)]
pub struct Score;

impl Service<Call> for Score {
    type Response = Response<ResponseBody>;
    type Error = Refusal;
    /// Boxed, so that a connection holds the state of a request only while there is one.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refusal>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Call { request, exchange }: Call) -> Self::Future {
        let (mut head, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, Rc::clone(&exchange), head.headers.contains_key(EXPECT));
        if handover::is_question(&exchange, &head) {
            return Box::pin(handover::answer(exchange, head, body));
        }
        let is_member = exchange.caller.is_member;
        let judged = if is_member { handover::judge(&mut head, &exchange) } else { judge(&head, &exchange) };
        // What needs no waiting is decided by now, so that the box holds only what does.
        match judged {
            Ok(Judged { target, timeout, max_body }) => {
                body.allow(max_body);
                Box::pin(carry(exchange, Asked { headers: head.headers, target, body }, timeout))
            }
            Err(refusal) if !exchange.is_http2() && body.is_small() => Box::pin(refuse(body, refusal)),
            Err(refusal) => Box::pin(ready(Err(refusal))),
        }
    }
}

/// Reads a small body, which is on its way, before it is refused: else the connection could not be used again.
async fn refuse<T>(mut body: RequestBody, refusal: Refusal) -> Result<T, Refusal> {
    body.allow(GATHERED);
    // Whether or not it comes, the answer is the same.
    let _ = timeout_at(Instant::now() + REFUSED_BODY, poll_fn(|cx| body.poll_gather(cx))).await;
    Err(refusal)
}

/// Has a replica answer, within the time there is.
async fn carry(exchange: Rc<Exchange>, asked: Asked, timeout: Duration) -> Result<Response<ResponseBody>, Refusal> {
    let deadline = exchange.started + timeout;
    let promised = exchange.handed().map_or(timeout, |handed| handed.timeout);
    let answer = dispatch::dispatch(&exchange, asked, (deadline, promised));
    match timeout_at(deadline, answer).await {
        Ok(answer) => Ok(to_caller(answer?, &exchange, timeout)),
        Err(_) => Err(out_of_time(&exchange, promised)),
    }
}

/// Whose fault it is that time ran out decides what the caller is told.
fn out_of_time(exchange: &Exchange, timeout: Duration) -> Refusal {
    if exchange.upload.get() == Upload::Reading && exchange.awaits_body.get() {
        Refusal::request_timeout(format!("The request body did not arrive within {} ms.", timeout.as_millis()))
    } else {
        Refusal::scoring_timeout(timeout.as_millis())
    }
}

/// The answer as the caller gets it. From here on the timeout bounds each silence of the replica, so that a stream of
/// events may go on as long as it lives.
fn to_caller(
    answer: Response<AnswerBody<RequestBody, Holder>>,
    exchange: &Exchange,
    timeout: Duration,
) -> Response<ResponseBody> {
    let answered = exchange.times.answered.get().unwrap_or(exchange.started);
    let mut response = answer.map(|body| ResponseBody::replica(body, answered, timeout));
    if let Some(deployment) = exchange.deployment() {
        response.headers_mut().insert(AZUREML_MODEL_DEPLOYMENT, deployment.label.clone());
    }
    response
}
