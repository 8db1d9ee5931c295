//! Bodies stream through in both directions, unchanged, unheld and bounded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;

use crate::support::{
    CNAME, Environment, Front, Gate, Replica, SCORE, Step, channel, chunk, chunked, empty, full, ok, post, read,
    request, settled, within,
};

fn binary(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).expect("small")).collect()
}

#[tokio::test]
async fn bodies_of_known_and_unknown_length_pass_unchanged() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for length in [0, 1, 100_000, 3_000_000] {
            let body = binary(length);
            let reply = caller.call(post(SCORE, body.clone())).await;
            assert!(reply.body == body, "{length} bytes announced");
            assert_eq!(reply.field("content-length"), Some(&*length.to_string()));

            let (parts, streamed) = channel();
            let sent = body.clone();
            tokio::spawn(async move {
                for part in sent.chunks(70_000) {
                    parts.send(Ok(Bytes::copy_from_slice(part))).await.expect("taken");
                }
            });
            let reply = caller.call(request(Method::POST, SCORE, streamed)).await;
            assert!(reply.body == body, "{length} bytes streamed");
        }
    }
    let framing: Vec<_> =
        replica.requests()[..2].iter().map(|seen| seen.field("transfer-encoding").map(str::to_owned)).collect();
    assert_eq!(framing, [None, Some("chunked".to_owned())], "the framing is the caller's");
}

#[tokio::test]
async fn an_answer_of_unknown_length_passes_unchanged() {
    let chunks = [Step::ReadBody, chunked(), chunk("one"), chunk("\0\r\n\u{ff}"), chunk("")];
    let until_close = [Step::ReadBody, Step::Send("HTTP/1.0 200 OK\r\n\r\none\0\r\n\u{ff}".into()), Step::Close];
    for script in [&chunks[..], &until_close] {
        let replica = Replica::start(script);
        let front = Environment::iris(&[&replica]).start();
        for mut caller in front.both().await {
            let reply = caller.call(post(SCORE, "x")).await;
            assert_eq!((reply.status, reply.text()), (200, "one\0\r\n\u{ff}"));
        }
    }
}

#[tokio::test]
async fn an_http_1_0_caller_gets_a_stream_without_chunks() {
    let replica = Replica::start([chunked(), chunk("one"), chunk("two"), chunk("")]);
    let front = Environment::iris(&[&replica]).start();
    let reply = front.wire().await.ask(format!("GET {SCORE} HTTP/1.0\r\nHost: {CNAME}\r\n\r\n")).await;
    assert_eq!((reply.text(), reply.field("transfer-encoding")), ("onetwo", None));
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_does_not_look_whole_when_the_replica_broke_it_off() {
    let replica = Replica::start([chunked(), chunk("half"), Step::Close]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.send(format!("GET {SCORE} HTTP/1.0\r\nHost: {CNAME}\r\n\r\n")).await;
    // TLS says that it is no orderly end: there is no close_notify (RFC 9112 section 9.8).
    let error = wire.rest().await.expect_err("broken off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

const LIMIT: &str = "The request body is larger than the limit of 1000 bytes.";

fn limited(replica: &Replica) -> Front {
    Environment::iris(&[replica]).set("defaults", "max_body = 1000").start()
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes() {
    let replica = Replica::echo();
    let front = limited(&replica);
    for mut caller in front.both().await {
        assert_eq!(caller.call(post(SCORE, binary(1000))).await.status, 200);
        assert_eq!(caller.call(post(SCORE, binary(1001))).await.status, 413);
    }
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_before_any_of_it_comes() {
    let replica = Replica::echo();
    let front = limited(&replica);
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1001\r\n", "").await;
    wire.reply().await.assert_refusal(413, "BodyTooLarge", LIMIT);
    wire.closed().await;

    let (_parts, body) = channel();
    let mut announced = request(Method::POST, SCORE, body);
    announced.headers_mut().insert("content-length", "1001".parse().expect("a value"));
    front.http2().await.call(announced).await.assert_refusal(413, "BodyTooLarge", LIMIT);
    assert_eq!(replica.state().connections, 0);
}

#[tokio::test]
async fn a_stream_that_grows_too_large_is_refused_although_the_caller_goes_on_sending() {
    let replica = Replica::start([Step::ReadBody, ok("too late")]);
    let front = limited(&replica);
    let mut wire = front.wire().await;
    wire.post("Transfer-Encoding: chunked\r\n", &format!("3e8\r\n{}\r\n", "x".repeat(1000))).await;
    replica.saw(1).await;
    // Far more than what fits into the sockets' buffers: without somebody who reads, this would never end.
    for _ in 0..200 {
        if wire.try_send(format!("10000\r\n{}\r\n", "x".repeat(0x10000))).await.is_err() {
            break;
        }
    }
    wire.reply().await.assert_refusal(413, "BodyTooLarge", LIMIT);
    replica.is_free().await;

    let (parts, body) = channel();
    tokio::spawn(async move { while parts.send(Ok(binary(700).into())).await.is_ok() {} });
    front.http2().await.call(request(Method::POST, SCORE, body)).await.assert_refusal(413, "BodyTooLarge", LIMIT);
    replica.is_free().await;
    assert!(replica.requests().iter().all(|seen| seen.body.len() <= 1000));
}

#[tokio::test]
async fn an_event_reaches_the_caller_before_the_stream_ends() {
    let next = Gate::new();
    let replica = Replica::start([
        Step::ReadBody,
        Step::Send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        chunk("data: one\n\n"),
        Step::Wait(next.clone()),
        chunk("data: two\n\n"),
        chunk(""),
    ]);
    let front = Environment::iris(&[&replica]).start();
    for (index, mut caller) in front.both().await.into_iter().enumerate() {
        let mut answer = caller.send(post(SCORE, "x")).await.expect("an answer");
        let first = within(answer.frame()).await.expect("an event").expect("an event").into_data().expect("data");
        assert_eq!(first, "data: one\n\n");
        if index == 0 {
            next.open();
        }
        assert_eq!(read(answer).await.expect("the rest").text(), "data: two\n\n");
    }
}

#[tokio::test]
async fn a_part_of_an_upload_reaches_the_replica_before_the_upload_ends() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for (index, mut caller) in front.both().await.into_iter().enumerate() {
        let (parts, body) = channel();
        let replica = &replica;
        let upload = async move {
            parts.send(Ok("one".into())).await.expect("taken");
            replica.until(|state| state.requests.get(index).is_some_and(|seen| seen.body == b"one")).await;
            parts.send(Ok("two".into())).await.expect("taken");
        };
        let (reply, ()) = tokio::join!(caller.call(request(Method::POST, SCORE, body)), upload);
        assert_eq!(reply.text(), "onetwo");
    }
}

/// What the kernel's buffers of two connections hold at most, with room to spare.
const BUFFERS: usize = 40 * 1024 * 1024;

#[tokio::test]
async fn a_caller_who_does_not_read_stops_the_replica_from_sending() {
    for http2 in [false, true] {
        let replica = Replica::start([Step::ReadBody, chunked(), Step::Flood(4 * BUFFERS / 0x10000), chunk("")]);
        let front = Environment::iris(&[&replica]).start();
        let mut caller = if http2 { front.http2().await } else { front.http1().await };
        let answer = caller.send(post(SCORE, "x")).await.expect("an answer");
        let sent = settled(|| replica.state().sent).await;
        assert!(sent < BUFFERS, "{sent} bytes");
        drop(answer);
        drop(caller);
        replica.is_free().await;
    }
}

#[tokio::test]
async fn a_caller_who_reads_only_when_it_has_sent_all_may_do_so() {
    // Both ways far more than what all buffers between them hold.
    const CHUNKS: usize = 320;
    let replica = Replica::start([chunked(), Step::FloodAndRead(CHUNKS), chunk("")]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire_with_small_window().await;
    wire.post(&format!("Content-Length: {}\r\n", 40 << 20), "").await;
    replica.saw(1).await;
    // What can be sent of the answer is sent before the most of the request comes.
    settled(|| replica.state().sent).await;
    wire.send(vec![b'u'; 40 << 20]).await;
    assert_eq!(wire.reply().await.body.len(), CHUNKS << 16);
    replica.until(|state| state.requests[0].whole).await;
}

#[tokio::test]
async fn small_chunks_that_come_together_go_on_together() {
    const CHUNKS: usize = 5000;
    let replica = Replica::start([Step::ReadBody, ok("read")]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    let chunks = "1\r\nx\r\n".repeat(CHUNKS);
    wire.post("Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n")).await;
    assert_eq!(wire.reply().await.text(), "read");
    let seen = replica.only_request();
    assert_eq!(seen.body.len(), CHUNKS);
    let reads = replica.state().reads;
    assert!(reads < CHUNKS / 50, "{reads} reads");
}

#[tokio::test]
async fn a_replica_that_does_not_read_stops_the_caller_from_sending() {
    let replica = Replica::start([Step::Stall(Gate::new())]);
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let (parts, body) = channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        tokio::spawn(async move {
            while parts.send(Ok(vec![0; 0x10000].into())).await.is_ok() {
                count.fetch_add(0x10000, Relaxed);
            }
        });
        tokio::spawn(async move { caller.send(request(Method::POST, SCORE, body)).await.is_ok() });
        let sent = settled(|| sent.load(Relaxed)).await;
        assert!(sent < BUFFERS, "{sent} bytes");
    }
}

#[tokio::test]
async fn a_small_body_is_there_as_a_whole_before_a_replica_is_asked() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut slow = front.wire().await;
    slow.post("Content-Length: 10\r\n", "hello").await;
    let mut other = front.http1().await;
    assert_eq!(
        other.call(post(SCORE, "quick")).await.text(),
        "quick",
        "the one replica is not kept by the slow caller"
    );
    assert_eq!(replica.requests().len(), 1);
    slow.send("world").await;
    assert_eq!(slow.reply().await.text(), "helloworld");
    assert_eq!(replica.requests().len(), 2);

    let mut gone = front.wire().await;
    gone.post("Content-Length: 10\r\n", "hello").await;
    drop(gone);
    assert_eq!(other.call(post(SCORE, "again")).await.text(), "again");
    assert_eq!(replica.requests().len(), 3, "of a body that never came it has not heard");
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_whole_to_the_replica() {
    let replica = Replica::start([Step::ReadBody, ok("whole")]);
    let front = Environment::iris(&[&replica]).start();

    for (framing, body) in
        [("Content-Length: 100000\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")]
    {
        let mut wire = front.wire().await;
        let begun = replica.requests().len();
        wire.post(framing, body).await;
        replica.saw(begun + 1).await;
        drop(wire);
        replica.is_free().await;
    }

    let (parts, body) = channel();
    let mut caller = front.http2().await;
    let upload = async {
        parts.send(Ok("hello".into())).await.expect("taken");
        replica.until(|state| state.requests.last().is_some_and(|seen| seen.body == b"hello")).await;
        parts.send(Err(io::Error::other("the caller's own disk"))).await.expect("taken");
    };
    let (answer, ()) = tokio::join!(caller.send(request(Method::POST, SCORE, body)), upload);
    assert!(answer.is_err(), "a stream reset by the caller has no answer");
    replica.is_free().await;
    assert_eq!(replica.state().sent, 0, "no request was whole");
}

#[tokio::test]
async fn a_replica_that_breaks_off_breaks_the_callers_answer_off() {
    let half =
        [Step::ReadBody, Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()), Step::Close];
    let no_last_chunk = [Step::ReadBody, chunked(), chunk("hello"), Step::Close];
    for script in [&half[..], &no_last_chunk] {
        let replica = Replica::start(script);
        let front = Environment::iris(&[&replica]).start();
        for mut caller in front.both().await {
            if let Ok(answer) = caller.send(post(SCORE, "x")).await {
                assert!(read(answer).await.is_err(), "the end must not look like one");
            }
        }
        let lines = front.log_lines(2).await;
        assert!(lines.iter().all(|line| line["end"] == "replica_broke"), "{lines:?}");
    }
}

#[tokio::test]
async fn what_a_replica_sent_before_it_broke_off_still_reaches_the_caller() {
    let replica = Replica::start([Step::ReadBody, chunked(), chunk("hello"), Step::Close]);
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let mut answer = caller.send(post(SCORE, "x")).await.expect("a head");
        let first = within(answer.frame()).await.expect("a part").expect("a part").into_data().expect("data");
        assert_eq!(first, "hello");
        assert!(read(answer).await.is_err());
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_caller_at_once() {
    let replica = Replica::start([ok("enough"), Step::Hang]);
    let front = Environment::iris(&[&replica]).start();

    let mut wire = front.wire().await;
    wire.post("Content-Length: 1000000\r\n", "the beginning").await;
    assert_eq!(wire.reply().await.text(), "enough");
    wire.closed().await;

    let (parts, body) = channel();
    parts.send(Ok("the beginning".into())).await.expect("taken");
    let reply = front.http2().await.call(request(Method::POST, SCORE, body)).await;
    assert_eq!(reply.text(), "enough");
    replica.is_free().await;
    drop(parts);
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_upload_says_that_it_is_the_last() {
    let replica = Replica::start([ok("early")]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 200000\r\n", "part").await;
    let reply = wire.reply().await;
    assert_eq!((reply.text(), reply.field("connection")), ("early", Some("close")));
}

#[tokio::test]
async fn a_call_without_a_body_is_sent_on_without_one() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        caller.call(request(Method::GET, SCORE, empty())).await;
        caller.call(request(Method::POST, SCORE, full(""))).await;
    }
    for seen in replica.requests() {
        assert!(seen.body.is_empty() && seen.field("transfer-encoding").is_none(), "{}", seen.head);
    }
}

#[tokio::test]
async fn an_answer_with_both_lengths_arrives_as_long_as_its_chunks_are() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let replica = Replica::start([Step::ReadBody, Step::Send(head.into()), chunk("0123456789"), chunk("")]);
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for _ in 0..2 {
            let reply = caller.call(post(SCORE, "x")).await;
            assert_eq!((reply.status, reply.text()), (200, "0123456789"));
            assert_eq!(reply.field("content-length"), None, "neither of the lengths is the wrong one");
        }
    }
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_reaches_the_replica_with_all_of_it() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    let head = format!("GET {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..2 {
        let reply = wire.ask(format!("{head}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")).await;
        assert_eq!((reply.status, reply.text()), (200, "onetwo"));
    }

    let (parts, body) = channel();
    let upload = async move {
        for part in ["one", "two"] {
            parts.send(Ok(part.into())).await.expect("taken");
        }
    };
    let mut caller = front.http2().await;
    let (reply, ()) = tokio::join!(caller.call(request(Method::GET, SCORE, body)), upload);
    assert_eq!((reply.status, reply.text()), (200, "onetwo"));

    for seen in replica.requests() {
        assert!(seen.line().starts_with("GET ") && seen.whole && seen.body == b"onetwo", "{seen:?}");
        assert_eq!((seen.field("transfer-encoding"), seen.field("content-length")), (Some("chunked"), None));
    }
    assert_eq!(replica.requests().len(), 3, "no rest of a body looks like a request");
}

#[tokio::test]
async fn an_upload_that_breaks_while_it_is_answered_frees_the_replica_at_once() {
    let begin = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_vec());
    let replica = Replica::start([begin, Step::Hang]);
    let front = Environment::iris(&[&replica]).service("small", &[&replica], "max_body = 10").start();
    for (service, rest) in [("iris", "no chunk\r\n"), ("small", "f\r\nmore than ten by\r\n")] {
        let mut wire = front.wire().await;
        let target = format!("/api/v1/service/{service}/score");
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {CNAME}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status, 200);
        wire.send(rest).await;
        replica.is_free().await;
    }
    let taken_out = "replica_taken_out_total{service=\"iris\",deployment=\"default\",reason=\"closed\"}";
    assert!(front.metric(taken_out).await < 0.5, "it did nothing wrong");
}
