//! An environment on disk, and the front end that serves it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use scorefront::config::AdminListen;
use scorefront::front_end::{AccessOutput, Bound, FrontEnd};
use scorefront::telemetry::metrics::Metrics;
use scorefront::telemetry::writer::LineWriter;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::{Algorithm, CallerPair, Pair};
use super::caller::Caller;
use super::{Http2, Replica, Reply, Wire, eventually, roots, within};

/// The name most tests call.
pub const CNAME: &str = "scoring.example.com";

/// scorefront.toml and what lies beside it.
pub struct Environment {
    directory: TempDir,
    sections: BTreeMap<&'static str, String>,
    tables: Vec<String>,
    certificates: usize,
    threads: usize,
}

impl Environment {
    /// No certificate, no service; callers need no key and replicas in use are not looked at unless a service says so.
    pub fn new() -> Self {
        let environment = Self {
            directory: tempfile::tempdir().expect("a directory"),
            sections: BTreeMap::new(),
            tables: Vec::new(),
            certificates: 0,
            threads: 1,
        };
        environment
            .set("frontend", "https = '127.0.0.1:0'\nhttp = '127.0.0.1:0'")
            .set("defaults", "auth = false\nhealth_interval = '0s'")
    }

    /// Replicas are given as many requests at once as come.
    pub fn without_permits(self) -> Self {
        self.set("defaults", "max_concurrent_requests_per_replica = 0")
    }

    /// A service `iris` on `replicas`, under [`CNAME`].
    pub fn iris(replicas: &[&Replica]) -> Self {
        Self::new().cname(CNAME).service("iris", replicas, "")
    }

    /// Adds keys to a section.
    pub fn set(mut self, section: &'static str, keys: &str) -> Self {
        writeln!(self.sections.entry(section).or_default(), "{keys}").expect("memory");
        self
    }

    /// Writes a section anew.
    pub fn section(mut self, section: &'static str, keys: &str) -> Self {
        self.sections.insert(section, keys.to_owned());
        self
    }

    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    pub fn cname(self, name: &str) -> Self {
        self.certificate(name, &[name], Algorithm::Ecdsa)
    }

    /// A CNAME whose certificate is for `names`.
    pub fn certificate(self, cname: &str, names: &[&str], algorithm: Algorithm) -> Self {
        self.pair(cname, &Pair::of(names, algorithm), "")
    }

    /// A CNAME with this pair, in `cert-N.pem` and `key-N.pem`, N counted from 0; and more keys for its table.
    pub fn pair(mut self, cname: &str, pair: &Pair, keys: &str) -> Self {
        let n = self.certificates;
        self.certificates += 1;
        self.write(&format!("cert-{n}.pem"), &pair.chain);
        self.write(&format!("key-{n}.pem"), &pair.key);
        let files = format!("cert_pem = 'cert-{n}.pem'\nkey_pem = 'key-{n}.pem'");
        self.table(&format!("[[cname]]\nname = '{cname}'\n{files}\n{keys}"))
    }

    pub fn service(self, name: &str, replicas: &[&Replica], keys: &str) -> Self {
        let replicas = addresses(replicas);
        self.table(&format!("[[service]]\nname = '{name}'\nreplicas = {replicas}\n{keys}"))
    }

    /// A service with deployments, by name, share and replicas.
    pub fn deployments(self, name: &str, deployments: &[(&str, u8, &[&Replica])]) -> Self {
        self.deployments_with(name, "", deployments)
    }

    /// The same with more keys for the service's own table.
    pub fn deployments_with(self, name: &str, keys: &str, deployments: &[(&str, u8, &[&Replica])]) -> Self {
        let mut table = format!("[[service]]\nname = '{name}'\n{keys}\n");
        for (deployment, traffic, replicas) in deployments {
            let replicas = addresses(replicas);
            writeln!(
                table,
                "[[service.deployment]]\nname = '{deployment}'\ntraffic = {traffic}\nreplicas = {replicas}"
            )
            .expect("memory");
        }
        self.table(&table)
    }

    pub fn table(mut self, toml: &str) -> Self {
        self.tables.push(format!("{toml}\n"));
        self
    }

    /// Takes out the tables that hold `text`, of which there is at least one.
    pub fn without(mut self, text: &str) -> Self {
        let before = self.tables.len();
        self.tables.retain(|table| !table.contains(text));
        assert!(self.tables.len() < before, "no table holds {text}");
        self
    }

    /// Writes a file beside the configuration.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("a file");
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file in the place of another, so that a reader sees one of them whole.
    pub fn put(&self, name: &str, text: &str) {
        self.write(".new", text);
        std::fs::rename(self.path().join(".new"), self.path().join(name)).expect("a file");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).expect("a file");
    }

    pub fn start(self) -> Front {
        let log = Captured::default();
        let running = self.run(&log);
        Front { bound: running.bound().clone(), running: Some(running), log, environment: Some(self) }
    }

    /// Puts scorefront.toml in its place, and gives its text.
    fn save(&self) -> String {
        let mut toml = String::new();
        for (section, keys) in &self.sections {
            writeln!(toml, "[{section}]\n{keys}").expect("memory");
        }
        if !self.sections.contains_key("admin") {
            toml.push_str("[admin]\nlisten = '127.0.0.1:0'\n");
        }
        // A key at the top level stands before all tables.
        let (keys, tables): (Vec<_>, Vec<_>) = self.tables.iter().partition(|table| !table.starts_with('['));
        let toml = keys.into_iter().cloned().chain([toml]).chain(tables.into_iter().cloned()).collect::<String>();
        self.put("scorefront.toml", &toml);
        toml
    }

    fn run(&self, log: &Captured) -> FrontEnd {
        let toml = self.save();
        let (environment, _) = scorefront::environment::open(&self.path().join("scorefront.toml"))
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}\n{toml}"));
        let dropped = Arc::default();
        let writer = LineWriter::start("access", log.clone(), Arc::clone(&dropped)).expect("a thread");
        let access = AccessOutput { writer: Some(writer), text: false };
        let metrics = Arc::new(Metrics::new(self.threads, dropped));
        FrontEnd::start(environment, metrics, access).expect("a front end")
    }
}

fn addresses(replicas: &[&Replica]) -> String {
    format!("{:?}", replicas.iter().map(|replica| format!("http://{}", replica.address)).collect::<Vec<_>>())
}

/// What was written to a log.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A front end that serves; it stops when this is dropped.
pub struct Front {
    running: Option<FrontEnd>,
    bound: Bound,
    log: Captured,
    environment: Option<Environment>,
}

impl Front {
    pub fn https(&self) -> SocketAddr {
        self.bound.https
    }

    pub fn http(&self) -> SocketAddr {
        self.bound.http.expect("a plain listener")
    }

    /// The files it is served from.
    pub fn files(&self) -> &Environment {
        self.environment.as_ref().expect("files")
    }

    /// Writes another scorefront.toml.
    pub fn reconfigure(&mut self, change: impl FnOnce(Environment) -> Environment) {
        let environment = change(self.environment.take().expect("files"));
        environment.save();
        self.environment = Some(environment);
    }

    /// Ends it at once and starts another one from the same files, on other ports.
    pub fn restart(&mut self) {
        self.running = None;
        let running = self.files().run(&self.log);
        self.bound = running.bound().clone();
        self.running = Some(running);
    }

    /// `POST /v1/reload`: the status and what it says.
    pub async fn reload(&self) -> (u16, serde_json::Value) {
        let reply = self.admin("POST /v1/reload HTTP/1.1").await;
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("JSON: {reply:?}")))
    }

    /// The row of `/v1/certificates` for a CNAME; `null` if there is none.
    pub async fn row(&self, cname: &str) -> serde_json::Value {
        let reply = self.admin("GET /v1/certificates HTTP/1.1").await;
        let mut rows: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let rows = rows["certificates"].as_array_mut().expect("a list");
        rows.iter_mut().find(|row| row["cname"] == cname).map(serde_json::Value::take).unwrap_or_default()
    }

    /// `/v1/replicas`.
    pub async fn replicas(&self) -> serde_json::Value {
        let reply = self.admin("GET /v1/replicas HTTP/1.1").await;
        serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("JSON: {reply:?}"))
    }

    /// What a metric of a CNAME's pair says.
    pub async fn pair_metric(&self, name: &str, cname: &str, cert_pem: &str) -> f64 {
        let file = self.files().path().join(cert_pem);
        self.metric(&format!("{name}{{cname=\"{cname}\",cert_pem=\"{}\"}}", file.display())).await
    }

    /// The certificates that callers of `name` get, leaf first; an error if there is no handshake.
    pub async fn chain(&self, name: &str) -> io::Result<Vec<CertificateDer<'static>>> {
        let stream = self.tls(client_config(&[]), name).await?;
        Ok(stream.get_ref().1.peer_certificates().expect("certificates").to_vec())
    }

    /// Whether callers of `name` get this pair now.
    pub async fn serves(&self, name: &str, pair: &Pair) -> bool {
        self.chain(name).await.is_ok_and(|chain| chain[0] == pair.leaf)
    }

    /// Waits until callers of `name` get this pair.
    pub async fn until_serves(&self, name: &str, pair: &Pair) {
        eventually("the new certificate is served", async || self.serves(name, pair).await).await;
    }

    /// Returns when a stop was asked for over the API.
    pub async fn asked_to_drain(&self) {
        self.running.as_ref().expect("it runs").asked_to_drain().await;
    }

    pub fn begin_drain(&self) {
        self.running.as_ref().expect("it runs").begin_drain();
    }

    pub fn stop(&mut self, limit: Duration) -> impl Future<Output = bool> + Send + use<> {
        let stopped = self.running.take().expect("it runs").stop(limit);
        async { stopped.await == 0 }
    }

    /// Ends everything at once, so that every line of the access log is written, and returns them.
    pub async fn log_lines(mut self, lines: usize) -> Vec<serde_json::Value> {
        self.running = None;
        let log = self.log.clone();
        eventually("the access log is written", async || log.text().lines().count() >= lines).await;
        log.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// A TLS connection to the admin listener, which is called `name`.
    pub async fn admin_tls(&self, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let AdminListen::Tcp(address) = &self.bound.admin else { panic!("an address") };
        handshake(TcpStream::connect(address).await?, config, name).await
    }

    /// A TLS connection to the name `name`.
    pub async fn tls(&self, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
        handshake(TcpStream::connect(self.https()).await?, config, name).await
    }

    /// Raw HTTP/1 over TLS.
    pub async fn wire(&self) -> Wire {
        Wire::new(self.tls(client_config(&["http/1.1"]), CNAME).await.expect("a handshake"))
    }

    /// Raw HTTP/1 without TLS.
    /// One whose kernel takes hardly anything that it does not read.
    pub async fn wire_with_small_window(&self) -> Wire {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        let tcp = socket.connect(self.https()).await.expect("a connection");
        Wire::new(handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect("a handshake"))
    }

    pub async fn plain(&self) -> Wire {
        Wire::new(TcpStream::connect(self.http()).await.expect("a connection"))
    }

    /// Raw HTTP/2 over TLS.
    pub async fn raw_http2(&self) -> Http2 {
        Http2::new(self.tls(client_config(&["h2"]), CNAME).await.expect("a handshake"))
    }

    pub async fn http1(&self) -> Caller {
        Caller::http1(self.tls(client_config(&["http/1.1"]), CNAME).await.expect("a handshake")).await
    }

    pub async fn http2(&self) -> Caller {
        self.http2_with_window(None).await
    }

    /// HTTP/2 whose streams may receive `window` bytes before the caller reads any.
    pub async fn http2_with_window(&self, window: Option<u32>) -> Caller {
        Caller::http2(self.tls(client_config(&["h2"]), CNAME).await.expect("a handshake"), window).await
    }

    /// One of each protocol.
    pub async fn both(&self) -> [Caller; 2] {
        [self.http1().await, self.http2().await]
    }

    /// What the admin listener answers to a request's head lines.
    pub async fn admin(&self, head: &str) -> Reply {
        self.manage(head, "").await
    }

    /// The same with a body.
    pub async fn manage(&self, head: &str, body: &str) -> Reply {
        self.send_admin(head, body).await.reply().await
    }

    /// The same for somebody who does not wait for the answer.
    pub async fn manage_and_leave(&self, head: &str, body: &str) {
        drop(self.send_admin(head, body).await);
    }

    /// Sends, and leaves the answer to be read.
    pub async fn send_admin(&self, head: &str, body: &str) -> Wire {
        let mut wire = match &self.bound.admin {
            AdminListen::Tcp(address) => Wire::new(TcpStream::connect(address).await.expect("a connection")),
            AdminListen::Unix(path) => Wire::new(UnixStream::connect(path).await.expect("a connection")),
        };
        let fields = match body {
            "" => String::new(),
            body => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        wire.send(format!("{head}\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n{body}")).await;
        wire
    }

    /// A line of /metrics: `metric("requests_total{service=\"iris\",…}")`.
    pub async fn metric(&self, name_and_labels: &str) -> f64 {
        let metrics = self.admin("GET /metrics HTTP/1.1").await;
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("scorefront_")?.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.unwrap_or("0").parse().expect("a number")
    }

    /// Waits until a metric has a value.
    pub async fn until_metric(&self, name_and_labels: &str, value: u32) {
        let expected = f64::from(value);
        eventually(name_and_labels, async || (self.metric(name_and_labels).await - expected).abs() < 0.5).await;
    }
}

pub async fn handshake(tcp: TcpStream, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

/// What callers offer: both TLS versions, the test's own authority, and protocols by ALPN.
pub fn client_config(alpn: &[&str]) -> ClientConfig {
    client_config_for(rustls::ALL_VERSIONS, alpn)
}

pub fn client_config_for(versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let mut config = builder.with_root_certificates(roots()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The same for a caller that shows a certificate.
pub fn client_config_as(
    caller: &CallerPair,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let builder = builder.with_root_certificates(roots());
    let config = builder.with_client_auth_cert(vec![caller.leaf.clone()], caller.key.clone_key());
    let mut config = config.expect("a key that fits");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// How the handshake of a new connection went: full, or resumed with what the connections before it left in `config`.
pub async fn session(front: &Front, config: &ClientConfig, name: &str) -> io::Result<HandshakeKind> {
    let stream = front.tls(config.clone(), name).await?;
    let kind = stream.get_ref().1.handshake_kind().expect("a finished handshake");
    // Tickets of TLS 1.3, and refusals of callers' certificates, come after the handshake.
    let mut wire = Wire::new(stream);
    wire.try_send(format!("GET /nowhere HTTP/1.1\r\nHost: {name}\r\n\r\n")).await?;
    assert_eq!(wire.try_reply().await?.status, 404);
    Ok(kind)
}
