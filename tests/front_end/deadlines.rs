//! How long a call may take, and who is told what when it takes longer.

use http::Method;
use http_body_util::BodyExt;

use crate::support::{
    Environment, Front, Gate, Replica, Reply, SCORE, Step, channel, chunk, chunked, get, post, read, request, score,
    within,
};

fn within_timeout(replica: &Replica, timeout: &str) -> Front {
    Environment::iris(&[replica]).set("defaults", &format!("scoring_timeout = '{timeout}'")).start()
}

#[tokio::test]
async fn a_replica_that_never_answers_is_cut_after_the_scoring_timeout() {
    let replica = Replica::start([Step::Hang]);
    let front = within_timeout(&replica, "250ms");
    for mut caller in front.both().await {
        caller.call(post(SCORE, "x")).await.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 250 ms.");
        replica.is_free().await;
    }
    assert_eq!(replica.requests().len(), 2, "it is asked once for each call");
}

#[tokio::test]
async fn the_caller_may_lower_the_timeout_and_not_raise_it() {
    let replica = Replica::start([Step::Hang]);
    let front = within_timeout(&replica, "300ms");
    for mut caller in front.both().await {
        for (given, effective) in [("100", 100), ("3600000", 300), ("0", 0)] {
            // Without a body, so that there is none to be late.
            let mut request = get(SCORE);
            request.headers_mut().insert("x-request-timeout-ms", given.parse().expect("a value"));
            let reply = caller.call(request).await;
            reply.assert_refusal(504, "ScoringTimeout", &format!("Scoring timeout after {effective} ms."));
        }
    }
}

#[tokio::test]
async fn a_timeout_that_is_no_number_is_refused() {
    let replica = Replica::echo();
    let front = within_timeout(&replica, "10s");
    for mut caller in front.both().await {
        for given in ["", "1s", "-1", "+1", "1.5", "0x10", "1e3", "99999999999999999999999"] {
            let reply = caller.call(score(&[("x-request-timeout-ms", given)])).await;
            reply.assert_refusal(400, "BadRequest", "x-request-timeout-ms is a whole number of milliseconds.");
        }
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_after_the_scoring_timeout() {
    let replica = Replica::start([Step::ReadBody, chunked(), chunk("one"), Step::Hang]);
    let front = within_timeout(&replica, "1s");
    for mut caller in front.both().await {
        let mut answer = caller.send(post(SCORE, "x")).await.expect("an answer");
        assert!(within(answer.frame()).await.expect("a part").is_ok());
        assert!(read(answer).await.is_err(), "it does not end as if it were whole");
        replica.is_free().await;
    }
}

#[tokio::test]
async fn a_stream_that_goes_on_outlives_the_scoring_timeout() {
    let drip = Step::Drip(b"1\r\nx\r\n".to_vec(), 20, std::time::Duration::from_millis(100));
    let replica = Replica::start([Step::ReadBody, chunked(), drip, chunk("")]);
    let front = within_timeout(&replica, "1s");
    for mut caller in front.both().await {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x".repeat(20));
    }
}

#[tokio::test]
async fn a_caller_whose_body_does_not_come_is_late_not_the_replica() {
    let replica = Replica::start([Step::ReadBody, Step::Hang]);
    let front = within_timeout(&replica, "300ms");
    for begun in ["", "some"] {
        let mut wire = front.wire().await;
        wire.post("Content-Length: 10\r\n", begun).await;
        let message = "The request body did not arrive within 300 ms.";
        wire.reply().await.assert_refusal(408, "RequestTimeout", message);

        let (parts, body) = channel();
        if !begun.is_empty() {
            parts.send(Ok(begun.into())).await.expect("taken");
        }
        let reply = front.http2().await.call(request(Method::POST, SCORE, body)).await;
        reply.assert_refusal(408, "RequestTimeout", message);
        replica.is_free().await;
    }
}

#[tokio::test]
async fn a_replica_that_does_not_read_the_body_is_late_not_the_caller() {
    let replica = Replica::start([Step::Stall(Gate::new())]);
    let front = within_timeout(&replica, "2s");
    for mut caller in front.both().await {
        let (parts, body) = channel();
        tokio::spawn(async move { while parts.send(Ok(vec![0; 0x10000].into())).await.is_ok() {} });
        let reply = caller.call(request(Method::POST, SCORE, body)).await;
        reply.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 2000 ms.");
    }
}

#[tokio::test]
async fn a_call_that_may_take_no_time_at_all_is_late_without_a_replica_being_asked() {
    let replica = Replica::echo();
    let front = within_timeout(&replica, "10s");
    for mut caller in front.both().await {
        for request in [score(&[("x-request-timeout-ms", "0")]), score(&[("x-request-timeout-ms", "000")])] {
            caller.call(request).await.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 0 ms.");
        }
        assert_eq!(caller.call(score(&[])).await.status, 200, "the connection goes on");
    }
    assert_eq!((replica.requests().len(), replica.state().connections), (2, 1));
}

/// Milliseconds of connect, model and frontend, as server-timing has them.
fn timing(reply: &Reply) -> [f64; 3] {
    let timing = reply.field("server-timing").expect("a timing");
    ["connect", "model", "frontend"].map(|stage| {
        let duration = timing.split(", ").find_map(|entry| entry.strip_prefix(stage)?.strip_prefix(";dur="));
        duration.and_then(|duration| duration.parse().ok()).unwrap_or_else(|| panic!("no {stage} in {timing}"))
    })
}

#[tokio::test]
async fn the_time_of_a_call_that_timed_out_was_the_models() {
    let replica = Replica::start([Step::ReadBody, Step::Hang]);
    let front = within_timeout(&replica, "600ms");
    for mut caller in front.both().await {
        let reply = caller.call(post(SCORE, "x")).await;
        assert_eq!(reply.status, 504);
        let [connect, model, frontend] = timing(&reply);
        assert!(connect + model > 550.0 && model > 400.0, "{connect} {model} {frontend}");
        assert!(frontend < 100.0, "{connect} {model} {frontend}");
    }
    for line in front.log_lines(2).await {
        assert!(line["model_ms"].as_f64().is_some_and(|model| model > 400.0), "{line}");
    }
}

#[tokio::test]
async fn the_time_of_a_call_that_timed_out_without_a_connection_was_spent_connecting() {
    let replica = Replica::full();
    let front = within_timeout(&replica, "600ms");
    for mut caller in front.both().await {
        let reply = caller.call(post(SCORE, "x")).await;
        reply.assert_refusal(504, "ScoringTimeout", "Scoring timeout after 600 ms.");
        let [connect, model, frontend] = timing(&reply);
        assert!(connect > 550.0 && model < 0.001 && frontend < 50.0, "{connect} {model} {frontend}");
    }
    for line in front.log_lines(2).await {
        assert!(line["connect_ms"].as_f64().is_some_and(|connect| connect > 550.0), "{line}");
        assert_eq!(line.get("model_ms"), None, "there was none: {line}");
    }
}
