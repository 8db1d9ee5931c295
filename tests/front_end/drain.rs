//! How a front end goes: first it says so, then it finishes, then it cuts.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    Environment, Frame, Front, Gate, PATIENCE, Replica, SCORE, Step, eventually, ok, post, read, within,
};

const NO_TIME: Duration = Duration::from_millis(100);

async fn ready(front: &Front) -> u16 {
    front.admin("GET /readyz HTTP/1.1").await.status
}

/// Both threads have heard of the drain when callers on either are asked to leave. Of two connections one may be given to the
/// thread that has fewer; the other is anybody's.
async fn drain(front: &Front) {
    front.begin_drain();
    let mut asked = 0;
    eventually("callers are asked to leave", async || {
        for mut caller in [front.http1().await, front.http1().await] {
            let reply = caller.call(post(SCORE, "x")).await;
            assert_eq!(reply.status, 200, "connections are still taken");
            asked = if reply.field("connection") == Some("close") { asked + 1 } else { 0 };
        }
        asked >= 16
    })
    .await;
}

#[tokio::test]
async fn a_draining_front_end_is_not_ready_and_asks_http_1_callers_to_leave() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).threads(2).start();
    let mut before = front.wire().await;
    before.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(before.reply().await.field("connection"), None);
    assert_eq!(ready(&front).await, 200);

    drain(&front).await;
    let reply = front.admin("GET /readyz HTTP/1.1").await;
    assert_eq!((reply.status, reply.text()), (503, "not ready: shutting down\n"));
    assert_eq!(front.admin("GET /livez HTTP/1.1").await.status, 200, "it is alive");
    before.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(before.reply().await.field("connection"), Some("close"));
    before.closed().await;
    let reply = front.http2().await.call(post(SCORE, "x")).await;
    assert_eq!((reply.status, reply.field("connection")), (200, None), "HTTP/2 has its own words for it");
}

#[tokio::test]
async fn a_stop_lets_what_is_in_flight_finish() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("finished")]);
    let mut front = Environment::iris(&[&replica]).without_permits().threads(2).start();
    let mut calls = Vec::new();
    for mut caller in front.both().await {
        calls.push(tokio::spawn(async move { caller.call(post(SCORE, "x")).await }));
    }
    replica.saw(2).await;
    let address = front.https();
    let stopping = tokio::spawn(front.stop(PATIENCE));
    eventually("no connection is taken", async || TcpStream::connect(address).await.is_err()).await;
    assert!(!stopping.is_finished());
    gate.open();
    for call in calls {
        assert_eq!(within(call).await.expect("no panic").text(), "finished");
    }
    assert!(within(stopping).await.expect("no panic"), "nothing was cut");
}

#[tokio::test]
async fn a_stop_lets_an_answer_that_is_under_way_finish() {
    let gate = Gate::new();
    let begin = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_vec());
    let replica = Replica::start([Step::ReadBody, begin, Step::Wait(gate.clone()), Step::Send(b"half".to_vec())]);
    let mut front = Environment::iris(&[&replica]).without_permits().start();
    let mut answers = Vec::new();
    let mut callers = front.both().await;
    for caller in &mut callers {
        answers.push(caller.send(post(SCORE, "x")).await.expect("a head"));
    }
    let stopping = tokio::spawn(front.stop(PATIENCE));
    tokio::task::yield_now().await;
    gate.open();
    for answer in answers {
        assert_eq!(read(answer).await.expect("a whole answer").text(), "halfhalf");
    }
    assert!(within(stopping).await.expect("no panic"));
}

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_in_good_order() {
    let replica = Replica::echo();
    let mut front = Environment::iris(&[&replica]).start();
    let mut used = front.wire().await;
    used.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(used.reply().await.status, 200);
    let mut unused = front.wire().await;
    let mut http2 = front.raw_http2().await;
    http2.open().await;
    http2.until(Frame::SETTINGS).await;

    let stopping = tokio::spawn(front.stop(PATIENCE));
    used.closed().await;
    unused.closed().await;
    let goaway = http2.until(Frame::GOAWAY).await;
    assert_eq!(goaway.payload.get(4..8), Some(&[0; 4][..]), "no error");
    drop(http2);
    assert!(within(stopping).await.expect("no panic"));
}

#[tokio::test]
async fn a_stop_cuts_what_takes_longer_than_the_limit_and_says_so() {
    let replica = Replica::start([Step::ReadBody, Step::Hang]);
    let mut front = Environment::iris(&[&replica]).threads(2).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    replica.saw(1).await;
    assert!(!within(front.stop(NO_TIME)).await, "something was cut");
    wire.gone().await;
    replica.is_free().await;
}

#[tokio::test]
async fn a_stop_waits_for_nobody_who_has_not_finished_the_handshake_longer_than_the_limit() {
    let mut front = Environment::new().cname(crate::support::CNAME).start();
    let tcp = TcpStream::connect(front.https()).await.expect("a connection");
    front.until_metric("connections_accepted_total", 1).await;
    within(front.stop(NO_TIME)).await;
    drop(tcp);
}

#[tokio::test]
async fn whoever_drops_a_front_end_ends_it() {
    let replica = Replica::start([Step::ReadBody, Step::Hang]);
    let front = Environment::iris(&[&replica]).threads(2).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    replica.saw(1).await;
    let address = front.https();
    drop(front);
    wire.gone().await;
    replica.is_free().await;
    assert!(TcpStream::connect(address).await.is_err());
}
