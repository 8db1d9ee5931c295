//! HTTP/1 framing, byte by byte: what two readers could read as two different messages is refused, and nothing of it
//! reaches a replica (RFC 9112 section 11.2).

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

use crate::support::{CNAME, Environment, Front, Gate, Replica, SCORE, Step, Wire, get, ok, score};

fn head(fields: &str) -> String {
    format!("POST {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\n{fields}\r\n")
}

const GOOD: &str =
    "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: scoring.example.com\r\nContent-Length: 4\r\n\r\ngood";

/// Checks that the connection ends after one answer with this code.
async fn assert_refused(front: &Front, bytes: &str, status: u16, message: &str) {
    let mut wire = front.wire().await;
    wire.send(bytes).await;
    let code = if status == 431 { "HeadersTooLarge" } else { "BadRequest" };
    let reply = wire.try_reply().await.unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert_eq!(reply.refusal(), (status, code.to_owned()), "{bytes:?}");
    reply.assert_refusal(status, code, message);
    assert_eq!(reply.field("connection"), Some("close"), "{bytes:?}");
    assert!(reply.field("date").is_some(), "{bytes:?}");
    wire.closed().await;
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let length = "Content-Length is not one decimal number.";
    let encoding = "Transfer-Encoding is not chunked alone, or the request is HTTP/1.0.";
    let field = "A header field is malformed.";
    let line_feed = "A line ends with a line feed alone; HTTP/1.1 lines end with CR LF.";
    for (bytes, message) in [
        (
            head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            "The request body is announced twice, by Content-Length and Transfer-Encoding.",
        ),
        (head("Content-Length: 4\r\nContent-Length: 4\r\n") + "good", length),
        (head("Content-Length: 4\r\nContent-Length: 5\r\n") + "good", length),
        (head("Content-Length: 4, 4\r\n") + "good", length),
        (head("Content-Length: +4\r\n") + "good", length),
        (head("Content-Length: 0x4\r\n") + "good", length),
        (head("Content-Length: 4 4\r\n") + "good", length),
        (head("Content-Length:\r\n") + "good", length),
        (head("Content-Length: 18446744073709551616\r\n") + "good", length),
        (head("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n", encoding),
        (head("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n", encoding),
        (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", encoding),
        (head("Transfer-Encoding: identity\r\n"), encoding),
        (head("Transfer-Encoding: xchunked\r\n"), encoding),
        (head("Transfer-Encoding: \"chunked\"\r\n"), encoding),
        (head("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"), encoding),
        (head("Transfer-Encoding: \u{b}chunked\r\n"), field),
        (head("X: 1\nY: 2\r\n"), line_feed),
        (head("X: 1\r\n folded\r\n"), field),
        (head("X: 1\r\n\tfolded\r\n"), field),
        (head("Content-Length : 4\r\n") + "good", field),
        (head("Content-Length\t: 4\r\n") + "good", field),
        (head("X\u{0}: 1\r\n"), field),
        (head("X: 1\u{0}\r\n"), field),
        (head("X: 1\u{1b}\r\n"), field),
        (head("X: 1\rContent-Length: 4\r\n"), field),
        (head("X: 1\u{7f}\r\n"), field),
        (head("no colon\r\n"), field),
        (head(": no name\r\n"), field),
        (head("X(1): 1\r\n"), field),
    ] {
        assert_refused(&front, &bytes, 400, message).await;
    }
    assert_eq!(replica.state().connections, 0);
}

#[tokio::test]
async fn request_lines_that_can_be_read_in_two_ways_are_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let line = "The request line is malformed.";
    let line_feed = "A line ends with a line feed alone; HTTP/1.1 lines end with CR LF.";
    let version = "The HTTP version is not 1.0 or 1.1; use ALPN h2 for HTTP/2.";
    for (bytes, message) in [
        (GOOD.replace("\r\n", "\n"), line_feed),
        (head("").replace("HTTP/1.1", "HTTP/1.2"), version),
        (head("").replace("HTTP/1.1", "HTTP/2.0"), version),
        (head("").replace("HTTP/1.1", "http/1.1"), version),
        (head("").replace("HTTP/1.1", "HTTP/1.1 "), line),
        (head("").replace("POST ", "POST  "), line),
        (head("").replace("POST ", "POST\t"), line),
        (head("").replace("POST ", " POST "), line),
        (head("").replace("POST ", "PO(ST "), line),
        (head("").replace("/score", "/sc\u{e9}re"), line),
        (head("").replace("/score", "/sc\u{1}re"), line),
    ] {
        assert_refused(&front, &bytes, 400, message).await;
    }
    assert_eq!(replica.state().connections, 0);
}

#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways_are_refused_and_look_whole_to_no_replica() {
    let replica = Replica::start([Step::ReadBody, ok("whole")]);
    let front = Environment::iris(&[&replica]).start();
    for chunks in [
        " 4\r\ngood\r\n0\r\n\r\n",
        "4 \r\ngood\r\n0\r\n\r\n",
        "4\t\r\ngood\r\n0\r\n\r\n",
        "0x4\r\ngood\r\n0\r\n\r\n",
        "+4\r\ngood\r\n0\r\n\r\n",
        "-4\r\ngood\r\n0\r\n\r\n",
        "\r\ngood\r\n0\r\n\r\n",
        "g\r\n",
        "00000000000000004\r\ngood\r\n0\r\n\r\n",
        "10000000000000000\r\n",
        "4\ngood\n0\n\n",
        "4\r\ngood0\r\n\r\n",
        "4\r\ngood\n0\r\n\r\n",
        "4\r\ngoods\r\n0\r\n\r\n",
        "3\r\ngood\r\n0\r\n\r\n",
        "4;\r\ngood\r\n0\r\n\r\n",
        "4;=x\r\ngood\r\n0\r\n\r\n",
        "4; a=b\r\ngood\r\n0\r\n\r\n",
        "4;a=\"b\r\ngood\r\n0\r\n\r\n",
        "4;a=b\n\r\ngood\r\n0\r\n\r\n",
        "4;a\u{0}\r\ngood\r\n0\r\n\r\n",
    ] {
        let bytes = head("Transfer-Encoding: chunked\r\n") + chunks;
        let mut wire = front.wire().await;
        let reply = wire.ask(&bytes).await;
        reply.assert_refusal(400, "BadRequest", "The request body is malformed or broke off.");
        wire.closed().await;
    }
    replica.is_free().await;
    assert_eq!(replica.state().sent, 0, "no request was whole");
}

#[tokio::test]
async fn trailers_that_can_be_read_in_two_ways_are_refused_at_once() {
    let replica = Replica::start([Step::ReadBody, ok("whole")]);
    let front = Environment::iris(&[&replica]).start();
    for trailers in ["X : 1\r\n\r\n", "X: 1\n\n", " X: 1\r\n\r\n", "X: 1\r\n folded\r\n\r\n", "no colon\r\n\r\n"] {
        let bytes = head("Transfer-Encoding: chunked\r\n") + "4\r\ngood\r\n0\r\n" + trailers;
        let mut wire = front.wire().await;
        assert_eq!(wire.ask(&bytes).await.refusal(), (400, "BadRequest".to_owned()), "{trailers:?}");
        wire.closed().await;
    }
    replica.is_free().await;
    assert_eq!(replica.state().sent, 0, "no request was whole");
}

#[tokio::test]
async fn chunk_extensions_are_read_over_and_a_flood_of_them_is_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let reply = front.wire().await.ask(chunked.clone() + "4;a;b=c;d=\"e\\\"f\"\r\ngood\r\n0\r\n\r\n").await;
    assert_eq!(reply.text(), "good");
    let flood = chunked + &format!("4;a={}\r\ngood\r\n0\r\n\r\n", "x".repeat(10_000));
    let reply = front.wire().await.ask(flood).await;
    assert_eq!(reply.refusal(), (400, "BadRequest".to_owned()));
}

#[tokio::test]
async fn too_many_fields_are_refused_with_the_limit() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    // Host is one of them.
    let reply = front.wire().await.ask(head(&"X: 1\r\n".repeat(99))).await;
    assert_eq!(reply.status, 200);
    let message = "The request has more than the limit of 100 header fields.";
    assert_refused(&front, &head(&"X: 1\r\n".repeat(100)), 431, message).await;
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn too_many_fields_over_http_2_are_refused_with_the_limit_too() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http2().await;
    let with_fields = |fields: usize, names: usize| {
        let mut request = get(SCORE);
        for field in 0..fields {
            let name: http::HeaderName = format!("x-{}", field % names).parse().expect("a name");
            request.headers_mut().append(name, http::HeaderValue::from_static("1"));
        }
        request
    };
    let message = "The request has more than the limit of 100 header fields.";
    for (fields, names) in [(101, 1), (101, 101), (901, 1), (901, 901)] {
        let reply = caller.call(with_fields(fields, names)).await;
        reply.assert_refusal(431, "HeadersTooLarge", message);
    }
    assert_eq!(replica.state().connections, 0);
    assert_eq!(caller.call(with_fields(100, 1)).await.status, 200, "the connection goes on");
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_with_the_limit() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let message = "The request head is larger than the limit of 65536 bytes.";
    let (name, value) = (head(&format!("X: {}\r\n", "x".repeat(65 * 1024))), "x".repeat(65 * 1024));
    assert_refused(&front, &name, 431, message).await;
    assert_refused(&front, &head("").replace("/score", &format!("/score/{value}")), 431, message).await;
    // One that never ends.
    assert_refused(&front, &head(&format!("X: {value}"))[..66_000], 431, message).await;
    let reply = front.wire().await.ask(head(&format!("X: {}\r\n", "x".repeat(60 * 1024)))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_stops_at_the_limit_is_late_and_told_so_in_our_own_words() {
    let front = Environment::new().cname(CNAME).set("limits", "header_read_timeout = '500ms'").start();
    let mut wire = front.wire().await;
    wire.send(&head(&format!("X: {}\r\n", "x".repeat(65_536)))[..65_536]).await;
    wire.reply().await.assert_refusal(408, "RequestTimeout", "The request head did not arrive in time.");
}

#[tokio::test]
async fn an_http_2_head_that_is_too_large_is_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http2().await;
    // HTTP/2's own library says it, without a body.
    assert_eq!(caller.call(score(&[("x", &"x".repeat(65 * 1024))])).await.status, 431);
    assert_eq!(caller.call(score(&[("x", &"x".repeat(60 * 1024))])).await.status, 200);
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn what_came_before_a_bad_request_is_answered_before_it_is_refused() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("good")]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    let bad = head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
    wire.send(format!("{GOOD}{bad}0\r\n\r\n")).await;
    replica.saw(1).await;
    gate.open();
    assert_eq!(wire.reply().await.text(), "good");
    assert_eq!(wire.reply().await.refusal(), (400, "BadRequest".to_owned()));
    wire.closed().await;
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_order() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    let chunked = head("Transfer-Encoding: chunked\r\n") + "3\r\ntwo\r\n0\r\n\r\n";
    wire.send(GOOD.to_owned() + &chunked + &GOOD.replace("good", "last")).await;
    for expected in ["good", "two", "last"] {
        assert_eq!(wire.reply().await.text(), expected);
    }
    wire.post("Content-Length: 5\r\nConnection: close\r\n", "again").await;
    let reply = wire.reply().await;
    assert_eq!((reply.text(), reply.field("connection")), ("again", Some("close")));
    wire.closed().await;
}

#[tokio::test]
async fn a_body_in_a_pipeline_may_be_larger_than_what_is_read_at_once() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for length in [9_000, 20_000, 100_000] {
        let mut wire = front.wire().await;
        let large = "x".repeat(length);
        let between = head(&format!("Content-Length: {length}\r\n")) + &large;
        // What is held back of it must come through before its answer, not behind it.
        wire.send(GOOD.to_owned() + &between + GOOD).await;
        for expected in ["good", &large, "good"] {
            assert_eq!(wire.reply().await.text(), expected);
        }
    }
}

#[tokio::test]
async fn nothing_is_said_in_the_middle_of_an_answer_that_broke_off() {
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 280\r\n\r\n{\"prediction\": [";
    let replica = Replica::start([Step::ReadBody, Step::Send(part.as_bytes().to_vec()), Step::Close]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    // Of itself the second one would be answered with 400, and the caller would read that as the rest of the first answer.
    wire.send(GOOD.to_owned() + "no request\r\n\r\n").await;
    let said = String::from_utf8(wire.rest().await.unwrap_or_default()).expect("text");
    assert!(said.ends_with("{\"prediction\": ["), "{said}");
}

#[tokio::test]
async fn requests_in_a_pipeline_that_need_no_replica_are_answered_in_order_before_one_that_does() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let unknown = |name: &str, body: &str| {
        let length = body.len();
        format!("POST /api/v1/service/{name}/score HTTP/1.1\r\nHost: {CNAME}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    // Bodies that nobody wants must not get in the way of what follows; those without one end at their heads.
    for body in ["", "four"] {
        let mut wire = front.wire().await;
        wire.send(["rose", "lily", "tulip"].map(|name| unknown(name, body)).concat() + GOOD).await;
        for name in ["rose", "lily", "tulip"] {
            let reply = wire.reply().await;
            reply.assert_refusal(404, "ServiceNotFound", &format!("No such service: {name}."));
            assert_eq!(reply.field("connection"), None);
        }
        assert_eq!(wire.reply().await.text(), "good");
    }
    assert_eq!(replica.requests().len(), 2);
}

#[tokio::test]
async fn what_begins_like_no_request_is_refused_before_its_line_ends() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for garbage in ["{\"data\": ", "\u{16}\u{3}\u{1}", " GET /", "\r\n:"] {
        assert_refused(&front, garbage, 400, "The request line is malformed.").await;
    }
    // So is what is left of a body that is longer than it was said to be.
    let mut wire = front.wire().await;
    wire.send(GOOD.to_owned() + "}").await;
    assert_eq!(wire.reply().await.text(), "good");
    wire.reply().await.assert_refusal(400, "BadRequest", "The request line is malformed.");
    wire.closed().await;
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open_if_all_of_the_request_has_come() {
    let front = Environment::new().cname(CNAME).start();
    let mut wire = front.wire().await;
    for framed in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"] {
        let reply = wire.ask(format!("POST /nowhere HTTP/1.1\r\nHost: {CNAME}\r\n{framed}")).await;
        assert_eq!((reply.status, reply.field("connection")), (404, None), "{framed:?}");
    }
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte_and_after_empty_lines() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.send("\r\n\r\n").await;
    for byte in GOOD.bytes() {
        wire.send([byte]).await;
    }
    assert_eq!(wire.reply().await.text(), "good");
}

#[tokio::test]
async fn trailers_end_at_the_front_end_in_both_directions() {
    let replica = Replica::start([
        Step::ReadBody,
        Step::Send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: 1\r\n\r\n".to_vec(),
        ),
    ]);
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    for _ in 0..2 {
        wire.post("Transfer-Encoding: chunked\r\nTrailer: X\r\n", "4\r\ngood\r\n0\r\nX: 1\r\nAuthorization: x\r\n\r\n")
            .await;
        // The stub fails on trailers, and so does the reader of this answer.
        let reply = wire.reply().await;
        assert_eq!((reply.text(), reply.field("trailer")), ("hi", None));
    }
    assert_eq!(replica.requests().len(), 2);
}

#[tokio::test]
async fn a_caller_is_told_to_go_on_only_when_its_body_is_wanted() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).table("[[service]]\nname = 'keyed'\nauth = true\nprimary_key_sha256 = '0000000000000000000000000000000000000000000000000000000000000000'\nreplicas = ['http://127.0.0.1:1']").start();
    let mut wire = front.wire().await;
    wire.post("Expect: 100-continue\r\nContent-Length: 4\r\n", "").await;
    assert_eq!(wire.reply().await.status, 100);
    replica.saw(1).await;
    let reply = wire.ask("good").await;
    assert_eq!((reply.status, reply.text()), (200, "good"));
    assert_eq!(replica.only_request().field("expect"), None);

    let mut refused = front.wire().await;
    let head = head("Expect: 100-continue\r\nContent-Length: 4\r\n").replace("iris", "keyed");
    assert_eq!(refused.ask(head).await.status, 401, "and no 100 before it");
    refused.closed().await;
}

#[tokio::test]
async fn a_caller_is_not_told_to_go_on_when_no_replica_can_be_reached() {
    let replica = Replica::refusing();
    let front = Environment::iris(&[&replica]).start();
    let mut wire = front.wire().await;
    wire.post("Expect: 100-continue\r\nContent-Length: 4\r\n", "").await;
    assert_eq!(wire.reply().await.status, 503);
}

/// What a strict reader makes of a connection's bytes: `(target, body)` of each whole request up to the first that is
/// not in order. It knows nothing the front end does not have to obey.
fn read_strictly(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    while let Some(request) = read_one(&mut bytes) {
        requests.push(request);
    }
    requests
}

fn read_one(bytes: &mut &[u8]) -> Option<(String, Vec<u8>)> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        *bytes = rest;
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    *bytes = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let [_, target, "HTTP/1.0" | "HTTP/1.1"] = lines.next()?.split(' ').collect::<Vec<_>>()[..] else { return None };
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        match &*name.to_ascii_lowercase() {
            "content-length" => length = Some(value.parse().ok().filter(|_| length.is_none())?),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") && !chunked => chunked = true,
            "transfer-encoding" => return None,
            _ if line.contains(['\r', '\n', '\0']) || name.contains([' ', '\t']) => return None,
            _ => {}
        }
    }
    let body = match (length, chunked) {
        (Some(_), true) => return None,
        (length, false) => take(bytes, length.unwrap_or(0))?.to_vec(),
        (None, true) => read_chunks(bytes)?,
    };
    Some((target.to_owned(), body))
}

fn read_chunks(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let line = str::from_utf8(take(bytes, end + 2)?).ok()?;
        let size = line.trim_end().split(';').next()?;
        let size =
            usize::from_str_radix(size, 16).ok().filter(|_| size.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(take(bytes, size)?);
        take(bytes, 2).filter(|end| end == b"\r\n")?;
    }
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        if take(bytes, end + 2)?.len() == 2 {
            return Some(body);
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Two requests that hide a third in their bodies, after a few bytes were cut out, put in or replaced.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let hidden = "POST /api/v1/service/iris/score/hidden HTTP/1.1\r\nHost: scoring.example.com\r\n\r\n";
    let first = format!("{}{hidden}", head(&format!("Content-Length: {}\r\n", hidden.len())));
    let second = format!("{}{:x}\r\n{hidden}\r\n0\r\n\r\n", head("Transfer-Encoding: chunked\r\n"), hidden.len());
    let text = (first + &second).into_bytes();
    let piece = prop::sample::select(vec![
        "",
        "\r",
        "\n",
        "\r\n",
        " ",
        "\t",
        "\0",
        ":",
        ";",
        "0",
        "1",
        "f",
        ",",
        "\r\n ",
        "\r\n\r\n",
        "chunked",
        "0\r\n\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "\u{b}",
        "+",
        "\u{a0}",
    ]);
    prop::collection::vec((0..text.len(), 0..4usize, piece), 1..4).prop_map(move |edits| {
        let mut text = text.clone();
        for (at, cut, piece) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.bytes());
        }
        text
    })
}

#[tokio::test]
async fn a_replica_sees_no_request_that_a_strict_reader_would_not() {
    const CASES: usize = 400;
    let replica = Replica::echo();
    let front = Environment::new()
        .set("tls", "status = 'Disabled'")
        .set("limits", "header_read_timeout = '300ms'\nidle_timeout = '300ms'")
        .set("defaults", "scoring_timeout = '300ms'")
        .without_permits()
        .service("iris", &[&replica], "")
        .start();
    let mut runner = TestRunner::deterministic();
    let cases: Vec<_> = (0..CASES).map(|_| mutated().new_tree(&mut runner).expect("a case").current()).collect();

    let mut connections = JoinSet::new();
    for case in cases.clone() {
        let mut wire: Wire = front.plain().await;
        connections.spawn(async move {
            let _ = wire.try_send(case).await;
            wire.gone().await;
        });
    }
    connections.join_all().await;

    let strict: HashSet<_> = cases.iter().flat_map(|case| read_strictly(case)).collect();
    let seen = replica.requests();
    let whole: Vec<_> = seen.into_iter().filter(|seen| seen.whole).collect();
    assert!(whole.len() > CASES / 4, "many mutations are harmless to one of the two: {}", whole.len());
    for seen in whole {
        let below = seen.line().split(' ').nth(1).expect("a target").strip_prefix("/score").expect("the path");
        let request = (format!("{SCORE}{below}"), seen.body);
        assert!(strict.contains(&request), "{request:?}");
    }
}
