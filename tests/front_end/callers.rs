//! Callers that leave, dawdle or crowd in.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use tokio::time::interval;

use crate::support::{
    CNAME, Caller, Environment, Frame, Front, Gate, Replica, SCORE, Step, Wire, channel, chunk, chunked, client_config,
    handshake, ok, post, request, settled, within,
};

/// A replica that keeps every call waiting.
fn busy() -> Replica {
    Replica::start([Step::ReadBody, Step::Hang])
}

/// A replica that answers and never ends.
fn endless() -> Replica {
    Replica::start([Step::ReadBody, chunked(), chunk("one"), Step::Hang])
}

async fn assert_abandoned(front: Front, end: &str, calls: usize) {
    for line in front.log_lines(calls).await {
        assert_eq!(line["end"], end, "{line}");
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_before_the_answer_frees_the_replica_at_once() {
    let replica = busy();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    replica.saw(1).await;
    drop(wire);
    replica.is_free().await;

    let mut caller = front.http2().await;
    let call = tokio::spawn(async move {
        let answer = caller.send(post(SCORE, "x")).await;
        (caller, answer.is_ok())
    });
    replica.saw(2).await;
    // The future's end resets the stream, and the caller's end closes the connection.
    call.abort();
    replica.is_free().await;

    front.until_metric("requests_abandoned_total{service=\"iris\",deployment=\"default\"}", 2).await;
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"default\"}", 0).await;
    assert_abandoned(front, "caller_left", 2).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_frees_its_replica_and_leaves_the_connection_to_the_others() {
    let replica = Replica::in_turn([vec![Step::ReadBody, Step::Hang], vec![Step::Echo]]);
    let front = Environment::iris(&[&replica]).start();
    let Caller::Http2(mut sender) = front.http2().await else { panic!("HTTP/2") };
    let call = tokio::spawn(sender.send_request(post(SCORE, "x")));
    replica.saw(1).await;
    call.abort();
    replica.is_free().await;
    assert_eq!(Caller::Http2(sender).call(post(SCORE, "next")).await.text(), "next");
}

#[tokio::test]
async fn a_caller_who_hangs_up_during_the_upload_frees_the_replica_at_once() {
    let replica = busy();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 100000\r\n", "x").await;
    replica.saw(1).await;
    drop(wire);
    replica.is_free().await;

    let mut raw = front.raw_http2().await;
    raw.open().await;
    raw.send(Frame::score(1).bytes()).await;
    raw.send(Frame::new(Frame::DATA, 0, 1, b"x").bytes()).await;
    replica.saw(2).await;
    raw.send(Frame::new(Frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).bytes()).await;
    replica.is_free().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_during_the_answer_frees_the_replica_at_once() {
    let replica = endless();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(wire.head().await.status, 200);
    assert_eq!(wire.chunk().await.expect("a part"), b"one");
    drop(wire);
    replica.is_free().await;

    let mut caller = front.http2().await;
    let mut answer = caller.send(post(SCORE, "x")).await.expect("an answer");
    assert!(within(answer.frame()).await.expect("a part").is_ok());
    drop(answer);
    replica.is_free().await;
    assert_abandoned(front, "caller_left", 2).await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_amid_upload_and_answer_frees_the_replica_at_once() {
    let replica = Replica::start([chunked(), Step::FloodAndRead(10_000), chunk("")]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire_with_small_window().await;
    wire.post("Content-Length: 1000000\r\n", "part").await;
    replica.saw(1).await;
    // The answer is blocked by then, since nobody reads it.
    settled(|| replica.state().sent).await;
    wire.finish().await;
    replica.is_free().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_with_another_request_in_the_pipeline_frees_the_replica_at_once() {
    let get = format!("GET {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\n\r\n");
    // In one piece with the first; in another; and what is no request.
    for (first, then) in [(get.repeat(2), ""), (get.clone(), &*get), (get.clone(), "no request\r\n\r\n")] {
        let replica = busy();
        let front = Environment::iris(&[&replica]).start();
        let mut wire = front.wire().await;
        wire.send(first).await;
        replica.saw(1).await;
        wire.send(then).await;
        drop(wire);
        replica.is_free().await;
        assert_eq!(replica.requests().len(), 1, "nobody waits for the second one");
    }
}

/// Sends one byte after the other until the front end has had enough.
async fn dribble(wire: &mut Wire, text: &str) {
    let mut ticks = interval(Duration::from_millis(20));
    for byte in text.bytes() {
        ticks.tick().await;
        if wire.try_send([byte]).await.is_err() {
            return;
        }
    }
    panic!("the whole text was taken");
}

#[tokio::test]
async fn a_head_that_dribbles_in_is_ended_with_408() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("limits", "header_read_timeout = '300ms'").start();
    let head = format!("GET {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\nX: {}", "x".repeat(2_000));
    let message = "The request head did not arrive in time.";
    // The first head of a connection, and one that follows an answer.
    for before in [false, true] {
        let mut wire = front.wire().await;
        if before {
            wire.post("Content-Length: 1\r\n", "x").await;
            assert_eq!(wire.reply().await.status, 200);
        }
        dribble(&mut wire, &head).await;
        wire.reply().await.assert_refusal(408, "RequestTimeout", message);
    }
    front.until_metric("caller_timeouts_total{kind=\"header\"}", 2).await;
}

#[tokio::test]
async fn a_head_that_is_begun_and_left_is_ended_with_408() {
    let front = Environment::new().cname(CNAME).set("limits", "header_read_timeout = '200ms'").start();
    for begun in ["G", "GET / HTTP/1.1\r\n", "\r\nG", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut wire = front.wire().await;
        wire.send(begun).await;
        wire.reply().await.assert_refusal(408, "RequestTimeout", "The request head did not arrive in time.");
        wire.closed().await;
    }
}

#[tokio::test]
async fn an_http_2_frame_that_is_begun_and_left_ends_the_connection() {
    let front = Environment::new().cname(CNAME).set("limits", "header_read_timeout = '200ms'").start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = Frame::new(Frame::SETTINGS, 0, 0, &[]).bytes();
    let head = Frame::score(1).bytes();
    let open_block = Frame { flags: 0, ..Frame::score(1) }.bytes();
    let bytes = [preface.to_vec(), settings].concat();
    for begun in [&preface[..10], &bytes[..30], &[&bytes, &head[..20]].concat(), &[bytes.clone(), open_block].concat()]
    {
        let mut raw = front.raw_http2().await;
        raw.send(begun).await;
        raw.rest().await;
    }
    front.until_metric("caller_timeouts_total{kind=\"header\"}", 4).await;
}

#[tokio::test]
async fn a_caller_who_asks_for_nothing_is_let_go_in_good_order() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("limits", "idle_timeout = '300ms'").start();
    let mut silent = front.wire().await;
    let mut once = front.wire().await;
    once.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(once.reply().await.status, 200);
    // An end without close_notify would look like an attack (RFC 8446 section 6.1).
    silent.closed().await;
    once.closed().await;

    let mut raw = front.raw_http2().await;
    raw.open().await;
    let frames = raw.rest().await;
    assert!(frames.iter().any(|frame| frame.kind == Frame::GOAWAY), "{frames:?}");
    front.until_metric("caller_timeouts_total{kind=\"idle\"}", 3).await;
}

#[tokio::test]
async fn empty_lines_behind_a_body_are_no_beginning_of_another_request() {
    let replica = Replica::echo();
    let limits = "idle_timeout = '600ms'\nheader_read_timeout = '200ms'";
    let front = Environment::iris(&[&replica]).set("limits", limits).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "x");
    // It is idle, and nothing is said to whoever asks for nothing.
    wire.closed().await;
    front.until_metric("caller_timeouts_total{kind=\"idle\"}", 1).await;
}

#[tokio::test]
async fn a_call_that_takes_long_does_not_make_its_caller_idle() {
    for http2 in [false, true] {
        let gate = Gate::new();
        let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("late")]);
        let front = Environment::iris(&[&replica])
            .set("limits", "idle_timeout = '500ms'\nheader_read_timeout = '500ms'")
            .start();
        let mut caller = if http2 { front.http2().await } else { front.http1().await };
        let (reply, ()) = tokio::join!(caller.call(post(SCORE, "x")), async {
            replica.saw(1).await;
            // A neighbour that comes later and is idle is ended first.
            front.wire().await.gone().await;
            gate.open();
        });
        assert_eq!(reply.text(), "late");
    }
}

#[tokio::test]
async fn a_caller_who_does_not_take_the_answer_is_ended_after_the_idle_timeout() {
    for http2 in [false, true] {
        let replica = Replica::start([Step::ReadBody, chunked(), Step::Flood(10_000), chunk("")]);
        let front = Environment::iris(&[&replica]).set("limits", "idle_timeout = '300ms'").start();
        let mut caller = if http2 { front.http2().await } else { front.http1().await };
        let _answer = caller.send(post(SCORE, "x")).await.expect("an answer");
        replica.is_free().await;
        front.until_metric("caller_timeouts_total{kind=\"stalled\"}", 1).await;
    }
}

#[tokio::test]
async fn a_stream_whose_window_never_opens_is_ended_after_the_idle_timeout() {
    let replica = Replica::start([Step::ReadBody, chunked(), chunk("one"), Step::Hang]);
    let front = Environment::iris(&[&replica]).set("limits", "idle_timeout = '300ms'").start();
    let mut caller = front.http2_with_window(Some(0)).await;
    let _answer = caller.send(post(SCORE, "x")).await.expect("a head");
    replica.is_free().await;
}

#[tokio::test]
async fn a_stalled_stream_does_not_end_the_others_of_its_connection() {
    let flood = vec![Step::ReadBody, chunked(), Step::Flood(10_000), chunk("")];
    let replica = Replica::in_turn([flood, vec![Step::Echo]]);
    let front = Environment::iris(&[&replica]).without_permits().set("limits", "idle_timeout = '300ms'").start();
    let mut caller = front.http2_with_window(Some(65_535)).await;
    let _stalled = caller.send(post(SCORE, "x")).await.expect("an answer");
    // A call that goes on for as long as the other stalls.
    let (parts, body) = channel();
    let (reply, ()) = tokio::join!(caller.call(request(Method::POST, SCORE, body)), async {
        replica.saw(2).await;
        front.until_metric("caller_timeouts_total{kind=\"stalled\"}", 1).await;
        parts.send(Ok("still here".into())).await.expect("taken");
        drop(parts);
    });
    assert_eq!(reply.text(), "still here");
}

#[tokio::test]
async fn at_max_connections_the_next_caller_waits_and_is_served_when_one_leaves() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("limits", "max_connections = 2").start();
    let mut first = front.http1().await;
    let second = front.wire().await;
    // The kernel takes the third connection; nobody shakes hands yet.
    let third = tokio::net::TcpStream::connect(front.https()).await.expect("a connection");
    front.until_metric("connections_at_limit_total", 1).await;
    assert_eq!(first.call(post(SCORE, "x")).await.status, 200, "those inside are served");
    front.until_metric("connections_accepted_total", 2).await;

    drop(second);
    let mut third = Wire::new(handshake(third, client_config(&[]), CNAME).await.expect("a handshake"));
    third.post("Content-Length: 5\r\n", "third").await;
    assert_eq!(third.reply().await.text(), "third");
    front.until_metric("connections_accepted_total", 3).await;

    drop(third);
    drop(first);
    for _ in 0..5 {
        assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200, "accepting goes on");
    }
}
