//! The plain listener: a signpost while TLS is enabled, the way in while it is disabled.

use crate::support::{CNAME, Environment, Replica, SCORE};

#[tokio::test]
async fn while_tls_is_enabled_plain_http_is_told_the_https_uri() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let port = front.https().port();
    for (host, target) in [
        (CNAME, format!("https://{CNAME}:{port}{SCORE}?a=1")),
        ("Other.example.com:80", format!("https://other.example.com:{port}{SCORE}?a=1")),
        // No certificate is for an address.
        ("[::1]", format!("https://{CNAME}:{port}{SCORE}?a=1")),
        ("127.0.0.1:80", format!("https://{CNAME}:{port}{SCORE}?a=1")),
    ] {
        let reply = front.plain().await.ask(format!("POST {SCORE}?a=1 HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        reply.assert_refusal(403, "HttpsRequired", &format!("This service is called over TLS only: {target}"));
        assert_eq!(reply.field("location"), None);
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn while_tls_is_enabled_plain_http_may_be_redirected() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("frontend", "http_when_tls = 'redirect'").start();
    let target = format!("https://{CNAME}:{}{SCORE}?a=1", front.https().port());
    let reply = front.plain().await.ask(format!("POST {SCORE}?a=1 HTTP/1.1\r\nHost: {CNAME}\r\n\r\n")).await;
    reply.assert_refusal(308, "HttpsRequired", &format!("This service is called over TLS only: {target}"));
    assert_eq!(reply.field("location"), Some(&*target));
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn the_port_that_callers_are_told_is_the_public_one() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("frontend", "public_https_port = 443").start();
    let reply = front.plain().await.ask(format!("POST {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\n\r\n")).await;
    let target = format!("https://{CNAME}{SCORE}");
    reply.assert_refusal(403, "HttpsRequired", &format!("This service is called over TLS only: {target}"));
}

#[tokio::test]
async fn while_tls_is_disabled_plain_http_scores() {
    let replica = Replica::echo();
    let front = Environment::new().set("tls", "status = 'Disabled'").service("iris", &[&replica], "").start();
    let mut wire = front.plain().await;
    for host in [CNAME, "127.0.0.1:8080"] {
        let reply = wire.ask(format!("POST {SCORE} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi")).await;
        assert_eq!((reply.status, reply.text()), (200, "hi"));
        let seen = replica.requests().pop().expect("a request");
        assert_eq!((seen.field("x-forwarded-proto"), seen.field("x-forwarded-host")), (Some("http"), Some(host)));
    }
    let reply = front.plain().await.ask(format!("GET {SCORE} HTTP/1.0\r\n\r\n")).await;
    reply.assert_refusal(400, "BadRequest", "The Host field is missing.");
}
