//! What operators see of queues and replicas: `/metrics` and `/v1/replicas`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{CNAME, Environment, Front, Gate, Replica, SCORE, Step, eventually, ok, post};

const IRIS: &str = "service=\"iris\",deployment=\"default\"";

/// The only deployment of the service.
async fn deployment(front: &Front) -> Value {
    front.replicas().await["services"][0]["deployments"][0].take()
}

/// The lines of /metrics that begin with this.
async fn lines_of(front: &Front, name: &str) -> Vec<String> {
    let metrics = front.admin("GET /metrics HTTP/1.1").await;
    let all = metrics.text().lines().filter_map(|line| line.strip_prefix("scorefront_"));
    all.filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_busy_replica_and_who_waits_for_it_are_seen() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("held")]);
    let keys = "max_queue = 1\nmax_queue_wait = '20s'";
    let front = Environment::new().cname(CNAME).service("iris", &[&replica], keys).start();
    let mut calls = Vec::new();
    for metric in ["replica_requests_in_flight", "queue_length"] {
        let mut caller = front.http1().await;
        calls.push(tokio::spawn(async move { caller.call(post(SCORE, "x")).await }));
        let labels = match metric {
            "queue_length" => IRIS.to_owned(),
            _ => format!("{IRIS},replica=\"{}\"", replica.address),
        };
        front.until_metric(&format!("{metric}{{{labels}}}"), 1).await;
    }
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.refusal(), (503, "Overloaded".to_owned()));

    let one = format!("{IRIS},replica=\"{}\"", replica.address);
    for (metric, value) in [
        (format!("utilization_ratio{{{IRIS}}}"), 2),
        (format!("replica_permits{{{one}}}"), 1),
        (format!("replica_ready{{{one}}}"), 1),
        (format!("replicas{{{IRIS},state=\"ready\"}}"), 1),
        (format!("replicas{{{IRIS},state=\"failing\"}}"), 0),
        (format!("replicas{{{IRIS},state=\"out\"}}"), 0),
        (format!("overloaded_total{{{IRIS},reason=\"queue_full\"}}"), 1),
        (format!("refusals_total{{{IRIS},code=\"Overloaded\"}}"), 1),
    ] {
        front.until_metric(&metric, value).await;
    }
    let expected = json!({
        "name": "default", "source": {"kind": "static"}, "queue_length": 1, "utilization": 2.0,
        "replicas": [{
            "address": replica.address.to_string(), "ready": true, "healthy": null,
            "in_flight": 1, "permits": 1, "mean_ms": null,
        }],
    });
    assert_eq!(deployment(&front).await, expected);

    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").text(), "held");
    }
    for (metric, value) in [
        (format!("queue_length{{{IRIS}}}"), 0),
        (format!("utilization_ratio{{{IRIS}}}"), 0),
        (format!("queue_wait_seconds_count{{{IRIS}}}"), 3),
    ] {
        front.until_metric(&metric, value).await;
    }
    assert!(front.metric(&format!("queue_wait_seconds_sum{{{IRIS}}}")).await > 0.0);
    let seen = deployment(&front).await;
    assert!(seen["replicas"][0]["mean_ms"].as_f64().is_some_and(|mean| mean > 0.0), "{seen}");
}

#[tokio::test]
async fn a_call_that_waited_in_vain_is_told_from_one_that_found_the_queue_full() {
    let replica = Replica::start([Step::ReadBody, Step::Hang]);
    let front = Environment::new().cname(CNAME).service("iris", &[&replica], "max_queue_wait = '50ms'").start();
    let mut caller = front.http1().await;
    let _held = tokio::spawn(async move { caller.call(post(SCORE, "x")).await });
    eventually("it is in flight", async || replica.requests().len() == 1).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.refusal(), (503, "Overloaded".to_owned()));
    front.until_metric(&format!("overloaded_total{{{IRIS},reason=\"waited\"}}"), 1).await;
    assert_eq!(lines_of(&front, "overloaded_total").await.len(), 1, "no other reason");
}

#[tokio::test]
async fn the_last_replica_stays_in_use_and_is_not_ready_as_long_as_it_fails() {
    let refusing = Replica::refusing();
    let front = Environment::iris(&[&refusing]).start();
    let mut caller = front.http1().await;
    assert_eq!(caller.call(post(SCORE, "x")).await.refusal(), (503, "NoReadyReplicas".to_owned()));
    for (metric, value) in [
        (format!("replicas{{{IRIS},state=\"ready\"}}"), 0),
        (format!("replicas{{{IRIS},state=\"failing\"}}"), 1),
        (format!("replicas{{{IRIS},state=\"out\"}}"), 0),
        (format!("replica_ready{{{IRIS},replica=\"{}\"}}", refusing.address), 1),
    ] {
        front.until_metric(&metric, value).await;
    }
    let service = front.admin("GET /v1/services/iris HTTP/1.1").await.json();
    assert_eq!((&service["readyReplicas"], &service["totalReplicas"]), (&0.into(), &1.into()), "{service}");
}

#[tokio::test]
async fn a_replica_that_failed_is_looked_at_until_it_is_well_also_where_no_other_is() {
    // Replicas in use are not looked at here unless they fail.
    let refusing = Replica::refusing();
    let front = Environment::iris(&[&refusing]).start();
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 503);
    front.until_metric(&format!("replicas{{{IRIS},state=\"failing\"}}"), 1).await;
    let _replica = refusing.opened([Step::ReadBody, ok("")]);
    front.until_metric(&format!("replicas{{{IRIS},state=\"ready\"}}"), 1).await;
    front.until_metric(&format!("replicas{{{IRIS},state=\"failing\"}}"), 0).await;
}

#[tokio::test]
async fn a_replica_that_is_out_is_shown_with_the_reason_and_the_time() {
    let (refusing, working) = (Replica::refusing(), Replica::echo());
    let front = Environment::iris(&[&refusing, &working]).start();
    let mut caller = front.http1().await;
    let out = format!("replicas{{{IRIS},state=\"out\"}}");
    eventually("it is taken out", async || {
        assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
        front.metric(&out).await > 0.5
    })
    .await;
    for (metric, value) in [
        (format!("replica_ready{{{IRIS},replica=\"{}\"}}", refusing.address), 0),
        (format!("replica_ready{{{IRIS},replica=\"{}\"}}", working.address), 1),
        (format!("replicas{{{IRIS},state=\"ready\"}}"), 1),
        (format!("replica_taken_out_total{{{IRIS},reason=\"unreachable\"}}"), 1),
        (format!("replica_taken_out_total{{{IRIS},reason=\"silent\"}}"), 0),
        (format!("retries_total{{{IRIS}}}"), 1),
    ] {
        front.until_metric(&metric, value).await;
    }
    let deployment = deployment(&front).await;
    let row = |replica: &Replica| {
        let rows = deployment["replicas"].as_array().expect("a list");
        rows.iter().find(|row| row["address"] == replica.address.to_string()).expect("a row")
    };
    let (gone, there) = (row(&refusing), row(&working));
    assert_eq!((&gone["ready"], &gone["healthy"], &there["ready"]), (&json!(false), &json!(false), &json!(true)));
    assert!(gone["reason"].as_str().is_some_and(|reason| reason.starts_with("no connection: ")), "{gone}");
    let since = humantime::parse_rfc3339(gone["since"].as_str().expect("a time")).expect("RFC 3339");
    assert!(since.elapsed().is_ok_and(|since| since < crate::support::PATIENCE), "{gone}");
    assert_eq!((there.get("reason"), there.get("since")), (None, None));
}

#[tokio::test]
async fn what_a_replica_says_of_its_model_is_measured() {
    let answer = "HTTP/1.1 200 OK\r\nx-ms-run-fn-exec-ms: 1500.5\r\nContent-Length: 2\r\n\r\nhi";
    let replica = Replica::answering(answer);
    let front = Environment::iris(&[&replica]).start();
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200);
    front.until_metric(&format!("model_execution_seconds_count{{{IRIS}}}"), 1).await;
    let sum = front.metric(&format!("model_execution_seconds_sum{{{IRIS}}}")).await;
    assert!((sum - 1.5005).abs() < 1e-6, "{sum}");
}

#[tokio::test]
async fn without_a_bound_there_are_no_permits_and_no_utilization() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).without_permits().start();
    let deployment = deployment(&front).await;
    assert_eq!((&deployment["utilization"], &deployment["replicas"][0]["permits"]), (&Value::Null, &Value::Null));
    for absent in ["replica_permits{", "utilization_ratio{"] {
        assert_eq!(lines_of(&front, absent).await, [""; 0], "{absent}");
    }
}

#[tokio::test]
async fn replicas_are_shown_only_to_those_with_the_token() {
    let environment = Environment::new().cname(CNAME);
    environment.write("admin.token", "0123456789abcdef\n");
    let front = environment.set("admin", "listen = '127.0.0.1:0'\ntoken_file = 'admin.token'").start();
    assert_eq!(front.admin("GET /v1/replicas HTTP/1.1").await.status, 401);
    let reply = front.admin("GET /v1/replicas HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef").await;
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/json")));
    let document: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(document, json!({"services": []}));
}

#[tokio::test]
async fn a_worker_that_has_much_to_do_is_seen_to_be_busier_than_at_rest() {
    const A_WHILE: Duration = Duration::from_millis(300);
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    let busy = async || front.metric("worker_busy_seconds_total{worker=\"0\"}").await;
    eventually("it is busier with calls than without", async || {
        let begin = busy().await;
        sleep(A_WHILE).await;
        let middle = busy().await;
        let end = Instant::now() + A_WHILE;
        while Instant::now() < end {
            assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
        }
        let (at_rest, with_calls) = (middle - begin, busy().await - middle);
        with_calls > 0.01 && with_calls > 4.0 * at_rest
    })
    .await;
    eventually("samples are taken", async || {
        front.metric("worker_ready_wait_seconds_count{worker=\"0\"}").await >= 2.0
    })
    .await;
    assert_eq!(lines_of(&front, "worker_cpu_wait_seconds_total{worker=\"0\"} ").await.len(), 1);
}

#[tokio::test]
async fn each_worker_says_how_many_connections_it_has() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).threads(2).start();
    let callers = [front.http1().await, front.http1().await, front.http2().await];
    let open = async || {
        let (first, second) = ("worker_connections_open{worker=\"0\"}", "worker_connections_open{worker=\"1\"}");
        front.metric(first).await + front.metric(second).await
    };
    eventually("all three are there", async || (open().await - 3.0).abs() < 0.5).await;
    drop(callers);
    eventually("they are gone", async || open().await < 0.5).await;
}
