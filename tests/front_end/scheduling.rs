//! Which replica gets a call and when: permits, the queue before them, and what leaves it.

use std::time::{Duration, Instant};

use http::Method;
use tokio::task::JoinHandle;

use crate::keys::sha256;
use crate::support::{
    CNAME, Caller, Environment, Frame, Front, Gate, Replica, Reply, SCORE, Step, Wire, channel, get, ok, post, request,
    score,
};

/// Nothing is noticed but what somebody says.
const ASKED: &str = "watch = false\npoll_interval = '1h'";

/// Calls wait for as long as it takes.
const PATIENT: &str = "max_queue_wait = '20s'";

const OVERLOADED: &str = "Too many requests for service iris (overloaded)";

/// One that answers each request when the gate lets it.
fn gated(gate: &Gate) -> Replica {
    Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")])
}

/// One that answers the first request when the gate lets it, and all others at once.
fn gated_once(gate: &Gate) -> Replica {
    Replica::in_turn([vec![Step::ReadBody, Step::Wait(gate.clone()), ok("done")], vec![Step::Echo]])
}

fn spawn(mut caller: Caller, body: &'static str) -> JoinHandle<Reply> {
    tokio::spawn(async move { caller.call(post(SCORE, body)).await })
}

/// A call that waits for a replica; there are `waiting` of them then, beside `running` that are with one.
async fn waits(front: &Front, body: &'static str, in_flight: u32) -> JoinHandle<Reply> {
    let call = spawn(front.http1().await, body);
    until_in_flight(front, in_flight).await;
    call
}

async fn until_in_flight(front: &Front, calls: u32) {
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"default\"}", calls).await;
}

/// Waits until every permit of these replicas is back.
async fn until_free(front: &Front, replicas: &[&Replica]) {
    for replica in replicas {
        let gauge = format!(
            "replica_requests_in_flight{{service=\"iris\",deployment=\"default\",replica=\"{}\"}}",
            replica.address
        );
        let metrics = front.admin("GET /metrics HTTP/1.1").await;
        assert!(metrics.text().contains(&gauge), "{gauge} in {}", metrics.text());
        front.until_metric(&gauge, 0).await;
    }
}

#[track_caller]
fn assert_overloaded(reply: &Reply) {
    reply.assert_refusal(503, "Overloaded", OVERLOADED);
    let seconds: u64 = reply.field("retry-after").expect("when to come again").parse().expect("whole seconds");
    assert!(seconds >= 1);
}

fn queue_ms(reply: &Reply) -> f64 {
    let timing = reply.field("server-timing").expect("a timing");
    let queue = timing.split(", ").find_map(|entry| entry.strip_prefix("queue;dur="));
    queue.unwrap_or_else(|| panic!("no queue in {timing}")).parse().expect("milliseconds")
}

fn bodies(replica: &Replica) -> Vec<String> {
    replica.requests().iter().map(|seen| String::from_utf8(seen.body.clone()).expect("UTF-8")).collect()
}

#[tokio::test]
async fn a_replica_gets_one_call_at_a_time_and_those_that_wait_get_it_in_the_order_they_came() {
    let gate = Gate::new();
    let replica = gated_once(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", PATIENT).threads(2).start();
    let mut calls = Vec::new();
    for (number, body) in (1..).zip(["0", "1", "2", "3", "4"]) {
        let caller = if number % 2 == 0 { front.http1().await } else { front.http2().await };
        calls.push(spawn(caller, body));
        until_in_flight(&front, number).await;
    }
    assert_eq!(replica.requests().len(), 1);
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
    assert_eq!(bodies(&replica), ["0", "1", "2", "3", "4"]);
    until_free(&front, &[&replica]).await;
}

#[tokio::test]
async fn a_replica_gets_as_many_at_once_as_it_may_have() {
    for (limit, at_once) in [(1, 1), (3, 3), (0, 7)] {
        let gate = Gate::new();
        let replica = gated(&gate);
        let limit = format!("{PATIENT}\nmax_concurrent_requests_per_replica = {limit}");
        let front = Environment::iris(&[&replica]).set("defaults", &limit).threads(2).start();
        let mut calls = Vec::new();
        for number in 1..=7 {
            calls.push(spawn(if number % 2 == 0 { front.http1().await } else { front.http2().await }, "x"));
        }
        until_in_flight(&front, 7).await;
        replica.saw(at_once).await;
        // Who is not with it by now waits: a permit is taken in the poll that counts the call.
        assert_eq!(replica.requests().len(), at_once);
        gate.open();
        for call in calls {
            assert_eq!(call.await.expect("no panic").status, 200);
        }
        until_free(&front, &[&replica]).await;
    }
}

#[tokio::test]
async fn calls_that_wait_go_to_the_replica_that_is_free_first_whichever_that_is() {
    let never = Gate::new();
    let gate = Gate::new();
    let (slow, quick) = (gated(&never), gated_once(&gate));
    let front = Environment::iris(&[&slow, &quick]).set("defaults", PATIENT).threads(2).start();
    let first = [waits(&front, "0", 1).await, waits(&front, "1", 2).await];
    slow.saw(1).await;
    quick.saw(1).await;
    let mut waiting = Vec::new();
    for in_flight in 3..=8 {
        waiting.push(waits(&front, "x", in_flight).await);
    }
    gate.open();
    for call in waiting {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
    assert_eq!((slow.requests().len(), quick.requests().len()), (1, 7));
    never.open();
    for call in first {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn a_call_is_refused_at_once_when_as_many_wait_as_may() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", &format!("{PATIENT}\nmax_queue = 2")).start();
    let mut calls = Vec::new();
    for in_flight in 1..=3 {
        calls.push(waits(&front, "x", in_flight).await);
    }
    for mut caller in front.both().await {
        assert_overloaded(&caller.call(score(&[])).await);
    }
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn without_a_queue_a_call_is_served_when_a_replica_is_free_and_refused_when_none_is() {
    let gate = Gate::new();
    let replica = gated_once(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", "max_queue = 0").threads(2).start();
    let first = waits(&front, "x", 1).await;
    replica.saw(1).await;
    for mut caller in front.both().await {
        assert_overloaded(&caller.call(score(&[])).await);
    }
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    until_free(&front, &[&replica]).await;
    for mut caller in front.both().await {
        for _ in 0..20 {
            assert_eq!(caller.call(score(&[])).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_call_waits_no_longer_than_it_may_and_says_how_long_it_waited() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", "max_queue_wait = '300ms'").start();
    let _first = waits(&front, "x", 1).await;
    for mut caller in front.both().await {
        let reply = caller.call(score(&[])).await;
        assert_overloaded(&reply);
        let waited = queue_ms(&reply);
        assert!((290.0..2_000.0).contains(&waited), "{waited}");
    }
}

#[tokio::test]
async fn the_deadline_of_a_call_that_waits_is_kept() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", PATIENT).start();
    let _first = waits(&front, "x", 1).await;
    for mut caller in front.both().await {
        // Without a body, so that there is none to be late.
        let mut request = get(SCORE);
        request.headers_mut().insert("x-request-timeout-ms", "200".parse().expect("a value"));
        let reply = caller.call(request).await;
        reply.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 200 ms.");
        assert!(queue_ms(&reply) > 150.0, "{reply:?}");
        let reply = caller.call(score(&[("x-request-timeout-ms", "200")])).await;
        reply.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 200 ms.");
    }
    assert_eq!(replica.requests().len(), 1);
}

/// A caller that has sent this much hangs up while its call waits.
async fn hang_up_while_waiting(fields: &str, body: &str) {
    let gate = Gate::new();
    let replica = gated_once(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", &format!("{PATIENT}\nmax_queue = 1")).start();
    let first = waits(&front, "first", 1).await;
    replica.saw(1).await;

    let mut wire = front.wire().await;
    wire.post(fields, body).await;
    until_in_flight(&front, 2).await;
    drop(wire);
    until_in_flight(&front, 1).await;

    // The one place is free, and the permit goes to who has it now.
    let next = waits(&front, "next", 2).await;
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(next.await.expect("no panic").status, 200);
    assert_eq!(bodies(&replica), ["first", "next"]);
    until_free(&front, &[&replica]).await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_leaves_at_once() {
    for size in [0, 1, 4_000] {
        hang_up_while_waiting(&format!("Content-Length: {size}\r\n"), &"x".repeat(size)).await;
    }
    // It waits to be told to send its body, and is not told before there is a replica for it.
    hang_up_while_waiting("Expect: 100-continue\r\nContent-Length: 1000000\r\n", "").await;
}

#[tokio::test]
async fn a_stream_that_is_reset_while_it_waits_leaves_at_once() {
    for body in ["", "unread"] {
        let gate = Gate::new();
        let replica = gated_once(&gate);
        let front = Environment::iris(&[&replica]).set("defaults", &format!("{PATIENT}\nmax_queue = 1")).start();
        let first = waits(&front, "first", 1).await;
        replica.saw(1).await;
        let mut http2 = front.raw_http2().await;
        http2.open().await;
        http2.send(Frame::score(1).bytes()).await;
        http2.send(Frame::new(Frame::DATA, 1, 1, body.as_bytes()).bytes()).await;
        until_in_flight(&front, 2).await;
        http2.send(Frame::new(Frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).bytes()).await;
        until_in_flight(&front, 1).await;
        let next = waits(&front, "next", 2).await;
        gate.open();
        assert_eq!(first.await.expect("no panic").status, 200);
        assert_eq!(next.await.expect("no panic").status, 200);
        assert_eq!(bodies(&replica), ["first", "next"]);
        until_free(&front, &[&replica]).await;
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_call_runs_frees_the_replica_at_once() {
    let replica =
        Replica::in_turn([vec![Step::ReadBody, Step::Hang], vec![Step::ReadBody, Step::Hang], vec![Step::Echo]]);
    let front = Environment::iris(&[&replica]).set("defaults", PATIENT).threads(2).start();
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "1").await;
    replica.saw(1).await;
    let mut http2 = front.raw_http2().await;
    http2.open().await;
    http2.send(Frame::score(1).bytes()).await;
    http2.send(Frame::new(Frame::DATA, 1, 1, b"2").bytes()).await;
    until_in_flight(&front, 2).await;
    let third = waits(&front, "3", 3).await;
    drop(wire);
    replica.saw(2).await;
    assert_eq!(replica.state().connections, 2, "the first was closed, and not used again");
    http2.send(Frame::new(Frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).bytes()).await;
    assert_eq!(third.await.expect("no panic").text(), "3");
    assert_eq!(bodies(&replica), ["1", "2", "3"]);
    until_free(&front, &[&replica]).await;
}

#[tokio::test]
async fn a_call_that_cannot_make_its_deadline_is_refused_when_it_comes() {
    let gate = Gate::new();
    let pause = Step::Drip(Vec::new(), 2, Duration::from_millis(75));
    let measured = vec![Step::ReadBody, pause, ok("done")];
    let mut scripts = vec![measured; 8];
    scripts.push(vec![Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let replica = Replica::in_turn(scripts);
    let front = Environment::iris(&[&replica]).set("defaults", PATIENT).start();
    let mut caller = front.http1().await;
    for _ in 0..8 {
        assert_eq!(caller.call(score(&[])).await.status, 200);
    }
    let calls = [waits(&front, "x", 1).await, waits(&front, "x", 2).await];
    // One is with the replica and one before it: some 300 ms at least.
    for mut caller in front.both().await {
        let began = Instant::now();
        assert_overloaded(&caller.call(score(&[("x-request-timeout-ms", "140")])).await);
        assert!(began.elapsed() < Duration::from_millis(140), "at once");
    }
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn keys_of_a_higher_priority_go_first() {
    let gate = Gate::new();
    let replica = gated_once(&gate);
    let keys: String = ["low", "normal", "high"]
        .map(|name| {
            let hash = sha256(&format!("key-of-{name}-0123456789"));
            format!("[[service.key]]\nname = '{name}'\nsha256 = '{hash}'\npriority = '{name}'\n")
        })
        .concat();
    let front = Environment::new()
        .cname(CNAME)
        .service("iris", &[&replica], &format!("auth = true\n{PATIENT}\n{keys}"))
        .threads(2)
        .start();
    let mut calls: Vec<Wire> = Vec::new();
    for (in_flight, (name, body)) in
        (1..).zip([("normal", "0"), ("low", "1"), ("normal", "2"), ("low", "3"), ("high", "4"), ("high", "5")])
    {
        let mut wire = front.wire().await;
        wire.post(&format!("Authorization: Bearer key-of-{name}-0123456789\r\nContent-Length: 1\r\n"), body).await;
        until_in_flight(&front, in_flight).await;
        calls.push(wire);
    }
    gate.open();
    for wire in &mut calls {
        assert_eq!(wire.reply().await.status, 200);
    }
    assert_eq!(bodies(&replica), ["0", "4", "5", "2", "1", "3"]);
}

/// Serves `iris` by these replicas from now on.
async fn serve_by(front: &mut Front, replicas: &[&Replica], keys: &str) {
    front.reconfigure(|files| files.without("iris").service("iris", replicas, keys));
    let (status, report) = front.reload().await;
    assert_eq!(status, 200, "{report}");
}

/// A service `iris` whose files are looked at when somebody says so.
async fn asked(replicas: &[&Replica], defaults: &str) -> Front {
    let front = Environment::iris(replicas).set("reload", ASKED).set("defaults", defaults).threads(2).start();
    front.row(CNAME).await;
    front
}

#[tokio::test]
async fn a_call_that_waits_follows_its_service_to_the_deployment_that_took_its_place() {
    let gate = Gate::new();
    let (before, after) = (gated(&gate), Replica::echo());
    let front = Environment::new()
        .cname(CNAME)
        .set("reload", ASKED)
        .set("defaults", PATIENT)
        .deployments("iris", &[("blue", 100, &[&before])])
        .threads(2)
        .start();
    let mut front = front;
    front.row(CNAME).await;
    let first = spawn(front.http1().await, "first");
    before.saw(1).await;
    let waiting = [spawn(front.http1().await, "second"), spawn(front.http2().await, "third")];
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"blue\"}", 3).await;
    front.reconfigure(|files| files.without("iris").deployments("iris", &[("green", 100, &[&after])]));
    assert_eq!(front.reload().await.0, 200);
    for call in waiting {
        let reply = call.await.expect("no panic");
        assert_eq!((reply.status, reply.field("azureml-model-deployment")), (200, Some("green")));
    }
    assert_eq!((before.requests().len(), after.requests().len()), (1, 2));
    gate.open();
    assert_eq!(first.await.expect("no panic").text(), "done", "who was with a replica stays there");
}

#[tokio::test]
async fn a_call_that_waits_for_a_service_that_is_removed_is_told() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let mut front = asked(&[&replica], PATIENT).await;
    let first = waits(&front, "first", 1).await;
    let second = waits(&front, "second", 2).await;
    front.reconfigure(|files| files.without("iris").service("other", &[&replica], ""));
    assert_eq!(front.reload().await.0, 200);
    let reply = second.await.expect("no panic");
    reply.assert_refusal(404, "ServiceNotFound", "No such service: iris.");
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn a_replica_that_is_added_gets_who_waits_at_once() {
    let gate = Gate::new();
    let (busy, added) = (gated(&gate), Replica::echo());
    let mut front = asked(&[&busy], PATIENT).await;
    let first = waits(&front, "first", 1).await;
    let second = waits(&front, "second", 2).await;
    serve_by(&mut front, &[&busy, &added], "").await;
    assert_eq!(second.await.expect("no panic").text(), "second");
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    until_free(&front, &[&busy, &added]).await;
}

#[tokio::test]
async fn a_limit_that_is_raised_lets_in_who_waits_and_one_that_is_lowered_holds_from_then_on() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let mut front = asked(&[&replica], PATIENT).await;
    let mut calls = Vec::new();
    for in_flight in 1..=6 {
        calls.push(waits(&front, "x", in_flight).await);
    }
    assert_eq!(replica.requests().len(), 1);
    serve_by(&mut front, &[&replica], "max_concurrent_requests_per_replica = 3").await;
    replica.saw(3).await;
    serve_by(&mut front, &[&replica], "max_concurrent_requests_per_replica = 2").await;
    // Two of the three leave, and nobody comes.
    for call in calls.drain(..2) {
        call.abort();
    }
    until_in_flight(&front, 4).await;
    // One in the place of two.
    replica.saw(4).await;
    replica.until(|state| state.open == 2).await;
    assert_eq!(replica.requests().len(), 4);
    serve_by(&mut front, &[&replica], "max_concurrent_requests_per_replica = 0").await;
    replica.saw(6).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
    until_free(&front, &[&replica]).await;
}

#[tokio::test]
async fn permits_are_exact_while_the_configuration_changes_under_load() {
    let replicas = [Replica::echo(), Replica::echo(), Replica::echo()];
    let [a, b, c] = &replicas;
    let mut front = asked(&[a, b, c], PATIENT).await;
    let mut load = Vec::new();
    for number in 0..8 {
        let mut caller = if number % 2 == 0 { front.http1().await } else { front.http2().await };
        load.push(tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
            }
        }));
    }
    let mut sets = [vec![a, b], vec![b, c], vec![a, b, c], vec![b]].into_iter().cycle();
    while !load.iter().all(JoinHandle::is_finished) {
        serve_by(&mut front, &sets.next().expect("no end"), "").await;
    }
    for call in load {
        call.await.expect("every call is answered");
    }
    serve_by(&mut front, &[a, b, c], "max_queue = 0").await;
    until_free(&front, &[a, b, c]).await;
    let mut caller = front.http1().await;
    for _ in 0..30 {
        assert_eq!(caller.call(score(&[])).await.status, 200);
    }
}

#[tokio::test]
async fn a_call_to_a_service_at_rest_is_never_refused_because_the_configuration_changed() {
    let replica = Replica::echo();
    let mut front = asked(&[&replica], "max_queue = 0").await;
    let mut callers = front.both().await;
    for change in 0..100 {
        serve_by(&mut front, &[&replica], &format!("max_concurrent_requests_per_replica = {}", change % 3)).await;
        for caller in &mut callers {
            let reply = caller.call(score(&[])).await;
            assert_eq!(reply.status, 200, "change {change}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_call_that_is_uploaded_while_it_waits_is_served_whole() {
    let gate = Gate::new();
    let replica = gated_once(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", PATIENT).start();
    let first = waits(&front, "first", 1).await;
    let mut in_flight = 1;
    let mut uploads = Vec::new();
    for mut caller in front.both().await {
        let (parts, body) = channel();
        uploads.push(tokio::spawn(async move { caller.call(request(Method::POST, SCORE, body)).await }));
        parts.send(Ok("one".into())).await.expect("taken");
        in_flight += 1;
        until_in_flight(&front, in_flight).await;
        tokio::spawn(async move { parts.send(Ok("two".into())).await });
    }
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    for upload in uploads {
        assert_eq!(upload.await.expect("no panic").text(), "onetwo");
    }
    assert_eq!(replica.requests().len(), 3);
}

#[tokio::test]
async fn a_call_that_waits_follows_its_service_as_often_as_it_moves() {
    let gate = Gate::new();
    let (first, second, last) = (gated(&gate), gated(&gate), Replica::echo());
    let mut front = Environment::new()
        .cname(CNAME)
        .set("reload", ASKED)
        .set("defaults", PATIENT)
        .deployments("iris", &[("blue", 100, &[&first])])
        .start();
    front.row(CNAME).await;
    let _one = spawn(front.http1().await, "1");
    first.saw(1).await;
    let waiting = spawn(front.http1().await, "waits");
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"blue\"}", 2).await;
    // The next deployment is busy as soon as it is there.
    front.reconfigure(|files| {
        files.without("iris").deployments("iris", &[("blue", 100, &[&first]), ("green", 0, &[&second])])
    });
    assert_eq!(front.reload().await.0, 200);
    let mut caller = front.http1().await;
    let _two = tokio::spawn(async move { caller.call(score(&[("azureml-model-deployment", "green")])).await });
    second.saw(1).await;
    front.reconfigure(|files| files.without("iris").deployments("iris", &[("green", 100, &[&second])]));
    assert_eq!(front.reload().await.0, 200);
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"green\"}", 2).await;
    front.reconfigure(|files| files.without("iris").deployments("iris", &[("red", 100, &[&last])]));
    assert_eq!(front.reload().await.0, 200);
    let reply = waiting.await.expect("no panic");
    assert_eq!((reply.status, reply.text()), (200, "waits"));
}

#[tokio::test]
async fn a_container_whose_service_was_away_while_a_body_was_on_its_way_gets_one_call_at_a_time() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let mut front = Environment::new()
        .cname(CNAME)
        .set("reload", ASKED)
        .set("defaults", PATIENT)
        .service("iris", &[&replica], "")
        .start();
    front.row(CNAME).await;
    let mut slow = front.wire().await;
    slow.post("Content-Length: 4\r\n", "sl").await;
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"default\"}", 1).await;
    front.reconfigure(|files| files.without("iris"));
    assert_eq!(front.reload().await.0, 200);
    front.reconfigure(|files| files.service("iris", &[&replica], ""));
    assert_eq!(front.reload().await.0, 200);
    let quick = spawn(front.http1().await, "quick");
    replica.saw(1).await;
    slow.send("ow").await;
    // Both calls are counted; another one to the same thread has been answered since.
    assert_eq!(front.http1().await.call(get("/nowhere")).await.status, 404);
    assert_eq!(replica.state().open, 1, "two at once");
    gate.open();
    assert_eq!(quick.await.expect("no panic").status, 200);
    assert_eq!(slow.reply().await.status, 200);
}

#[tokio::test]
async fn a_container_whose_deployment_is_renamed_still_gets_one_call_at_a_time() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let mut front = Environment::new()
        .cname(CNAME)
        .set("reload", ASKED)
        .set("defaults", PATIENT)
        .deployments("iris", &[("blue", 100, &[&replica])])
        .start();
    front.row(CNAME).await;
    let first = spawn(front.http1().await, "1");
    replica.saw(1).await;
    front.reconfigure(|files| files.without("iris").deployments("iris", &[("green", 100, &[&replica])]));
    assert_eq!(front.reload().await.0, 200);
    let second = spawn(front.http1().await, "2");
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"green\"}", 1).await;
    // Both calls are counted; another one to the same thread has been answered since.
    assert_eq!(front.http1().await.call(get("/nowhere")).await.status, 404);
    assert_eq!(replica.state().open, 1, "two at once");
    gate.open();
    for call in [first, second] {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_ends_with_a_refusal_says_so() {
    let gate = Gate::new();
    let replica = gated(&gate);
    let front = Environment::iris(&[&replica]).set("defaults", "max_queue = 0").start();
    let _first = waits(&front, "x", 1).await;
    let mut wire = front.wire().await;
    wire.post("Content-Length: 200000\r\n", &"x".repeat(200_000)).await;
    let reply = wire.reply().await;
    assert_overloaded(&reply);
    if reply.field("connection") != Some("close") {
        // Then there is an answer to the next call too.
        wire.post("Content-Length: 1\r\n", "x").await;
        assert_overloaded(&wire.try_reply().await.expect("an answer"));
    }
}
