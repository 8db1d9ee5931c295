//! A caller's request as it goes on: to a replica, to another front end, or as a copy. Framing is never copied from one side
//! to the other: it is written anew from the body there is, so that a replica sees the one reading that was taken of the
//! request.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::body::RequestBody;
use super::catalog::ServiceRef;
use super::exchange::Exchange;
use super::headers::{
    TRACEPARENT, TRACESTATE, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_MS_CLIENT_REQUEST_ID,
    X_REQUEST_ID, X_REQUEST_TIMEOUT_MS, is_between_front_ends, is_forged_or_replaced,
};
use crate::digits::push_decimal;
use crate::upstream::{Endpoint, Request, is_hop_by_hop};

/// What of a caller's request it takes to ask a replica.
pub struct Asked {
    /// As they came.
    pub headers: HeaderMap,
    /// Path and query at the replica.
    pub target: String,
    pub body: RequestBody,
}

/// Writes the fields of a request to `endpoint`, which has so much time `left`.
pub fn write_head<B>(
    exchange: &Exchange,
    service: &ServiceRef,
    headers: &HeaderMap,
    endpoint: &Endpoint,
    left: Duration,
    request: &mut Request<B>,
) {
    request.field(&HOST, endpoint.authority().as_bytes());
    match exchange.handed() {
        // The front end that handed it over has written them.
        Some(_) => write_handed(headers, request),
        None => write(exchange, service.is_keyed(), headers, request),
    }
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    request.field_by(&X_REQUEST_TIMEOUT_MS, |text| push_decimal(text, millis));
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
fn write_handed<B>(headers: &HeaderMap, request: &mut Request<B>) {
    let is_kept = |name: &HeaderName| {
        let is_of_the_connection = is_hop_by_hop(name) || matches!(*name, HOST | CONTENT_LENGTH);
        !(is_of_the_connection || is_between_front_ends(name) || *name == X_REQUEST_TIMEOUT_MS)
    };
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        request.field(name, value.as_bytes());
    }
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
    use crate::scoring::headers::tests::map;
    use crate::scoring::worker::tests::worker;

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
