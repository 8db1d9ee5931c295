//! An API server of Kubernetes for tests, on a free port of this host. It lists by pages, watches, and fails in every way
//! that the real one does. The tests of the binary and the benchmark have it too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

pub const SLICES: &str = "endpointslices";
pub const SERVICES: &str = "services";

/// See the module. It ends with the process.
pub struct Api {
    pub address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Bumped by whatever happens.
    changed: watch::Sender<u64>,
    /// Whether anybody listens, and connections last.
    is_there: watch::Sender<bool>,
    /// Bumped when every watch is to be cut off.
    cuts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// What happened up to here is forgotten.
    forgotten: u64,
    /// Objects by resource, namespace and name.
    objects: BTreeMap<Key, Value>,
    log: Vec<Change>,
    /// Versions at which watches get a bookmark.
    bookmarks: Vec<u64>,
    token: Option<String>,
    /// What is answered to whom asks for this resource, or for anything.
    refusal: Option<(&'static str, u16)>,
    /// 410 comes as the status of the answer, and not as an event.
    gone_is_a_status: bool,
    /// The next page that is asked for is forgotten.
    page_is_gone: bool,
    /// What is written into a watch in place of an event.
    garbage: Option<Bytes>,
    delay: Duration,
    requests: Vec<String>,
}

type Key = (String, String, String);

struct Change {
    version: u64,
    key: Key,
    old: Option<Value>,
    new: Option<Value>,
}

impl Api {
    /// Without TLS.
    pub fn start() -> Self {
        Self::serve(None)
    }

    /// With TLS, to those who send `token`.
    pub fn start_tls(config: rustls::ServerConfig, token: &str) -> Self {
        let api = Self::serve(Some(TlsAcceptor::from(Arc::new(config))));
        api.set_token(token);
        api
    }

    fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::channel(0).0,
            is_there: watch::channel(true).0,
            cuts: watch::channel(0).0,
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let api = Self { address, scheme, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(listen(listener, address, shared, tls));
        });
        api
    }

    /// A kubeconfig that leads here; `user` is what stands in it of whoever asks.
    pub fn kubeconfig(&self, user: Value, ca: Option<&str>) -> String {
        let mut cluster = json!({"server": format!("{}://{}", self.scheme, self.address)});
        if let Some(ca) = ca {
            cluster["certificate-authority"] = ca.into();
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "models"}}],
        });
        // YAML takes JSON for its own.
        config.to_string()
    }

    /// Makes the object, or puts it in the place of the one there is.
    pub fn set(&self, resource: &str, object: Value) {
        self.change(resource, object, true);
    }

    pub fn delete(&self, resource: &str, object: Value) {
        self.change(resource, object, false);
    }

    fn change(&self, resource: &str, mut object: Value, is_there: bool) {
        self.alter(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            let part = |name: &str| object["metadata"][name].as_str().expect("text").to_owned();
            let key = (resource.to_owned(), part("namespace"), part("name"));
            let new = is_there.then_some(object.clone());
            let old = match &new {
                Some(new) => state.objects.insert(key.clone(), new.clone()),
                None => state.objects.remove(&key).map(|mut old| {
                    old["metadata"]["resourceVersion"] = state.version.to_string().into();
                    old
                }),
            };
            state.log.push(Change { version: state.version, key, old, new });
        });
    }

    /// Forgets what happened so far: watches that go on from there are told 410.
    pub fn forget(&self, gone_is_a_status: bool) {
        self.alter(|state| {
            state.version += 1;
            (state.forgotten, state.gone_is_a_status) = (state.version, gone_is_a_status);
            state.log.clear();
        });
    }

    /// Forgets the next page of a list that is asked for.
    pub fn forget_page(&self) {
        self.alter(|state| state.page_is_gone = true);
    }

    /// Tells every watch how far things have come.
    pub fn bookmark(&self) {
        self.alter(|state| {
            state.version += 1;
            state.bookmarks.push(state.version);
        });
    }

    /// Ends every connection that a watch is on.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection and takes no more.
    pub fn go_away(&self) {
        self.shared.is_there.send_replace(false);
    }

    pub fn come_back(&self) {
        self.shared.is_there.send_replace(true);
    }

    /// Answers this status to whoever asks for `resource`.
    pub fn refuse(&self, resource: &'static str, status: u16) {
        self.alter(|state| state.refusal = Some((resource, status)));
    }

    pub fn allow(&self) {
        self.alter(|state| state.refusal = None);
    }

    pub fn set_token(&self, token: &str) {
        self.alter(|state| state.token = Some(token.to_owned()));
    }

    /// Writes these bytes into every watch.
    pub fn send_garbage(&self, bytes: impl Into<Bytes>) {
        self.alter(|state| state.garbage = Some(bytes.into()));
    }

    pub fn send_sense(&self) {
        self.alter(|state| state.garbage = None);
    }

    /// Takes so long for every answer.
    pub fn set_delay(&self, delay: Duration) {
        self.alter(|state| state.delay = delay);
    }

    /// Whether a watch has been begun.
    pub fn is_watched(&self) -> bool {
        self.asked(&["watch=true"]) > 0
    }

    /// How many requests there were that hold all of `parts`.
    pub fn asked(&self, parts: &[&str]) -> usize {
        let state = self.shared.state();
        state.requests.iter().filter(|request| parts.iter().all(|part| request.contains(part))).count()
    }

    fn alter(&self, alter: impl FnOnce(&mut State)) {
        alter(&mut self.shared.state());
        self.shared.changed.send_modify(|changes| *changes += 1);
    }
}

/// A slice as a controller of Kubernetes writes it, of `service` in the namespace `models`.
pub fn slice(service: &str, name: &str, ports: Value, endpoints: &[Value]) -> Value {
    let mut slice: Value =
        serde_json::from_str(include_str!("../../fixtures/kubernetes/endpointslice.json")).expect("JSON");
    slice["metadata"]["name"] = name.into();
    slice["metadata"]["labels"]["kubernetes.io/service-name"] = service.into();
    let first = endpoints.first().and_then(|one| one["addresses"][0].as_str());
    slice["addressType"] = if first.is_some_and(|ip| ip.contains(':')) { "IPv6" } else { "IPv4" }.into();
    slice["ports"] = ports;
    slice["endpoints"] = endpoints.into();
    slice
}

/// An endpoint that is ready, of the pod with this number.
pub fn endpoint(ip: &str, pod: u32) -> Value {
    with_conditions(ip, pod, json!({"ready": true, "serving": true, "terminating": false}))
}

/// One that ends and still answers.
pub fn ending(ip: &str, pod: u32) -> Value {
    with_conditions(ip, pod, json!({"ready": false, "serving": true, "terminating": true}))
}

pub fn with_conditions(ip: &str, pod: u32, conditions: Value) -> Value {
    json!({
        "addresses": [ip], "conditions": conditions, "nodeName": "node-2", "zone": "westeurope-1",
        "targetRef": {
            "kind": "Pod", "namespace": "models", "name": format!("churn-green-6d5f9c7b8d-{pod:05}"),
            "uid": format!("5f1c9a52-0d0b-4c53-a1bb-0000{pod:08x}"),
        },
    })
}

/// The ports of a slice with one, called `http`.
pub fn http_port(port: u16) -> Value {
    json!([{"name": "http", "protocol": "TCP", "port": port}])
}

/// A Service as the API has it.
pub fn service(namespace: &str, name: &str, labels: Value) -> Value {
    let mut service: Value =
        serde_json::from_str(include_str!("../../fixtures/kubernetes/service.json")).expect("JSON");
    service["metadata"]["namespace"] = namespace.into();
    service["metadata"]["name"] = name.into();
    service["metadata"]["labels"] = labels;
    service
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

async fn listen(listener: std::net::TcpListener, address: SocketAddr, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    listener.set_nonblocking(true).expect("a listener");
    let mut listener = Some(TcpListener::from_std(listener).expect("a listener"));
    let mut is_there = shared.is_there.subscribe();
    loop {
        if !*is_there.borrow_and_update() {
            drop(listener.take());
            is_there.changed().await.expect("it ends with the process");
            continue;
        }
        if listener.is_none() {
            // The connections of before may hold the port for a moment.
            listener = TcpListener::bind(address).await.ok();
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        let accept = listener.as_ref().expect("a listener").accept();
        let stream = tokio::select! {
            accepted = accept => accepted,
            _ = is_there.changed() => continue,
        };
        let Ok((stream, _)) = stream else { continue };
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            let mut is_there = shared.is_there.subscribe();
            let serve = async {
                match tls {
                    None => answer_all(stream, &shared).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer_all(stream, &shared).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                _ = is_there.wait_for(|is_there| !*is_there) => {}
            }
        });
    }
}

async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, shared: &Arc<Shared>) {
    let answer = service_fn(async |request| Ok::<_, Infallible>(answer(request, shared).await));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    // Whoever sees the request there can cut it off.
    let cuts = shared.cuts.subscribe();
    let (delay, refusal) = {
        let mut state = shared.state();
        let line = format!("{} {}", request.method(), request.uri());
        state.requests.push(line);
        let is_known = state.token.as_ref().is_none_or(|token| {
            request.headers().get("authorization").is_some_and(|given| given == format!("Bearer {token}").as_str())
        });
        let refusal = state.refusal.filter(|(resource, _)| request.uri().path().contains(resource));
        (state.delay, if is_known { refusal.map(|(_, status)| status) } else { Some(401) })
    };
    sleep(delay).await;
    if let Some(status) = refusal {
        return status_answer(status);
    }
    let path: Vec<_> = request.uri().path().trim_matches('/').split('/').collect();
    let (namespace, resource) = match path[..] {
        ["apis", "discovery.k8s.io", "v1", "namespaces", namespace, SLICES] => (namespace, SLICES),
        ["api", "v1", "namespaces", namespace, SERVICES] => (namespace, SERVICES),
        _ => return status_answer(404),
    };
    let query = request.uri().query().unwrap_or_default();
    let parameters: BTreeMap<String, String> =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(decoded).collect();
    let asked = Asked { resource: resource.to_owned(), namespace: namespace.to_owned(), parameters };
    if asked.parameters.get("watch").is_some_and(|watch| watch == "true") {
        asked.watch(shared, cuts)
    } else {
        asked.list(&mut shared.state())
    }
}

/// As far as selectors need it.
fn decoded((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%3A", ":"))
}

struct Asked {
    resource: String,
    namespace: String,
    parameters: BTreeMap<String, String>,
}

impl Asked {
    fn wants(&self, key: &Key, object: &Value) -> bool {
        let by_label = self.parameters.get("labelSelector").is_none_or(|selector| {
            let mut labels = selector.split(',').filter_map(|one| one.split_once('='));
            labels.all(|(name, value)| object["metadata"]["labels"][name] == *value)
        });
        let by_name = self.parameters.get("fieldSelector").is_none_or(|selector| {
            selector.strip_prefix("metadata.name=").expect("a selector that is known here") == key.2
        });
        key.0 == self.resource && key.1 == self.namespace && by_label && by_name
    }

    fn list(&self, state: &mut State) -> Response<Body> {
        let limit = self.parameters.get("limit").map_or(usize::MAX, |limit| limit.parse().expect("a number"));
        let (version, from) = match self.parameters.get("continue") {
            None => (state.version, 0),
            Some(_) if std::mem::take(&mut state.page_is_gone) => return status_answer(410),
            Some(token) => {
                let (version, from) = token.split_once(':').expect("a token of ours");
                (version.parse().expect("a version"), from.parse().expect("a number"))
            }
        };
        let all: Vec<_> = state.objects.iter().filter(|(key, object)| self.wants(key, object)).collect();
        let items: Vec<_> = all.iter().skip(from).take(limit).map(|(_, object)| *object).collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if from + items.len() < all.len() {
            metadata["continue"] = format!("{version}:{}", from + items.len()).into();
            metadata["remainingItemCount"] = (all.len() - from - items.len()).into();
        }
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
        json_answer(200, &list)
    }

    fn watch(self, shared: &Arc<Shared>, cuts: watch::Receiver<u64>) -> Response<Body> {
        let from: u64 = self.parameters["resourceVersion"].parse().expect("a version");
        {
            let state = shared.state();
            if from < state.forgotten && state.gone_is_a_status {
                return status_answer(410);
            }
        }
        let (sender, events) = mpsc::channel(64);
        let shared = Arc::clone(shared);
        tokio::spawn(async move { self.send_events(from, &shared, cuts, &sender).await });
        let body = Events(events).boxed_unsync();
        Response::builder().header("content-type", "application/json").body(body).expect("an answer")
    }

    /// Until it is cut off, which breaks the body off, or the time that was asked for is over, which ends it.
    async fn send_events(
        &self,
        mut from: u64,
        shared: &Shared,
        mut cuts: watch::Receiver<u64>,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) {
        let mut changed = shared.changed.subscribe();
        let seconds = self.parameters.get("timeoutSeconds").map_or(300, |seconds| seconds.parse().expect("a number"));
        let end = sleep(Duration::from_secs(seconds));
        tokio::pin!(end);
        loop {
            changed.borrow_and_update();
            let (lines, is_over) = self.events_since(&mut from, &shared.state());
            for line in lines {
                if sender.send(Ok(line)).await.is_err() {
                    return;
                }
            }
            if is_over {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = cuts.changed() => {
                    let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                    return;
                }
                () = &mut end => return,
                () = sender.closed() => return,
            }
        }
    }

    fn events_since(&self, from: &mut u64, state: &State) -> (Vec<Bytes>, bool) {
        if let Some(garbage) = &state.garbage {
            return (vec![garbage.clone()], true);
        }
        if *from < state.forgotten {
            return (vec![line(&json!({"type": "ERROR", "object": status(410)}))], true);
        }
        let mut lines = Vec::new();
        let new = state.log.partition_point(|change| change.version <= *from);
        for change in &state.log[new..] {
            let wanted = |object: &Option<Value>| object.clone().filter(|object| self.wants(&change.key, object));
            let event = match (wanted(&change.old), wanted(&change.new)) {
                (None, None) => continue,
                (None, Some(new)) => json!({"type": "ADDED", "object": new}),
                (Some(_), Some(new)) => json!({"type": "MODIFIED", "object": new}),
                (Some(mut old), None) => {
                    old["metadata"]["resourceVersion"] = change.version.to_string().into();
                    json!({"type": "DELETED", "object": old})
                }
            };
            lines.push(line(&event));
        }
        let newest = state.log.last().map_or(*from, |change| change.version).max(*from);
        let bookmark = state.bookmarks.last().filter(|version| **version > newest);
        if let (Some(version), Some("true")) =
            (bookmark, self.parameters.get("allowWatchBookmarks").map(String::as_str))
        {
            let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
            let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata});
            lines.push(line(&json!({"type": "BOOKMARK", "object": object})));
            *from = *version;
        } else {
            *from = newest;
        }
        (lines, false)
    }
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

fn status(code: u16) -> Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:scoring:scorefront\" cannot list \
             resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"models\"",
        ),
        410 => ("Expired", "too old resource version: 1 (2)"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn status_answer(code: u16) -> Response<Body> {
    json_answer(code, &status(code))
}

fn json_answer(code: u16, body: &Value) -> Response<Body> {
    let status = StatusCode::from_u16(code).expect("a status");
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).expect("an answer")
}

struct Events(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
