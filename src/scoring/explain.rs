//! What would become of a request that nobody sends. The request path itself decides, over a catalog that nothing else uses,
//! and what it noted on the way is handed on: no rule of it stands here a second time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, request};

use super::caller::Caller;
use super::catalog::{Catalog, Mirror, ServiceRef};
use super::error::{Code, Refusal};
use super::exchange::Exchange;
use super::headers::{self, AZUREML_MODEL_DEPLOYMENT};
use super::judge::route::{Resource, Route};
use super::judge::{judge, target};
use super::mirror;
use super::worker::Worker;
use crate::config::{Auth, Config, KeyHash, StickyBy};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::tls::Handshake;

/// Stands for a right key where none is given. It opens nothing: whoever is asked here serves nobody.
const ANY_KEY: &str = "any";

/// A request over HTTP/1.1, without its body.
pub struct Question {
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// `Host` is among them.
    pub headers: HeaderMap,
    /// Who sends it; absent: anybody.
    pub from: Option<IpAddr>,
    /// Absent: it came in the clear.
    pub handshake: Option<Handshake>,
}

/// Where on its way a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    Transport,
    Host,
    Fields,
    Path,
    Service,
    Method,
    Key,
    Limits,
    Body,
    Time,
    Deployment,
    Target,
}

/// What was decided, as far as it came.
pub struct Found {
    pub service: Option<ServiceRef>,
    /// The place among the service's keys of the one that was sent.
    pub key: Option<usize>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Where a part of such requests is copied to.
    pub mirror: Option<Mirror>,
    pub chosen_by: ChosenBy,
    pub deployments: Vec<Candidate>,
    pub refusal: Option<(Station, Refusal)>,
}

/// What decides between the deployments of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The caller names one.
    Caller,
    /// What `sticky_by` names tells the caller apart: always the same.
    Sticky,
    /// It is drawn by the shares of the traffic.
    Share,
}

/// A deployment that may get it.
pub struct Candidate {
    /// Its place in the service.
    pub place: usize,
    /// How many of such requests it gets, in percent.
    pub share: u8,
    /// Path and query that its replica is asked for.
    pub target: String,
}

/// Asks the request path of a front end that serves `config`. Who brings no credentials is taken for a caller with a right
/// key, which is the first of the service's.
pub fn explain(config: &Config, question: Question) -> Found {
    let Question { method, uri, mut headers, from, handshake } = question;
    let is_any_key = !headers.contains_key(AUTHORIZATION);
    let metrics = Arc::new(Metrics::new(1, Arc::default()));
    let catalog = |config: &Config| Catalog::new(config, config.frontend.https.port(), &metrics, None, None);
    let catalog = if is_any_key { catalog(&with_a_key(config, &mut headers)) } else { catalog(config) };
    let shared = Arc::new(ArcSwap::from_pointee(catalog));
    let worker = Rc::new(Worker::new(0, shared, None, metrics, AccessLog::new(None, false)));
    let peer = SocketAddr::new(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 0);
    let caller = Rc::new(match handshake {
        Some(handshake) => Caller::over_tls(peer, handshake),
        None => Caller::plain(peer),
    });
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let exchange = Exchange::begin(worker, caller, &request);
    let (head, ()) = request.into_parts();
    let judged = judge(&head, &exchange);

    let service = exchange.service().cloned();
    let chosen_by = match service.as_ref().and_then(|service| service.sticky_by.as_ref()) {
        _ if head.headers.contains_key(AZUREML_MODEL_DEPLOYMENT) => ChosenBy::Caller,
        // Whoever it is: what is decided of this one says nothing of others.
        Some(StickyBy::Key) if is_any_key => ChosenBy::Share,
        Some(StickyBy::Address) if from.is_none() => ChosenBy::Share,
        _ if is_told(service.as_ref(), &exchange, &head.headers) => ChosenBy::Sticky,
        _ => ChosenBy::Share,
    };
    let is_score = Route::parse(head.uri.path()).is_ok_and(|route| matches!(route.resource, Resource::Score(_)));
    let mirror = service.as_ref().and_then(|service| service.mirror);
    let mut found = Found {
        mirror: mirror.filter(|_| is_score && mirror::may_be_copied(&head.headers)),
        key: exchange.key.get(),
        timeout: judged.as_ref().ok().map(|judged| judged.timeout),
        chosen_by,
        deployments: Vec::new(),
        refusal: None,
        service,
    };
    match judged {
        Ok(judged) => found.deployments = candidates(&found, &exchange, &head.uri, judged.target),
        Err(refusal) => found.refusal = Some((station(&exchange, &head, refusal.code), refusal)),
    }
    found
}

/// Whether something tells the caller apart.
fn is_told(service: Option<&ServiceRef>, exchange: &Exchange, headers: &HeaderMap) -> bool {
    service.is_some_and(|service| exchange.traits(headers).told_by(service.sticky_by.as_ref()).is_some())
}

/// The same configuration with a key that `headers` have, in the place of the first of each service.
fn with_a_key(config: &Config, headers: &mut HeaderMap) -> Config {
    let mut config = config.clone();
    for service in &mut config.services {
        if let Auth::Keys(keys) = &mut service.auth
            && let Some(first) = keys.first_mut()
        {
            first.hash = KeyHash::of(ANY_KEY.as_bytes());
        }
    }
    headers.extend(HeaderValue::try_from(format!("Bearer {ANY_KEY}")).map(|value| (AUTHORIZATION, value)));
    config
}

/// Those that such a request may come to: where it is drawn, another one the next time.
fn candidates(found: &Found, exchange: &Exchange, uri: &Uri, decided: String) -> Vec<Candidate> {
    let (Some(service), Some(chosen)) = (&found.service, exchange.deployment()) else { return Vec::new() };
    let deployments = service.deployments().iter().enumerate();
    if found.chosen_by != ChosenBy::Share {
        let place = service.deployments().iter().position(|deployment| deployment.name == chosen.name);
        let candidate = place.map(|place| Candidate { place, share: 100, target: decided });
        return candidate.into_iter().collect();
    }
    let resource = Route::parse(uri.path()).map_or(Resource::Score(""), |route| route.resource);
    deployments
        .filter(|(_, deployment)| deployment.takes_calls())
        .filter_map(|(place, deployment)| {
            // Only what the caller wrote can stand in the way of a target, and it was let through.
            let target = target(resource, uri, deployment).ok()?;
            Some(Candidate { place, share: deployment.traffic(), target })
        })
        .collect()
}

/// Which of the path's questions had this answer: nearly every code has one question.
fn station(exchange: &Exchange, head: &request::Parts, code: Code) -> Station {
    match code {
        Code::HttpsRequired => Station::Transport,
        Code::Misdirected => Station::Host,
        Code::NotFound => Station::Path,
        Code::ServiceNotFound => Station::Service,
        Code::MethodNotAllowed => Station::Method,
        Code::Unauthorized => Station::Key,
        Code::TooManyRequests => Station::Limits,
        Code::BodyTooLarge => Station::Body,
        Code::ScoringTimeout | Code::RequestTimeout => Station::Time,
        Code::DeploymentNotFound | Code::NoReadyReplicas | Code::Overloaded => Station::Deployment,
        Code::BadRequest if exchange.host.get().is_none() => Station::Host,
        Code::BadRequest if exchange.service().is_some() && exchange.deployment().is_some() => Station::Target,
        Code::BadRequest if exchange.service().is_some() => Station::Time,
        Code::BadRequest if headers::check(&head.headers).is_err() => Station::Fields,
        Code::BadRequest if Route::parse(head.uri.path()).is_err_and(|refusal| refusal.code == code) => Station::Path,
        // The others are not said before a replica is asked.
        Code::BadRequest | Code::HeadersTooLarge | Code::NotAMember | Code::ReplicaClosed => Station::Fields,
    }
}
