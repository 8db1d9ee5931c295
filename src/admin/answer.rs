//! Answers of the management API: JSON documents, errors in the one form they have (`{"error": {code, message, details}}`),
//! entity tags, and bodies that are read within bounds.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::model::{Detail, ErrorBody, ErrorResponse};
use crate::config::{Diagnostics, Severity};
use crate::environment::draft::DraftError;
use crate::reload::ReloadError;

/// More than a chain, its key and a thousand replicas need.
const MAX_BODY: usize = 1024 * 1024;

/// Enough that no two documents have the same tag.
const TAG_BYTES: usize = 16;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The code of what somebody else changed at the same time.
const OVERTAKEN: &str = "Overtaken";

/// Why a request was not carried out.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Vec<Detail>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), fields: Vec::new() }
    }

    /// `message` is made a sentence.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if !message.ends_with(['.', '?']) {
            message.push('.');
        }
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn no_service(name: &str) -> Self {
        let shown: String = name.chars().take(64).collect();
        Self::new(StatusCode::NOT_FOUND, "ServiceNotFound", format!("No such service: {shown}."))
    }

    pub fn stale() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            "It is no longer what the entity tag stands for; get it again, and send the change with its new ETag.",
        )
    }

    /// Whether somebody else's change was faster.
    pub fn is_overtaken(&self) -> bool {
        self.code == OVERTAKEN
    }

    pub fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "admin: {what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("{what}; the log says more."))
    }

    /// What was written was then not taken: somebody else's change came in between.
    pub fn not_taken(errors: &[String]) -> Self {
        let message = "The change was written, and is not served yet: the files were changed by somebody else as well.";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotTaken", message);
        errors.iter().fold(problem, |problem, error| problem.detail("NotTaken", error))
    }

    pub fn detail(mut self, code: &str, message: impl Into<String>) -> Self {
        self.details.push(Detail { code: code.to_owned(), message: message.into() });
        self
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Send the token as Authorization: Bearer.")
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub fn too_many(wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "Too many changes at once.")
            .with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The errors in `found`, as `scorefront check` says them.
    fn diagnosed(mut self, code: &str, found: &Diagnostics) -> Self {
        for error in found.iter().filter(|one| one.severity == Severity::Error) {
            self = self.detail(code, error.to_string());
        }
        self
    }
}

impl From<DraftError> for Problem {
    fn from(error: DraftError) -> Self {
        let message = error.to_string();
        match error {
            DraftError::InvalidBefore(found) => {
                Self::new(StatusCode::CONFLICT, "ConfigurationInvalid", format!("{message}."))
                    .diagnosed("ConfigurationInvalid", &found)
            }
            DraftError::Refused(found) => {
                let first = found.iter().find(|one| one.severity == Severity::Error);
                let message = first.map_or(message, |first| {
                    let remedy = first.remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
                    format!("{}{remedy}", first.message)
                });
                Self::bad_request("InvalidConfiguration", message).diagnosed("InvalidConfiguration", &found)
            }
            DraftError::Overtaken(_) => Self::new(StatusCode::PRECONDITION_FAILED, OVERTAKEN, format!("{message}.")),
            DraftError::Form(..) => Self::new(StatusCode::CONFLICT, "UnsupportedForm", message),
            DraftError::Write(error) if error.is_read_only() => {
                tracing::info!(%error, "admin: the files are not this front end's to change");
                let message = format!(
                    "The files of this environment are read-only here ({error}). Change them where they come from: on \
                     Kubernetes the ConfigMaps and Secrets that are mounted; they are taken within a minute or so, by \
                     every front end."
                );
                Self::new(StatusCode::FORBIDDEN, "ReadOnly", message)
            }
            DraftError::Write(error) => {
                tracing::error!(%error, "admin: the files could not be changed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "NotWritten",
                    format!("The files could not be changed: {error}."),
                )
            }
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotReloaded", error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, message, details, fields } = self;
        let error = ErrorBody { code: code.to_owned(), message, details };
        let mut response = json(status, &ErrorResponse { error });
        response.headers_mut().extend(fields);
        response
    }
}

/// A document.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            let fields = response.headers_mut();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            fields.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "admin: JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What a document is told apart from later ones by (RFC 9110 section 8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of what is `written`, whatever its form, and of what stands beside it.
    pub fn of(written: &toml::Table, beside: &str) -> Self {
        let mut context = Context::new(&SHA256);
        // Its keys are in order.
        context.update(&serde_json::to_vec(written).unwrap_or_default());
        context.update(beside.as_bytes());
        let digest = context.finish();
        let digits = digest.as_ref().iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}"));
        Self(digits.collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` could be one.
    pub fn is_one(text: &str) -> bool {
        text.len() == 2 * TAG_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Puts it on `response`.
    pub fn on(&self, mut response: Response) -> Response {
        if let Ok(value) = HeaderValue::try_from(format!("\"{}\"", self.0)) {
            response.headers_mut().insert(ETAG, value);
        }
        response
    }
}

/// What a change is made to depend on: that the document is still one of these.
#[derive(Clone, Debug, Default)]
pub struct Precondition(Option<String>);

impl Precondition {
    /// What `If-Match` says (RFC 9110 section 13.1.1).
    ///
    /// # Errors
    ///
    /// It is no text.
    pub fn of(fields: &HeaderMap) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for field in fields.get_all(IF_MATCH) {
            let text = field.to_str().map_err(|_| Problem::bad_request("BadRequest", "`If-Match` is no text."))?;
            tags.push(text);
        }
        Ok(Self((!tags.is_empty()).then(|| tags.join(","))))
    }

    /// The same, or what a body says in its place.
    pub fn or(self, etag: Option<String>) -> Self {
        Self(self.0.or(etag))
    }

    /// # Errors
    ///
    /// The document is no longer what was meant.
    pub fn check(&self, current: &ETag) -> Result<(), Problem> {
        let Some(tags) = &self.0 else { return Ok(()) };
        // Weak tags never match: bytes are what is changed.
        let mut tags = tags.split(',').map(str::trim);
        if tags.any(|tag| tag == "*" || tag.trim_matches('"') == current.0) { Ok(()) } else { Err(Problem::stale()) }
    }
}

/// The name in a path.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::bad_request("BadRequest", "The name in the path is no text.")),
        }
    }
}

/// A body of JSON: an object.
pub struct Object(pub Map<String, Value>);

impl<S: Sync> FromRequest<S> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = read(request).await?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Problem::bad_request("BadRequest", "The body is no JSON object.")),
            Err(error) => Err(not_json(&error)),
        }
    }
}

/// The same as what it is for; a field that is not known is refused.
///
/// # Errors
///
/// Some field has a value that it cannot have.
pub fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Problem> {
    serde_path_to_error::deserialize(Value::Object(fields))
        .map_err(|error| Problem::bad_request("BadRequest", wrong_value(&error)))
}

/// What a field has to be. What it is instead is not shown: people paste keys where they do not belong.
pub fn wrong_value(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    const EXPECTED: &str = ", expected ";
    let text = error.inner().to_string();
    let said = match text.rfind(EXPECTED) {
        Some(at) => format!("expected {}", &text[at + EXPECTED.len()..]),
        None if text.starts_with("missing field ") => text,
        None => "it cannot be that".to_owned(),
    };
    match error.path().to_string().as_str() {
        "." => said,
        path => format!("`{path}`: {said}"),
    }
}

// Never what stands there: it may be a key.
fn not_json(error: &serde_json::Error) -> Problem {
    let message = format!("The body is no JSON: line {}, column {}.", error.line(), error.column());
    Problem::bad_request("BadRequest", message)
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // Also what keeps web pages from sending it: a browser asks first, and is not answered.
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "Send JSON, and say so: Content-Type: application/json.",
        ));
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BodyTooLarge",
            format!("The body is larger than {} KiB.", MAX_BODY / 1024),
        )),
        Ok(Err(_)) => Err(Problem::bad_request("BadRequest", "The body ended early.")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "The body took too long.")),
    }
}
