//! The names of header fields, and the rules about them: which a caller must not send, which no replica gets, and what an
//! answer says in them.

use std::time::Duration;

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, SERVER, TE,
    TRANSFER_ENCODING, UPGRADE,
};

use super::caller::certificate::{CLIENT_CERT, CLIENT_CERT_CHAIN};
use super::error::Refusal;
use crate::digits::push_millis;

pub const X_MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
pub const X_MS_CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
pub const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
pub const AZUREML_MODEL_DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const X_MS_RUN_FN_EXEC_MS: HeaderName = HeaderName::from_static("x-ms-run-fn-exec-ms");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Header fields in one request. Callers send some twenty.
pub const MAX_FIELDS: usize = 100;

/// The same in a request that another front end hands over: what it lets in, and what it adds.
pub const MEMBERS_FIELDS: usize = MAX_FIELDS + 20;

/// The longest caller's request id that is passed on; the replicas' own server refuses more than 100.
const MAX_CLIENT_REQUEST_ID: usize = 40;

/// The caller's own id for its request, reduced to `[A-Za-z0-9_-]` and 40 characters.
pub fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(X_MS_CLIENT_REQUEST_ID)?;
    let kept = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if value.len() <= MAX_CLIENT_REQUEST_ID && !value.is_empty() && value.as_bytes().iter().all(kept) {
        return Some(value.clone());
    }
    let id: Vec<u8> = value.as_bytes().iter().copied().filter(kept).take(MAX_CLIENT_REQUEST_ID).collect();
    HeaderValue::from_bytes(&id).ok().filter(|id| !id.is_empty())
}

/// Refuses field names that a replica would read as one of ours. Servers behind CGI's naming, gunicorn among them,
/// take `x_request_id` and `x-request-id` for the same field. And more options of the connection than there are fields:
/// each is compared with each.
///
/// # Errors
///
/// 400, naming the field.
pub fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut options = 0;
    for (name, value) in headers {
        if *name == CONNECTION {
            options += value.as_bytes().split(|byte| *byte == b',').count();
            if options > MAX_FIELDS {
                return Err(Refusal::bad_request(format!("Connection has more than {MAX_FIELDS} options.")));
            }
        }
        if !name.as_str().bytes().any(|byte| byte == b'_') {
            continue;
        }
        if HeaderName::try_from(name.as_str().replace('_', "-")).is_ok_and(|name| is_ours(&name)) {
            return Err(Refusal::bad_request(format!(
                "Replicas read the field name {name} with hyphens; write it so."
            )));
        }
    }
    Ok(())
}

/// What front ends tell each other, which is nobody else's to say.
pub fn is_between_front_ends(name: &HeaderName) -> bool {
    name.as_str().starts_with("scorefront-")
}

/// Whether a field of a replica's answer is for the caller: not which server software a container runs, and not what is
/// said by the front end.
pub fn is_for_caller(name: &HeaderName) -> bool {
    *name != SERVER && *name != X_REQUEST_ID && *name != X_MS_CLIENT_REQUEST_ID
}

/// How long the model itself took, as the server in an Azure ML container says it: milliseconds with decimals.
pub fn execution(headers: &HeaderMap) -> Option<Duration> {
    let millis: f64 = headers.get(X_MS_RUN_FN_EXEC_MS)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(millis / 1_000.0).ok()
}

/// `Server-Timing` of one request, durations in milliseconds with three decimals.
pub fn server_timing(stages: [(&str, Duration); 4]) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(88);
    for (name, duration) in stages {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b";dur=");
        push_millis(&mut text, duration);
    }
    HeaderValue::from_bytes(&text).ok()
}

/// Fields of a caller that would claim something only the front end can know, or that it writes itself.
pub fn is_forged_or_replaced(name: &HeaderName) -> bool {
    matches!(*name, HOST | CONTENT_LENGTH | EXPECT | FORWARDED)
        || is_between_front_ends(name)
        || (name.as_str().starts_with("client-cert") && (*name == CLIENT_CERT || *name == CLIENT_CERT_CHAIN))
        || (name.as_str().starts_with("x-")
            && (name.as_str().starts_with("x-forwarded-")
                || *name == "x-real-ip"
                || *name == X_REQUEST_ID
                || *name == X_MS_REQUEST_ID
                || *name == X_MS_CLIENT_REQUEST_ID
                || *name == X_REQUEST_TIMEOUT_MS))
}

/// Fields the front end reads or writes, or that frame the message.
fn is_ours(name: &HeaderName) -> bool {
    is_forged_or_replaced(name)
        || matches!(*name, AUTHORIZATION | CONNECTION | TRANSFER_ENCODING | TE | UPGRADE | COOKIE)
        || [AZUREML_MODEL_DEPLOYMENT, TRACEPARENT, TRACESTATE].contains(name)
        || *name == "content-type"
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).expect("name"), value.parse().expect("value"));
        }
        headers
    }

    #[test]
    fn a_callers_id_is_reduced_to_what_every_replica_takes() {
        let id = |value: &str| client_request_id(&map(&[("x-ms-client-request-id", value)]));
        assert_eq!(id("Ab_9-z").expect("kept"), "Ab_9-z");
        assert_eq!(id("a b/c\"d").expect("kept"), "abcd");
        assert_eq!(id(&"x".repeat(200)).expect("kept"), "x".repeat(40));
        assert_eq!(id("///"), None);
        assert_eq!(id(""), None);
    }

    #[test]
    fn underscored_names_that_replicas_read_as_ours_are_refused() {
        for name in ["x_forwarded_for", "x-request_id", "content_length", "transfer_encoding", "authorization_"] {
            let refused = check(&map(&[(name, "1")])).is_err();
            assert_eq!(refused, name != "authorization_", "{name}");
        }
        assert!(check(&map(&[("my_field", "1"), ("x_y", "1")])).is_ok());
    }

    #[test]
    fn more_options_of_the_connection_than_fields_are_refused() {
        let refused = |times| check(&map(&vec![("connection", "close, X-Private"); times])).is_err();
        assert!(!refused(MAX_FIELDS / 2));
        assert!(refused(MAX_FIELDS / 2 + 1));
    }

    #[test]
    fn server_timing_is_in_milliseconds() {
        let micros = Duration::from_micros;
        let stages =
            [("queue", micros(0)), ("connect", micros(1_050)), ("model", micros(12_345_678)), ("frontend", micros(42))];
        assert_eq!(
            server_timing(stages).expect("a value"),
            "queue;dur=0.000, connect;dur=1.050, model;dur=12345.678, frontend;dur=0.042"
        );
    }
}
