//! How much callers may ask of a service, and what they are told who ask for more.

use http::Request;

use crate::keys::sha256;
use crate::support::{
    Body, CNAME, Caller, Environment, Front, Gate, Replica, Reply, Step, Wire, chunk, chunked, eventually, full, ok,
    post, score,
};

/// Nothing is noticed but what somebody says.
const ASKED: &str = "watch = false\npoll_interval = '1h'";

const SHOP: &str = "key-of-the-shop-0123456789";
const BATCH: &str = "key-of-the-batch-0123456789";

/// A service `iris` with these keys in its table.
fn iris(replica: &Replica, keys: &str) -> Environment {
    Environment::new().cname(CNAME).service("iris", &[replica], keys)
}

/// A service `iris` whose keys `shop` and `batch` have these limits.
fn keyed(replica: &Replica, service: &str, shop: &str, batch: &str) -> Environment {
    let key = |name: &str, key: &str, limits: &str| {
        format!("[[service.key]]\nname = '{name}'\nsha256 = '{}'\n{limits}\n", sha256(key))
    };
    let (shop, batch) = (key("shop", SHOP, shop), key("batch", BATCH, batch));
    iris(replica, &format!("auth = true\n{service}\n{shop}{batch}"))
}

fn with(key: &str) -> Request<Body> {
    score(&[("authorization", &format!("Bearer {key}"))])
}

#[track_caller]
fn assert_refused(reply: &Reply, message: &str) {
    reply.assert_refusal(429, "TooManyRequests", message);
    let seconds: u64 = reply.field("retry-after").expect("when to come again").parse().expect("whole seconds");
    assert_eq!(seconds, 1);
}

/// A call that the replica has and does not answer yet; its connection.
async fn call_in_flight(front: &Front, replica: &Replica, fields: &str) -> Wire {
    let seen = replica.requests().len();
    let mut wire = front.wire().await;
    wire.post(&format!("{fields}Content-Length: 1\r\n"), "x").await;
    replica.saw(seen + 1).await;
    wire
}

async fn until_taken(caller: &mut Caller, request: impl Fn() -> Request<Body>) {
    eventually("a call is taken", async || match caller.call(request()).await.status {
        200 => true,
        status => {
            assert_eq!(status, 429);
            false
        }
    })
    .await;
}

#[tokio::test]
async fn a_burst_passes_and_more_is_told_when_to_come_again() {
    for http2 in [false, true] {
        let replica = Replica::echo();
        let front = iris(&replica, "max_requests_per_second = 1\nburst = 3").start();
        let mut caller = if http2 { front.http2().await } else { front.http1().await };
        for _ in 0..3 {
            assert_eq!(caller.call(score(&[])).await.status, 200);
        }
        assert_refused(&caller.call(score(&[])).await, "Service iris takes at most 1 requests per second.");
        assert_eq!(replica.requests().len(), 3);
        front.until_metric("refusals_total{service=\"\",deployment=\"\",code=\"TooManyRequests\"}", 1).await;
        until_taken(&mut caller, || score(&[])).await;
    }
}

#[tokio::test]
async fn a_place_is_free_when_the_answer_is_out() {
    let gate = Gate::new();
    let script = [Step::ReadBody, chunked(), chunk("one"), Step::Wait(gate.clone()), chunk("two"), chunk("")];
    let replica = Replica::in_turn([script.to_vec(), vec![Step::Echo]]);
    let front = iris(&replica, "max_requests_in_flight = 1").threads(2).start();
    let mut wire = call_in_flight(&front, &replica, "").await;
    assert_eq!(wire.head().await.status, 200);
    for mut caller in front.both().await {
        assert_refused(&caller.call(score(&[])).await, "Service iris takes at most 1 requests at once.");
    }
    gate.open();
    assert_eq!(wire.chunk().await.expect("a chunk"), b"one");
    assert_eq!(wire.chunk().await.expect("a chunk"), b"two");
    assert_eq!(wire.chunk().await.expect("the end"), b"");
    until_taken(&mut front.http1().await, || score(&[])).await;
}

#[tokio::test]
async fn a_place_is_free_when_the_caller_has_gone() {
    let replica = Replica::in_turn([vec![Step::ReadBody, Step::Hang], vec![Step::Echo]]);
    let front = iris(&replica, "max_requests_in_flight = 1").threads(2).start();
    let wire = call_in_flight(&front, &replica, "").await;
    let mut caller = front.http2().await;
    assert_refused(&caller.call(score(&[])).await, "Service iris takes at most 1 requests at once.");
    drop(wire);
    until_taken(&mut caller, || score(&[])).await;
}

#[tokio::test]
async fn what_is_refused_for_another_reason_takes_no_place() {
    let replica = Replica::echo();
    let front = keyed(&replica, "max_body = 4\nmax_requests_in_flight = 1", "", "").start();
    let mut caller = front.http1().await;
    for _ in 0..3 {
        assert_eq!(caller.call(with("wrong")).await.status, 401);
        let large = with(SHOP).map(|_| full("too large"));
        assert_eq!(caller.call(large).await.status, 413);
    }
    until_taken(&mut caller, || with(SHOP)).await;
}

#[tokio::test]
async fn a_key_that_is_at_its_limit_leaves_another_alone() {
    let replica = Replica::echo();
    let front = keyed(&replica, "", "", "max_requests_per_second = 1").start();
    for mut caller in front.both().await {
        until_taken(&mut caller, || with(BATCH)).await;
        let message = "Key batch of service iris may make at most 1 requests per second.";
        assert_refused(&caller.call(with(BATCH)).await, message);
        for _ in 0..5 {
            assert_eq!(caller.call(with(SHOP)).await.status, 200);
        }
    }
}

#[tokio::test]
async fn keys_have_their_places_and_share_those_of_the_service() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let front = keyed(&replica, "max_requests_in_flight = 2", "", "max_requests_in_flight = 1")
        .without_permits()
        .threads(2)
        .start();
    let mut caller = front.http2().await;
    let fields = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let mut batch = call_in_flight(&front, &replica, &fields(BATCH)).await;
    let message = "Key batch of service iris may have at most 1 requests at once.";
    assert_refused(&caller.call(with(BATCH)).await, message);
    let mut shop = call_in_flight(&front, &replica, &fields(SHOP)).await;
    assert_refused(&caller.call(with(SHOP)).await, "Service iris takes at most 2 requests at once.");
    gate.open();
    for wire in [&mut batch, &mut shop] {
        assert_eq!(wire.reply().await.status, 200);
    }
    for key in [BATCH, SHOP] {
        until_taken(&mut caller, || with(key)).await;
    }
}

#[tokio::test]
async fn limits_go_on_counting_when_the_configuration_changes() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let replica = &replica;
    let mut front = Environment::iris(&[replica]).set("reload", ASKED).without_permits().threads(2).start();
    front.row(CNAME).await;
    let change = |max: usize, more: &'static str| {
        let keys = format!("max_requests_in_flight = {max}\n{more}");
        move |files: Environment| files.without("iris").service("iris", &[replica], &keys)
    };
    front.reconfigure(change(1, ""));
    assert_eq!(front.reload().await.0, 200);
    let mut first = call_in_flight(&front, replica, "").await;

    front.reconfigure(change(1, "max_body = 5"));
    assert_eq!(front.reload().await.0, 200);
    let mut caller = front.http1().await;
    assert_refused(&caller.call(score(&[])).await, "Service iris takes at most 1 requests at once.");

    front.reconfigure(change(2, "max_body = 5"));
    assert_eq!(front.reload().await.0, 200);
    let mut second = call_in_flight(&front, replica, "").await;
    assert_refused(&caller.call(score(&[])).await, "Service iris takes at most 2 requests at once.");

    gate.open();
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.reply().await.status, 200);
    }
    until_taken(&mut caller, || score(&[])).await;
}

#[tokio::test]
async fn the_access_log_names_the_key_and_never_shows_it() {
    let replica = Replica::echo();
    let front = keyed(&replica, "", "", "max_requests_per_second = 1").service("open", &[&replica], "").start();
    let mut caller = front.http1().await;
    let requests = [with(SHOP), with(BATCH), with(BATCH), with("wrong"), post("/api/v1/service/open/score", "x")];
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(caller.call(request).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 401, 200]);
    let lines = front.log_lines(5).await;
    let keys: Vec<_> = lines.iter().map(|line| line["key"].as_str()).collect();
    assert_eq!(keys, [Some("shop"), Some("batch"), Some("batch"), None, None]);
    assert_eq!(lines[2]["code"], "TooManyRequests");
    for line in lines {
        let line = line.to_string();
        assert!(![SHOP, BATCH, &sha256(SHOP), &sha256(BATCH)].iter().any(|secret| line.contains(*secret)), "{line}");
    }
}
