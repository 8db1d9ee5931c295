//! A connection on which nothing happens costs no CPU, whatever it waits for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Environment, FrontEnd, PATIENCE, Stub, eventually};

/// A connection that wakes itself without end uses all of a CPU for the two seconds or the one of these tests.
const LITTLE: Duration = Duration::from_millis(300);

/// How long a connection is read on after an answer that came before the request's end.
const LINGER: Duration = Duration::from_secs(2);

fn front_end(replica: &Stub) -> FrontEnd {
    Environment::new().set("tls.status", "Disabled").service("iris", replica.address).serve()
}

fn send(front_end: &FrontEnd, bytes: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(front_end.http).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(bytes.as_bytes()).expect("write");
    BufReader::new(stream)
}

/// The status of the next answer, which is read to its end, and its body.
fn answer(stream: &mut BufReader<TcpStream>) -> (u16, String) {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("a status: {line:?}"));
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).expect("a field") > 0, "a head breaks off");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (status, String::from_utf8(body).expect("UTF-8"))
}

/// Sends `bytes`, which are answered before they are read to the end, and stays connected until the front end gives up
/// reading.
fn linger(bytes: &str, status: u16) {
    let replica = Stub::start();
    let front_end = front_end(&replica);
    let idle = front_end.sockets();
    let mut stream = send(&front_end, bytes);
    assert_eq!(answer(&mut stream).0, status);
    let (begin, cpu) = (Instant::now(), front_end.cpu());
    assert_eq!(stream.read(&mut [0]).expect("a clean end"), 0, "our side is closed at once");
    eventually("the connection to be closed", || (front_end.sockets() <= idle).then_some(()));
    let (lasted, used) = (begin.elapsed(), front_end.cpu().saturating_sub(cpu));
    assert!(lasted > LINGER / 2, "there was nothing to measure: {lasted:?}");
    assert!(used < LITTLE, "{used:?} of CPU in {lasted:?}");
}

#[test]
fn a_connection_that_lingers_after_a_malformed_chunk_costs_no_cpu() {
    let head = "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    linger(&format!("{head}4\r\ngood\r\nno size\r\n"), 400);
}

#[test]
fn a_connection_that_lingers_with_a_byte_after_its_last_request_costs_no_cpu() {
    // A smaller body would be read before the answer.
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n";
    linger(&format!("{head}{}G", "x".repeat(100_000)), 404);
}

/// A call to a replica that takes a second, then garbage: in the same write, or when the call is with the replica.
fn wait_with_garbage(in_one_write: bool) {
    let replica = Stub::start();
    let front_end = front_end(&replica);
    let head = "POST /api/v1/service/iris/score?delay_ms=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    let (at_once, later) = if in_one_write { ("GARBAGE\r\n", "") } else { ("", "GARBAGE\r\n") };
    let mut stream = send(&front_end, &format!("{head}{at_once}"));
    let in_flight = "scorefront_requests_in_flight{service=\"iris\",deployment=\"default\"}";
    eventually("a call in flight", || (front_end.metric(in_flight) > 0.0).then_some(()));
    let (begin, cpu) = (Instant::now(), front_end.cpu());
    stream.get_mut().write_all(later.as_bytes()).expect("write");
    let scored = answer(&mut stream);
    let (lasted, used) = (begin.elapsed(), front_end.cpu().saturating_sub(cpu));
    // The stub's answer is chunked, so that its body is still to come.
    assert_eq!(scored.0, 200);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("a clean end");
    let (body, refusal) = rest.split_once("0\r\n\r\n").unwrap_or_else(|| panic!("no last chunk: {rest}"));
    assert_eq!(body, "b\r\n{\"bytes\":2}\r\n", "the answer is whole");
    assert!(refusal.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{rest}");
    assert!(refusal.contains("\"code\":\"BadRequest\""), "{rest}");
    assert!(lasted > 2 * LITTLE, "there was nothing to measure: {lasted:?}");
    assert!(used < LITTLE, "{used:?} of CPU in {lasted:?}");
}

#[test]
fn a_call_that_waits_for_its_replica_with_garbage_behind_it_costs_no_cpu_and_both_are_answered() {
    wait_with_garbage(true);
}

#[test]
fn a_call_that_waits_for_its_replica_when_garbage_comes_costs_no_cpu_and_both_are_answered() {
    wait_with_garbage(false);
}
