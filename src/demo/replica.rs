//! The demo's replica: the iris model behind the protocol of `azureml-inference-server-http` 1.5.1 (`azmlinfsrv`), so
//! that the demo's front end talks to what it would talk to in a cluster: the same paths, ids, headers and words.
//!
//! It is a model server, not a proxy. It must not know the front end, and must not lean on it: limits and timeouts
//! of its own keep it standing when anyone at all connects.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, time::Duration, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{iris, swagger};

/// Enough for every thread of a front end on one machine; the ones beyond wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 256;
/// What `accept` waits after an error: out of file descriptors, for one, it would else fail again at once, for ever.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// hyper starts this clock when a connection falls idle, so it bounds keep-alive too. It is longer than callers
/// commonly keep idle connections: the side that sends requests should be the one that closes.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// Ample for [`MAX_BODY`] over any link; a caller that stalls must not keep its connection for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Some 50 000 flowers.
const MAX_BODY: usize = 1024 * 1024;
/// azmlinfsrv's limit for an id, in bytes.
const MAX_ID: usize = 100;

const SERVER_VERSION: &str = concat!("scorefront-demo/", env!("CARGO_PKG_VERSION"));
const EXPECTED: &str = concat!(
    r#"Expected {"data": [[5.1, 3.5, 1.4, 0.2], ...]}: for each flower four numbers, "#,
    "sepal length, sepal width, petal length and petal width in cm"
);

/// A bound scoring server that does not answer yet.
#[derive(Debug)]
pub struct Replica {
    listener: TcpListener,
    /// [`MAX_CONNECTIONS`], but in tests.
    max_connections: usize,
}

impl Replica {
    /// Listens on `addr`; port 0 takes a free one, which [`Replica::local_addr`] tells.
    pub async fn bind(addr: SocketAddr) -> io::Result<Replica> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Replica { listener, max_connections: MAX_CONNECTIONS })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is ready. When it returns, the listener and every connection are closed.
    ///
    /// Needs a tokio runtime with I/O and time enabled, of any flavour.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < self.max_connections => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(converse(stream))),
                    Err(error) => {
                        tracing::warn!(%error, "the demo replica could not accept a connection");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }
}

/// One connection, request by request. How it ends is the caller's affair: nobody here could do anything about it.
async fn converse(stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return; // It is closed already.
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the demo replica ended early");
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let mut ids = Ids::default();
    let checked = ids.read(request.headers());
    let answered = match checked {
        Ok(()) => route(request).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(Refusal::into_answer);
    let headers = response.headers_mut();
    headers.insert("x-ms-server-version", HeaderValue::from_static(SERVER_VERSION));
    ids.write(headers);
    Ok(response)
}

async fn route(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => Ok(text("Healthy")),
        (&Method::GET | &Method::HEAD, "/swagger.json") => describe(parameter(query, "version").as_deref()),
        (&Method::POST, "/score") => score(serde_json::from_slice(&read_body(request.into_body()).await?)),
        (&Method::GET, "/score") => {
            let data = parameter(query, "data").unwrap_or_default();
            score(serde_json::from_slice(&data).map(|data| Input { data }))
        }
        (&Method::OPTIONS, "/score") => Ok(not_failed(text(""))),
        (_, "/score") => Err(Refusal::method("GET, OPTIONS, POST")),
        (_, "/" | "/swagger.json") => Err(Refusal::method("GET, HEAD")),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "The requested URL was not found on the server.")),
    }
}

/// What `/score` takes.
#[derive(Deserialize)]
struct Input {
    data: Vec<[f64; 4]>,
}

fn score(input: serde_json::Result<Input>) -> Result<Answer, Refusal> {
    let Input { data } =
        input.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("{EXPECTED}; got {error}.")))?;
    let started = Instant::now();
    let predictions = data.into_iter().map(predict).collect();
    let took = started.elapsed();
    let mut answer = json(StatusCode::OK, &Value::Array(predictions));
    if let Ok(took) = HeaderValue::try_from(format!("{:.3}", took.as_secs_f64() * 1e3)) {
        answer.headers_mut().insert("x-ms-run-fn-exec-ms", took);
    }
    Ok(answer)
}

fn predict(flower: [f64; 4]) -> Value {
    let iris::Prediction { class, probability } = iris::classify(flower);
    json!({ "class": class, "probability": (probability * 1e4).round() / 1e4 })
}

async fn read_body(body: Incoming) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body must not exceed {MAX_BODY} bytes."));
    // Before the first byte is asked for, so that `Expect: 100-continue` is answered 413 and never 100.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("The body could not be read: {error}."))),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs()),
        )),
    }
}

/// The first value of `name` in a query string, its `%XX` and `+` decoded. A `%` that opens no escape stays itself.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
    let mut pieces = value.split('%');
    let plain = |piece: &str| piece.replace('+', " ").into_bytes();
    let mut decoded = plain(pieces.next()?);
    for piece in pieces {
        match piece.split_at_checked(2).and_then(|(hex, rest)| Some((hex_byte(hex)?, rest))) {
            Some((byte, rest)) => {
                decoded.push(byte);
                decoded.extend(plain(rest));
            }
            None => {
                decoded.push(b'%');
                decoded.extend(plain(piece));
            }
        }
    }
    Some(decoded)
}

fn hex_byte(digits: &str) -> Option<u8> {
    // `from_str_radix` alone takes a sign too.
    let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| hex)
}

/// The ids of one request as its response carries them, by azmlinfsrv's rules.
#[derive(Default)]
struct Ids {
    request: Option<HeaderValue>,
    client: Option<HeaderValue>,
    /// `x-ms-request-id` names the call in an answer but, being deprecated, the *caller's* id in a request.
    ms: Option<HeaderValue>,
    trace: Option<HeaderValue>,
}

impl Ids {
    /// Takes what is fit to be sent back; after an error that is what came before the id at fault.
    fn read(&mut self, headers: &HeaderMap) -> Result<(), Refusal> {
        let id = |name| headers.get(name).filter(|value| !value.is_empty()).cloned();
        let fits = |id: &Option<HeaderValue>| id.as_ref().is_none_or(|id| id.len() <= MAX_ID);
        let too_long = |names| {
            let message = format!("{names} must not exceed {MAX_ID} characters");
            Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        };

        self.trace = headers.get("traceid").cloned();
        let request = id("x-request-id").or_else(new_id);
        if !fits(&request) {
            return Err(too_long("x-request-id"));
        }
        self.request = request;

        let deprecated = id("x-ms-request-id");
        let client = id("x-ms-client-request-id").or_else(|| deprecated.clone());
        let ms = deprecated.or_else(|| client.clone()).or_else(|| self.request.clone());
        if !fits(&client) || !fits(&ms) {
            return Err(too_long("x-ms-request-id and x-ms-client-request-id"));
        }
        (self.client, self.ms) = (client, ms);
        Ok(())
    }

    fn write(self, headers: &mut HeaderMap) {
        let Ids { request, client, ms, trace } = self;
        for (name, id) in
            [("x-request-id", request), ("x-ms-request-id", ms), ("x-ms-client-request-id", client), ("traceid", trace)]
        {
            if let Some(id) = id {
                headers.insert(name, id);
            }
        }
    }
}

/// A version 4 UUID. Its bits need only differ from one call to the next, not be secret.
fn new_id() -> Option<HeaderValue> {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    HeaderValue::try_from(id.to_string()).ok()
}

/// Why a request gets no prediction, in the words its caller reads.
struct Refusal {
    status: StatusCode,
    message: String,
    allow: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into(), allow: None }
    }

    fn method(allow: &'static str) -> Self {
        let message = "The method is not allowed for the requested URL.";
        Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    fn into_answer(self) -> Answer {
        let mut answer = json(self.status, &json!({ "message": self.message }));
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

fn text(body: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}

fn json(status: StatusCode, body: &Value) -> Answer {
    let mut answer = not_failed(Response::new(Full::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// azmlinfsrv says on all but the health answer whether the model failed. This one cannot, and a refusal is no failure.
fn not_failed(mut answer: Answer) -> Answer {
    answer.headers_mut().insert("x-ms-run-function-failed", HeaderValue::from_static("False"));
    answer
}

/// The API description; Swagger 2 when no version is named.
fn describe(version: Option<&[u8]>) -> Result<Answer, Refusal> {
    let version = String::from_utf8_lossy(version.unwrap_or(b"2"));
    match swagger::document(&version) {
        Some(document) => Ok(json(StatusCode::OK, &document)),
        None => {
            let message = format!("Swagger version [{version}] is not valid. Supported versions: [2, 3, 3.1].");
            Err(Refusal::new(StatusCode::NOT_FOUND, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;

    /// A replica that serves until told to stop, or the test ends.
    struct Running {
        addr: SocketAddr,
        stop: oneshot::Sender<()>,
        served: JoinHandle<()>,
    }

    impl Running {
        async fn start() -> Running {
            Running::start_with(MAX_CONNECTIONS).await
        }

        async fn start_with(max_connections: usize) -> Running {
            let bound = Replica::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
            let replica = Replica { max_connections, ..bound };
            let addr = replica.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel();
            let served = tokio::spawn(replica.serve(async { drop(stopped.await) }));
            Running { addr, stop, served }
        }

        async fn connect(&self) -> Client {
            Client(TcpStream::connect(self.addr).await.unwrap())
        }

        /// One request on a connection of its own.
        async fn call(&self, request: &str) -> Reply {
            self.connect().await.call(request).await
        }
    }

    struct Client(TcpStream);

    impl Client {
        async fn call(&mut self, request: &str) -> Reply {
            self.0.write_all(request.as_bytes()).await.unwrap();
            self.reply().await
        }

        async fn reply(&mut self) -> Reply {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let mut reply = Reply { head: String::from_utf8(head).unwrap(), body: String::new() };
            let length = reply.header("content-length").unwrap_or("0").parse().unwrap();
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            reply.body = String::from_utf8(body).unwrap();
            reply
        }

        /// Whether the replica has closed, or reset, the connection.
        async fn is_closed(&mut self) -> bool {
            matches!(self.0.read(&mut [0]).await, Ok(0) | Err(_))
        }
    }

    struct Reply {
        head: String,
        body: String,
    }

    impl Reply {
        fn status(&self) -> &str {
            &self.head["HTTP/1.1 ".len()..][..3]
        }

        fn header(&self, name: &str) -> Option<&str> {
            self.head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, v)| v)
        }

        fn json(&self) -> Value {
            assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
            serde_json::from_str(&self.body).unwrap()
        }

        fn message(&self) -> String {
            self.json()["message"].as_str().unwrap().to_owned()
        }
    }

    fn get(target: &str) -> String {
        with_headers(target, "")
    }

    fn with_headers(target: &str, headers: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nhost: replica\r\n{headers}\r\n")
    }

    fn post(body: &str) -> String {
        format!("POST /score HTTP/1.1\r\nhost: replica\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    const THREE: &str = r#"{"data": [[5.1,3.5,1.4,0.2], [6.4,3.2,4.5,1.5], [6.3,3.3,6.0,2.5]]}"#;
    const THREE_CLASSES: &str = concat!(
        r#"[{"class":"setosa","probability":0.9816},{"class":"versicolor","probability":0.8597},"#,
        r#"{"class":"virginica","probability":0.9961}]"#
    );

    #[tokio::test]
    async fn flowers_are_scored_and_the_connection_kept() {
        let replica = Running::start().await;
        let mut client = replica.connect().await;
        for _ in 0..3 {
            let reply = client.call(&post(THREE)).await;
            assert_eq!((reply.status(), reply.body.as_str()), ("200", THREE_CLASSES));
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(reply.header("x-ms-run-function-failed"), Some("False"));
            assert_eq!(reply.header("x-ms-server-version"), Some(SERVER_VERSION));
            let (_, decimals) = reply.header("x-ms-run-fn-exec-ms").unwrap().split_once('.').unwrap();
            assert_eq!(decimals.len(), 3);
        }
        assert_eq!(client.call(&post(r#"{"data": []}"#)).await.body, "[]");
    }

    #[tokio::test]
    async fn a_chunked_body_and_a_query_are_read_like_a_plain_body() {
        let replica = Running::start().await;
        let (a, b) = THREE.split_at(17);
        let chunked = format!(
            "POST /score HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
            a.len(),
            b.len()
        );
        assert_eq!(replica.call(&chunked).await.body, THREE_CLASSES);
        let flower = r#"[{"class":"setosa","probability":0.9816}]"#;
        assert_eq!(replica.call(&get("/score?x=1&data=[[5.1,3.5,1.4,0.2]]")).await.body, flower);
        assert_eq!(replica.call(&get("/score?data=%5b%5B5.1,+3.5,%201.4,0.2%5D%5D")).await.body, flower);
    }

    #[tokio::test]
    async fn bad_input_is_told_what_is_expected() {
        let replica = Running::start().await;
        for (body, why) in [
            ("", "EOF"),
            ("flower", "expected"),
            ("{}", "missing field `data`"),
            (r#"{"data": [5.1,3.5,1.4,0.2]}"#, "invalid type: floating point"),
            (r#"{"data": [[5.1,3.5,1.4]]}"#, "invalid length 3"),
            (r#"{"data": [[5.1,3.5,1.4,0.2,1]]}"#, "trailing characters"),
            (r#"{"data": [["5.1",3.5,1.4,0.2]]}"#, "invalid type: string"),
            (r#"{"data": [[1e999,3.5,1.4,0.2]]}"#, "out of range"),
        ] {
            let reply = replica.call(&post(body)).await;
            let message = reply.message();
            assert_eq!(reply.status(), "400", "{body}");
            assert!(message.starts_with(EXPECTED) && message.contains(why), "{body}: {message}");
            assert_eq!(reply.header("x-ms-run-function-failed"), Some("False"), "the model did not fail: {body}");
            assert_eq!(reply.header("x-ms-run-fn-exec-ms"), None, "the model did not run: {body}");
        }
        assert_eq!(replica.call(&get("/score")).await.status(), "400");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_however_it_is_sent() {
        let replica = Running::start().await;
        let head = "POST /score HTTP/1.1\r\nhost: replica\r\n";

        let announced = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", MAX_BODY + 1);
        let reply = replica.call(&announced).await;
        assert_eq!((reply.status(), reply.message().as_str()), ("413", "The body must not exceed 1048576 bytes."));

        // One byte too many of a chunk that would go on, so that none is left unread when the replica closes.
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n200000\r\n{}", " ".repeat(MAX_BODY + 1));
        assert_eq!(replica.call(&chunked).await.status(), "413");

        let full = format!("{THREE}{}", " ".repeat(MAX_BODY - THREE.len()));
        assert_eq!(replica.call(&post(&full)).await.body, THREE_CLASSES);
    }

    #[tokio::test]
    async fn health_is_one_word() {
        let replica = Running::start().await;
        let reply = replica.call(&get("/")).await;
        assert_eq!((reply.status(), reply.body.as_str()), ("200", "Healthy"));
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(reply.header("x-ms-run-function-failed"), None);

        let mut client = replica.connect().await;
        client.0.write_all(b"HEAD / HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut head = String::new();
        client.0.read_to_string(&mut head).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_in_json() {
        let replica = Running::start().await;
        let reply = replica.call(&get("/score/")).await;
        assert_eq!(
            (reply.status(), reply.message().as_str()),
            ("404", "The requested URL was not found on the server.")
        );

        for (line, allow) in [("PUT /score", "GET, OPTIONS, POST"), ("DELETE /", "GET, HEAD")] {
            let reply = replica.call(&format!("{line} HTTP/1.1\r\nhost: replica\r\n\r\n")).await;
            assert_eq!((reply.status(), reply.header("allow")), ("405", Some(allow)), "{line}");
            assert_eq!(reply.message(), "The method is not allowed for the requested URL.");
        }
        let reply = replica.call("OPTIONS /score HTTP/1.1\r\nhost: replica\r\n\r\n").await;
        assert_eq!((reply.status(), reply.body.as_str()), ("200", ""));
    }

    #[tokio::test]
    async fn swagger_comes_in_three_versions_and_no_other() {
        let replica = Running::start().await;
        for (target, key, version, schemas) in [
            ("/swagger.json", "swagger", "2.0", "/definitions"),
            ("/swagger.json?version=2", "swagger", "2.0", "/definitions"),
            ("/swagger.json?version=3", "openapi", "3.0.3", "/components/schemas"),
            ("/swagger.json?version=3.1", "openapi", "3.1.0", "/components/schemas"),
        ] {
            let document = replica.call(&get(target)).await.json();
            assert_eq!(document[key], version, "{target}");
            let schemas = document.pointer(schemas).unwrap();
            let (input, output) = (&schemas["ServiceInput"]["example"], &schemas["ServiceOutput"]["example"]);
            assert_eq!(replica.call(&post(&input.to_string())).await.json(), *output, "{target}: its example is true");
        }
        let reply = replica.call(&get("/swagger.json?version=9")).await;
        assert_eq!(reply.status(), "404");
        assert_eq!(reply.message(), "Swagger version [9] is not valid. Supported versions: [2, 3, 3.1].");
    }

    /// The rows are azmlinfsrv's `_init_headers`: what is sent, and the three ids that come back.
    #[tokio::test]
    async fn ids_come_back_by_the_rules() {
        let replica = Running::start().await;
        let mut client = replica.connect().await;
        for (sent, request, ms, client_id) in [
            ("x-request-id: a\r\n", "a", "a", None),
            ("x-request-id: a\r\nx-ms-client-request-id: c\r\n", "a", "c", Some("c")),
            ("x-request-id: a\r\nx-ms-request-id: b\r\n", "a", "b", Some("b")),
            ("x-request-id: a\r\nx-ms-request-id: b\r\nx-ms-client-request-id: c\r\n", "a", "b", Some("c")),
        ] {
            let reply = client.call(&with_headers("/", sent)).await;
            assert_eq!(reply.header("x-request-id"), Some(request), "{sent}");
            assert_eq!(reply.header("x-ms-request-id"), Some(ms), "{sent}");
            assert_eq!(reply.header("x-ms-client-request-id"), client_id, "{sent}");
            assert_eq!(reply.header("traceid"), None, "{sent}");
        }

        let (one, two) = (client.call(&get("/")).await, client.call(&get("/")).await);
        let id = one.header("x-request-id").unwrap();
        assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
        assert_eq!(one.header("x-ms-request-id"), Some(id));
        assert_eq!(one.header("x-ms-client-request-id"), None);
        assert_ne!(two.header("x-request-id"), Some(id));

        let trace = "t".repeat(MAX_ID + 1);
        let reply = client.call(&with_headers("/nowhere", &format!("TraceId: {trace}\r\n"))).await;
        assert_eq!((reply.status(), reply.header("traceid")), ("404", Some(trace.as_str())));
    }

    #[tokio::test]
    async fn an_id_over_100_characters_is_refused_and_not_sent_back() {
        let replica = Running::start().await;
        let mut client = replica.connect().await;
        for (name, message) in [
            ("x-request-id", "x-request-id must not exceed 100 characters"),
            ("x-ms-request-id", "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"),
            ("x-ms-client-request-id", "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"),
        ] {
            let at_limit = client.call(&with_headers("/", &format!("{name}: {}\r\n", "i".repeat(MAX_ID)))).await;
            assert_eq!(at_limit.status(), "200", "{name}");

            let reply = client.call(&with_headers("/", &format!("{name}: {}\r\n", "i".repeat(MAX_ID + 1)))).await;
            assert_eq!((reply.status(), reply.message().as_str()), ("431", message));
            assert_eq!(reply.header("x-ms-request-id"), None, "{name}");
            assert_eq!(reply.header("x-ms-client-request-id"), None, "{name}");
            assert_eq!(reply.header("x-request-id").is_some(), name != "x-request-id", "{name}");
        }
    }

    #[tokio::test]
    async fn one_connection_over_the_limit_waits_until_another_closes() {
        let replica = Running::start_with(2).await;
        let (mut one, mut two) = (replica.connect().await, replica.connect().await);
        assert_eq!(one.call(&get("/")).await.status(), "200");
        assert_eq!(two.call(&get("/")).await.status(), "200");
        let mut late = replica.connect().await;
        late.0.write_all(get("/").as_bytes()).await.unwrap();
        // Whole exchanges on another connection: time enough to answer the late one too, were it accepted.
        for _ in 0..10 {
            assert_eq!(one.call(&get("/")).await.status(), "200");
        }
        assert!(late.0.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));

        drop(two);
        assert_eq!(late.reply().await.status(), "200");
    }

    #[tokio::test]
    async fn stopping_closes_the_listener_and_every_connection() {
        let replica = Running::start().await;
        let mut idle = replica.connect().await;
        assert_eq!(idle.call(&get("/")).await.status(), "200");
        let mut busy = replica.connect().await;
        busy.0.write_all(b"POST /score HTTP/1.1\r\nhost: replica\r\ncontent-length: 9\r\n\r\n{").await.unwrap();

        replica.stop.send(()).unwrap();
        replica.served.await.unwrap();
        assert!(idle.is_closed().await);
        assert!(busy.is_closed().await);
        assert!(TcpStream::connect(replica.addr).await.is_err());
    }

    #[test]
    fn a_query_value_is_decoded_and_a_stray_percent_kept() {
        let value = |query| parameter(query, "v").map(|value| String::from_utf8(value).unwrap());
        assert_eq!(value("a=1&v=x%20y+z&v=2").as_deref(), Some("x y z"));
        assert_eq!(value("v=100%&v").as_deref(), Some("100%"));
        assert_eq!(value("v=%zz%2").as_deref(), Some("%zz%2"));
        assert_eq!(value("v=%+f").as_deref(), Some("% f"));
        assert_eq!(value("v=%e2%82%ac=").as_deref(), Some("€="));
        assert_eq!(value("vv=1"), None);
    }
}
