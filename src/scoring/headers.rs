//! Header rules in both directions. Framing is never copied from one side to the other: it is written anew from the body
//! there is, so that a replica sees the one reading that was taken of the request.

use std::time::Duration;

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
    SERVER, TE, TRANSFER_ENCODING, UPGRADE,
};

use super::caller_certificate::{CLIENT_CERT, CLIENT_CERT_CHAIN};
use super::error::Refusal;
use super::exchange::Exchange;
use crate::digits::push_millis;
use crate::upstream::{Request, is_hop_by_hop};

pub const X_MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
pub const X_MS_CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
pub const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
pub const AZUREML_MODEL_DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const X_MS_RUN_FN_EXEC_MS: HeaderName = HeaderName::from_static("x-ms-run-fn-exec-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

/// Writes the fields of a caller's request that a replica gets, and those that the front end has to say, all but `Host` and
/// `x-request-timeout-ms`. `keyed`: `Authorization` held a key of ours, which no replica may see.
pub fn write<B>(exchange: &Exchange, keyed: bool, headers: &HeaderMap, request: &mut Request<B>) {
    let nominated = nominated(headers);
    let is_traced = has_traceparent(headers);
    let is_split = exchange.is_http2() && headers.contains_key(COOKIE);
    for (name, value) in headers {
        let is_kept = !(is_hop_by_hop(name)
            || is_forged_or_replaced(name)
            || (keyed && *name == AUTHORIZATION)
            || (is_split && *name == COOKIE)
            || (!is_traced && (*name == TRACEPARENT || *name == TRACESTATE))
            || nominated.contains(name));
        if is_kept {
            request.field(name, value.as_bytes());
        }
    }
    if is_split {
        request.field_by(&COOKIE, |text| join_cookies(headers, text));
    }
    request.field(&X_REQUEST_ID, exchange.id.as_str().as_bytes());
    if let Some(client_id) = &exchange.client_id {
        request.field(&X_MS_CLIENT_REQUEST_ID, client_id.as_bytes());
    }
    if !is_traced {
        request.field_by(&TRACEPARENT, |text| exchange.id.push_traceparent(text));
    }
    request.field(&X_FORWARDED_FOR, exchange.caller.forwarded_for.as_bytes());
    request.field(&X_FORWARDED_PROTO, exchange.caller.scheme().as_bytes());
    if let Some(host) = exchange.host.get() {
        request.field(&X_FORWARDED_HOST, host.as_bytes());
    }
    if let Some(certificate) = &exchange.caller.certificate {
        certificate.write(request);
    }
}

/// Writes the fields of a request that another front end hands over, which are those that a replica gets and what front ends
/// tell each other, all but `Host` and `x-request-timeout-ms`.
pub fn write_handed<B>(headers: &HeaderMap, request: &mut Request<B>) {
    let is_kept = |name: &HeaderName| {
        let is_of_the_connection = is_hop_by_hop(name) || matches!(*name, HOST | CONTENT_LENGTH);
        !(is_of_the_connection || is_between_front_ends(name) || *name == X_REQUEST_TIMEOUT_MS)
    };
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        request.field(name, value.as_bytes());
    }
}

/// What front ends tell each other, which is nobody else's to say.
fn is_between_front_ends(name: &HeaderName) -> bool {
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

/// The fields that `Connection` names, but for options that everybody knows (RFC 9110 section 7.6.1).
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.eq_ignore_ascii_case("close") && !name.eq_ignore_ascii_case("keep-alive"))
        .filter_map(|name| HeaderName::try_from(name).ok())
        // What the message is cannot be a matter of one connection; a caller must not strip it.
        .filter(|name| *name != CONTENT_TYPE)
        .collect()
}

/// Fields of a caller that would claim something only the front end can know, or that it writes itself.
fn is_forged_or_replaced(name: &HeaderName) -> bool {
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

/// HTTP/2 may split `Cookie` into several fields; HTTP/1.1 has it once (RFC 9113 section 8.2.3).
fn join_cookies(headers: &HeaderMap, text: &mut Vec<u8>) {
    for (index, cookie) in headers.get_all(COOKIE).iter().enumerate() {
        if index > 0 {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(cookie.as_bytes());
    }
}

/// Whether there is one trace context, and it is well formed.
fn has_traceparent(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(TRACEPARENT).iter();
    matches!((fields.next(), fields.next()), (Some(field), None) if is_traceparent(field))
}

/// Version 00 of W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero; later versions may be longer.
fn is_traceparent(value: &HeaderValue) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let not_zero = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    let parts: Vec<&[u8]> = value.as_bytes().splitn(5, |byte| *byte == b'-').collect();
    match parts[..] {
        [version, trace, parent, flags, ref later @ ..] => {
            (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2)
                && [version, trace, parent, flags].into_iter().all(hex)
                && not_zero(trace)
                && not_zero(parent)
                && version != b"ff"
                && (version != b"00" || later.is_empty())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use http::{Method, Version};
    use proptest::prelude::*;

    use super::*;
    use crate::scoring::caller::Caller;
    use crate::scoring::worker::tests::worker;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).expect("name"), value.parse().expect("value"));
        }
        headers
    }

    fn applied(version: Version, fields: &[(&str, &str)]) -> HeaderMap {
        let mut request = http::Request::new(());
        *request.version_mut() = version;
        *request.headers_mut() = map(fields);
        let exchange = Exchange::begin(worker(), Rc::new(Caller::plain((Ipv4Addr::LOCALHOST, 9).into())), &request);
        let _ = exchange.host.set(HeaderValue::from_static("a.example"));
        let mut written = Request::new(&Method::POST, "/score", ());
        write(&exchange, true, request.headers(), &mut written);
        let lines = String::from_utf8(written.parts().0.to_vec()).expect("text");
        let fields: Vec<_> = lines.lines().skip(1).map(|line| line.split_once(": ").expect("a field")).collect();
        map(&fields)
    }

    #[test]
    fn hop_by_hop_fields_and_those_connection_names_are_removed() {
        let headers = applied(
            Version::HTTP_11,
            &[
                ("connection", "close, X-Private"),
                ("connection", "Other, content-type"),
                ("x-private", "1"),
                ("other", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("trailer", "x"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
                ("proxy-authorization", "x"),
                ("http2-settings", "x"),
                ("content-type", "text/plain"),
                ("x-kept", "1"),
                ("expect", "100-continue"),
                ("content-length", "3"),
            ],
        );
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-type",
                "traceparent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-kept",
                "x-request-id",
            ]
        );
    }

    #[test]
    fn what_a_caller_could_forge_is_replaced() {
        let headers = applied(
            Version::HTTP_11,
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-forwarded-ssl", "on"),
                ("x-forwarded-prefix", "/x"),
                ("forwarded", "for=1.1.1.1"),
                ("x-real-ip", "1.1.1.1"),
                ("x-request-id", "mine"),
                ("x-ms-request-id", "mine"),
                ("client-cert", ":AAAA:"),
                ("client-cert-chain", ":AAAA:"),
                ("x-forwarded-client-cert", "Subject=\"CN=admin\""),
                ("authorization", "Bearer key"),
            ],
        );
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["127.0.0.1"]);
        assert_ne!(headers[X_REQUEST_ID], "mine");
        for gone in [
            "x-forwarded-ssl",
            "x-forwarded-prefix",
            "forwarded",
            "x-real-ip",
            "x-ms-request-id",
            "client-cert",
            "client-cert-chain",
            "x-forwarded-client-cert",
            "authorization",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
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
    fn cookies_of_http_2_become_one_field() {
        let headers = applied(Version::HTTP_2, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn a_good_traceparent_passes_and_a_bad_one_is_replaced() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = applied(Version::HTTP_11, &[("traceparent", good), ("tracestate", "a=b")]);
        assert_eq!((&headers[TRACEPARENT], &headers[TRACESTATE]), (&good.parse().unwrap(), &"a=b".parse().unwrap()));
        for bad in [
            "",
            "00-x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let headers = applied(Version::HTTP_11, &[("traceparent", bad), ("tracestate", "a=b")]);
            assert!(is_traceparent(&headers[TRACEPARENT]), "{bad}");
            assert!(!headers.contains_key(TRACESTATE));
        }
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

    proptest! {
        #[test]
        fn nothing_connection_names_gets_through(names in prop::collection::vec("[a-z]{1,3}", 1..6)) {
            let connection = names.join(" ,\t");
            let mut fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
            fields.push(("connection", &connection));
            let headers = applied(Version::HTTP_11, &fields);
            for name in &names {
                prop_assert!(!headers.contains_key(name));
            }
        }
    }
}
