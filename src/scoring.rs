//! The way of a scoring request, top to bottom: host, route, key, limits, deployment, permit or queue, replica, answer.
//!
//! Everything a caller can do wrong becomes a [`Refusal`] here and a response in `observe`. Bytes of bodies only
//! pass through ([`body`]); sockets are the business of [`crate::connection`] on one side and [`crate::upstream`] on
//! the other.

mod attempt;
pub mod body;
pub mod caller;
mod caller_certificate;
pub mod catalog;
mod dispatch;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod handover;
pub mod headers;
mod host;
mod id;
pub mod incoming;
mod key;
mod limits;
mod mirror;
mod observe;
pub mod route;
mod split;
pub mod worker;

use std::future::{Future, poll_fn, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, Method, Response, Uri, Version, request};
use tokio::time::{Instant, timeout_at};
use tower::{Service, ServiceBuilder};

use self::body::{GATHERED, RequestBody, ResponseBody};
use self::caller::Caller;
use self::catalog::{Catalog, Deployment, ServiceRef};
use self::dispatch::Asked;
use self::error::Refusal;
use self::exchange::{Exchange, Upload};
use self::handover::Holder;
use self::headers::{AZUREML_MODEL_DEPLOYMENT, MAX_FIELDS, X_REQUEST_TIMEOUT_MS};
use self::host::Host;
use self::observe::Call;
use self::route::{Resource, Route};
use self::worker::Worker;
use crate::config::{Auth, HttpWhenTls, TlsStatus};
use crate::upstream::AnswerBody;
use crate::upstream::request::is_target;

pub use id::RequestId;
pub use observe::Observe;

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
        let (head, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, Rc::clone(&exchange), head.headers.contains_key(EXPECT));
        if handover::is_question(&exchange, &head) {
            return Box::pin(handover::answer(exchange, head, body));
        }
        let decide = if exchange.caller.is_member { handover::decide } else { decide };
        // What needs no waiting is decided here, so that the box holds only what does.
        match decide(head, &mut body, &exchange) {
            Ok((headers, target, timeout)) => Box::pin(carry(exchange, Asked { headers, target, body }, timeout)),
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

/// Reads what the caller wants and whether it may have it: its fields, what to ask a replica for, and how long that may take.
/// The service and deployment are noted in `exchange`.
fn decide(
    head: request::Parts,
    body: &mut RequestBody,
    exchange: &Rc<Exchange>,
) -> Result<(HeaderMap, String, Duration), Refusal> {
    let Judged { target, timeout, max_body } = judge(&head, exchange)?;
    body.allow(max_body);
    Ok((head.headers, target, timeout))
}

/// What a request's head alone settles.
struct Judged {
    /// What to ask a replica for.
    target: String,
    timeout: Duration,
    /// Bytes.
    max_body: u64,
}

/// Everything that is decided of a request before a replica is sought. [`explain`] asks here too, so that there is one
/// place that says what becomes of a request.
fn judge(head: &request::Parts, exchange: &Exchange) -> Result<Judged, Refusal> {
    let catalog = exchange.worker.catalog();

    let server_name = exchange.caller.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let host = Host::of(head.version, &head.uri, &head.headers, server_name)?;
    let _ = exchange.host.set(host.authority.clone());
    check_transport(&catalog, &exchange.caller, &host, &head.uri)?;
    headers::check(&head.headers)?;
    check_framing(head)?;

    let route = Route::parse(head.uri.path())?;
    let service = ServiceRef::find(&catalog, route.service, &host.name)
        .ok_or_else(|| Refusal::service_not_found(route.service))?;
    let service = exchange.route(service);
    route.resource.check_method(&head.method)?;

    if let Auth::Keys(keys) = &service.auth {
        let key = key::find(keys, &head.headers).ok_or_else(|| Refusal::unauthorized(&service.name))?;
        exchange.key.set(Some(key));
    }
    let admission = service.limits.admit(exchange.key.get());
    let _ = exchange.admission.set(admission.map_err(|excess| Refusal::too_many_requests(&service.name, &excess))?);
    check_length(&head.headers, service.max_body)?;
    let timeout = timeout(&head.headers, service.scoring_timeout)?;
    if timeout.is_zero() {
        return Err(Refusal::scoring_timeout(0));
    }
    let deployment = exchange.choose(deployment(service, exchange, &head.headers)?);
    let deployment = deployment.ok_or_else(|| Refusal::no_ready_replicas(&service.name))?;

    let target = target(route.resource, &head.uri, deployment)?;
    Ok(Judged { target, timeout, max_body: service.max_body })
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

/// Refuses plain HTTP while TLS is enabled, names the served certificate does not prove, and names for which the caller
/// had to show a certificate and did not on this connection.
fn check_transport(catalog: &Catalog, caller: &Caller, host: &Host<'_>, uri: &Uri) -> Result<(), Refusal> {
    match &caller.tls {
        Some(tls) if !tls.identity.covers(&host.name) => Err(Refusal::misdirected(&host.name)),
        Some(tls) => match catalog.guard(&host.name) {
            Some(cname) if tls.caller.is_none() || tls.identity.cname() != cname.as_str() => {
                Err(Refusal::certificate_required(&host.name))
            }
            _ => Ok(()),
        },
        // A name whose callers show certificates is not open to those that cannot.
        None if catalog.tls_status == TlsStatus::Disabled && catalog.guard(&host.name).is_none() => Ok(()),
        None => {
            let host = https_host(catalog, host);
            let port = if catalog.https_port == 443 { String::new() } else { format!(":{}", catalog.https_port) };
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            let https = format!("https://{host}{port}{target}");
            Err(match catalog.http_when_tls {
                HttpWhenTls::Refuse => Refusal::https_required(&https),
                HttpWhenTls::Redirect => Refusal::https_redirect(&https),
            })
        }
    }
}

/// What `host` is called over TLS. No certificate is for an address, which is what callers knew before there was one.
fn https_host(catalog: &Catalog, host: &Host<'_>) -> String {
    match (host.name.parse::<IpAddr>(), &catalog.cname) {
        (Ok(_), Some(cname)) => cname.to_string(),
        (Ok(IpAddr::V6(address)), None) => format!("[{address}]"),
        _ => host.name.to_string(),
    }
}

/// What HTTP allows and nobody who scores needs: CONNECT asks for a tunnel, `*` for the server as a whole. Too many
/// fields, or a length given twice, can only come over HTTP/2 this far; [`crate::connection`] refuses them in HTTP/1.
fn check_framing(head: &request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::method_not_allowed("POST, GET, OPTIONS"));
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Refusal::bad_request("The request target * is for OPTIONS only."));
    }
    if head.headers.len() > MAX_FIELDS {
        return Err(Refusal::too_many_fields());
    }
    if head.version == Version::HTTP_2 && head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("There is more than one Content-Length field."));
    }
    Ok(())
}

/// Refuses a body that says itself that it is too large, before any of it is read.
fn check_length(headers: &HeaderMap, max_body: u64) -> Result<(), Refusal> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_body) { Err(Refusal::body_too_large(max_body)) } else { Ok(()) }
}

/// How long this request may take: what the service allows, or less if the caller says so.
fn timeout(headers: &HeaderMap, scoring_timeout: Duration) -> Result<Duration, Refusal> {
    let Some(value) = headers.get(X_REQUEST_TIMEOUT_MS) else { return Ok(scoring_timeout) };
    let millis = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match millis.and_then(|millis| millis.parse().ok()) {
        Some(millis) => Ok(scoring_timeout.min(Duration::from_millis(millis))),
        None => Err(Refusal::bad_request("x-request-timeout-ms is a whole number of milliseconds.")),
    }
}

/// The deployment the caller pins, or the one that the request's number falls on by the shares of the traffic.
fn deployment(service: &ServiceRef, exchange: &Exchange, headers: &HeaderMap) -> Result<usize, Refusal> {
    match headers.get(AZUREML_MODEL_DEPLOYMENT) {
        Some(name) => service
            .deployment_named(name.as_bytes())
            .ok_or_else(|| Refusal::deployment_not_found(&service.name, &String::from_utf8_lossy(name.as_bytes()))),
        None => {
            let number = *exchange.number.get_or_init(|| split::number(service, exchange, headers));
            service.deployment_for(number).ok_or_else(|| Refusal::no_ready_replicas(&service.name))
        }
    }
}

/// The path and query to ask a replica of `deployment` for, where the caller asked for `resource` by `uri`.
fn target(resource: Resource<'_>, uri: &Uri, deployment: &Deployment) -> Result<String, Refusal> {
    let target = resource.target(&deployment.paths, uri.query());
    let refusal = || Refusal::bad_request("The path cannot be passed on to the replica.");
    if is_target(&target) { Ok(target) } else { Err(refusal()) }
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
