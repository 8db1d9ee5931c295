//! Which worker thread a connection is served by.

use crate::support::{Environment, Front, Replica, SCORE, post};

/// Waits until the two threads have so many connections.
async fn until_open(front: &Front, expected: [u32; 2]) {
    for (worker, open) in expected.into_iter().enumerate() {
        front.until_metric(&format!("worker_connections_open{{worker=\"{worker}\"}}"), open).await;
    }
}

#[tokio::test]
async fn two_threads_have_as_many_connections_each_however_few_there_are() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).without_permits().threads(2).start();
    let mut callers = Vec::new();
    for pairs in 1..=8 {
        callers.extend(front.both().await);
        until_open(&front, [pairs, pairs]).await;
    }
    for caller in &mut callers {
        assert_eq!(caller.call(post(SCORE, "handed over or not")).await.text(), "handed over or not");
    }
    front.until_metric("connections_accepted_total", 16).await;
    drop(callers);
    until_open(&front, [0, 0]).await;
}

#[tokio::test]
async fn so_it_is_in_the_clear() {
    let replica = Replica::echo();
    let environment = Environment::new().set("tls", "status = 'Disabled'").without_permits().threads(2);
    let front = environment.service("iris", &[&replica], "").start();
    let mut callers = Vec::new();
    for _ in 0..4 {
        callers.push(front.plain().await);
    }
    until_open(&front, [2, 2]).await;
    for caller in &mut callers {
        caller.post("Content-Length: 12\r\n", "in the clear").await;
        assert_eq!(caller.reply().await.text(), "in the clear");
    }
}
