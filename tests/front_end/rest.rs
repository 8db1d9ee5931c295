//! Connections that have had nothing to do for a while: they are held in another way, and nobody notices.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{CNAME, Environment, Front, PATIENCE, Replica, SCORE, Wire, within};

/// Longer than a connection is kept ready for the next request. Nothing tells when it is not any more.
const A_WHILE: Duration = Duration::from_millis(1_300);

/// A connection that made a call and then nothing.
async fn rested(front: &Front) -> Wire {
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(wire.reply().await.status, 200);
    sleep(A_WHILE).await;
    wire
}

fn echo() -> (Replica, Environment) {
    let replica = Replica::echo();
    let environment = Environment::iris(&[&replica]);
    (replica, environment)
}

#[tokio::test]
async fn a_connection_that_has_rested_serves_as_before() {
    let (_replica, environment) = echo();
    let front = environment.start();
    let mut wire = rested(&front).await;
    let one = format!("POST {SCORE} HTTP/1.1\r\nHost: {CNAME}\r\nContent-Length: 3\r\n\r\n");
    wire.send(format!("{one}one{one}two")).await;
    assert_eq!((wire.reply().await.text(), wire.reply().await.text()), ("one".to_owned(), "two".to_owned()));

    sleep(A_WHILE).await;
    let body = "0123456789abcdef".repeat(64 * 1024);
    wire.post(&format!("Content-Length: {}\r\n", body.len()), &body).await;
    assert_eq!(wire.reply().await.text(), body);
}

#[tokio::test]
async fn a_head_that_is_begun_after_a_rest_and_left_is_ended_with_408() {
    let (_replica, environment) = echo();
    let front = environment.set("limits", "header_read_timeout = '200ms'").start();
    let mut wire = rested(&front).await;
    wire.send("POST ").await;
    wire.reply().await.assert_refusal(408, "RequestTimeout", "The request head did not arrive in time.");
    wire.closed().await;
}

#[tokio::test]
async fn what_is_no_request_after_a_rest_is_refused() {
    let (_replica, environment) = echo();
    let front = environment.start();
    let mut wire = rested(&front).await;
    wire.send("GET / HTTP/1.1\n\n").await;
    assert_eq!(wire.reply().await.status, 400);
    wire.closed().await;
}

#[tokio::test]
async fn a_connection_that_has_rested_is_ended_by_whoever_wants_to_in_good_order() {
    let (_replica, environment) = echo();
    let mut front = environment.set("limits", "idle_timeout = '3s'").start();
    let (gone, mut idle) = tokio::join!(rested(&front), rested(&front));
    front.until_metric("connections_open", 2).await;
    drop(gone);
    front.until_metric("connections_open", 1).await;
    idle.closed().await;
    front.until_metric("caller_timeouts_total{kind=\"idle\"}", 1).await;

    let mut stopped = rested(&front).await;
    let stopping = tokio::spawn(front.stop(PATIENCE));
    stopped.closed().await;
    assert!(within(stopping).await.expect("no panic"));
}
