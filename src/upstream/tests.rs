//! What comes of an answer's bytes, however they are cut into reads; held against hyper's client, which reads the same.

use std::convert::Infallible;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::config::ReplicaAddress;
use framing::{Framing, Part};

#[derive(Clone)]
struct Held(Rc<Endpoint>);

impl AsRef<Endpoint> for Held {
    fn as_ref(&self) -> &Endpoint {
        &self.0
    }
}

/// A body of parts, each of which comes when it is asked for.
struct Parts(Vec<&'static str>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let part = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        Poll::Ready(part.map(|part| Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes())))))
    }
}

impl Upload for Parts {
    fn take_back(&mut self, _: Bytes) {
        unreachable!("the connection stays");
    }
}

/// What a caller makes of it: status, fields, body; or that there is no whole answer.
type Outcome = Result<(u16, Vec<(String, String)>, Vec<u8>), ()>;

fn request<B>(method: &str, body: B) -> Request<B> {
    let mut request = Request::new(&method.parse().expect("a method"), "/score?a=b", body);
    request.field(&HOST, b"model");
    request.field_by(&HeaderName::from_static("x-a"), |lines| lines.push(b'1'));
    request
}

async fn ask<B: Upload, H: AsRef<Endpoint>>(
    pool: &Rc<Pool>,
    request: Request<B>,
    held: H,
) -> Result<Response<AnswerBody<B, H>>, Failure<B, H>> {
    let mut room = HeaderMap::new();
    // What is in there is of somebody else, and must not show.
    room.insert(HOST, http::HeaderValue::from_static("other"));
    let mut fields = Fields { room: &mut room, is_wanted: |name| *name != "x-unwanted" };
    send(pool, request, &Times::default(), held, CONNECT_TIMEOUT, &mut fields).await
}

async fn replica() -> (TcpListener, Held) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    (listener, Held(Rc::new(Endpoint::new(ReplicaAddress::of(address)).expect("an endpoint"))))
}

/// Reads a request's head and what follows it at once.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut text).await.expect("a request") == 0 {
            break;
        }
    }
    String::from_utf8(text).expect("text")
}

/// Answers one request with `parts`, and closes.
async fn answer(stream: &mut TcpStream, parts: &[Vec<u8>]) {
    read_request(stream).await;
    for part in parts {
        if stream.write_all(part).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    // What the other side still sends must not reset the connection.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn local<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new()
        .block_on(&runtime, async { tokio::time::timeout(Duration::from_secs(10), work).await.expect("it ends") })
}

async fn ours(method: &str, parts: Vec<Vec<u8>>) -> Outcome {
    let (listener, held) = replica().await;
    let serving =
        spawn_local(async move { answer(&mut listener.accept().await.expect("a connection").0, &parts).await });
    let sent = ask(&Rc::default(), request(method, Full::from("1")), held).await;
    let outcome = match sent {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            body.collect().await.map(|body| (head, body.to_bytes())).map_err(drop)
        }
        Err(_) => Err(()),
    };
    drop(serving);
    outcome.map(|(head, body)| (head.status.as_u16(), fields(&head.headers), body.to_vec()))
}

async fn hypers(method: &str, parts: Vec<Vec<u8>>) -> Outcome {
    let request = http::Request::builder().method(method).uri("/score").header(HOST, "model");
    let request = request.body(Full::<Bytes>::from("1")).expect("a request");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let serving =
        spawn_local(async move { answer(&mut listener.accept().await.expect("a connection").0, &parts).await });
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    spawn_local(async move { drop(connection.await) });
    let outcome = match sender.send_request(request).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            body.collect().await.map(|body| (head, body.to_bytes())).map_err(drop)
        }
        Err(_) => Err(()),
    };
    drop(serving);
    outcome.map(|(head, body)| (head.status.as_u16(), fields(&head.headers), body.to_vec()))
}

/// But for those that end at each connection, which are not handed on here and are by hyper.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let ends_here = ["connection", "transfer-encoding", "keep-alive", "trailer"];
    let mut fields: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !ends_here.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    fields.sort();
    fields
}

/// Answers that both read alike.
const ANSWERS: [&str; 16] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\nhello",
    "HTTP/1.1 200 \r\nConnection: close\r\n\r\nuntil it is closed",
    "HTTP/1.0 200 OK\r\n\r\nold",
    "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nold",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\nA \r\n0123456789\r\n000\r\nx: 1\r\ny: 2\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\nx-bytes: \u{e9}\r\n\r\nbad",
    // Not whole.
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "",
];

#[test]
fn answers_are_read_as_hyper_reads_them() {
    for method in ["POST", "HEAD"] {
        for answer in ANSWERS {
            let parts = || vec![answer.as_bytes().to_vec()];
            let (ours, hypers) = local(async { (ours(method, parts()).await, hypers(method, parts()).await) });
            assert_eq!(ours, hypers, "{method} {answer:?}");
        }
    }
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_none() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_eq!(local(ours("POST", vec![answer.as_bytes().to_vec()])), Err(()), "{answer:?}");
    }
}

#[test]
fn heads_and_what_stands_between_chunks_have_limits() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for answer in [
        format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(head::MAX_HEAD)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101)),
        format!("{chunked}1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000)),
        format!("{chunked}{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(70)),
        format!("{chunked}0\r\n{}\r\n", "a: b\r\n".repeat(20_000)),
    ] {
        assert_eq!(local(ours("POST", vec![answer.clone().into_bytes()])), Err(()), "{}", &answer[..60]);
    }
}

#[test]
fn fields_that_connection_names_end_here_but_for_those_that_say_what_it_is() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Private, content-type, close\r\nx-private: 1\r\nContent-Type: a/b\r\n\
                  Keep-Alive: 5\r\nProxy-Authenticate: x\r\nx-kept: 1\r\nX-Unwanted: 1\r\nContent-Length: 0\r\n\r\n";
    let (_, fields, _) = local(ours("POST", vec![answer.as_bytes().to_vec()])).expect("an answer");
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-length", "content-type", "x-kept"]);
}

#[test]
fn requests_are_framed_by_the_body_there_is() {
    let sent = |request: Request<Parts>| {
        local(async {
            let (listener, held) = replica().await;
            let serving = spawn_local(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut text = read_request(&mut stream).await;
                while text.contains("chunked") && !text.ends_with("0\r\n\r\n") {
                    let mut more = [0; 100];
                    let read = stream.read(&mut more).await.expect("more");
                    text.push_str(std::str::from_utf8(&more[..read]).expect("text"));
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("an answer");
                text
            });
            let sent = ask(&Rc::default(), request, held).await;
            assert!(sent.is_ok());
            serving.await.expect("a request")
        })
    };
    assert_eq!(
        sent(request("POST", Parts(vec!["hello", "", " world, and more"]))),
        "POST /score?a=b HTTP/1.1\r\nhost: model\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n10\r\n world, and more\r\n0\r\n\r\n"
    );
    // Of unknown length, although there is nothing: it says so.
    assert!(sent(request("GET", Parts(vec![]))).ends_with("transfer-encoding: chunked\r\n\r\n0\r\n\r\n"));
}

#[test]
fn a_connection_is_used_again_unless_something_is_left_on_it() {
    for (answer, is_kept) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\na", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", false),
    ] {
        let connections = local(async {
            let (listener, held) = replica().await;
            let held = Rc::new(held);
            let serving = spawn_local(async move {
                let (mut connections, mut answered) = (0, 0);
                while answered < 2 {
                    let (mut stream, _) = listener.accept().await.expect("a connection");
                    connections += 1;
                    while answered < 2 && !read_request(&mut stream).await.is_empty() {
                        stream.write_all(answer.as_bytes()).await.expect("an answer");
                        answered += 1;
                    }
                }
                connections
            });
            let pool = Rc::default();
            for _ in 0..2 {
                let held = Shared(Rc::clone(&held));
                let sent = ask(&pool, request("POST", Full::from("1")), held).await;
                assert!(sent.ok().expect("an answer").into_body().collect().await.is_ok(), "{answer:?}");
            }
            serving.await.expect("two requests")
        });
        assert_eq!(connections, if is_kept { 1 } else { 2 }, "{answer:?}");
    }
}

struct Shared(Rc<Held>);

impl AsRef<Endpoint> for Shared {
    fn as_ref(&self) -> &Endpoint {
        self.0.as_ref().as_ref()
    }
}

#[test]
fn an_answer_that_comes_before_the_request_is_whole_is_read_to_its_end() {
    let outcome = local(async {
        let (listener, held) = replica().await;
        let serving = spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut some = [0; 1000];
            assert!(stream.read(&mut some).await.expect("some of it") > 0);
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.expect("an answer");
            stream.shutdown().await.expect("closed");
            stream
        });
        // More than the sockets hold.
        let body = Full::<Bytes>::from(vec![0; 32 << 20]);
        let answer = ask(&Rc::default(), request("POST", body), held).await;
        let answer = answer.ok().expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        drop(serving.await);
        (status.as_u16(), body)
    });
    assert_eq!(outcome, (413, Bytes::from("big")));
}

/// Connections that two requests took, the first of which was answered with `answer`, and `after` it was read the replica
/// does something that the runtime does not hear of.
fn connections(answer: &'static str, after: fn(&std::net::TcpStream)) -> usize {
    local(async {
        let (listener, held) = replica().await;
        let accepted = Rc::new(Cell::new(0));
        let (count, last) = (Rc::clone(&accepted), Rc::new(Cell::new(None)));
        let kept = Rc::clone(&last);
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                count.set(count.get() + 1);
                let kept = Rc::clone(&kept);
                spawn_local(async move {
                    while !read_request(&mut stream).await.is_empty() {
                        stream.write_all(answer.as_bytes()).await.expect("sent");
                        let stream = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned().expect("a descriptor");
                        kept.set(Some(std::net::TcpStream::from(stream)));
                    }
                });
            }
        });
        let pool = Rc::default();
        for _ in 0..2 {
            let answer = ask(&pool, request("POST", Full::from("1")), held.clone()).await.ok().expect("an answer");
            let _ = answer.into_body().collect().await;
            after(&last.take().expect("the connection"));
        }
        accepted.get()
    })
}

#[test]
fn a_connection_is_used_again_only_if_nothing_came_over_it_since() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(connections(ANSWER, |_| {}), 1);
    // The next request would take the second answer for its own.
    let again = |mut stream: &std::net::TcpStream| io::Write::write_all(&mut stream, ANSWER.as_bytes()).expect("sent");
    assert_eq!(connections(ANSWER, again), 2);
    assert_eq!(connections(ANSWER, |stream| stream.shutdown(std::net::Shutdown::Both).expect("closed")), 2);
}

#[test]
fn a_connection_whose_answer_broke_is_not_used_again() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n\r\n0\r\n\r\n";
    assert_eq!(connections(broken, |_| {}), 2);
}

#[test]
fn the_length_is_told_once_and_only_where_there_is_one() {
    let lengths = |answer: &str| {
        let (_, fields, _) = local(ours("POST", vec![answer.as_bytes().to_vec()])).expect("an answer");
        fields.into_iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(lengths("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"), ["2"]);
    assert_eq!(lengths("HTTP/1.1 200 OK\r\nContent-Length: 02, 2\r\n\r\nok"), ["2"]);
    assert!(lengths("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n").is_empty());
    assert!(lengths("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").is_empty());
}

#[test]
fn more_options_of_the_connection_than_fields_are_too_many() {
    let answer = |options: usize| {
        let options = vec!["a"; options].join(",");
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: {options}\r\nContent-Length: 2\r\n\r\nok");
        local(ours("POST", vec![answer.into_bytes()]))
    };
    assert!(answer(100).is_ok());
    assert!(answer(101).is_err());
}

#[test]
fn a_request_is_handed_back_whole_if_nothing_of_it_was_sent() {
    let failure = local(async {
        let (listener, held) = replica().await;
        drop(listener);
        ask(&Rc::default(), request("POST", Full::from("hello")), held).await
    });
    let Err(Failure::Unsent { body, cause: ConnectError::Io(_), .. }) = failure else { panic!("it was sent") };
    assert_eq!(body.size_hint().exact(), Some(5));
}

/// A body of chunks, cut anyhow.
fn chunked(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        text.extend_from_slice(part);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

/// Everything that comes of `text`, read in pieces of these sizes, and how it ended.
fn taken(mut framing: Framing, text: &[u8], cuts: &[usize]) -> (Vec<u8>, Result<bool, ()>) {
    let (mut read, mut data, mut at) = (BytesMut::new(), Vec::new(), 0);
    let mut cuts = cuts.iter().copied().cycle();
    loop {
        match framing.take(&mut read) {
            Ok(Part::Data(part)) => {
                assert!(!part.is_empty());
                data.extend_from_slice(&part);
            }
            Ok(Part::End) => return (data, Ok(true)),
            Ok(Part::More(known)) => {
                assert!(known == 0 || framing.left() == Some(known) || matches!(framing, Framing::Chunked { .. }));
                let end = (at + cuts.next().unwrap_or(1)).min(text.len());
                if at == end {
                    return (data, Ok(framing.may_end_here()));
                }
                read.extend_from_slice(&text[at..end]);
                at = end;
            }
            Err(_) => return (data, Err(())),
        }
    }
}

proptest! {
    #[test]
    fn chunks_are_the_same_however_they_are_cut(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(1usize..20, 1..20),
    ) {
        let mut text = chunked(&parts);
        match flip {
            None => {
                prop_assert_eq!(taken(Framing::chunked(), &text, &cuts), (parts.concat(), Ok(true)));
            }
            // Whatever else it is, it is the same thing in one piece.
            Some((at, byte)) => {
                let at = at.index(text.len());
                text[at] = byte;
                let whole = taken(Framing::chunked(), &text, &[text.len()]);
                prop_assert_eq!(taken(Framing::chunked(), &text, &cuts), whole);
            }
        }
    }

    #[test]
    fn a_length_ends_where_it_says(
        text in prop::collection::vec(any::<u8>(), 0..100),
        length in 0usize..120,
        cuts in prop::collection::vec(1usize..20, 1..20),
    ) {
        let there = text.len().min(length);
        let expected = (text[..there].to_vec(), Ok(length <= text.len()));
        prop_assert_eq!(taken(Framing::Length(length as u64), &text, &cuts), expected);
        prop_assert_eq!(taken(Framing::UntilClosed, &text, &cuts), (text, Ok(true)));
    }

    /// Cut anyhow, an answer is what it is in one piece.
    #[test]
    fn answers_are_the_same_however_they_are_cut(which in 0..ANSWERS.len(), cuts in prop::collection::vec(1usize..60, 1..8)) {
        let mut rest = ANSWERS[which].as_bytes();
        let mut parts = Vec::new();
        for cut in cuts {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            parts.push(part.to_vec());
            rest = after;
        }
        parts.push(rest.to_vec());
        let whole = local(ours("POST", vec![ANSWERS[which].as_bytes().to_vec()]));
        prop_assert_eq!(local(ours("POST", parts)), whole);
    }
}
