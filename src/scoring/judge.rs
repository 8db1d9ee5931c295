//! What a request's head alone settles, in the order in which it is asked: host, transport, fields, route, service, key,
//! limits, size, time, deployment.

pub mod host;
mod key;
pub mod route;

use std::net::IpAddr;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Uri, Version, request};

use self::host::Host;
use self::route::{Resource, Route};
use super::caller::Caller;
use super::catalog::{Catalog, Deployment, ServiceRef};
use super::error::Refusal;
use super::exchange::Exchange;
use super::headers::{self, AZUREML_MODEL_DEPLOYMENT, MAX_FIELDS, X_REQUEST_TIMEOUT_MS};
use crate::config::{Auth, HttpWhenTls, TlsStatus};
use crate::upstream::request::is_target;

/// What a request's head alone settles.
pub struct Judged {
    /// What to ask a replica for.
    pub target: String,
    pub timeout: Duration,
    /// Bytes.
    pub max_body: u64,
}

/// Everything that is decided of a request before a replica is sought. [`explain`](super::explain) asks here too, so that there is one
/// place that says what becomes of a request.
pub fn judge(head: &request::Parts, exchange: &Exchange) -> Result<Judged, Refusal> {
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
    let timeout = timeout_of(&head.headers, service.scoring_timeout)?;
    if timeout.is_zero() {
        return Err(Refusal::scoring_timeout(0));
    }
    let deployment = exchange.choose(deployment_for(service, exchange, &head.headers)?);
    let deployment = deployment.ok_or_else(|| Refusal::no_ready_replicas(&service.name))?;

    let target = target(route.resource, &head.uri, deployment)?;
    Ok(Judged { target, timeout, max_body: service.max_body })
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
        return Err(Refusal::too_many_fields(MAX_FIELDS));
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
pub fn timeout_of(headers: &HeaderMap, scoring_timeout: Duration) -> Result<Duration, Refusal> {
    let Some(value) = headers.get(X_REQUEST_TIMEOUT_MS) else { return Ok(scoring_timeout) };
    let millis = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match millis.and_then(|millis| millis.parse().ok()) {
        Some(millis) => Ok(scoring_timeout.min(Duration::from_millis(millis))),
        None => Err(Refusal::bad_request("x-request-timeout-ms is a whole number of milliseconds.")),
    }
}

/// The deployment the caller pins, or the one that the request's number falls on by the shares of the traffic.
pub fn deployment_for(service: &ServiceRef, exchange: &Exchange, headers: &HeaderMap) -> Result<usize, Refusal> {
    match headers.get(AZUREML_MODEL_DEPLOYMENT) {
        Some(name) => service
            .deployment_named(name.as_bytes())
            .ok_or_else(|| Refusal::deployment_not_found(&service.name, &String::from_utf8_lossy(name.as_bytes()))),
        None => {
            let number = *exchange
                .number
                .get_or_init(|| exchange.traits(headers).number(&service.name, service.sticky_by.as_ref()));
            service.deployment_for(number).ok_or_else(|| Refusal::no_ready_replicas(&service.name))
        }
    }
}

/// The path and query to ask a replica of `deployment` for, where the caller asked for `resource` by `uri`.
pub fn target(resource: Resource<'_>, uri: &Uri, deployment: &Deployment) -> Result<String, Refusal> {
    let target = resource.target(&deployment.paths, uri.query());
    let refusal = || Refusal::bad_request("The path cannot be passed on to the replica.");
    if is_target(&target) { Ok(target) } else { Err(refusal()) }
}
