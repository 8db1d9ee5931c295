//! The demo's replica: the iris model behind the protocol of `azureml-inference-server-http` 1.5.1 (`azmlinfsrv`), so
//! that the demo's front end talks to what it would talk to in a cluster: the same paths, ids, headers and words.
//!
//! It is a model server, not a proxy. It must not know the front end, and must not lean on it: limits and timeouts
//! of its own keep it standing when anyone at all connects.

mod ids;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, time::Duration, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::ids::Ids;
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
