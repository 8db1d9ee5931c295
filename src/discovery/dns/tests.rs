//! Against a name server of our own on a real socket: nothing here knows how answers are read.

mod stub;

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Mutex;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Record, RecordType};
use tokio::task::{LocalSet, spawn_local};

use super::found::{Addresses, MAX_KNOWN, SHORT_TTL};
use super::system::Files;
use super::*;
use stub::{Reply, Stub, address, alias, service};

/// As [`PACE`], some ten times as fast.
const QUICK: Pace = Pace {
    soonest: Duration::from_millis(50),
    latest: Duration::from_millis(150),
    confirm: Duration::from_millis(300),
    backoff: (Duration::from_millis(20), Duration::from_millis(100)),
    patience: Duration::from_secs(2),
};

const HOST: &str = "models.svc.";

fn target(text: &str) -> DnsTarget {
    text.parse().unwrap()
}

fn shown(replicas: &[ReplicaAddress]) -> Vec<String> {
    replicas.iter().map(ToString::to_string).collect()
}

async fn looked_up(stub: &Stub, text: &str) -> Result<Vec<String>, LookupError> {
    look_up(&Resolver::with_servers(&[stub.address]), &target(text)).await.map(|replicas| shown(&replicas))
}

/// What was published by a target that is followed.
#[derive(Clone, Default)]
struct Sets(Rc<RefCell<Vec<Vec<String>>>>);

impl Sets {
    fn all(&self) -> Vec<Vec<String>> {
        self.0.borrow().clone()
    }

    /// Waits until so many sets were published, and returns the last.
    async fn nth(&self, count: usize) -> Vec<String> {
        until(|| self.0.borrow().len() >= count).await;
        assert_eq!(self.0.borrow().len(), count);
        self.0.borrow().last().unwrap().clone()
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("it never was so");
}

/// Follows `text` on this thread.
fn followed(pace: Pace, resolver: Resolver, text: &str) -> Sets {
    let sets = Sets::default();
    let (published, target) = (sets.clone(), target(text));
    spawn_local(
        async move { follow_at(pace, &resolver, &target, |set| published.0.borrow_mut().push(shown(&set))).await },
    );
    sets
}

fn follow_stub(stub: &Stub, text: &str) -> Sets {
    followed(QUICK, Resolver::with_servers(&[stub.address]), text)
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_host_has_the_addresses_of_both_families() {
    let stub = Stub::start().await;
    stub.set_addresses(HOST, 5, &["10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.2"]);
    let found = looked_up(&stub, "models.svc.:5001").await.unwrap();
    assert_eq!(found, ["10.0.0.1:5001", "10.0.0.2:5001", "[fd00::1]:5001"]);
}

#[tokio::test]
async fn one_family_may_fail_if_the_other_has_addresses() {
    let stub = Stub::start().await;
    stub.set_addresses(HOST, 5, &["10.0.0.1"]);
    for failing in [Reply::Code(ResponseCode::ServFail), Reply::Code(ResponseCode::NotImp), Reply::Garbage] {
        stub.set(HOST, RecordType::AAAA, failing);
        assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), ["10.0.0.1:1"]);
    }
    stub.set(HOST, RecordType::A, Reply::NoData(1));
    looked_up(&stub, "models.svc.:1").await.unwrap_err();
}

#[tokio::test]
async fn an_alias_is_followed() {
    let stub = Stub::start().await;
    let chain = vec![alias(HOST, "other."), address("other.", 5, "10.0.0.9")];
    stub.set(HOST, RecordType::A, Reply::Records(chain, Vec::new()));
    assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), ["10.0.0.9:1"]);
}

#[tokio::test]
async fn what_no_replica_can_have_is_left_out() {
    let stub = Stub::start().await;
    stub.set_addresses(HOST, 5, &["0.0.0.0", "10.0.0.1", "::", "::ffff:10.0.0.1", "ff02::1"]);
    assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn a_service_has_the_hosts_of_its_lowest_priority_at_their_ports() {
    let stub = Stub::start().await;
    let name = "_http._tcp.models.";
    let records = vec![
        service(name, 5, 20, 9, "spare."),
        service(name, 5, 10, 5001, "a."),
        service(name, 5, 10, 5002, "a."),
        service(name, 5, 10, 5003, "b."),
        service(name, 5, 10, 5004, "gone."),
    ];
    stub.set(name, RecordType::SRV, Reply::Records(records, Vec::new()));
    stub.set_addresses("a.", 5, &["10.0.0.1"]);
    stub.set_addresses("b.", 5, &["10.0.0.2", "fd00::2"]);
    stub.set_addresses("spare.", 5, &["10.0.0.3"]);
    let found = looked_up(&stub, "_http._tcp.models.").await.unwrap();
    assert_eq!(found, ["10.0.0.1:5001", "10.0.0.1:5002", "10.0.0.2:5003", "[fd00::2]:5003"]);
}

#[tokio::test]
async fn a_service_may_have_an_alias() {
    let stub = Stub::start().await;
    let (name, blue) = ("_http._tcp.models.", "_http._tcp.blue.");
    let (link, record) = (alias(name, blue), service(blue, 5, 0, 80, "a."));
    stub.set(name, RecordType::CNAME, Reply::Records(vec![link.clone()], Vec::new()));
    stub.set(name, RecordType::SRV, Reply::Records(vec![link, record.clone()], Vec::new()));
    stub.set(blue, RecordType::SRV, Reply::Records(vec![record], Vec::new()));
    stub.set_addresses("a.", 5, &["10.0.0.1"]);
    assert_eq!(looked_up(&stub, "_http._tcp.models.").await.unwrap(), ["10.0.0.1:80"], "{:?}", stub.asked());
}

#[tokio::test]
async fn addresses_given_along_with_a_service_are_not_asked_for() {
    let stub = Stub::start().await;
    let name = "_http._tcp.models.";
    let along = vec![address("a.", 5, "10.0.0.1"), address("a.", 5, "fd00::1"), address("b.", 5, "10.0.0.9")];
    stub.set(name, RecordType::SRV, Reply::Records(vec![service(name, 5, 0, 80, "a.")], along));
    assert_eq!(looked_up(&stub, "_http._tcp.models.").await.unwrap(), ["10.0.0.1:80", "[fd00::1]:80"]);
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn a_service_at_the_root_is_none() {
    let stub = Stub::start().await;
    let name = "_http._tcp.models.";
    stub.set(name, RecordType::SRV, Reply::Records(vec![service(name, 5, 0, 80, ".")], Vec::new()));
    assert_eq!(looked_up(&stub, "_http._tcp.models.").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_host_of_a_service_that_fails_keeps_its_addresses_while_others_change() {
    local(async {
        let stub = Stub::start().await;
        let name = "_http._tcp.models.";
        let both = vec![service(name, 0, 0, 1, "a."), service(name, 0, 0, 2, "b.")];
        stub.set(name, RecordType::SRV, Reply::Records(both, Vec::new()));
        stub.set_addresses("a.", 0, &["10.0.0.1"]);
        stub.set_addresses("b.", 0, &["10.0.0.2"]);
        let sets = follow_stub(&stub, "_http._tcp.models.");
        assert_eq!(sets.nth(1).await, ["10.0.0.1:1", "10.0.0.2:2"]);
        stub.set("b.", RecordType::A, Reply::Code(ResponseCode::ServFail));
        stub.set("b.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
        stub.set_addresses("a.", 0, &["10.0.0.7"]);
        assert_eq!(sets.nth(2).await, ["10.0.0.2:2", "10.0.0.7:1"]);
        stub.set_addresses("b.", 0, &["10.0.0.8"]);
        assert_eq!(sets.nth(3).await, ["10.0.0.7:1", "10.0.0.8:2"]);
    })
    .await;
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp_and_what_is_too_much_is_cut() {
    let stub = Stub::start().await;
    let ips: Vec<String> = (0..1100).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    stub.set(HOST, RecordType::A, Reply::Long(ips.iter().map(|ip| address(HOST, 5, ip)).collect()));
    let found = looked_up(&stub, "models.svc.:1").await.unwrap();
    assert_eq!(found.len(), MAX_ADDRESSES);
    assert_eq!(stub.by_tcp(), 1);
    // Always the same ones, in whatever order they came.
    stub.set(HOST, RecordType::A, Reply::Long(ips.iter().rev().map(|ip| address(HOST, 5, ip)).collect()));
    assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), found);
}

#[tokio::test]
async fn a_service_with_too_many_addresses_is_bounded_over_all_its_hosts_and_ports() {
    let stub = Stub::start().await;
    let name = "_http._tcp.models.";
    let hosts = ["f.", "e.", "d.", "c.", "b.", "a."];
    let records = hosts.iter().flat_map(|host| [service(name, 5, 0, 2, host), service(name, 5, 0, 1, host)]).collect();
    stub.set(name, RecordType::SRV, Reply::Records(records, Vec::new()));
    // Each host has every sixth address, so that the lowest are of all of them.
    for (nth, host) in hosts.iter().enumerate() {
        let ips = (0..1100_usize).rev().map(|n| n * hosts.len() + nth).map(|n| format!("10.0.{}.{}", n / 256, n % 256));
        stub.set(host, RecordType::A, Reply::Long(ips.map(|ip| address(host, 5, &ip)).collect()));
        stub.set(host, RecordType::AAAA, Reply::NoData(1));
    }
    let resolver = Resolver::with_servers(&[stub.address]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut found = look_up_by(deadline, &resolver, &target(name), &Arc::default()).await.unwrap();
    assert_eq!(found.addresses.len(), MAX_ADDRESSES + 1);
    assert_eq!(found.known.values().map(Vec::len).sum::<usize>(), MAX_KNOWN);
    assert!(hosts.iter().all(|host| found.known.contains_key(&(stub::name_of(host), RecordType::A))));
    assert!(found.cut());
    let lowest = (0..MAX_ADDRESSES / 2)
        .flat_map(|n| [1, 2].map(|port| format!("10.0.{}.{}:{port}", n / 256, n % 256)))
        .collect::<Vec<_>>();
    assert_eq!(shown(&found.replicas()), lowest);
}

#[test]
fn what_is_known_of_one_name_is_bounded_and_always_the_same() {
    let ips = (0..5000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into()));
    let name = stub::name_of(HOST);
    for ips in [ips.clone().collect::<Vec<_>>(), ips.clone().rev().collect()] {
        let mut found = Addresses::default();
        found.add(&name, RecordType::A, ips, SHORT_TTL);
        let known = &found.known[&(name.clone(), RecordType::A)];
        assert_eq!((known.len(), found.ips.len()), (MAX_ADDRESSES + 1, MAX_ADDRESSES + 1));
        assert_eq!(known.last(), Some(&IpAddr::V4((0x0a00_0000 + 1000).into())));
    }
}

/// Answers about `name` that are neither replicas nor an absence.
fn leading_nowhere(name: &str, kind: RecordType) -> Vec<(&'static str, Vec<Record>)> {
    let record = |name: &str, ip: &str| match kind {
        RecordType::SRV => service(name, 0, 0, 1, "a."),
        _ => address(name, 0, ip),
    };
    let ip = if kind == RecordType::AAAA { "fd00::1" } else { "10.0.0.1" };
    let useless = match kind {
        RecordType::A => vec![address(name, 0, "0.0.0.0"), address(name, 0, "224.0.0.1")],
        RecordType::AAAA => vec![address(name, 0, "::"), address(name, 0, "ff02::1")],
        _ => vec![service(name, 0, 0, 0, "a.")],
    };
    let mut chain = vec![alias(name, "n0.")];
    chain.extend((0..8).map(|n| alias(&format!("n{n}."), &format!("n{}.", n + 1))));
    chain.push(record("n8.", ip));
    vec![
        ("circle", vec![alias(name, name)]),
        ("circle", vec![alias(name, "n0."), alias("n0.", name)]),
        ("circle", chain),
        ("another name", vec![record("other.", ip)]),
        ("no replica", useless),
    ]
}

#[tokio::test]
async fn an_answer_that_leads_nowhere_ends_no_replica() {
    local(async {
        for (text, kinds) in
            [("models.svc.:1", vec![RecordType::A, RecordType::AAAA]), ("_http._tcp.models.", vec![RecordType::SRV])]
        {
            let stub = Stub::start().await;
            let name = text.trim_end_matches(":1");
            stub.set("a.", RecordType::A, Reply::Records(vec![address("a.", 0, "10.0.0.1")], Vec::new()));
            stub.set("a.", RecordType::AAAA, Reply::NoData(1));
            stub.set_addresses(name, 0, &["10.0.0.1"]);
            stub.set(name, RecordType::SRV, Reply::Records(vec![service(name, 0, 0, 1, "a.")], Vec::new()));
            let sets = follow_stub(&stub, text);
            assert_eq!(sets.nth(1).await, ["10.0.0.1:1"]);
            let count = leading_nowhere(name, RecordType::A).len();
            for nth in 0..count {
                let mut expected = "";
                for kind in &kinds {
                    let (why, records) = leading_nowhere(name, *kind).swap_remove(nth);
                    stub.set(name, *kind, Reply::Records(records, Vec::new()));
                    expected = why;
                }
                let error = looked_up(&stub, text).await.unwrap_err().to_string();
                assert!(error.contains("leads nowhere") && error.contains(expected), "{text} {nth}: {error}");
            }
            // Longer than it takes to believe an absence.
            sleep(QUICK.confirm * 2).await;
            assert_eq!(sets.all().len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn aliases_are_followed_over_several_answers_and_may_end_at_nothing() {
    let stub = Stub::start().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        for n in 0..7 {
            let (from, to) = (format!("n{n}."), format!("n{}.", n + 1));
            stub.set(&from, kind, Reply::Records(vec![alias(&from, &to)], Vec::new()));
        }
        stub.set(HOST, kind, Reply::Records(vec![alias(HOST, "n0.")], Vec::new()));
    }
    assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), [""; 0]);
    stub.set_addresses("n7.", 5, &["10.0.0.1"]);
    assert_eq!(looked_up(&stub, "models.svc.:1").await.unwrap(), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn the_names_of_this_host_are_not_asked_for() {
    let stub = Stub::start().await;
    assert_eq!(looked_up(&stub, "localhost:1").await.unwrap(), ["127.0.0.1:1", "[::1]:1"]);
    assert_eq!(looked_up(&stub, "models.invalid:1").await.unwrap(), [""; 0]);
    assert_eq!(stub.asked(), []);
}

#[tokio::test]
async fn a_change_is_published_once_and_an_order_is_no_change() {
    local(async {
        let stub = Stub::start().await;
        stub.set_addresses(HOST, 0, &["10.0.0.1", "10.0.0.2"]);
        let sets = follow_stub(&stub, "models.svc.:1");
        assert_eq!(sets.nth(1).await, ["10.0.0.1:1", "10.0.0.2:1"]);
        stub.set_addresses(HOST, 0, &["10.0.0.2", "10.0.0.1"]);
        let asked = stub.count(RecordType::A);
        until(|| stub.count(RecordType::A) >= asked + 3).await;
        assert_eq!(sets.all().len(), 1);
        stub.set_addresses(HOST, 0, &["10.0.0.2", "10.0.0.3"]);
        assert_eq!(sets.nth(2).await, ["10.0.0.2:1", "10.0.0.3:1"]);
        let asked = stub.count(RecordType::A);
        until(|| stub.count(RecordType::A) >= asked + 3).await;
        assert_eq!(sets.all().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_failing_name_server_ends_no_replica() {
    local(async {
        let stub = Stub::start().await;
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        let sets = follow_stub(&stub, "models.svc.:1");
        sets.nth(1).await;
        for failing in [Reply::Code(ResponseCode::ServFail), Reply::Code(ResponseCode::Refused), Reply::Garbage] {
            stub.forget(failing);
            let asked = stub.count(RecordType::A);
            until(|| stub.count(RecordType::A) >= asked + 6).await;
        }
        assert_eq!(sets.all().len(), 1);
        stub.set_addresses(HOST, 0, &["10.0.0.2"]);
        assert_eq!(sets.nth(2).await, ["10.0.0.2:1"]);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_published_before_there_is_an_answer() {
    local(async {
        let stub = Stub::start().await;
        stub.forget(Reply::Code(ResponseCode::ServFail));
        let sets = follow_stub(&stub, "models.svc.:1");
        until(|| stub.count(RecordType::A) >= 6).await;
        assert_eq!(sets.all().len(), 0);
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        assert_eq!(sets.nth(1).await, ["10.0.0.1:1"]);
    })
    .await;
}

#[tokio::test]
async fn absence_is_believed_when_it_is_said_twice() {
    local(async {
        let stub = Stub::start().await;
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        let sets = follow_stub(&stub, "models.svc.:1");
        sets.nth(1).await;
        // Said once, and taken back.
        let asked = stub.count(RecordType::A);
        stub.forget(Reply::Code(ResponseCode::NXDomain));
        until(|| stub.count(RecordType::A) > asked).await;
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        let asked = stub.count(RecordType::A);
        until(|| stub.count(RecordType::A) >= asked + 3).await;
        assert_eq!(sets.all().len(), 1);
        // Said once, and then nothing.
        let asked = stub.count(RecordType::A);
        stub.forget(Reply::NoData(1));
        until(|| stub.count(RecordType::A) > asked).await;
        stub.forget(Reply::Code(ResponseCode::ServFail));
        until(|| stub.count(RecordType::A) >= asked + 6).await;
        assert_eq!(sets.all().len(), 1);
        // Said again.
        let before = Instant::now();
        stub.forget(Reply::NoData(1));
        assert_eq!(sets.nth(2).await, [""; 0]);
        assert!(before.elapsed() < Duration::from_secs(2));
        stub.set_addresses(HOST, 0, &["10.0.0.5"]);
        assert_eq!(sets.nth(3).await, ["10.0.0.5:1"]);
    })
    .await;
}

#[tokio::test]
async fn the_second_absence_counts_after_a_while_only() {
    local(async {
        let stub = Stub::start().await;
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        let sets = follow_stub(&stub, "models.svc.:1");
        sets.nth(1).await;
        let asked = stub.count(RecordType::A);
        stub.forget(Reply::Code(ResponseCode::NXDomain));
        until(|| stub.count(RecordType::A) > asked).await;
        let heard = Instant::now();
        sets.nth(2).await;
        // Less what passed until the stub's question was seen here.
        assert!(heard.elapsed() + Duration::from_millis(50) >= QUICK.confirm, "{:?}", heard.elapsed());
    })
    .await;
}

#[tokio::test]
async fn the_shortest_time_to_live_says_when_to_ask_again() {
    local(async {
        let pace = Pace { latest: Duration::from_secs(60), ..QUICK };
        let stub = Stub::start().await;
        stub.set_addresses(HOST, 1, &["10.0.0.1"]);
        stub.set(HOST, RecordType::AAAA, Reply::Records(vec![address(HOST, 30, "fd00::1")], Vec::new()));
        let sets = followed(pace, Resolver::with_servers(&[stub.address]), "models.svc.:1");
        sets.nth(1).await;
        let asked = Instant::now();
        until(|| stub.count(RecordType::A) == 2).await;
        let time = asked.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(1900)).contains(&time), "{time:?}");
    })
    .await;
}

#[tokio::test]
async fn a_time_to_live_is_held_within_bounds() {
    local(async {
        let stub = Stub::start().await;
        for (ttl, at_least, at_most) in [(0, 3, 11), (3600, 2, 5)] {
            stub.set_addresses(HOST, ttl, &["10.0.0.1"]);
            let before = stub.count(RecordType::A);
            let following = {
                let (resolver, target) = (Resolver::with_servers(&[stub.address]), target("models.svc.:1"));
                spawn_local(async move { follow_at(QUICK, &resolver, &target, |_| ()).await })
            };
            sleep(Duration::from_millis(450)).await;
            following.abort();
            let asked = stub.count(RecordType::A) - before;
            assert!((at_least..=at_most).contains(&asked), "{ttl}: {asked}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_lookup_ends_though_nobody_answers() {
    let stub = Stub::start().await;
    stub.forget(Reply::Silence);
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(300);
    let resolver = Resolver::with_servers(&[stub.address]);
    let error = look_up_by(deadline, &resolver, &target("models.svc.:1"), &Arc::default()).await.unwrap_err();
    assert!(matches!(error, LookupError::Silent(server) if server == stub.address), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    // What one family has said until then is not lost.
    stub.set_addresses(HOST, 5, &["10.0.0.1"]);
    stub.set(HOST, RecordType::AAAA, Reply::Silence);
    let deadline = Instant::now() + Duration::from_millis(300);
    let found = look_up_by(deadline, &resolver, &target("models.svc.:1"), &Arc::default()).await.unwrap();
    assert_eq!(shown(&found.replicas()), ["10.0.0.1:1"]);
    stub.set(HOST, RecordType::A, Reply::Slow(Duration::from_millis(100), vec![address(HOST, 5, "10.0.0.2")]));
    let deadline = Instant::now() + Duration::from_secs(1);
    let found = look_up_by(deadline, &resolver, &target("models.svc.:1"), &Arc::default()).await.unwrap();
    assert_eq!(shown(&found.replicas()), ["10.0.0.2:1"]);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails_and_then_stays_first() {
    let (failing, good) = (Stub::start().await, Stub::start().await);
    failing.forget(Reply::Code(ResponseCode::Refused));
    good.set_addresses(HOST, 5, &["10.0.0.1"]);
    let resolver = Resolver::with_servers(&[failing.address, good.address]);
    for _ in 0..3 {
        let found = look_up(&resolver, &target("models.svc.:1")).await.unwrap();
        assert_eq!(shown(&found), ["10.0.0.1:1"]);
    }
    // Once, and what hickory repeats, for each family.
    assert!(failing.asked().len() <= 4, "{:?}", failing.asked());
}

/// A resolver that goes by files of its own, and the directory they are in.
fn by_files(stub: &Stub, conf: &str, hosts: &str) -> (Resolver, tempfile::TempDir, Files) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let files = Files { resolv_conf: file("resolv.conf"), hosts: file("hosts"), port: stub.address.port() };
    if !conf.is_empty() {
        fs::write(&files.resolv_conf, conf).unwrap();
    }
    fs::write(&files.hosts, hosts).unwrap();
    (Resolver::by_files(files.clone()), directory, files)
}

#[tokio::test]
async fn a_short_name_is_searched_for_in_the_domains_by_ndots() {
    let stub = Stub::start().await;
    let conf = "nameserver 127.0.0.1\nsearch ns.svc.cluster svc.cluster cluster\noptions ndots:2\n";
    let (resolver, _directory, _) = by_files(&stub, conf, "");
    stub.set_addresses("models.ns.svc.cluster.", 5, &["10.0.0.1"]);
    stub.set_addresses("models.other.svc.cluster.", 5, &["10.0.0.2"]);
    stub.set_addresses("models.other.svc.", 5, &["10.0.0.3"]);
    for (name, found) in
        [("models:1", "10.0.0.1:1"), ("models.other:1", "10.0.0.2:1"), ("models.other.svc:1", "10.0.0.3:1")]
    {
        assert_eq!(shown(&look_up(&resolver, &target(name)).await.unwrap()), [found]);
    }
    let first = |labels: &str| stub.asked().iter().any(|(name, _)| name.starts_with(labels));
    assert!(!first("models.other.svc.ns"), "{:?}", stub.asked());
    // The union of both families is that of one name, not of two.
    stub.set(
        "both.ns.svc.cluster.",
        RecordType::A,
        Reply::Records(vec![address("both.ns.svc.cluster.", 5, "10.0.0.1")], Vec::new()),
    );
    stub.set_addresses("both.svc.cluster.", 5, &["fd00::2"]);
    assert_eq!(shown(&look_up(&resolver, &target("both:1")).await.unwrap()), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn a_search_domain_that_fails_is_neither_an_absence_nor_an_end() {
    let stub = Stub::start().await;
    let (resolver, _directory, _) = by_files(&stub, "nameserver 127.0.0.1\nsearch broken good\n", "");
    stub.set("models.broken.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    stub.set("models.broken.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    let error = look_up(&resolver, &target("models:1")).await.unwrap_err();
    assert!(error.to_string().ends_with("answers SERVFAIL for models.broken."), "{error}");
    stub.set_addresses("models.good.", 5, &["10.0.0.1"]);
    assert_eq!(shown(&look_up(&resolver, &target("models:1")).await.unwrap()), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn a_name_that_has_answered_is_not_passed_over_when_it_fails() {
    local(async {
        let stub = Stub::start().await;
        let (resolver, _directory, _) = by_files(&stub, "nameserver 127.0.0.1\nsearch first second\n", "");
        stub.set_addresses("models.first.", 0, &["10.0.0.1"]);
        stub.set_addresses("models.second.", 0, &["10.0.0.2"]);
        let sets = followed(QUICK, resolver, "models:1");
        sets.nth(1).await;
        stub.set("models.first.", RecordType::A, Reply::Code(ResponseCode::ServFail));
        stub.set("models.first.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
        let asked = stub.count(RecordType::A);
        until(|| stub.count(RecordType::A) >= asked + 6).await;
        assert_eq!(sets.all(), [["10.0.0.1:1"]]);
    })
    .await;
}

#[tokio::test]
async fn hosts_come_before_name_servers_and_both_files_are_read_again() {
    let stub = Stub::start().await;
    let (resolver, _directory, files) = by_files(&stub, "", "10.0.0.1 models\n");
    let look = async |name: &str| look_up(&resolver, &target(name)).await.map(|found| shown(&found));
    assert_eq!(look("models:1").await.unwrap(), ["10.0.0.1:1"]);
    // Without a resolv.conf.
    let error = look("models.svc.:1").await.unwrap_err().to_string();
    assert!(error.contains("resolv.conf") && error.contains("No such file"), "{error}");
    // It appears.
    stub.set_addresses(HOST, 5, &["10.0.0.2"]);
    fs::write(&files.resolv_conf, "nameserver 127.0.0.1\n").unwrap();
    assert_eq!(look("models.svc.:1").await.unwrap(), ["10.0.0.2:1"]);
    // It is half written, and goes: the one before is kept.
    fs::write(&files.resolv_conf, "search svc\n").unwrap();
    assert_eq!(look("models.svc.:1").await.unwrap(), ["10.0.0.2:1"]);
    fs::remove_file(&files.resolv_conf).unwrap();
    assert_eq!(look("models.svc.:1").await.unwrap(), ["10.0.0.2:1"]);
    // It has a domain now, and the hosts are others.
    fs::write(&files.resolv_conf, "nameserver 127.0.0.1\nsearch svc\n").unwrap();
    fs::write(&files.hosts, "10.0.0.9 another\n").unwrap();
    assert_eq!(look("models:1").await.unwrap(), ["10.0.0.2:1"]);
    assert_eq!(look("another:1").await.unwrap(), ["10.0.0.9:1"]);
}

#[tokio::test]
async fn what_this_host_says_is_no_reason_to_fail_at_once() {
    // Whatever it says here.
    Resolver::system();
    let error = look_up(&Resolver::with_servers(&[]), &target("models.svc.:1")).await.unwrap_err();
    assert!(matches!(error, LookupError::NoServer(_)), "{error}");
}

#[test]
fn failures_are_waited_out_for_longer_and_longer() {
    let target = target("models.svc.:1");
    let mut follower = Follower::new(PACE, &target);
    let error = LookupError::NoServer(String::new());
    for expected in [1, 2, 4, 8, 10, 10].map(Duration::from_secs) {
        let wait = follower.fail(&error);
        assert!((expected..=expected.mul_f64(1.25)).contains(&wait), "{wait:?}");
    }
    follower.failures = u32::MAX;
    assert!(follower.fail(&error) >= Duration::from_secs(10));
}

/// Log lines as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failure_is_logged_when_it_begins_and_when_it_ends() {
    let lines = Lines::default();
    let writer = lines.clone();
    // With one subscriber alone an event that another thread meets first is asked about there, where nobody listens, and
    // is never heard of again.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    local(async {
        let stub = Stub::start().await;
        stub.forget(Reply::Code(ResponseCode::ServFail));
        let sets = follow_stub(&stub, "models.svc.:1");
        until(|| stub.count(RecordType::A) >= 8).await;
        stub.set_addresses(HOST, 0, &["10.0.0.1"]);
        sets.nth(1).await;
        let asked = stub.count(RecordType::A);
        until(|| stub.count(RecordType::A) >= asked + 3).await;
    })
    .await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!((count("cannot be looked up"), count("can be looked up again")), (1, 1), "{text}");
    assert!(text.contains("answers SERVFAIL for models.svc."), "{text}");
}
