//! How a front end goes: first it says so, then it finishes, then it cuts.

use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{
    CNAME, Environment, Frame, Front, Gate, PATIENCE, Replica, SCORE, Step, channel, eventually, ok, post, read,
    request, within,
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
async fn a_drain_asked_for_over_the_api_begins_at_once_and_is_told() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("finished")]);
    let front = Environment::iris(&[&replica]).start();
    let state = async || front.admin("GET /v1/drain HTTP/1.1").await.json();
    assert_eq!((&state().await["phase"], &state().await["requests_in_flight"]), (&"running".into(), &0.into()));
    let mut caller = front.http1().await;
    let call = tokio::spawn(async move { caller.call(post(SCORE, "x")).await });
    replica.saw(1).await;

    let begun = front.admin("POST /v1/drain HTTP/1.1").await;
    assert_eq!((begun.status, &begun.json()["phase"]), (202, &"draining".into()));
    assert_eq!((&begun.json()["requests_in_flight"], &begun.json()["connections_open"]), (&1.into(), &1.into()));
    assert_eq!(ready(&front).await, 503);
    within(front.asked_to_drain()).await;
    assert_eq!(front.admin("POST /v1/drain HTTP/1.1").await.status, 202, "asked again it goes on");
    gate.open();
    let reply = within(call).await.expect("no panic");
    assert_eq!((reply.text(), reply.field("connection")), ("finished", Some("close")));
    eventually("nothing is in flight", async || state().await["requests_in_flight"] == 0).await;
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
async fn a_last_answer_arrives_although_more_was_sent_behind_its_request() {
    let gate = Gate::new();
    let answer = "a".repeat(300_000);
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok(&answer)]);
    let mut front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire_with_small_window().await;
    let other = "x".repeat(200_000);
    let host = format!("Host: {CNAME}\r\n");
    let fields =
        format!("Content-Length: 1\r\n\r\nxPOST {SCORE} HTTP/1.1\r\n{host}Content-Length: {}\r\n", other.len());
    wire.post(&fields, &other).await;
    replica.saw(1).await;
    let address = front.https();
    let stopping = tokio::spawn(front.stop(PATIENCE));
    eventually("no connection is taken", async || TcpStream::connect(address).await.is_err()).await;
    gate.open();
    // As late as somebody would read it who is busy with something else.
    replica.is_free().await;
    assert_eq!(wire.reply().await.text(), answer);
    drop(wire);
    assert!(within(stopping).await.expect("no panic"), "nothing was cut");
}

#[tokio::test]
async fn a_last_answer_arrives_although_its_caller_reads_slowly_and_goes_on_sending() {
    let answer = "a".repeat(2_000_000);
    let replica = Replica::start([ok(&answer)]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire_with_small_window().await;
    wire.post("Connection: close\r\n", "").await;
    // Longer than what is waited for when nothing comes.
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..30 {
        ticks.tick().await;
        wire.send("x").await;
    }
    assert_eq!(wire.reply().await.text(), answer);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_rest_of_an_http_2_body_that_nobody_wants() {
    let replica = Replica::start([ok("early")]);
    let mut front = Environment::iris(&[&replica]).start();
    let mut caller = front.http2().await;
    let (parts, body) = channel();
    let (answer, ()) = tokio::join!(caller.call(request(Method::POST, SCORE, body)), async {
        parts.send(Ok("part".into())).await.expect("taken");
    });
    assert_eq!(answer.text(), "early");
    let begun = Instant::now();
    assert!(within(front.stop(PATIENCE)).await, "nothing was cut");
    // What is longer is the time for a head.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(parts);
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
async fn a_stop_takes_the_http_2_calls_that_are_on_their_way_and_then_says_which_was_the_last() {
    const NONE_YET: u32 = u32::MAX >> 1;

    let replica = Replica::echo();
    let mut front = Environment::iris(&[&replica]).start();
    let mut http2 = front.raw_http2().await;
    let call =
        |stream| [Frame::score(stream).bytes(), Frame::new(Frame::DATA, Frame::END_STREAM, stream, b"x").bytes()];
    let last_stream = |goaway: &Frame| u32::from_be_bytes(goaway.payload[..4].try_into().expect("four bytes"));
    http2.open().await;
    http2.send(call(1).concat()).await;
    assert_eq!(http2.until(Frame::DATA).await.payload, b"x");

    let stopping = tokio::spawn(front.stop(PATIENCE));
    assert_eq!(last_stream(&http2.until(Frame::GOAWAY).await), NONE_YET);
    let ping = http2.until(Frame::PING).await;
    // The caller has not heard of it yet.
    http2.send(call(3).concat()).await;
    while http2.until(Frame::DATA).await.stream != 3 {}
    // Now it has.
    http2.send(Frame::new(Frame::PING, Frame::ACK, 0, &ping.payload).bytes()).await;
    assert_eq!(last_stream(&http2.until(Frame::GOAWAY).await), 3);
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
    let mut front = Environment::new().cname(CNAME).start();
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

#[tokio::test]
async fn a_stop_does_not_wait_for_those_who_never_begin() {
    let replica = Replica::echo();
    let mut front = Environment::iris(&[&replica]).set("limits", "tls_handshake_timeout = '1m'").start();
    let silent = TcpStream::connect(front.https()).await.expect("a connection");
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(wire.reply().await.status, 200);
    assert!(within(front.stop(PATIENCE)).await, "nothing was cut");
    drop(silent);
}

#[tokio::test]
async fn a_stop_waits_a_moment_for_the_rest_of_a_head() {
    let replica = Replica::echo();
    let mut front = Environment::iris(&[&replica]).set("limits", "header_read_timeout = '1m'").start();
    let head = format!("GET {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\n");
    let (mut goes_on, mut rests) = (front.wire().await, front.wire().await);
    for wire in [&mut goes_on, &mut rests] {
        wire.post("Content-Length: 1\r\n", "x").await;
        assert_eq!(wire.reply().await.status, 200);
        wire.send(&head).await;
    }
    let address = front.https();
    let stopping = tokio::spawn(front.stop(PATIENCE));
    eventually("no connection is taken", async || TcpStream::connect(address).await.is_err()).await;
    goes_on.send("\r\n").await;
    let reply = goes_on.reply().await;
    assert_eq!((reply.status, reply.field("connection")), (200, Some("close")));
    assert_eq!(rests.reply().await.refusal(), (408, "RequestTimeout".to_owned()));
    assert!(within(stopping).await.expect("no panic"));
}
