//! Services whose replicas are looked up in DNS: found, followed, and kept while nobody can say which there are.

use std::time::{Duration, Instant};

use crate::support::{CNAME, Environment, Front, Gate, NameServer, Replica, SCORE, Step, eventually, ok, post};

/// Finds replicas at any port, one for each record.
const BY_SRV: &str = "_http._tcp.models.test";

/// A service `iris` whose replicas `server` is asked for.
fn environment(server: &NameServer, dns: &str, max_queue_wait: &str) -> Environment {
    let service =
        format!("[[service]]\nname = 'iris'\ndns = '{dns}'\nmax_queue_wait = '{max_queue_wait}'\nmax_queue = 10");
    Environment::new().cname(CNAME).set("dns", &servers(server)).table(&service)
}

fn servers(server: &NameServer) -> String {
    format!("servers = ['{}']", server.address)
}

/// Waits until the replicas of the service are these.
async fn until_replicas_are(front: &Front, replicas: &[&Replica]) {
    let mut expected: Vec<_> = replicas.iter().map(|replica| replica.address.to_string()).collect();
    expected.sort();
    eventually("the replicas are those that DNS names", async || {
        let deployment = front.replicas().await["services"][0]["deployments"][0].take();
        let found = deployment["replicas"].as_array().expect("a list").iter();
        let mut found: Vec<_> = found.map(|one| one["address"].as_str().expect("text").to_owned()).collect();
        found.sort();
        found == expected
    })
    .await;
}

#[tokio::test]
async fn a_service_has_the_replicas_that_dns_names() {
    let (server, replica) = (NameServer::start(), Replica::echo());
    server.set(&[replica.address]);
    let front = environment(&server, &format!("models.test:{}", replica.address.port()), "20s").start();
    for mut caller in front.both().await {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
    }
    until_replicas_are(&front, &[&replica]).await;
    let source = &front.replicas().await["services"][0]["deployments"][0]["source"];
    assert_eq!(source["kind"], "dns");
    assert_eq!(source["name"], format!("models.test:{}", replica.address.port()));
}

#[tokio::test]
async fn a_new_address_is_used_and_one_that_is_gone_finishes_what_it_has() {
    let gate = Gate::new();
    let held = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("the old one")]);
    let (server, new) = (NameServer::start(), Replica::start([Step::ReadBody, ok("the new one")]));
    server.set(&[held.address]);
    let front = environment(&server, BY_SRV, "20s").start();
    let mut caller = front.http1().await;
    let call = tokio::spawn(async move { caller.call(post(SCORE, "x")).await });
    eventually("it is in flight", async || held.requests().len() == 1).await;

    server.set(&[held.address, new.address]);
    until_replicas_are(&front, &[&held, &new]).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "the new one");

    server.set(&[new.address]);
    until_replicas_are(&front, &[&new]).await;
    gate.open();
    assert_eq!(call.await.expect("no panic").text(), "the old one");
    for _ in 0..5 {
        assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "the new one");
    }
    assert_eq!(held.requests().len(), 1);
}

#[tokio::test]
async fn while_the_name_server_fails_the_replicas_go_on() {
    let (server, replica) = (NameServer::start(), Replica::echo());
    server.set(&[replica.address]);
    let front = environment(&server, BY_SRV, "20s").start();
    until_replicas_are(&front, &[&replica]).await;
    server.fail();
    let asked = server.asked();
    eventually("it was asked in vain, more than once", async || server.asked() > asked + 2).await;
    until_replicas_are(&front, &[&replica]).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "x");
}

#[tokio::test]
async fn before_the_first_answer_a_call_waits_as_long_as_it_may() {
    let (server, replica) = (NameServer::start(), Replica::echo());
    let mut front = environment(&server, BY_SRV, "300ms").start();
    let began = Instant::now();
    let refusal = front.http1().await.call(post(SCORE, "x")).await;
    refusal.assert_refusal(503, "NoReadyReplicas", "No ready replicas for service iris.");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 200);

    front.reconfigure(|files| {
        let service = format!("[[service]]\nname = 'iris'\ndns = '{BY_SRV}'\nmax_queue_wait = '20s'");
        files.without("'iris'").table(&service)
    });
    assert_eq!(front.reload().await.0, 200);
    let mut caller = front.http1().await;
    let call = tokio::spawn(async move { caller.call(post(SCORE, "x")).await });
    front.until_metric("queue_length{service=\"iris\",deployment=\"default\"}", 1).await;
    server.set(&[replica.address]);
    assert_eq!(call.await.expect("no panic").text(), "x");
}

#[tokio::test]
async fn other_name_servers_are_asked_as_soon_as_the_configuration_names_them() {
    let (before, after) = (NameServer::start(), NameServer::start());
    let [old, new] = ["old", "new"].map(|name| Replica::start([Step::ReadBody, ok(name)]));
    before.set(&[old.address]);
    let mut front = environment(&before, BY_SRV, "20s").start();
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "old");

    // It has nothing to say yet, so that what there is goes on.
    front.reconfigure(|files| files.section("dns", &servers(&after)));
    assert_eq!(front.reload().await.0, 200);
    eventually("the other one is asked", async || after.asked() > 0).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "old");
    after.set(&[new.address]);
    until_replicas_are(&front, &[&new]).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "new");
}
