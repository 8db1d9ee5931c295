//! Several front ends before the same replicas: whose a slot is, what is handed over, and what happens when one of them
//! comes, goes, or is no member at all.

use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{
    Cluster, Environment, Gate, Replica, Reply, SCORE, Step, Wire, channel, chunk, chunked, eventually, free_addresses,
    member, ok, post, read, request, see, until_members, within,
};

const PATIENT: &str = "max_queue_wait = '20s'\nmax_queue = 1000";

/// One that takes some time for each request, and answers with its body.
fn slow() -> Replica {
    Replica::start([Step::ReadBody, Step::Drip(Vec::new(), 2, Duration::from_millis(5)), ok("done")])
}

/// Calls each of `cluster`'s front ends by `callers` connections that make `calls` calls one after another: the answers
/// that are not 200.
async fn load(cluster: &Cluster, callers: usize, calls: usize) -> Vec<Reply> {
    let mut running = JoinSet::new();
    for front in &cluster.fronts {
        for _ in 0..callers {
            let mut caller = front.http1().await;
            running.spawn(async move {
                let mut failed = Vec::new();
                for _ in 0..calls {
                    let reply = caller.call(post(SCORE, "x")).await;
                    if reply.status != 200 {
                        failed.push(reply);
                    }
                }
                failed
            });
        }
    }
    running.join_all().await.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_single_slot_replica_never_sees_two_requests_at_once_whichever_front_end_is_called() {
    let replicas = [slow(), slow(), slow(), slow()];
    let all: Vec<_> = replicas.iter().collect();
    let cluster = Cluster::start(3, &all, PATIENT).await;
    let failed = load(&cluster, 6, 20).await;
    assert!(failed.is_empty(), "{failed:?}");
    let most: Vec<_> = replicas.iter().map(|replica| replica.state().most_running).collect();
    assert_eq!(most, [1, 1, 1, 1]);
    assert_eq!(replicas.iter().map(|replica| replica.requests().len()).sum::<usize>(), 3 * 6 * 20);
}

#[tokio::test]
async fn all_front_ends_name_the_same_home_and_hand_over_to_it() {
    let replica = Replica::echo();
    let cluster = Cluster::start(3, &[&replica], PATIENT).await;
    let (home, others) = cluster.home().await;
    for front in &cluster.fronts {
        let seen = see(front).await;
        assert_eq!(seen["services"][0]["deployments"][0]["owners"][0]["address"], cluster.addresses[home].to_string());
    }
    for other in &others {
        let mut caller = cluster.fronts[*other].http2().await;
        let reply = caller.call(post(SCORE, "through two")).await;
        assert_eq!((reply.status, reply.text()), (200, "through two"));
        assert_eq!(reply.field("azureml-model-deployment"), Some("default"));
        let timing = reply.fields("server-timing");
        assert!(timing.len() == 1 && timing[0].contains("model;dur="), "{timing:?}");
        assert_eq!(reply.fields("scorefront-outcome"), Vec::<&str>::new());
        let metric = format!("cluster_handed_over_total{{member=\"{}\"}}", cluster.addresses[home]);
        assert!((cluster.fronts[*other].metric(&metric).await - 1.0).abs() < 0.1);
        let here = "requests_total{service=\"iris\",deployment=\"default\",class=\"2xx\"}";
        assert!((cluster.fronts[*other].metric(here).await - 1.0).abs() < 0.1);
    }
    let home = &cluster.fronts[home];
    assert!((home.metric("cluster_received_total{service=\"iris\",deployment=\"default\"}").await - 2.0).abs() < 0.1);
    let there = home.metric("requests_total{service=\"iris\",deployment=\"default\",class=\"2xx\"}").await;
    assert!(there.abs() < 0.1, "what callers have of it is counted where they are");
    for seen in replica.requests() {
        for (name, _) in seen.fields() {
            assert!(!name.starts_with("scorefront-"), "{name}");
        }
        assert_eq!(seen.line(), "POST /score HTTP/1.1");
        assert!(seen.field("x-request-id").is_some() && seen.field("x-forwarded-host").is_some());
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_through_two_front_ends() {
    let gate = Gate::new();
    let replica = Replica::start([
        chunked(),
        chunk("first"),
        Step::ReadBody,
        Step::Stall(gate.clone()),
        chunk("last"),
        chunk(""),
    ]);
    let cluster = Cluster::start(2, &[&replica], PATIENT).await;
    let (_, others) = cluster.home().await;
    let mut caller = cluster.fronts[others[0]].http1().await;
    let (parts, body) = channel();
    let call = request(Method::POST, SCORE, body);
    parts.send(Ok("one ".into())).await.expect("taken");
    let answer = caller.send(call).await.expect("a head while the request is not whole");
    parts.send(Ok("two".into())).await.expect("taken");
    drop(parts);
    replica.until(|state| state.requests[0].whole).await;
    assert_eq!(replica.only_request().body, b"one two");
    gate.open();
    assert_eq!(read(answer).await.expect("whole").text(), "firstlast");
}

#[tokio::test]
async fn a_callers_hang_up_reaches_the_replica_and_frees_its_permit() {
    let replica = Replica::in_turn([vec![Step::ReadBody, Step::Hang], vec![Step::Echo]]);
    let cluster = Cluster::start(2, &[&replica], PATIENT).await;
    let (_, others) = cluster.home().await;
    let mut wire = cluster.fronts[others[0]].wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    replica.saw(1).await;
    drop(wire);
    let reply = cluster.fronts[others[0]].http1().await.call(post(SCORE, "next")).await;
    assert_eq!(reply.text(), "next");
}

#[tokio::test]
async fn refusals_of_the_home_pass_through_with_all_they_say() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let keys = "max_queue_wait = '20s'\nmax_queue = 0\nscoring_timeout = '1s'";
    let mut cluster = Cluster::start(2, &[&replica], keys).await;
    let (home, others) = cluster.home().await;
    let other = &cluster.fronts[others[0]];
    let mut first = other.http1().await;
    let held = tokio::spawn(async move { first.call(post(SCORE, "x")).await });
    replica.saw(1).await;
    let refused = other.http1().await.call(post(SCORE, "x")).await;
    refused.assert_refusal(503, "Overloaded", "Too many requests for service iris (overloaded)");
    assert!(refused.field("retry-after").is_some());
    let late = held.await.expect("no panic");
    late.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 1000 ms.");
    replica.is_free().await;

    let (home_address, other_address) = (cluster.addresses[home].to_string(), cluster.addresses[others[0]].to_string());
    let ids = [refused, late].map(|reply| reply.field("x-ms-request-id").expect("an id").to_owned());
    let lines = cluster.fronts.remove(others[0]).log_lines(2).await;
    let home = cluster.fronts.remove(0).log_lines(2).await;
    for id in ids {
        let of = |lines: &[serde_json::Value]| lines.iter().find(|line| line["id"] == id).expect("a line").clone();
        let (here, there) = (of(&lines), of(&home));
        assert_eq!((here["handed_to"].as_str(), here.get("handed_by")), (Some(&*home_address), None));
        assert_eq!((there["handed_by"].as_str(), there.get("handed_to")), (Some(&*other_address), None));
        // Whose clock rings first at the deadline is chance; then the other one sees a hang-up.
        assert!(here["code"] == there["code"] || there["end"] == "caller_left", "{here} {there}");
    }
}

#[tokio::test]
async fn the_deadline_of_the_caller_holds_elsewhere_too() {
    let replica = Replica::in_turn([vec![Step::ReadBody, Step::Hang], vec![Step::Echo]]);
    let cluster = Cluster::start(2, &[&replica], PATIENT).await;
    let (_, others) = cluster.home().await;
    let mut call = post(SCORE, "x");
    call.headers_mut().insert("x-request-timeout-ms", "300".parse().unwrap());
    let reply = cluster.fronts[others[0]].http1().await.call(call).await;
    reply.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 300 ms.");
    let left: u64 = replica.only_request().field("x-request-timeout-ms").expect("what is left").parse().unwrap();
    assert!(left <= 300);
    assert_eq!(cluster.fronts[others[0]].http1().await.call(post(SCORE, "next")).await.text(), "next");
}

#[tokio::test]
async fn who_does_not_know_the_secret_or_is_no_member_is_refused() {
    let replica = Replica::echo();
    let cluster = Cluster::start(2, &[&replica], PATIENT).await;
    let (home, _) = cluster.home().await;
    let to = cluster.addresses[home];
    let refusal = |reply: &Reply| {
        reply.assert_refusal(403, "NotAMember", "Only the front ends of this cluster are answered here.");
    };
    let call = "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n";
    let of = |from: &str, signature: &str| {
        format!(
            "{call}scorefront-call: 1 2 1000 iris default\r\nscorefront-from: {from}\r\nscorefront-signature: {signature}\r\n\r\nx"
        )
    };
    let signature = "0".repeat(64);
    let member = cluster.addresses[1 - home].to_string();
    for sent in [format!("{call}\r\nx"), of(&member, &signature), of("nobody", &signature)] {
        let mut wire = Wire::new(TcpStream::connect(to).await.expect("a connection"));
        refusal(&wire.ask(sent).await);
    }
    let question = format!(
        "POST /cluster HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nscorefront-signature: {signature}\r\n\r\n{{}}"
    );
    let mut wire = Wire::new(TcpStream::connect(to).await.expect("a connection"));
    refusal(&wire.ask(question).await);
    let secrets = scorefront::cluster::secret::Secrets::parse(crate::support::SECRET.as_bytes()).expect("a secret");
    let stranger = "127.0.0.1:9".parse().unwrap();
    let signed = secrets.sign(&scorefront::cluster::secret::handing_over(stranger, to)).expect("a signature");
    let mut wire = Wire::new(TcpStream::connect(to).await.expect("a connection"));
    refusal(&wire.ask(of("127.0.0.1:9", signed.to_str().unwrap())).await);
    let front = &cluster.fronts[home];
    assert!((front.metric("cluster_refused_total{reason=\"wrong_secret\"}").await - 4.0).abs() < 0.1);
    assert!((front.metric("cluster_refused_total{reason=\"not_a_member\"}").await - 1.0).abs() < 0.1);
    assert_eq!(replica.requests().len(), 0);
}

#[tokio::test]
async fn a_front_end_with_another_secret_is_none_of_the_cluster() {
    let replica = Replica::echo();
    let mut cluster = Cluster::start(2, &[&replica], PATIENT).await;
    cluster.fronts[1].files().put("cluster.secret", "another-secret-of-front-ends-0123456789\n");
    assert_eq!(cluster.fronts[1].reload().await.0, 200);
    for front in &cluster.fronts {
        until_members(front, 1).await;
    }
    // With both it is known to those who have either.
    cluster.fronts[1]
        .files()
        .put("cluster.secret", &format!("{}\nanother-secret-of-front-ends-0123456789\n", crate::support::SECRET));
    assert_eq!(cluster.fronts[1].reload().await.0, 200);
    cluster.until_settled().await;
    cluster.fronts.clear();
}

#[tokio::test]
async fn a_request_that_was_handed_over_often_enough_goes_no_further() {
    let replica = Replica::echo();
    let cluster = Cluster::start(2, &[&replica], "max_queue_wait = '200ms'").await;
    let (home, others) = cluster.home().await;
    let (from, to) = (cluster.addresses[home], cluster.addresses[others[0]]);
    let secrets = scorefront::cluster::secret::Secrets::parse(crate::support::SECRET.as_bytes()).expect("a secret");
    let signed = secrets.sign(&scorefront::cluster::secret::handing_over(from, to)).expect("a signature");
    let call = |hops| {
        format!(
            "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nx-request-timeout-ms: 5000\r\n\
             scorefront-call: {hops} 2 5000 iris default\r\nscorefront-from: {from}\r\n\
             scorefront-signature: {}\r\n\r\nx",
            signed.to_str().unwrap()
        )
    };
    let mut wire = Wire::new(TcpStream::connect(to).await.expect("a connection"));
    let once = wire.ask(call(1)).await;
    assert_eq!((once.status, once.text()), (200, "x"), "on to whose it is");
    let often = wire.ask(call(8)).await;
    assert_eq!(often.refusal(), (503, "Overloaded".to_owned()));
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn slots_move_to_who_comes_and_back_from_who_goes_and_no_replica_sees_two_at_once() {
    let replicas = [slow(), slow(), slow(), slow()];
    let all: Vec<_> = replicas.iter().collect();
    // The one that comes and goes is the home of the service whenever it is there.
    let mut addresses = free_addresses(3);
    let home = scorefront::cluster::shares::owners("iris", addresses.iter().copied(), 1)[0];
    addresses.sort_by_key(|address| *address == home);
    let one_service = |environment: Environment| environment.set("defaults", PATIENT).service("iris", &all, "");
    let mut fronts: Vec<_> = addresses[..2].iter().map(|own| member(*own, &addresses, &one_service).start()).collect();
    for front in &fronts {
        until_members(front, 2).await;
    }
    let mut callers = JoinSet::new();
    let over = Gate::new();
    for front in &fronts {
        for _ in 0..6 {
            let mut caller = front.http1().await;
            let over = over.clone();
            callers.spawn(async move {
                let mut statuses = Vec::new();
                while !over.is_open() {
                    statuses.push(caller.call(post(SCORE, "x")).await.status);
                }
                statuses
            });
        }
    }
    let answered = || replicas.iter().map(|replica| replica.requests().len()).sum::<usize>();
    for round in 1..=5 {
        eventually("calls go on", async || answered() > 100 * round).await;
        let mut third = member(addresses[2], &addresses, &one_service).start();
        until_members(&third, 3).await;
        for front in &fronts {
            until_members(front, 3).await;
        }
        // Over the API it is the same.
        match round % 2 {
            0 => assert_eq!(third.admin("POST /v1/drain HTTP/1.1").await.status, 202),
            _ => third.begin_drain(),
        }
        for front in &fronts {
            until_members(front, 2).await;
        }
        // What was on its way when it said that it leaves has come by then, as it has at the end of `drain_grace`.
        let before = answered();
        eventually("calls go on without it", async || answered() > before + 50).await;
        assert!(within(third.stop(Duration::from_secs(15))).await, "nothing was cut");
    }
    over.open();
    let statuses = callers.join_all().await.into_iter().flatten();
    assert_eq!(statuses.filter(|status| *status != 200).collect::<Vec<_>>(), Vec::<u16>::new());
    let most: Vec<_> = replicas.iter().map(|replica| replica.state().most_running).collect();
    assert_eq!(most, [1, 1, 1, 1]);
    fronts.clear();
}

#[tokio::test]
async fn when_the_home_is_killed_another_takes_its_place() {
    let replicas = [slow(), slow()];
    let all: Vec<_> = replicas.iter().collect();
    let mut cluster = Cluster::start(3, &all, PATIENT).await;
    let (home, _) = cluster.home().await;
    drop(cluster.fronts.remove(home));
    let gone = cluster.addresses.remove(home);
    let failed = load(&cluster, 3, 5).await;
    assert!(failed.is_empty(), "{failed:?}");
    cluster.until_settled().await;
    let (home, _) = cluster.home().await;
    assert_ne!(cluster.addresses[home], gone);
}

#[tokio::test]
async fn a_new_front_end_that_others_do_not_name_introduces_itself() {
    let replica = Replica::echo();
    let addresses = free_addresses(2);
    let fill = |environment: Environment| environment.set("defaults", PATIENT).service("iris", &[&replica], "");
    let first = member(addresses[0], &addresses[..1], &fill).start();
    until_members(&first, 1).await;
    let second = member(addresses[1], &addresses, &fill).start();
    until_members(&second, 2).await;
    until_members(&first, 2).await;
    for front in [&first, &second] {
        assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "x");
    }
}

#[tokio::test]
async fn a_deployment_without_a_limit_is_every_front_ends() {
    let replica = Replica::echo();
    let cluster = Cluster::start(2, &[&replica], "max_concurrent_requests_per_replica = 0").await;
    let failed = load(&cluster, 2, 5).await;
    assert!(failed.is_empty(), "{failed:?}");
    for front in &cluster.fronts {
        let seen = see(front).await;
        let deployment = &seen["services"][0]["deployments"][0];
        assert!(deployment["owners"].is_null() && deployment["slots"].is_null());
        assert!(seen["members"].as_array().unwrap().iter().all(|member| member["handed_over"] == 0));
    }
}

#[tokio::test]
async fn a_large_deployment_is_split_and_every_slot_is_somebodys() {
    let replicas: Vec<_> = (0..3).map(|_| slow()).collect();
    let all: Vec<_> = replicas.iter().collect();
    let keys = format!("{PATIENT}\nmax_concurrent_requests_per_replica = 40");
    let cluster = Cluster::start(3, &all, &keys).await;
    let mut slots = Vec::new();
    for front in &cluster.fronts {
        slots.push(see(front).await["services"][0]["deployments"][0]["slots"].as_u64().expect("a number"));
    }
    assert_eq!(slots.iter().sum::<u64>(), 120);
    assert!(slots.iter().all(|slots| (39..=42).contains(slots)), "{slots:?}");
    let failed = load(&cluster, 50, 4).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(replicas.iter().all(|replica| replica.state().most_running <= 40));
}

#[tokio::test]
async fn a_front_end_is_ready_when_it_knows_the_others() {
    let replica = Replica::echo();
    let cluster = Cluster::start(2, &[&replica], PATIENT).await;
    for front in &cluster.fronts {
        eventually("it is ready", async || front.admin("GET /readyz HTTP/1.1").await.status == 200).await;
    }
}
