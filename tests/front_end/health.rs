//! Replicas that fail: what becomes of the call, who gets the next ones, and how a replica comes back.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::{CNAME, Environment, Front, Gate, Replica, Reply, SCORE, Step, eventually, ok, post, score};

const CLOSED: (u16, &str, &str) = (502, "ReplicaClosed", "Replica closed connection before replying");

/// Calls wait for as long as it takes.
const PATIENT: &str = "max_queue_wait = '20s'";

/// Replicas in use are looked at all the time.
fn watched(replicas: &[&Replica], keys: &str) -> Front {
    let keys = format!("{PATIENT}\nhealth_interval = '100ms'\n{keys}");
    Environment::new().cname(CNAME).service("iris", replicas, &keys).threads(2).start()
}

fn unavailable() -> Step {
    Step::Send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec())
}

fn missing() -> Step {
    Step::Send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec())
}

fn count(replica: &Replica, method: &str) -> usize {
    replica.state().requests.iter().filter(|seen| seen.line().starts_with(method)).count()
}

async fn saw(replica: &Replica, method: &str, requests: usize) {
    replica
        .until(|state| state.requests.iter().filter(|seen| seen.line().starts_with(method)).count() >= requests)
        .await;
}

async fn spawn(front: &Front) -> JoinHandle<Reply> {
    let mut caller = front.http1().await;
    tokio::spawn(async move { caller.call(post(SCORE, "x")).await })
}

/// Has a call stay with `replica`, whose gate is closed; calls that others get are answered by them.
async fn occupy(front: &Front, replica: &Replica) -> JoinHandle<Reply> {
    loop {
        let call = spawn(front).await;
        eventually("it is somewhere", async || call.is_finished() || count(replica, "POST") > 0).await;
        if count(replica, "POST") > 0 {
            return call;
        }
    }
}

async fn unreachable(front: &Front) -> f64 {
    front.metric("unreachable_replicas_total{service=\"iris\",deployment=\"default\"}").await
}

#[tokio::test]
async fn a_replica_nobody_listens_at_is_tried_once_and_no_caller_notices() {
    for _ in 0..5 {
        let (refusing, working) = (Replica::refusing(), Replica::echo());
        let front = Environment::iris(&[&refusing, &working]).start();
        for mut caller in front.both().await {
            for _ in 0..20 {
                assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
            }
        }
        assert!(unreachable(&front).await < 1.5, "it is out after the first");
    }
}

#[tokio::test]
async fn a_replica_that_resets_fails_one_call_and_gets_no_more() {
    let failing = Replica::start([Step::Health(vec![Step::Hang]), Step::ReadBody, Step::Close]);
    let working = Replica::start([Step::Health(vec![ok("")]), Step::Echo]);
    let front = Environment::iris(&[&failing, &working]).threads(2).start();
    let mut caller = front.http1().await;
    while count(&failing, "POST") == 0 {
        let reply = caller.call(post(SCORE, "x")).await;
        match count(&failing, "POST") {
            0 => assert_eq!(reply.status, 200),
            _ => reply.assert_refusal(CLOSED.0, CLOSED.1, CLOSED.2),
        }
        // The one that is fastest goes first, so it has to be busy for the other to be asked.
        let calls = [spawn(&front).await, spawn(&front).await, spawn(&front).await];
        for call in calls {
            let status = call.await.expect("no panic").status;
            assert!(status == 200 || (status == 502 && count(&failing, "POST") == 1), "{status}");
        }
    }
    for mut caller in front.both().await {
        for _ in 0..20 {
            assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
        }
    }
    assert_eq!(count(&failing, "POST"), 1);
}

#[tokio::test]
async fn a_replica_that_failed_is_back_when_its_health_resource_answers() {
    let (gate, recovered) = (Gate::new(), Gate::new());
    let failing = Replica::in_turn([
        vec![Step::ReadBody, Step::Close],
        vec![Step::Health(vec![Step::Wait(recovered.clone()), ok("")]), Step::Echo],
    ]);
    let busy = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("busy")]);
    let front = Environment::iris(&[&failing, &busy]).set("defaults", PATIENT).threads(2).start();
    let held = occupy(&front, &busy).await;
    if count(&failing, "POST") == 0 {
        let reply = spawn(&front).await.await.expect("no panic");
        reply.assert_refusal(CLOSED.0, CLOSED.1, CLOSED.2);
    }
    let waiting = spawn(&front).await;
    saw(&failing, "GET", 1).await;
    assert_eq!(count(&failing, "POST"), 1, "it is out");
    recovered.open();
    assert_eq!(waiting.await.expect("no panic").text(), "x");
    gate.open();
    assert_eq!(held.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn the_last_replica_is_never_taken_out() {
    let mut scripts = vec![vec![Step::ReadBody, Step::Close]; 5];
    scripts.push(vec![Step::Echo]);
    let replica = Replica::in_turn(scripts);
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    for _ in 0..5 {
        caller.call(score(&[])).await.assert_refusal(CLOSED.0, CLOSED.1, CLOSED.2);
    }
    assert_eq!(caller.call(score(&[])).await.status, 200);

    let replica = Replica::refusing();
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    for _ in 0..5 {
        assert_eq!(caller.call(score(&[])).await.refusal(), (503, "NoReadyReplicas".to_owned()));
    }
    assert!((unreachable(&front).await - 5.0).abs() < 0.5, "each call tried it");
}

#[tokio::test]
async fn nothing_that_a_model_answers_takes_its_replica_out_or_makes_another_try() {
    for answer in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\nx-ms-run-function-failed: True\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    ] {
        let gate = Gate::new();
        let script = [Step::Health(vec![unavailable()]), Step::ReadBody, Step::Send(answer.as_bytes().to_vec())];
        let failing = Replica::start(script);
        let busy = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("busy")]);
        let front = Environment::iris(&[&failing, &busy]).set("defaults", PATIENT).threads(2).start();
        let _held = occupy(&front, &busy).await;
        let before = count(&failing, "POST");
        let expected = answer.split(' ').nth(1).expect("a status");
        for mut caller in front.both().await {
            for _ in 0..10 {
                assert_eq!(caller.call(post(SCORE, "x")).await.status.to_string(), expected);
            }
        }
        assert_eq!((count(&failing, "POST") - before, count(&busy, "POST")), (20, 1));
        assert_eq!(count(&failing, "GET"), 0, "only those that are out are looked at");
    }
}

#[tokio::test]
async fn retries_end_when_their_budget_is_spent() {
    let replicas = [Replica::refusing(), Replica::refusing()];
    let front = Environment::iris(&replicas.each_ref()).start();
    let began = Instant::now();
    let mut caller = front.http1().await;
    for _ in 0..60 {
        assert_eq!(caller.call(score(&[])).await.refusal(), (503, "NoReadyReplicas".to_owned()));
    }
    // Ten that were saved up, one for ten calls, one a second.
    let most = 60.0 + 10.0 + 6.0 + began.elapsed().as_secs_f64() + 1.0;
    let tried = unreachable(&front).await;
    assert!((70.0..=most).contains(&tried), "{tried}");
}

#[tokio::test]
async fn a_replica_that_works_on_a_call_is_not_looked_at() {
    let gate = Gate::new();
    let busy = Replica::start([Step::Health(vec![ok("")]), Step::ReadBody, Step::Wait(gate.clone()), ok("busy")]);
    let idle = Replica::start([Step::Health(vec![ok("")]), Step::Echo]);
    let front = watched(&[&busy, &idle], "");
    let held = occupy(&front, &busy).await;
    let before = count(&busy, "GET");
    saw(&idle, "GET", count(&idle, "GET") + 6).await;
    assert_eq!(count(&busy, "GET"), before);
    gate.open();
    assert_eq!(held.await.expect("no panic").status, 200);
    saw(&busy, "GET", before + 1).await;
}

#[tokio::test]
async fn a_health_check_that_hangs_gives_way_to_a_call() {
    let replica = Replica::start([Step::Health(vec![Step::Hang]), Step::Echo]);
    let front = watched(&[&replica], "health_timeout = '10s'");
    let mut callers = front.both().await;
    for round in 1..=5 {
        for caller in &mut callers {
            saw(&replica, "GET", round).await;
            replica.until(|state| state.requests.last().is_some_and(|seen| seen.line().starts_with("GET"))).await;
            let began = Instant::now();
            assert_eq!(caller.call(score(&[])).await.status, 200);
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_health_check_that_hangs_gives_way_to_a_call_that_may_not_wait() {
    let replica = Replica::start([Step::Health(vec![Step::Hang]), Step::Echo]);
    let front = watched(&[&replica], "health_timeout = '10s'\nmax_queue = 0");
    saw(&replica, "GET", 1).await;
    let reply = front.http1().await.call(score(&[])).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn a_replica_that_says_it_is_not_well_gets_no_calls_while_another_is_well() {
    let ill = Replica::start([Step::Health(vec![unavailable()]), Step::ReadBody, ok("ill")]);
    let gate = Gate::new();
    let well = Replica::start([Step::Health(vec![ok("")]), Step::ReadBody, Step::Wait(gate.clone()), ok("well")]);
    let front = watched(&[&ill, &well], "");
    saw(&ill, "GET", 4).await;
    saw(&well, "GET", 1).await;
    let held = occupy(&front, &well).await;
    let before = count(&ill, "POST");
    let waiting = spawn(&front).await;
    front.until_metric("requests_in_flight{service=\"iris\",deployment=\"default\"}", 2).await;
    gate.open();
    for call in [held, waiting] {
        assert_eq!(call.await.expect("no panic").text(), "well");
    }
    assert_eq!(count(&ill, "POST"), before);
}

#[tokio::test]
async fn a_health_path_that_is_wrong_takes_nothing_out() {
    let gate = Gate::new();
    let script = [Step::Health(vec![missing()]), Step::ReadBody, Step::Wait(gate.clone()), ok("done")];
    let replicas = [Replica::start(script.clone()), Replica::start(script)];
    let front = watched(&replicas.each_ref(), "");
    for replica in &replicas {
        saw(replica, "GET", 5).await;
    }
    let calls = [spawn(&front).await, spawn(&front).await];
    for replica in &replicas {
        saw(replica, "POST", 1).await;
    }
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn the_connection_of_a_health_check_is_closed_after_it_and_calls_have_their_own() {
    let replica = Replica::start([Step::Health(vec![ok("")]), Step::Echo]);
    let front = watched(&[&replica], "");
    saw(&replica, "GET", 3).await;
    replica.is_free().await;
    assert_eq!(front.http1().await.call(score(&[])).await.status, 200);
    let requests = replica.requests();
    for (connection, seen) in (1..).zip(&requests) {
        assert_eq!(seen.connection, connection);
        assert_eq!(seen.field("connection") == Some("close"), seen.line().starts_with("GET"));
    }
}
