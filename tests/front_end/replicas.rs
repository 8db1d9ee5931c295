//! Connections to replicas, and what happens when one fails.

use std::time::Duration;

use crate::support::{CNAME, Environment, Gate, Replica, SCORE, Step, channel, ok, post, request, score};

#[tokio::test]
async fn a_connection_is_used_again() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for _ in 0..10 {
            assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
        }
    }
    assert_eq!(replica.state().connections, 1);
}

#[tokio::test]
async fn a_replica_that_closes_after_each_answer_never_has_an_idle_connection() {
    let close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi".to_vec();
    // It waits for the front end to close first: one that parks the connection would never do so.
    let replica = Replica::start([Step::ReadBody, Step::Send(close), Step::Hang]);
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    for calls in 1..=5 {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "hi");
        replica.is_free().await;
        assert_eq!(replica.state().connections, calls, "none is opened ahead");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_the_replica_would() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let began = std::time::Instant::now();
    front.http1().await.call(post(SCORE, "x")).await;
    assert_eq!(replica.state().open, 1, "it is kept");
    replica.is_free().await;
    assert!(began.elapsed() > Duration::from_secs(1), "for a while");
}

#[tokio::test]
async fn a_connection_the_replica_closed_in_the_meantime_is_not_used() {
    let replica = Replica::start([Step::ReadBody, ok("hi"), Step::Close]);
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    for calls in 1..=20 {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "hi");
        replica.is_free().await;
        assert_eq!(replica.state().connections, calls);
    }
}

#[tokio::test]
async fn a_replica_that_refuses_is_passed_over() {
    let (refusing, working) = (Replica::refusing(), Replica::echo());
    let front = Environment::iris(&[&refusing, &working]).start();
    for mut caller in front.both().await {
        for _ in 0..20 {
            assert_eq!(caller.call(post(SCORE, "the whole body")).await.text(), "the whole body");
        }
    }
    let retries = front.metric("unreachable_replicas_total{service=\"iris\",deployment=\"default\"}").await;
    assert!(retries > 0.5, "some went to the wrong one first");
}

#[tokio::test]
async fn a_call_is_tried_on_two_replicas_at_most() {
    let refusing = [Replica::refusing(), Replica::refusing(), Replica::refusing()];
    let front = Environment::iris(&refusing.each_ref()).start();
    let mut caller = front.http1().await;
    caller.call(post(SCORE, "x")).await.assert_refusal(503, "NoReadyReplicas", "No ready replicas for service iris.");
    front.until_metric("unreachable_replicas_total{service=\"iris\",deployment=\"default\"}", 2).await;
}

const CLOSED: (u16, &str, &str) = (502, "ReplicaClosed", "Replica closed connection before replying");

#[tokio::test]
async fn a_replica_that_closes_before_it_replies_is_not_asked_again_and_nor_is_another() {
    let (status, code, message) = CLOSED;
    for script in
        [vec![Step::ReadBody, Step::Close], vec![Step::ReadBody, Step::Send(b"HTTP/1.1 2".to_vec()), Step::Close]]
    {
        let replicas = [Replica::start(script.clone()), Replica::start(script)];
        let front = Environment::iris(&replicas.each_ref()).start();
        for (calls, mut caller) in front.both().await.into_iter().enumerate() {
            caller.call(post(SCORE, "x")).await.assert_refusal(status, code, message);
            // One that is out is also asked how it is.
            let calls_of = |replica: &Replica| {
                replica.requests().iter().filter(|request| request.line().starts_with("POST ")).count()
            };
            assert_eq!(replicas.iter().map(calls_of).sum::<usize>(), calls + 1);
        }
    }
}

#[tokio::test]
async fn a_replica_that_closes_a_used_connection_upon_a_request_is_not_asked_again() {
    let (status, code, message) = CLOSED;
    let replica = Replica::in_turn([vec![Step::Echo], vec![Step::ReadBody, Step::Close], vec![Step::Echo]]);
    let front = Environment::iris(&[&replica]).start();
    let mut caller = front.http1().await;
    assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
    caller.call(post(SCORE, "x")).await.assert_refusal(status, code, message);
    assert_eq!(replica.requests().len(), 2);
    assert_eq!(replica.requests()[1].connection, 1, "the same connection");
    assert_eq!(caller.call(post(SCORE, "x")).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_none() {
    let (status, code, message) = CLOSED;
    for garbage in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let replica = Replica::answering(garbage);
        let front = Environment::iris(&[&replica]).start();
        for mut caller in front.both().await {
            caller.call(score(&[])).await.assert_refusal(status, code, message);
            replica.is_free().await;
        }
        assert_eq!(replica.requests().len(), 2, "{garbage:?}");
    }
}

#[tokio::test]
async fn the_replica_with_the_fewest_calls_in_flight_is_asked_whichever_thread_asks() {
    let gate = Gate::new();
    let held = vec![Step::ReadBody, Step::Wait(gate.clone()), ok("held")];
    let replicas = [Replica::start(held.clone()), Replica::start(held)];
    let front = Environment::iris(&replicas.each_ref()).without_permits().threads(2).start();
    let mut calls = Vec::new();
    for call in 1..=8 {
        // Connections are spread over both threads.
        let mut caller = front.http1().await;
        calls.push(tokio::spawn(async move { caller.call(post(SCORE, "x")).await }));
        crate::support::eventually("it is in flight", async || {
            replicas.iter().map(|replica| replica.requests().len()).sum::<usize>() == call
        })
        .await;
        let [a, b] = replicas.each_ref().map(|replica| replica.requests().len());
        assert!(a.abs_diff(b) <= 1, "{a} and {b}");
    }
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("no panic").text(), "held");
    }
}

#[tokio::test]
async fn a_replica_whose_errors_come_fast_is_not_taken_for_the_fastest() {
    let error = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno".to_vec();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
    let gate = Gate::new();
    let ill = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), Step::Send(error)]);
    let steady = [Step::ReadBody, Step::Send(head), Step::Drip(b"h".to_vec(), 2, Duration::from_millis(30))];
    let steady = Replica::start(steady);
    let front = Environment::iris(&[&ill, &steady]).start();
    let (mut one, mut other) = (front.http1().await, front.http1().await);
    // The first takes long.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
    });
    let mut errors = 0;
    for _ in 0..30 {
        // Each has one of the two.
        let (a, b) = tokio::join!(one.call(post(SCORE, "x")), other.call(post(SCORE, "x")));
        errors += [a, b].iter().filter(|reply| reply.status == 503).count();
    }
    assert_eq!(errors, 30);
    for _ in 0..10 {
        assert_eq!(one.call(post(SCORE, "x")).await.status, 200, "the other one is idle");
    }
}

#[tokio::test]
async fn shares_of_the_traffic_come_out_about_right() {
    let (blue, green, off) = (Replica::echo(), Replica::echo(), Replica::echo());
    let front = Environment::new()
        .cname(CNAME)
        .deployments("iris", &[("blue", 90, &[&blue]), ("green", 10, &[&green]), ("off", 0, &[&off])])
        .start();
    let mut caller = front.http1().await;
    for _ in 0..1000 {
        let reply = caller.call(score(&[])).await;
        assert!(matches!(reply.field("azureml-model-deployment"), Some("blue" | "green")));
    }
    let (blue, green) = (blue.requests().len(), green.requests().len());
    assert_eq!((blue + green, off.requests().len()), (1000, 0));
    // Five standard deviations.
    assert!((53..=147).contains(&green), "{green} of 1000");
}

#[tokio::test]
async fn a_caller_may_pin_a_deployment_that_exists() {
    let (blue, green) = (Replica::echo(), Replica::echo());
    let front = Environment::new()
        .cname(CNAME)
        .deployments("iris", &[("blue", 100, &[&blue]), ("green", 0, &[&green])])
        .start();
    for mut caller in front.both().await {
        for _ in 0..5 {
            let reply = caller.call(score(&[("azureml-model-deployment", "green")])).await;
            assert_eq!((reply.status, reply.field("azureml-model-deployment")), (200, Some("green")));
        }
        let reply = caller.call(score(&[("azureml-model-deployment", "red")])).await;
        reply.assert_refusal(404, "DeploymentNotFound", "Service iris has no deployment red.");
        assert_eq!(reply.field("azureml-model-deployment"), None);
    }
    assert_eq!((blue.requests().len(), green.requests().len()), (0, 10));
}

#[tokio::test]
async fn a_call_whose_body_has_begun_is_not_lost_when_the_first_replica_refuses() {
    let (refusing, working) = (Replica::refusing(), Replica::echo());
    let front = Environment::iris(&[&refusing, &working]).start();
    for mut caller in front.both().await {
        for _ in 0..5 {
            let (parts, body) = channel();
            let upload = async move {
                for part in ["one", "two"] {
                    parts.send(Ok(part.into())).await.expect("taken");
                }
            };
            let (reply, ()) = tokio::join!(caller.call(request(http::Method::POST, SCORE, body)), upload);
            assert_eq!(reply.text(), "onetwo");
        }
    }
}

#[tokio::test]
async fn a_replica_that_speaks_http_1_0_gets_the_next_call_and_all_of_its_body_on_a_new_connection() {
    let old = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi".to_vec();
    for http2 in [false, true] {
        let replica = Replica::in_turn([vec![Step::ReadBody, Step::Send(old.clone())], vec![Step::Echo]]);
        let front = Environment::iris(&[&replica]).start();
        let mut caller = if http2 { front.http2().await } else { front.http1().await };
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "hi");

        let (parts, body) = channel();
        let upload = async move {
            for part in ["one", "two"] {
                parts.send(Ok(part.into())).await.expect("taken");
            }
        };
        let (reply, ()) = tokio::join!(caller.call(request(http::Method::POST, SCORE, body)), upload);
        assert_eq!((reply.status, reply.text()), (200, "onetwo"));
        let seen = &replica.requests()[1];
        assert_eq!((seen.connection, seen.field("transfer-encoding")), (2, Some("chunked")));
        assert!(seen.line().ends_with(" HTTP/1.1"), "{}", seen.head);
    }
}
