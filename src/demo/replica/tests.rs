//! The replica over real sockets, by what azmlinfsrv answers.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::{sync::oneshot, task::JoinHandle};

use super::ids::MAX_ID;
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
    assert_eq!((reply.status(), reply.message().as_str()), ("404", "The requested URL was not found on the server."));

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
