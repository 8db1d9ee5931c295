//! The outermost layer: gives each request its id, turns refusals into responses, tells the caller where the time
//! went, and has everything written down.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, Version};
use http_body::Body;
use tokio::time::Instant;
use tower::Service;

use super::body::ResponseBody;
use super::caller::Caller;
use super::error::Refusal;
use super::exchange::{Exchange, record};
use super::handover;
use super::headers::{self, SERVER_TIMING, X_MS_CLIENT_REQUEST_ID, X_MS_REQUEST_ID};
use super::id::RequestId;
use super::incoming::Incoming;
use super::worker::Worker;
use crate::config::ErrorFormat;

/// A request, and the place where what happens to it is noted.
pub struct Call {
    pub request: Request<Incoming>,
    pub exchange: Rc<Exchange>,
}

/// See the module.
pub struct Observe<S> {
    inner: S,
    worker: Rc<Worker>,
    caller: Rc<Caller>,
}

impl<S> Observe<S> {
    pub fn new(inner: S, worker: Rc<Worker>, caller: Rc<Caller>) -> Self {
        Self { inner, worker, caller }
    }
}

impl<S> Service<Request<Incoming>> for Observe<S>
where
    S: Service<Call, Response = Response<ResponseBody>, Error = Refusal>,
    S::Future: Unpin,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An inner service that refuses does so for each request.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let version = request.version();
        let exchange = Exchange::begin(Rc::clone(&self.worker), Rc::clone(&self.caller), &request);
        let answer = self.inner.call(Call { request, exchange: Rc::clone(&exchange) });
        Observed { answer, exchange: Some(exchange), version }
    }
}

/// A request on its way.
pub struct Observed<F> {
    answer: F,
    /// Taken by the answer.
    exchange: Option<Rc<Exchange>>,
    version: Version,
}

impl<F> Future for Observed<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Refusal>> + Unpin,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = ready!(Pin::new(&mut this.answer).poll(cx));
        Poll::Ready(Ok(match this.exchange.take() {
            Some(exchange) => finish(answer, exchange, this.version),
            // Polled again after it was ready, which futures need not bear: there is nothing left to note.
            None => answer.unwrap_or_else(|refusal| own(refusal, ErrorFormat::Json, "")),
        }))
    }
}

fn finish(
    answer: Result<Response<ResponseBody>, Refusal>,
    exchange: Rc<Exchange>,
    version: Version,
) -> Response<ResponseBody> {
    let mut response = answer.unwrap_or_else(|refusal| {
        exchange.refused.set(Some(refusal.code));
        let format = match exchange.service() {
            Some(service) => service.error_format,
            None => exchange.worker.catalog().error_format,
        };
        let response = own(refusal, format, exchange.id.as_str());
        // Over HTTP/2 hyper would send the body, which breaks the stream (RFC 9113 section 8.1.1).
        if exchange.is_head() { without_body(response) } else { response }
    });
    exchange.status.set(Some(response.status()));

    let fields = response.headers_mut();
    fields.insert(X_MS_REQUEST_ID, exchange.id.to_value());
    if let Some(client_id) = &exchange.client_id {
        fields.insert(X_MS_CLIENT_REQUEST_ID, client_id.clone());
    }
    let stages = exchange.stages();
    let model = stages.model.unwrap_or_default();
    let overhead = (Instant::now() - exchange.started).saturating_sub(stages.queue + stages.connect + model);
    if exchange.handed().is_some() {
        // Whoever handed it over tells the caller.
        handover::write_outcome(&exchange, fields);
    } else {
        let timing = [("queue", stages.queue), ("connect", stages.connect), ("model", model), ("frontend", overhead)];
        if let Some(timing) = headers::server_timing(timing) {
            fields.append(SERVER_TIMING, timing);
        }
    }
    if exchange.worker.draining.get() && version != Version::HTTP_2 {
        // The caller closes by itself after this answer, so that no request of its crosses our close on the way.
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let is_answered = exchange.is_answered();
    if let Some(original) = exchange.mirrored.get() {
        original.tell(response.status(), is_answered.then_some(model));
    }
    if is_answered {
        exchange.metrics().model.observe(model);
        exchange.metrics().overhead.observe(overhead);
        if let Some(execution) = headers::execution(response.headers()) {
            exchange.metrics().execution.observe(execution);
        }
    }
    response.map(|body| body.counted_by(exchange))
}

/// The answer to a request that could not be read, `took` so long after its first byte. It is written down here, for there is
/// no [`Exchange`] of it.
pub fn refuse_unreadable(worker: &Worker, caller: &Caller, refusal: Refusal, took: Duration) -> Response<Bytes> {
    let id = RequestId::random();
    let code = refusal.code;
    let mut response = refusal.into_response(worker.catalog().error_format, id.as_str());
    response.headers_mut().insert(X_MS_REQUEST_ID, id.to_value());
    record::note_unreadable(worker, caller, (code, &response), &id, took);
    response
}

/// An answer of our own.
fn own(refusal: Refusal, format: ErrorFormat, request_id: &str) -> Response<ResponseBody> {
    refusal.into_response(format, request_id).map(ResponseBody::full)
}

/// The answer to HEAD: the length of what GET would get, and nothing of it.
fn without_body(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| ResponseBody::full(Bytes::new()));
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}
