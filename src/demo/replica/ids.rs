//! The ids that name a call, in azmlinfsrv's order of precedence.

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};

use super::Refusal;

/// azmlinfsrv's limit for an id, in bytes.
pub(super) const MAX_ID: usize = 100;

/// The ids of one request as its response carries them, by azmlinfsrv's rules.
#[derive(Default)]
pub(super) struct Ids {
    request: Option<HeaderValue>,
    client: Option<HeaderValue>,
    /// `x-ms-request-id` names the call in an answer but, being deprecated, the *caller's* id in a request.
    ms: Option<HeaderValue>,
    trace: Option<HeaderValue>,
}

impl Ids {
    /// Takes what is fit to be sent back; after an error that is what came before the id at fault.
    pub(super) fn read(&mut self, headers: &HeaderMap) -> Result<(), Refusal> {
        let id = |name| headers.get(name).filter(|value| !value.is_empty()).cloned();
        let fits = |id: &Option<HeaderValue>| id.as_ref().is_none_or(|id| id.len() <= MAX_ID);
        let too_long = |names| {
            let message = format!("{names} must not exceed {MAX_ID} characters");
            Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        };

        self.trace = headers.get("traceid").cloned();
        let request = id("x-request-id").or_else(new_id);
        if !fits(&request) {
            return Err(too_long("x-request-id"));
        }
        self.request = request;

        let deprecated = id("x-ms-request-id");
        let client = id("x-ms-client-request-id").or_else(|| deprecated.clone());
        let ms = deprecated.or_else(|| client.clone()).or_else(|| self.request.clone());
        if !fits(&client) || !fits(&ms) {
            return Err(too_long("x-ms-request-id and x-ms-client-request-id"));
        }
        (self.client, self.ms) = (client, ms);
        Ok(())
    }

    pub(super) fn write(self, headers: &mut HeaderMap) {
        let Ids { request, client, ms, trace } = self;
        for (name, id) in
            [("x-request-id", request), ("x-ms-request-id", ms), ("x-ms-client-request-id", client), ("traceid", trace)]
        {
            if let Some(id) = id {
                headers.insert(name, id);
            }
        }
    }
}

/// A version 4 UUID. Its bits need only differ from one call to the next, not be secret.
fn new_id() -> Option<HeaderValue> {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    HeaderValue::try_from(id.to_string()).ok()
}
