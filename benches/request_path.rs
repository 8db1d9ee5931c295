//! The parts of the request path that run for every call: `cargo bench`.
//!
//! Times are of this machine on this day; what counts is the change from one commit to the next. The whole program
//! beside other proxies is benches/compare.

#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing else to do")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method, Request};
use rustls::ProtocolVersion;
use scorefront::config::{self, Paths};
use scorefront::scoring::caller::Caller;
use scorefront::scoring::catalog::Catalog;
use scorefront::scoring::exchange::Exchange;
use scorefront::scoring::forward;
use scorefront::scoring::judge::route::Route;
use scorefront::scoring::worker::Worker;
use scorefront::telemetry::access::AccessLog;
use scorefront::telemetry::metrics::Metrics;
use scorefront::tls::pair::{Files, examine};
use scorefront::tls::tickets::TicketKeys;
use scorefront::tls::{CertificateTable, Identity, Settings};
use scorefront::upstream;

fn route(c: &mut Criterion) {
    let paths = Paths { score: "/score".into(), health: "/".into(), swagger: "/swagger.json".into() };
    c.bench_function("route: match a path and write the replica's", |bencher| {
        bencher.iter(|| {
            let route = Route::parse(black_box("/api/v1/service/iris/score")).expect("a scoring path");
            route.resource.target(&paths, None)
        });
    });
}

fn certificates(c: &mut Criterion) {
    let key = rcgen::KeyPair::generate().expect("key");
    let pem = rcgen::CertificateParams::new(vec!["example".to_owned()]).expect("name").self_signed(&key).expect("sign");
    let files = Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") };
    let examined = examine(pem.pem().as_bytes(), key.serialize_pem().as_bytes(), files, None, SystemTime::now());
    let certificate = Arc::new(examined.certificate.expect("a pair"));
    let tickets = Arc::new(TicketKeys::random().expect("random bytes"));
    let settings = Settings::new(ProtocolVersion::TLSv1_2, tickets);
    let identity = Identity::new("example", vec![certificate], None, &settings).expect("an identity");
    let identity = Arc::new(identity);
    for names in [1, 10_000] {
        let mut table = CertificateTable::default();
        for n in 0..names {
            table.insert(&format!("cname-{n}.example.com"), Arc::clone(&identity));
        }
        table.insert("*.models.example.com", Arc::clone(&identity));
        let mut group = c.benchmark_group(format!("certificate among {names}"));
        group.bench_function("exact", |bencher| bencher.iter(|| table.find(black_box(Some("cname-0.example.com")))));
        group
            .bench_function("wildcard", |bencher| bencher.iter(|| table.find(black_box(Some("a.models.example.com")))));
        group.bench_function("none", |bencher| bencher.iter(|| table.find(black_box(Some("other.example.net")))));
    }
}

fn header_rules(c: &mut Criterion) {
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
        fields.insert(name, value.parse().expect("value"));
    }
    c.bench_function("headers: from a caller's request to a replica's", |bencher| {
        bencher.iter_batched(
            || {
                let mut request = Request::new(());
                *request.headers_mut() = fields.clone();
                (Exchange::begin(Rc::clone(&worker), Rc::clone(&caller), &request), request)
            },
            |(exchange, request)| {
                let mut written = upstream::Request::new(&Method::POST, "/score", ());
                forward::write(&exchange, true, request.headers(), &mut written);
                (exchange, written)
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(request_path, route, certificates, header_rules);
criterion_main!(request_path);
