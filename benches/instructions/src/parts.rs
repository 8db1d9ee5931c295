//! Parts of the request path by themselves, the same ones as in `benches/request_path.rs` and some more.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};
use std::{future::Future, io};

use arc_swap::ArcSwap;
use http::{HeaderMap, Method, Request};
use rustls::ProtocolVersion;
use scorefront::config::{self, Paths};
use scorefront::scheduling::{Queue, Rank, Replicas, Settings as ReplicaSettings};
use scorefront::scoring::caller::Caller;
use scorefront::scoring::catalog::Catalog;
use scorefront::scoring::exchange::Exchange;
use scorefront::scoring::forward;
use scorefront::scoring::judge::route::Route;
use scorefront::scoring::worker::Worker;
use scorefront::telemetry::access::{AccessLog, Line};
use scorefront::telemetry::metrics::Metrics;
use scorefront::telemetry::writer::LineWriter;
use scorefront::tls::pair::{Files, examine};
use scorefront::tls::tickets::TicketKeys;
use scorefront::tls::{CertificateTable, Identity, Settings};
use scorefront::upstream;
use tokio::time::Instant;

use crate::counting::{aside, counted, mark};

/// Names in the table of certificates.
const NAMES: usize = 1_000;

const REPLICAS: u16 = 8;

/// Matches a path, and writes the replica's.
pub fn route(times: usize) {
    let paths = Paths { score: "/score".into(), health: "/".into(), swagger: "/swagger.json".into() };
    measured(times, || {
        let route = Route::parse(black_box("/api/v1/service/iris/score")).expect("a scoring path");
        black_box(route.resource.target(&paths, None));
    });
}

pub fn certificate_exact(times: usize) {
    certificate(times, "cname-0.example.com");
}

pub fn certificate_wildcard(times: usize) {
    certificate(times, "a.models.example.com");
}

fn certificate(times: usize, name: &str) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = rcgen::CertificateParams::new(vec!["example".to_owned()])
        .expect("a name")
        .self_signed(&key)
        .expect("a certificate");
    let files = Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") };
    let examined = examine(pem.pem().as_bytes(), key.serialize_pem().as_bytes(), files, None, SystemTime::now());
    let certificate = Arc::new(examined.certificate.expect("a pair"));
    let settings = Settings::new(ProtocolVersion::TLSv1_2, Arc::new(TicketKeys::random().expect("random bytes")));
    let identity = Arc::new(Identity::new("example", vec![certificate], None, &settings).expect("an identity"));
    let mut table = CertificateTable::default();
    for n in 0..NAMES {
        table.insert(&format!("cname-{n}.example.com"), Arc::clone(&identity));
    }
    table.insert("*.models.example.com", identity);
    measured(times, || assert!(table.find(black_box(Some(name))).is_some()));
}

/// From a caller's header fields to a replica's.
pub fn header_rules(times: usize) {
    let (config, _) = config::load(Path::new("config/one-cname.toml")).expect("the example");
    let metrics = Arc::new(Metrics::new(1, Arc::default()));
    let catalog = Arc::new(ArcSwap::from_pointee(Catalog::new(&config, 443, &metrics, None, None)));
    let worker = Rc::new(Worker::new(0, catalog, None, metrics, AccessLog::new(None, false)));
    let caller = Rc::new(Caller::plain((Ipv4Addr::LOCALHOST, 9).into()));
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("host", "scoring.example.com"),
        ("user-agent", "python-requests/2.32.3"),
        ("accept-encoding", "gzip, deflate"),
        ("accept", "*/*"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
        ("content-length", "77"),
    ] {
        fields.insert(name, value.parse().expect("a value"));
    }
    let mut call = None;
    measured(times, || {
        aside(&mut || {
            let mut request = Request::new(());
            request.headers_mut().clone_from(&fields);
            call = Some((Exchange::begin(Rc::clone(&worker), Rc::clone(&caller), &request), request));
        });
        if let Some((exchange, request)) = &call {
            let mut written = upstream::Request::new(&Method::POST, "/score", ());
            forward::write(exchange, true, request.headers(), &mut written);
            black_box(&written);
        }
    });
}

fn replicas(limit: usize) -> Replicas {
    let settings = ReplicaSettings { limit, look_interval: None };
    let replicas = Replicas::new("iris", "blue", Arc::new(Queue::new(100)), settings, None);
    let addresses: Vec<_> =
        (0..REPLICAS).map(|n| format!("http://127.0.0.1:{}", 5001 + n).parse().expect("an address")).collect();
    replicas.set(&addresses);
    replicas
}

/// Takes a permit of the least busy of eight replicas, and gives it back.
pub fn permit(times: usize) {
    let replicas = replicas(10);
    measured(times, || assert!(replicas.try_take(black_box(Instant::now())).is_some()));
}

/// Joins the line for eight replicas that have no room, gets the permit that another gives back, and gives it back.
pub fn queue(times: usize) {
    let replicas = replicas(1);
    let now = Instant::now();
    let mut held: Vec<_> = (0..REPLICAS).map(|_| replicas.try_take(now).expect("a permit")).collect();
    let mut cx = Context::from_waker(Waker::noop());
    measured(times, || {
        let mut waiting = pin!(replicas.join(Rank::Normal, now).expect("a place"));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held.pop());
        let poll = Pin::as_mut(&mut waiting).poll(&mut cx);
        let std::task::Poll::Ready(Ok(permit)) = poll else { panic!("a permit was given back") };
        held.push(permit);
    });
}

/// A line of the access log, and its share of a batch.
pub fn access_line(times: usize) {
    let writer = LineWriter::start("access", io::sink(), Arc::default()).expect("a thread");
    let log = AccessLog::new(Some(writer), false);
    measured(times, || {
        log.write(&Line {
            host: Some("scoring.example.com"),
            protocol: Some("HTTP/1.1"),
            tls: Some("1.3"),
            method: Some("POST"),
            path: Some("/api/v1/service/iris/score"),
            service: Some("iris"),
            key: Some("primary"),
            deployment: Some("default"),
            replica: Some("127.0.0.1:5001"),
            status: Some(200),
            request_bytes: 80,
            response_bytes: 80,
            model: Some(Duration::from_micros(1_234)),
            total: Duration::from_micros(1_456),
            ..Line::new("01890a5d-ac96-774b-bcce-b302099a8057", "127.0.0.1:50123")
        });
    });
}

/// Does it a few times, and then `times` times between the marks.
fn measured(times: usize, mut act: impl FnMut()) {
    for _ in 0..times.div_ceil(4) {
        act();
    }
    mark();
    counted(&mut || {
        for _ in 0..times {
            act();
        }
    });
    mark();
}
