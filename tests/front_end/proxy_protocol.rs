//! The PROXY protocol: balancers that are named say whose a connection is, and nobody else does.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CNAME, Environment, Front, Replica, Reply, SCORE, Wire, client_config, handshake, within};

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.2 56324 443\r\n";

/// What begins version 2 of TCP over IPv6 from `2001:db8::7`, with 3 bytes more than the addresses.
fn v2() -> Vec<u8> {
    let address: std::net::Ipv6Addr = "2001:db8::7".parse().expect("an address");
    let rest = [&address.octets()[..], &address.octets(), &[0xdc, 0x04, 0x01, 0xbb], &[0x04, 0, 0]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x27", &rest[..]].concat()
}

fn behind_a_balancer(replica: &Replica) -> Front {
    Environment::iris(&[replica]).set("frontend", "proxy_protocol_from = ['127.0.0.0/8', '2001:db8::/32']").start()
}

async fn connected(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("a connection");
    tcp.write_all(header).await.expect("sent");
    tcp
}

async fn call(front: &Front, header: &[u8]) -> Reply {
    let tcp = connected(front.https(), header).await;
    let mut wire = Wire::new(handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect("a handshake"));
    wire.ask(format!("POST {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\nContent-Length: 1\r\n\r\nx")).await
}

async fn is_closed(mut tcp: TcpStream) -> bool {
    within(tcp.read(&mut [0; 16])).await.map_or(true, |read| read == 0)
}

fn callers(replica: &Replica) -> Vec<String> {
    replica.requests().iter().map(|request| request.field("x-forwarded-for").expect("a caller").to_owned()).collect()
}

#[tokio::test]
async fn the_caller_is_who_the_balancer_says_it_is() {
    let replica = Replica::echo();
    let front = behind_a_balancer(&replica);
    for header in [V1, &v2(), b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        assert_eq!(call(&front, header).await.status, 200, "{header:?}");
    }
    assert_eq!(callers(&replica), ["203.0.113.9", "2001:db8::7", "127.0.0.1", "127.0.0.1"]);
    front.until_metric("proxy_protocol_headers_total{result=\"taken\"}", 4).await;
}

#[tokio::test]
async fn plain_http_has_it_too_and_a_kept_connection_keeps_its_caller() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica])
        .set("frontend", "proxy_protocol_from = ['127.0.0.1']")
        .set("tls", "status = 'Disabled'")
        .start();
    // Header and request may come at once.
    let request = format!("POST {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\nContent-Length: 1\r\n\r\nx");
    let mut wire = Wire::new(connected(front.http(), &[V1, request.as_bytes()].concat()).await);
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(wire.ask(request).await.status, 200);
    assert_eq!(callers(&replica), ["203.0.113.9"; 2]);
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let replica = Replica::echo();
    let front = behind_a_balancer(&replica);
    for header in [V1, &v2()] {
        let mut tcp = connected(front.https(), b"").await;
        tcp.set_nodelay(true).expect("set");
        for byte in header {
            tcp.write_all(&[*byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect("a handshake");
    }
}

#[tokio::test]
async fn a_balancer_that_says_nothing_or_nonsense_is_closed() {
    let replica = Replica::echo();
    let front = behind_a_balancer(&replica);
    let tcp = connected(front.https(), b"").await;
    handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect_err("it said nothing");
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    for header in [
        &b"PROXY TCP4 203.0.113.9 198.51.100.2 56324\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ] {
        assert!(is_closed(connected(front.https(), header).await).await, "{header:?}");
    }
    front.until_metric("proxy_protocol_headers_total{result=\"refused\"}", 7).await;
    // A check whether somebody listens.
    drop(connected(front.https(), b"PROXY ").await);
    front.until_metric("proxy_protocol_headers_total{result=\"closed\"}", 1).await;
    front.until_metric("connections_open", 0).await;
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica])
        .set("frontend", "proxy_protocol_from = ['127.0.0.1']")
        .set("limits", "tls_handshake_timeout = '50ms'")
        .start();
    for begun in [&b""[..], b"PROXY TCP4 203.0.113.9", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
        assert!(is_closed(connected(front.https(), begun).await).await, "{begun:?}");
    }
    front.until_metric("proxy_protocol_headers_total{result=\"timeout\"}", 3).await;
}

#[tokio::test]
async fn nobody_else_can_claim_to_be_somebody() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("frontend", "proxy_protocol_from = ['10.0.0.0/8']").start();
    let tcp = connected(front.https(), V1).await;
    handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect_err("it is no TLS");
    let mut wire = Wire::new(connected(front.http(), V1).await);
    assert_eq!(wire.reply().await.status, 400);
    assert_eq!(call(&front, b"").await.status, 200);
    assert_eq!(callers(&replica), ["127.0.0.1"]);
}

#[tokio::test]
async fn who_is_a_balancer_may_change_while_it_runs() {
    let replica = Replica::echo();
    let mut front = Environment::iris(&[&replica]).start();
    assert_eq!(call(&front, b"").await.status, 200);
    front.reconfigure(|environment| environment.set("frontend", "proxy_protocol_from = ['127.0.0.1']"));
    assert_eq!(front.reload().await.0, 200);
    assert_eq!(call(&front, V1).await.status, 200);
    assert_eq!(callers(&replica), ["127.0.0.1", "203.0.113.9"]);
}
