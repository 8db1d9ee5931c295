//! Which name a request is for, and whether the connection may carry it.

use crate::support::{Algorithm, CNAME, Caller, Environment, Replica, SCORE, Wire, client_config, full, post};

#[tokio::test]
async fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).cname("other.example.com").start();
    for mut caller in front.both().await {
        let mut request = post(SCORE, "x");
        *request.uri_mut() = format!("https://other.example.com{SCORE}").parse().expect("a URI");
        caller.call(request).await.assert_refusal(
            421,
            "Misdirected",
            "The certificate served on this connection does not cover other.example.com; open a new connection.",
        );
        assert_eq!(caller.call(post(SCORE, "x")).await.status, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn http_2_connections_are_shared_by_all_names_of_the_certificate() {
    let replica = Replica::echo();
    let front = Environment::new()
        .certificate(CNAME, &[CNAME, "alias.example.com", "*.models.example.com"], Algorithm::Ecdsa)
        .service("iris", &[&replica], "")
        .start();
    let mut caller = front.http2().await;
    for host in [CNAME, "alias.example.com", "ALIAS.example.com:8443", "any.models.example.com"] {
        let mut request = post(SCORE, "x");
        *request.uri_mut() = format!("https://{host}{SCORE}").parse().expect("a URI");
        assert_eq!(caller.call(request).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_host_that_can_be_read_in_two_ways_is_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let one = "The Host field is not one plain host name and port.";
    for (fields, message) in [
        ("", "The Host field is missing."),
        ("Host: scoring.example.com\r\nHost: scoring.example.com\r\n", "There is more than one Host field."),
        ("Host:\r\n", one),
        ("Host: scoring.example.com,other.example.com\r\n", one),
        ("Host: user@scoring.example.com\r\n", one),
        ("Host: scoring.example.com/path\r\n", one),
        ("Host: scoring.example.com:99999\r\n", one),
        ("Host: scoring.example.com other\r\n", one),
    ] {
        let mut wire = front.wire().await;
        let reply = wire.ask(format!("GET {SCORE} HTTP/1.1\r\n{fields}\r\n")).await;
        reply.assert_refusal(400, "BadRequest", message);
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn the_request_target_may_name_the_host_and_the_host_field_must_agree() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    let target = format!("GET https://{CNAME}{SCORE} HTTP/1.1\r\n");
    assert_eq!(wire.ask(format!("{target}Host: {CNAME}\r\n\r\n")).await.status, 200);
    wire.ask(format!("{target}Host: other.example.com\r\n\r\n")).await.assert_refusal(
        400,
        "BadRequest",
        "The request target and the Host field name different hosts.",
    );

    let mut request = post(SCORE, "x");
    request.headers_mut().insert("host", "other.example.com".parse().expect("a value"));
    assert_eq!(front.http2().await.call(request).await.refusal(), (400, "BadRequest".to_owned()));
}

#[tokio::test]
async fn a_service_is_found_under_its_own_cnames_only() {
    let replica = Replica::echo();
    let front = Environment::new()
        .cname("a.example.com")
        .cname("b.example.com")
        .service("iris", &[&replica], "cnames = ['a.example.com']")
        .start();
    for (host, status) in [("a.example.com", 200), ("b.example.com", 404)] {
        let stream = front.tls(client_config(&["http/1.1"]), host).await.expect("a handshake");
        let request = http::Request::post(format!("https://{host}{SCORE}")).body(full("x")).expect("a request");
        let reply = Caller::http1(stream).await.call(request).await;
        assert_eq!(reply.status, status, "{host}");
        if status == 404 {
            reply.assert_refusal(404, "ServiceNotFound", "No such service: iris.");
        }
    }
}

#[tokio::test]
async fn http_1_0_without_host_is_for_the_name_of_the_handshake() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let reply = front.wire().await.ask(format!("GET {SCORE} HTTP/1.0\r\n\r\n")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(replica.only_request().field("x-forwarded-host"), Some(CNAME));
}

#[tokio::test]
async fn http_1_0_without_host_and_without_a_name_in_the_handshake_is_for_nobody() {
    let front = Environment::new()
        .set("tls", "default_cname = 'scoring.example.com'")
        .certificate(CNAME, &[CNAME, "127.0.0.1"], Algorithm::Ecdsa)
        .start();
    let stream = front.tls(client_config(&[]), "127.0.0.1").await.expect("a handshake");
    let reply = Wire::new(stream).ask(format!("GET {SCORE} HTTP/1.0\r\n\r\n")).await;
    reply.assert_refusal(400, "BadRequest", "The Host field is missing.");
}
