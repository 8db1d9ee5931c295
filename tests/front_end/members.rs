//! The front ends of a cluster, known by the endpoints of their own Service in Kubernetes: whoever is named is asked, however
//! Kubernetes finds it, and who answers is a member.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::kubernetes::{Api, SLICES, http_port, slice, with_conditions};
use crate::support::{
    Environment, Front, PATIENCE, Replica, SCORE, eventually, free_addresses, member, member_by, post, see,
    until_members, within,
};

const PEERS: &str = "kubernetes = { namespace = 'models', service = 'peers', port = 'http' }";

const WATCH: &str = "{watch=\"endpointslices\",namespace=\"models\"}";

/// A service on `replica`, and the API of `api` to ask.
fn by(api: &Api, replica: &Replica) -> impl Fn(Environment) -> Environment {
    let kubeconfig = api.kubeconfig(json!({}), None);
    move |environment| {
        let environment =
            environment.set("kubernetes", "kubeconfig = 'kubeconfig'").set("defaults", "max_queue_wait = '20s'");
        environment.write("kubeconfig", &kubeconfig);
        environment.service("iris", &[replica], "")
    }
}

/// A slice of the Service `peers` with the front end at `address` alone: all their ports differ.
fn slice_of(number: u32, address: SocketAddr, conditions: Value) -> Value {
    let pod = with_conditions(&address.ip().to_string(), number, conditions);
    slice("peers", &format!("peers-{number}"), http_port(address.port()), &[pod])
}

fn starting() -> Value {
    json!({"ready": false, "serving": false, "terminating": false})
}

fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

fn ending() -> Value {
    json!({"ready": false, "serving": true, "terminating": true})
}

/// Front ends that the slices name, once they know each other.
async fn named(api: &Api, addresses: &[SocketAddr], fill: impl Fn(Environment) -> Environment) -> Vec<Front> {
    for (number, address) in (0..).zip(addresses) {
        api.set(SLICES, slice_of(number, *address, ready()));
    }
    let fronts: Vec<_> = addresses.iter().map(|own| member_by(*own, PEERS, &fill).start()).collect();
    for front in &fronts {
        until_members(front, addresses.len()).await;
    }
    fronts
}

async fn assert_scores(fronts: &[&Front]) {
    for front in fronts {
        assert_eq!(front.http1().await.call(post(SCORE, "x")).await.text(), "x");
    }
}

#[tokio::test]
async fn front_ends_find_each_other_before_they_are_ready_by_the_watch_that_replicas_have() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(2);
    for (number, address) in (0..).zip(&addresses) {
        api.set(SLICES, slice_of(number, *address, starting()));
    }
    api.set(SLICES, slice("churn", "churn-0", http_port(5001), &[]));
    let fill = by(&api, &replica);
    let churn =
        "[[service]]\nname = 'churn'\nkubernetes = { namespace = 'models', service = 'churn', port = 'http' }\n";
    let fill = |environment: Environment| fill(environment).table(churn);
    let fronts: Vec<_> = addresses.iter().map(|own| member_by(*own, PEERS, &fill).start()).collect();
    for front in &fronts {
        until_members(front, 2).await;
        eventually("it is ready", async || front.admin("GET /readyz HTTP/1.1").await.status == 200).await;
    }
    assert_scores(&[&fronts[0], &fronts[1]]).await;
    assert_eq!(api.asked(&["limit="]), fronts.len(), "one list each");
}

#[tokio::test]
async fn one_that_the_slices_name_is_asked_however_it_is_and_goes_when_it_says_so_or_is_gone() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(3);
    let fill = by(&api, &replica);
    let fronts = named(&api, &addresses[..2], &fill).await;
    for conditions in [starting(), ending()] {
        // It knows of nobody, so that it cannot introduce itself.
        let mut third = member(addresses[2], &addresses[2..], &fill).start();
        until_members(&third, 1).await;
        for front in &fronts {
            until_members(front, 2).await;
        }
        api.set(SLICES, slice_of(2, addresses[2], conditions));
        for front in fronts.iter().chain([&third]) {
            until_members(front, 3).await;
        }
        assert_scores(&[&fronts[0], &fronts[1], &third]).await;

        // It is named still, and has said that it leaves.
        third.begin_drain();
        for front in &fronts {
            until_members(front, 2).await;
        }
        assert!(within(third.stop(PATIENCE)).await, "nothing was cut");
        drop(third);
        let gone = addresses[2].to_string();
        for front in &fronts {
            eventually("it answers nobody", async || {
                let seen = see(front).await;
                seen["members"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .all(|one| one["address"] != gone || one["answers"] == false)
            })
            .await;
            until_members(front, 2).await;
        }
        api.delete(SLICES, slice_of(2, addresses[2], ending()));
        for front in &fronts {
            eventually("it is forgotten", async || {
                see(front).await["members"].as_array().expect("a list").iter().all(|one| one["address"] != gone)
            })
            .await;
        }
        assert_scores(&[&fronts[0], &fronts[1]]).await;
    }
}

#[tokio::test]
async fn while_the_api_is_away_the_front_ends_are_who_they_were() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(3);
    let fill = by(&api, &replica);
    let fronts = named(&api, &addresses[..2], &fill).await;
    api.go_away();
    for front in &fronts {
        front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 0).await;
        until_members(front, 2).await;
        assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 200);
    }
    assert_scores(&[&fronts[0], &fronts[1]]).await;
    let third = member(addresses[2], &addresses[2..], &fill).start();
    api.set(SLICES, slice_of(2, addresses[2], starting()));
    api.come_back();
    for front in fronts.iter().chain([&third]) {
        until_members(front, 3).await;
    }
}

#[tokio::test]
async fn a_service_or_a_port_that_is_not_there_is_told_as_for_replicas() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(2);
    let fill = by(&api, &replica);
    let fronts: Vec<_> = addresses.iter().map(|own| member_by(*own, PEERS, &fill).start()).collect();
    let trouble =
        |reason: &str| format!("kubernetes_target_trouble{{target=\"models/peers:http\",reason=\"{reason}\"}}");
    for front in &fronts {
        front.until_metric(&trouble("no_service"), 1).await;
        // Nobody is named, so that each is the only one it knows of.
        until_members(front, 1).await;
    }
    let other_port = json!([{"name": "admin", "protocol": "TCP", "port": 8900}]);
    api.set(SLICES, slice("peers", "peers-0", other_port, &[with_conditions("127.0.0.1", 0, ready())]));
    for front in &fronts {
        front.until_metric(&trouble("no_port"), 1).await;
    }
    for (number, address) in (0..).zip(&addresses) {
        api.set(SLICES, slice_of(number, *address, ready()));
    }
    for front in &fronts {
        until_members(front, 2).await;
        front.until_metric(&trouble("no_port"), 0).await;
    }
}

#[tokio::test]
async fn without_the_right_to_ask_a_front_end_serves_alone_and_says_so() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(2);
    api.refuse(SLICES, 403);
    let fill = by(&api, &replica);
    let first = member_by(addresses[0], PEERS, &fill).start();
    let forbidden = WATCH.replace('}', ",reason=\"forbidden\"}");
    first.until_metric(&format!("kubernetes_watch_errors_total{forbidden}"), 1).await;
    until_members(&first, 1).await;
    assert_eq!(first.admin("GET /readyz HTTP/1.1").await.status, 200);
    assert_scores(&[&first]).await;
    // Who knows it is known to it.
    let second = member(addresses[1], &addresses, &fill).start();
    until_members(&second, 2).await;
    until_members(&first, 2).await;
    assert_scores(&[&first, &second]).await;
}

#[tokio::test]
async fn who_names_the_front_ends_may_change_while_they_run() {
    let (api, replica) = (Api::start(), Replica::echo());
    let addresses = free_addresses(2);
    for (number, address) in (0..).zip(&addresses) {
        api.set(SLICES, slice_of(number, *address, ready()));
    }
    let fill = by(&api, &replica);
    let first = member(addresses[0], &addresses[..1], &fill).start();
    let second = member(addresses[1], &addresses[1..], &fill).start();
    for front in [&first, &second] {
        until_members(front, 1).await;
    }
    let listed = format!("members = {:?}", [addresses[0].to_string()]);
    let text = std::fs::read_to_string(first.files().path().join("scorefront.toml")).expect("a file");
    assert!(text.contains(&listed), "{text}");
    first.files().put("scorefront.toml", &text.replace(&listed, PEERS));
    assert_eq!(first.reload().await.0, 200);
    for front in [&first, &second] {
        until_members(front, 2).await;
    }
}
