//! Callers that keep to one deployment while a service's traffic is split.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use crate::keys::sha256;
use crate::support::{CNAME, Caller, Environment, Front, Replica, client_config, handshake, score};

/// A service whose two deployments have half of the traffic each.
fn split(sticky_by: &str, replicas: [&Replica; 2]) -> Environment {
    let deployments: [(&str, u8, &[&Replica]); 2] = [("blue", 50, &replicas[..1]), ("green", 50, &replicas[1..])];
    Environment::new().cname(CNAME).deployments_with("iris", &format!("sticky_by = '{sticky_by}'"), &deployments)
}

/// The deployment that answers a call with these fields.
async fn deployment(caller: &mut Caller, fields: &[(&'static str, &str)]) -> String {
    let reply = caller.call(score(fields)).await;
    assert_eq!(reply.status, 200);
    reply.field("azureml-model-deployment").expect("a deployment").to_owned()
}

/// The deployments that these sessions get, each of which gets the same one over both protocols.
async fn placed(front: &Front, sessions: u32) -> BTreeMap<u32, String> {
    let mut placed = BTreeMap::new();
    for mut caller in front.both().await {
        for session in 0..sessions {
            let found = deployment(&mut caller, &[("x-session-id", &format!("session-{session}"))]).await;
            assert_eq!(placed.entry(session).or_insert_with(|| found.clone()), &found);
        }
    }
    placed
}

fn on(placed: &BTreeMap<u32, String>, deployment: &str) -> usize {
    placed.values().filter(|found| *found == deployment).count()
}

#[tokio::test]
async fn a_session_keeps_its_deployment_on_every_front_end_and_after_restarts() {
    let replicas = [Replica::echo(), Replica::echo()];
    let environment = || split("header:x-session-id", replicas.each_ref());
    let mut front = environment().start();
    let before = placed(&front, 100).await;
    // Five standard deviations.
    assert!((25..=75).contains(&on(&before, "green")), "{before:?}");
    front.restart();
    assert_eq!(placed(&front, 100).await, before);
    assert_eq!(placed(&environment().threads(2).start(), 100).await, before);
}

#[tokio::test]
async fn a_cookie_in_crumbs_is_the_same_as_in_one_field() {
    let replicas = [Replica::echo(), Replica::echo()];
    let front = split("header:cookie", replicas.each_ref()).start();
    let (mut whole, mut crumbs) = (front.http1().await, front.http2().await);
    let mut placed = BTreeMap::new();
    for session in 0..40 {
        let id = format!("id={session}");
        let found = deployment(&mut whole, &[("cookie", &format!("theme=dark; {id}"))]).await;
        assert_eq!(deployment(&mut crumbs, &[("cookie", "theme=dark"), ("cookie", &id)]).await, found, "{id}");
        placed.insert(session, found);
    }
    assert!(on(&placed, "blue") > 0 && on(&placed, "green") > 0, "{placed:?}");
}

#[tokio::test]
async fn a_change_of_shares_moves_only_the_sessions_in_between() {
    let replicas = [Replica::echo(), Replica::echo()];
    let service = |environment: Environment, [blue, green]: [u8; 2]| {
        let deployments: [(&str, u8, &[&Replica]); 2] =
            [("blue", blue, &[&replicas[0]]), ("green", green, &[&replicas[1]])];
        environment.deployments_with("iris", "sticky_by = 'header:x-session-id'", &deployments)
    };
    let mut front = service(Environment::new().cname(CNAME), [90, 10]).start();
    let before = placed(&front, 200).await;
    front.reconfigure(|environment| service(environment.without("[[service]]"), [50, 50]));
    assert_eq!(front.reload().await.0, 200);
    let after = placed(&front, 200).await;
    assert!(on(&after, "green") > on(&before, "green"));
    assert!(before.iter().all(|(session, found)| found == "blue" || after[session] == "green"), "none the other way");
}

#[tokio::test]
async fn a_call_without_the_field_is_drawn_and_a_pin_wins() {
    let replicas = [Replica::echo(), Replica::echo()];
    let front = split("header:x-session-id", replicas.each_ref()).start();
    for mut caller in front.both().await {
        for fields in [&[][..], &[("x-session-id", "")]] {
            let mut found = Vec::new();
            for _ in 0..60 {
                found.push(deployment(&mut caller, fields).await);
            }
            for name in ["blue", "green"] {
                assert!(found.iter().any(|found| found == name), "{found:?}");
            }
        }
        for name in ["blue", "green"] {
            let fields = [("x-session-id", "session-1"), ("azureml-model-deployment", name)];
            assert_eq!(deployment(&mut caller, &fields).await, name);
        }
    }
}

#[tokio::test]
async fn those_who_call_with_one_key_get_one_deployment() {
    let replicas = [Replica::echo(), Replica::echo()];
    let mut environment = split("key", replicas.each_ref()).section("defaults", "health_interval = '0s'");
    for key in 0..20 {
        let hash = sha256(&format!("key-{key}"));
        environment = environment.table(&format!("[[service.key]]\nname = 'key-{key}'\nsha256 = '{hash}'"));
    }
    let front = environment.start();
    let mut placed = BTreeMap::new();
    for mut caller in front.both().await {
        for _ in 0..3 {
            for key in 0..20 {
                let field = format!("Bearer key-{key}");
                let found = deployment(&mut caller, &[("authorization", &field)]).await;
                assert_eq!(placed.entry(key).or_insert_with(|| found.clone()), &found);
            }
        }
    }
    assert!(on(&placed, "blue") > 0 && on(&placed, "green") > 0, "{placed:?}");
}

#[tokio::test]
async fn those_who_call_from_one_address_get_one_deployment_whatever_the_port() {
    let replicas = [Replica::echo(), Replica::echo()];
    let front = split("address", replicas.each_ref()).start();
    let mut placed = BTreeMap::new();
    for _ in 0..3 {
        for host in 1..=20_u8 {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))).expect("a loopback address");
            let tcp = socket.connect(front.https()).await.expect("a connection");
            let stream = handshake(tcp, client_config(&["http/1.1"]), CNAME).await.expect("a handshake");
            let mut caller = Caller::http1(stream).await;
            // Nobody speaks for another address.
            let found = deployment(&mut caller, &[("x-forwarded-for", "192.0.2.1")]).await;
            assert_eq!(placed.entry(u32::from(host)).or_insert_with(|| found.clone()), &found);
        }
    }
    assert!(on(&placed, "blue") > 0 && on(&placed, "green") > 0, "{placed:?}");
}
