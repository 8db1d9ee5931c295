//! Every answer of the front end's own, from error to response, in one place. The words are part of the contract:
//! callers compare them.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::catalog::limits::{Excess, Kind};
use crate::config::ErrorFormat;
use crate::telemetry::metrics::REFUSALS;

/// The longest time that a caller is asked to stay away, in seconds.
const LONGEST_RETRY_AFTER: u64 = 3_600;

/// A machine's word for what went wrong; `error.code` in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    BodyTooLarge,
    DeploymentNotFound,
    HeadersTooLarge,
    HttpsRequired,
    MethodNotAllowed,
    Misdirected,
    NoReadyReplicas,
    NotAMember,
    NotFound,
    Overloaded,
    ReplicaClosed,
    RequestTimeout,
    ScoringTimeout,
    ServiceNotFound,
    TooManyRequests,
    Unauthorized,
}

impl Code {
    /// Every code, in the order of the counters of refusals.
    pub const ALL: [Self; REFUSALS] = [
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::DeploymentNotFound,
        Self::HeadersTooLarge,
        Self::HttpsRequired,
        Self::MethodNotAllowed,
        Self::Misdirected,
        Self::NoReadyReplicas,
        Self::NotAMember,
        Self::NotFound,
        Self::Overloaded,
        Self::ReplicaClosed,
        Self::RequestTimeout,
        Self::ScoringTimeout,
        Self::ServiceNotFound,
        Self::TooManyRequests,
        Self::Unauthorized,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::DeploymentNotFound => "DeploymentNotFound",
            Self::HeadersTooLarge => "HeadersTooLarge",
            Self::HttpsRequired => "HttpsRequired",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::Misdirected => "Misdirected",
            Self::NoReadyReplicas => "NoReadyReplicas",
            Self::NotAMember => "NotAMember",
            Self::NotFound => "NotFound",
            Self::Overloaded => "Overloaded",
            Self::ReplicaClosed => "ReplicaClosed",
            Self::RequestTimeout => "RequestTimeout",
            Self::ScoringTimeout => "ScoringTimeout",
            Self::ServiceNotFound => "ServiceNotFound",
            Self::TooManyRequests => "TooManyRequests",
            Self::Unauthorized => "Unauthorized",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::HttpsRequired | Self::NotAMember => StatusCode::FORBIDDEN,
            Self::DeploymentNotFound | Self::NotFound | Self::ServiceNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ReplicaClosed => StatusCode::BAD_GATEWAY,
            Self::NoReadyReplicas | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::ScoringTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// An answer of our own instead of a replica's.
#[derive(Debug)]
pub struct Refusal {
    pub code: Code,
    message: Cow<'static, str>,
    /// 308 instead of the code's own status.
    redirect: bool,
    /// The one field beyond the body's that this answer needs.
    field: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), redirect: false, field: None }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.field = Some((name, value));
        self
    }

    /// Says when it is worth trying again, in whole seconds, at least one (RFC 9110 section 10.2.3).
    fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(RETRY_AFTER, HeaderValue::from(seconds.clamp(1, LONGEST_RETRY_AFTER)))
    }

    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub fn broken_body() -> Self {
        Self::bad_request("The request body is malformed or broke off.")
    }

    pub fn body_too_large(limit: u64) -> Self {
        Self::new(Code::BodyTooLarge, format!("The request body is larger than the limit of {limit} bytes."))
    }

    pub fn deployment_not_found(service: &str, deployment: &str) -> Self {
        Self::new(Code::DeploymentNotFound, format!("Service {service} has no deployment {deployment}."))
    }

    pub fn headers_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::HeadersTooLarge, message)
    }

    pub fn too_many_fields(limit: usize) -> Self {
        Self::headers_too_large(format!("The request has more than the limit of {limit} header fields."))
    }

    /// Plain HTTP while TLS is enabled.
    pub fn https_required(uri: &str) -> Self {
        Self::new(Code::HttpsRequired, format!("This service is called over TLS only: {uri}"))
    }

    /// The same, sending the caller there with its method and body kept (RFC 9110 section 15.4.9). Without a URI that
    /// can stand in a field it only says so.
    pub fn https_redirect(uri: &str) -> Self {
        let mut refusal = Self::https_required(uri);
        if let Ok(location) = HeaderValue::from_str(uri) {
            refusal.redirect = true;
            refusal.field = Some((LOCATION, location));
        }
        refusal
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(Code::MethodNotAllowed, format!("This path takes {allow}."))
            .with(ALLOW, HeaderValue::from_static(allow))
    }

    pub fn misdirected(host: &str) -> Self {
        let message =
            format!("The certificate served on this connection does not cover {host}; open a new connection.");
        Self::new(Code::Misdirected, message)
    }

    pub fn certificate_required(host: &str) -> Self {
        let message = format!("Callers of {host} show a certificate; open a connection to that name.");
        Self::new(Code::Misdirected, message)
    }

    pub fn no_ready_replicas(service: &str) -> Self {
        Self::new(Code::NoReadyReplicas, format!("No ready replicas for service {service}."))
    }

    /// To whoever comes to where front ends of the cluster hand requests over, and is none.
    pub fn not_a_member() -> Self {
        Self::new(Code::NotAMember, "Only the front ends of this cluster are answered here.")
    }

    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "No such path.")
    }

    /// As many requests wait as may, or one more would wait too long. `wait`: until there is room again.
    pub fn overloaded(service: &str, wait: Duration) -> Self {
        Self::new(Code::Overloaded, format!("Too many requests for service {service} (overloaded)")).retry_after(wait)
    }

    pub fn replica_closed() -> Self {
        Self::new(Code::ReplicaClosed, "Replica closed connection before replying")
    }

    pub fn request_timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::RequestTimeout, message)
    }

    pub fn scoring_timeout(millis: u128) -> Self {
        Self::new(Code::ScoringTimeout, format!("Scoring timeout after {millis} ms."))
    }

    pub fn service_not_found(service: &str) -> Self {
        Self::new(Code::ServiceNotFound, format!("No such service: {service}."))
    }

    /// Tells the caller when to come again (RFC 6585 section 4, RFC 9110 section 10.2.3): for a rate when it has a token
    /// again, for requests in flight, of which nobody knows when they end, soon.
    pub(super) fn too_many_requests(service: &str, excess: &Excess<'_>) -> Self {
        let who = match excess.key {
            Some(key) => format!("Key {key} of service {service} may"),
            None => format!("Service {service} takes"),
        };
        let (what, retry_after) = match (&excess.kind, excess.key) {
            (Kind::Rate { per_second, retry_after }, Some(_)) => {
                (format!("make at most {per_second} requests per second"), *retry_after)
            }
            (Kind::Rate { per_second, retry_after }, None) => {
                (format!("at most {per_second} requests per second"), *retry_after)
            }
            (Kind::InFlight { max }, Some(_)) => (format!("have at most {max} requests at once"), Duration::ZERO),
            (Kind::InFlight { max }, None) => (format!("at most {max} requests at once"), Duration::ZERO),
        };
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::new(Code::TooManyRequests, format!("{who} {what}.")).with(RETRY_AFTER, seconds.max(1).into())
    }

    pub fn unauthorized(service: &str) -> Self {
        Self::new(Code::Unauthorized, format!("Missing or wrong key for service {service}."))
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn status(&self) -> StatusCode {
        if self.redirect { StatusCode::PERMANENT_REDIRECT } else { self.code.status() }
    }

    pub fn into_response(self, format: ErrorFormat, request_id: &str) -> Response<Bytes> {
        let status = self.status();
        let (content_type, body) = self.to_body(format, request_id);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some((name, value)) = self.field {
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn to_body(&self, format: ErrorFormat, request_id: &str) -> (&'static str, Bytes) {
        #[derive(Serialize)]
        struct Document<'a> {
            error: Inner<'a>,
            #[serde(rename = "requestId")]
            request_id: &'a str,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: &'a str,
            message: &'a str,
        }
        let document = Document { error: Inner { code: self.code.as_str(), message: &self.message }, request_id };
        match (format, serde_json::to_vec(&document)) {
            (ErrorFormat::Json, Ok(json)) => ("application/json", json.into()),
            (ErrorFormat::Json, Err(_)) | (ErrorFormat::Text, _) => {
                ("text/plain; charset=utf-8", Bytes::from(self.message.as_bytes().to_vec()))
            }
        }
    }
}
