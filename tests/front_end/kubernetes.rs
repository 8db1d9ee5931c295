//! Services whose replicas are the endpoints of a Service of Kubernetes: found, followed, and kept whatever happens to its
//! API; and what else is read there.

use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::support::kubernetes::{Api, SERVICES, SLICES, ending, endpoint, http_port, service, slice};
use crate::support::{CNAME, Environment, Front, Gate, Pair, Replica, SCORE, Step, eventually, ok, post, roots_pem};

const CHURN: &str = "kubernetes = { namespace = 'models', service = 'churn', port = 'http' }";

/// A service `iris` whose replicas are the endpoints that `source` names, by the API of `api`.
fn environment(api: &Api, source: &str) -> Environment {
    let environment = Environment::new().cname(CNAME).set("kubernetes", "kubeconfig = 'kubeconfig'");
    environment.write("kubeconfig", &api.kubeconfig(json!({}), None));
    environment.table(&format!("[[service]]\nname = 'iris'\nmax_queue_wait = '20s'\n{source}"))
}

/// Has one slice of the Service `churn` for each replica, all of whose ports differ.
fn name(api: &Api, replicas: &[&Replica]) {
    for (number, replica) in replicas.iter().enumerate() {
        api.set(SLICES, one_of(number, replica));
    }
}

fn one_of(number: usize, replica: &Replica) -> serde_json::Value {
    let pod = endpoint("127.0.0.1", u32::try_from(number).expect("few"));
    slice("churn", &format!("churn-{number}"), http_port(replica.address.port()), &[pod])
}

/// The addresses that the service has.
async fn addresses(front: &Front) -> Vec<String> {
    let deployment = front.replicas().await["services"][0]["deployments"][0].take();
    let found = deployment["replicas"].as_array().expect("a list").iter();
    let mut found: Vec<_> = found.map(|one| one["address"].as_str().expect("text").to_owned()).collect();
    found.sort();
    found
}

async fn until_addresses_are(front: &Front, expected: &[&str]) {
    eventually("the replicas are those that Kubernetes names", async || addresses(front).await == expected).await;
}

async fn until_replicas_are(front: &Front, replicas: &[&Replica]) {
    let mut expected: Vec<_> = replicas.iter().map(|replica| replica.address.to_string()).collect();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    until_addresses_are(front, &expected).await;
}

async fn score(front: &Front) -> String {
    front.http1().await.call(post(SCORE, "x")).await.text().to_owned()
}

async fn until_watched(api: &Api) {
    eventually("it is watched", async || api.is_watched()).await;
}

const WATCH: &str = "{watch=\"endpointslices\",namespace=\"models\"}";

fn errors(reason: &str) -> String {
    format!("kubernetes_watch_errors_total{{watch=\"endpointslices\",namespace=\"models\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_service_has_the_endpoints_that_kubernetes_names() {
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN).start();
    for mut caller in front.both().await {
        assert_eq!(caller.call(post(SCORE, "x")).await.text(), "x");
    }
    until_replicas_are(&front, &[&replica]).await;
    let source = &front.replicas().await["services"][0]["deployments"][0]["source"];
    assert_eq!(*source, json!({"kind": "kubernetes", "namespace": "models", "service": "churn", "port": "http"}));
    front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 1).await;
    front.until_metric(&format!("kubernetes_watch_objects{WATCH}"), 1).await;
    assert!(front.metric(&format!("kubernetes_watch_last_sync_timestamp_seconds{WATCH}")).await > 1.7e9);
}

#[tokio::test]
async fn the_api_is_asked_over_tls_with_a_token_that_may_change() {
    let pair = Pair::new(&["127.0.0.1"]);
    let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let tls = tls.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let (api, replica, new) = (Api::start_tls(tls, "first"), Replica::echo(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN);
    front.write("ca.pem", &roots_pem());
    front.write("token", "first");
    front.write("kubeconfig", &api.kubeconfig(json!({"tokenFile": "token"}), Some("ca.pem")));
    let front = front.start();
    until_replicas_are(&front, &[&replica]).await;

    until_watched(&api).await;
    api.set_token("second");
    api.cut();
    front.until_metric(&errors("unauthorized"), 1).await;
    assert_eq!(score(&front).await, "x");
    front.files().write("token", "second");
    name(&api, &[&replica, &new]);
    until_replicas_are(&front, &[&replica, &new]).await;
}

#[tokio::test]
async fn a_namespace_is_watched_once_for_all_its_services() {
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN);
    let front =
        (0..20).fold(front, |front, number| front.table(&format!("[[service]]\nname = 'other-{number}'\n{CHURN}\n")));
    let front = front.start();
    eventually("all of them have it", async || {
        let services = front.replicas().await["services"].take();
        services
            .as_array()
            .expect("a list")
            .iter()
            .all(|one| one["deployments"][0]["replicas"].as_array().expect("a list").len() == 1)
    })
    .await;
    assert_eq!(api.asked(&["limit="]), 1);
    eventually("it is watched", async || api.asked(&["watch=true"]) == 1).await;
}

#[tokio::test]
async fn an_endpoint_that_ends_finishes_what_it_has_and_gets_no_more_while_another_is_ready() {
    let gate = Gate::new();
    let old = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("the old one")]);
    let (api, new) = (Api::start(), Replica::start([Step::ReadBody, ok("the new one")]));
    name(&api, &[&old]);
    let front = environment(&api, CHURN).start();
    let mut caller = front.http1().await;
    let call = tokio::spawn(async move { caller.call(post(SCORE, "x")).await });
    eventually("it is in flight", async || old.requests().len() == 1).await;

    api.set(SLICES, slice("churn", "churn-0", http_port(old.address.port()), &[ending("127.0.0.1", 0)]));
    // It is the only one, so it stays.
    api.bookmark();
    until_replicas_are(&front, &[&old]).await;
    api.set(SLICES, one_of(1, &new));
    until_replicas_are(&front, &[&new]).await;
    for _ in 0..5 {
        assert_eq!(score(&front).await, "the new one");
    }
    api.delete(SLICES, slice("churn", "churn-0", json!([]), &[]));
    gate.open();
    assert_eq!(call.await.expect("no panic").text(), "the old one");
    assert_eq!(old.requests().len(), 1);
}

#[tokio::test]
async fn slices_are_one_set_whatever_moves_between_them() {
    let api = Api::start();
    let port = || http_port(5001);
    // Both families of two pods, of which one has no IPv4 address; and one that is not ready, and one written by hand.
    let not_ready = crate::support::kubernetes::with_conditions("127.0.0.9", 9, json!({"ready": false}));
    let by_hand = json!({"addresses": ["127.0.0.3"]});
    api.set(SLICES, slice("churn", "churn-4", port(), &[endpoint("127.0.0.1", 1), not_ready]));
    api.set(SLICES, slice("churn", "churn-6", port(), &[endpoint("fd00::1", 1), endpoint("fd00::2", 2)]));
    api.set(SLICES, slice("churn", "churn-x", json!([{"name": "http", "port": 5002}]), &[by_hand]));
    api.set(SLICES, slice("bikes", "bikes-4", port(), &[endpoint("127.0.0.7", 7)]));
    let front = environment(&api, CHURN).start();
    let all = ["127.0.0.1:5001", "127.0.0.3:5002", "[fd00::2]:5001"];
    until_addresses_are(&front, &all).await;

    // In both, then in the other one alone.
    api.set(SLICES, slice("churn", "churn-5", port(), &[endpoint("127.0.0.1", 1), endpoint("127.0.0.4", 4)]));
    let more = ["127.0.0.1:5001", "127.0.0.3:5002", "127.0.0.4:5001", "[fd00::2]:5001"];
    until_addresses_are(&front, &more).await;
    api.delete(SLICES, slice("churn", "churn-4", port(), &[]));
    api.set(SLICES, slice("churn", "churn-x", port(), &[]));
    until_addresses_are(&front, &["127.0.0.1:5001", "127.0.0.4:5001", "[fd00::2]:5001"]).await;

    // A slice becomes another Service's.
    api.set(SLICES, slice("bikes", "churn-5", port(), &[endpoint("127.0.0.1", 1)]));
    until_addresses_are(&front, &["[fd00::1]:5001", "[fd00::2]:5001"]).await;
}

#[tokio::test]
async fn the_port_may_be_a_number_of_the_pods() {
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    let port = replica.address.port();
    let front = environment(&api, &format!("kubernetes = {{ service = 'churn', port = {port} }}")).start();
    // The namespace is that of the kubeconfig.
    until_replicas_are(&front, &[&replica]).await;
    assert_eq!(score(&front).await, "x");
}

#[tokio::test]
async fn while_the_api_is_away_everything_goes_on() {
    let (api, replica, new) = (Api::start(), Replica::echo(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN).start();
    until_replicas_are(&front, &[&replica]).await;
    api.go_away();
    front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 0).await;
    front.until_metric(&errors("unreachable"), 2).await;
    assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 200);
    until_replicas_are(&front, &[&replica]).await;
    assert_eq!(score(&front).await, "x");

    name(&api, &[&replica, &new]);
    api.come_back();
    until_replicas_are(&front, &[&replica, &new]).await;
    front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 1).await;
    // It went on from where it was.
    assert_eq!(api.asked(&["limit="]), 1);
}

#[tokio::test]
async fn a_watch_that_is_cut_every_second_is_taken_up_where_it_was() {
    let (api, replicas) = (Api::start(), [Replica::echo(), Replica::echo(), Replica::echo(), Replica::echo()]);
    name(&api, &[&replicas[0]]);
    let front = environment(&api, CHURN).start();
    until_replicas_are(&front, &[&replicas[0]]).await;
    for there in 2..=replicas.len() {
        eventually("it is watched", async || api.asked(&["watch=true"]) >= there - 1).await;
        api.cut();
        // It is there before the next watch begins.
        api.set(SLICES, one_of(there - 1, &replicas[there - 1]));
        assert_eq!(score(&front).await, "x");
        until_replicas_are(&front, &replicas[..there].iter().collect::<Vec<_>>()).await;
    }
    assert_eq!(api.asked(&["limit="]), 1);
    assert!(api.asked(&["watch=true"]) <= replicas.len() + 1, "it hurries");
}

#[tokio::test]
async fn what_is_too_old_is_listed_again_and_no_replica_is_there_twice() {
    for gone_is_a_status in [true, false] {
        let (api, replica, new) = (Api::start(), Replica::echo(), Replica::echo());
        name(&api, &[&replica]);
        let front = environment(&api, CHURN).start();
        until_replicas_are(&front, &[&replica]).await;
        until_watched(&api).await;
        api.set(SLICES, slice("bikes", "bikes-4", http_port(5001), &[]));
        // What happened meanwhile is lost: one is gone, and one is new.
        api.cut();
        api.delete(SLICES, slice("churn", "churn-0", json!([]), &[]));
        api.set(SLICES, one_of(1, &new));
        api.forget(gone_is_a_status);
        until_replicas_are(&front, &[&new]).await;
        front.until_metric(&errors("gone"), 1).await;
        assert_eq!(api.asked(&["limit="]), 2);
        assert_eq!(score(&front).await, "x");
        // It is followed from there.
        api.set(SLICES, one_of(0, &replica));
        until_replicas_are(&front, &[&replica, &new]).await;
    }
}

#[tokio::test]
async fn a_bookmark_is_where_a_watch_goes_on() {
    let (api, replica, new) = (Api::start(), Replica::echo(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN).start();
    until_replicas_are(&front, &[&replica]).await;
    until_watched(&api).await;
    api.forget(true);
    api.bookmark();
    eventually("the bookmark is behind what was forgotten", async || {
        api.cut();
        api.asked(&["watch=true", "resourceVersion=3"]) > 0
    })
    .await;
    name(&api, &[&replica, &new]);
    until_replicas_are(&front, &[&replica, &new]).await;
    let gone = front.metric(&errors("gone")).await;
    let lists = api.asked(&["limit="]);
    // Whether the bookmark or the cut came first is not for the test to say: either it went on from the bookmark, or it
    // was told once that it is too late.
    assert!(lists == 1 || (lists == 2 && gone > 0.5), "{lists} lists, {gone} times gone");
}

#[tokio::test]
async fn a_list_comes_in_pages_and_begins_anew_if_one_is_gone() {
    let api = Api::start();
    for number in 0..250 {
        let pod = endpoint(&format!("127.0.1.{number}"), number);
        api.set(SLICES, slice("churn", &format!("churn-{number:03}"), http_port(5001), &[pod]));
    }
    api.forget_page();
    let front = environment(&api, CHURN).start();
    eventually("all are there", async || addresses(&front).await.len() == 250).await;
    assert_eq!(api.asked(&["limit=100"]), 5);
    assert_eq!(api.asked(&["continue="]), 3);
}

#[tokio::test]
async fn without_rights_the_rest_is_served_and_with_them_everything() {
    let (api, replica, listed) = (Api::start(), Replica::echo(), Replica::echo());
    name(&api, &[&replica]);
    api.refuse(SLICES, 403);
    let front = environment(&api, CHURN).service("listed", &[&listed], "").start();
    front.until_metric(&errors("forbidden"), 1).await;
    front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 0).await;
    // There is nothing to wait for.
    assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 200);
    assert_eq!(front.http1().await.call(post("/api/v1/service/listed/score", "y")).await.text(), "y");
    api.allow();
    assert_eq!(score(&front).await, "x");
    // And when they are taken away, what is known goes on.
    until_watched(&api).await;
    api.refuse(SLICES, 403);
    api.cut();
    front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 0).await;
    assert_eq!(score(&front).await, "x");
}

#[tokio::test]
async fn a_service_or_a_port_that_is_not_there_is_told_and_found_when_it_is() {
    let (api, replica) = (Api::start(), Replica::echo());
    let metrics = slice("churn", "churn-0", json!([{"name": "metrics", "port": 9090}]), &[endpoint("127.0.0.1", 0)]);
    api.set(SLICES, metrics);
    let front = environment(&api, CHURN)
        .table("[[service]]\nname = 'unknown'\nkubernetes = { namespace = 'models', service = 'none', port = 5001 }\n")
        .start();
    let trouble =
        |target: &str, reason: &str| format!("kubernetes_target_trouble{{target=\"{target}\",reason=\"{reason}\"}}");
    front.until_metric(&trouble("models/churn:http", "no_port"), 1).await;
    front.until_metric(&trouble("models/none:5001", "no_service"), 1).await;
    assert!(addresses(&front).await.is_empty());

    name(&api, &[&replica]);
    assert_eq!(score(&front).await, "x");
    front.until_metric(&trouble("models/churn:http", "no_port"), 0).await;
    front.until_metric(&trouble("models/none:5001", "no_service"), 1).await;
}

#[tokio::test]
async fn a_front_end_is_ready_when_kubernetes_has_spoken() {
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    api.set_delay(Duration::from_millis(500));
    let began = Instant::now();
    let front = environment(&api, CHURN).start();
    let answer = front.admin("GET /readyz HTTP/1.1").await;
    let is_early = began.elapsed() < Duration::from_millis(500);
    assert!(answer.status == 503 || !is_early, "{answer:?}");
    eventually("it is ready", async || front.admin("GET /readyz HTTP/1.1").await.status == 200).await;
    until_replicas_are(&front, &[&replica]).await;
}

#[tokio::test]
async fn a_front_end_that_hears_nothing_serves_what_it_can() {
    let (api, listed) = (Api::start(), Replica::echo());
    api.set_delay(Duration::from_secs(3600));
    let began = Instant::now();
    let front = environment(&api, CHURN).service("listed", &[&listed], "").start();
    assert_eq!(front.admin("GET /readyz HTTP/1.1").await.status, 503);
    assert_eq!(front.http1().await.call(post("/api/v1/service/listed/score", "y")).await.text(), "y");
    eventually("it is ready", async || front.admin("GET /readyz HTTP/1.1").await.status == 200).await;
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    front.until_metric(&errors("unreachable"), 1).await;
    // Its next question is answered.
    api.set_delay(Duration::ZERO);
    let replica = Replica::echo();
    name(&api, &[&replica]);
    until_replicas_are(&front, &[&replica]).await;
}

#[tokio::test]
async fn what_cannot_be_read_takes_nothing_away() {
    let (api, replica, new) = (Api::start(), Replica::echo(), Replica::echo());
    name(&api, &[&replica]);
    let front = environment(&api, CHURN).start();
    until_replicas_are(&front, &[&replica]).await;
    let wrong_event = r#"{"type":"ADDED","object":{"metadata":[]}}"#;
    let without_end = vec![b'x'; 9 << 20];
    for garbage in [b"<html>\n".to_vec(), format!("{wrong_event}\n").into_bytes(), without_end] {
        let before = front.metric(&errors("invalid")).await;
        api.send_garbage(garbage);
        eventually("it is read in vain", async || front.metric(&errors("invalid")).await > before).await;
        assert_eq!(score(&front).await, "x");
        api.send_sense();
        api.bookmark();
        front.until_metric(&format!("kubernetes_watch_up{WATCH}"), 1).await;
    }
    name(&api, &[&replica, &new]);
    until_replicas_are(&front, &[&replica, &new]).await;
}

#[tokio::test]
async fn a_deployment_that_is_gone_is_watched_no_longer() {
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    let mut front = environment(&api, CHURN).start();
    until_replicas_are(&front, &[&replica]).await;
    front.reconfigure(|files| files.without("'iris'").service("iris", &[&replica], ""));
    assert_eq!(front.reload().await.0, 200);
    eventually("no watch is told of", async || {
        !front.admin("GET /metrics HTTP/1.1").await.text().contains("kubernetes_watch_up{")
    })
    .await;
    assert_eq!(score(&front).await, "x");
}

/// Services with the label `isazuremlapp`, on the port of `replica`.
fn discovering(api: &Api, replica: &Replica) -> Environment {
    let environment = Environment::new().cname(CNAME).set("kubernetes", "kubeconfig = 'kubeconfig'").set(
        "kubernetes",
        &format!("discover_services = {{ namespace = 'models', port = {} }}", replica.address.port()),
    );
    environment.write("kubeconfig", &api.kubeconfig(json!({}), None));
    environment
}

#[tokio::test]
async fn services_are_those_that_kubernetes_names() {
    let (api, replica, other) = (Api::start(), Replica::echo(), Replica::start([Step::ReadBody, ok("by a file")]));
    name(&api, &[&replica]);
    let labels = |name: &str| json!({"isazuremlapp": "true", "webservicename": name});
    api.set(SERVICES, service("models", "churn", labels("iris")));
    api.set(SERVICES, service("models", "unlabelled", json!({})));
    api.set(SERVICES, service("models", "not-a-service", labels("No")));
    let mut front = discovering(&api, &replica).start();
    eventually("it is scored", async || score(&front).await == "x").await;
    let services = front.admin("GET /v1/services HTTP/1.1").await.json();
    let names = |services: &serde_json::Value| {
        let services = services["value"].as_array().expect("a list").iter();
        services.map(|one| one["name"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&services), ["iris"]);
    assert_eq!(
        services["value"][0]["kubernetes"],
        json!({"namespace": "models", "service": "churn", "port": replica.address.port()})
    );

    // They are changed where they are named.
    let refused = front.manage("PUT /v1/services/iris HTTP/1.1", r#"{"maxQueue": 1}"#).await;
    assert_eq!(refused.refusal(), (409, "ServiceOfKubernetes".to_owned()));
    let refused = front.manage("DELETE /v1/services/iris HTTP/1.1", "").await;
    assert_eq!(refused.refusal(), (409, "ServiceOfKubernetes".to_owned()));

    // A file wins, and what it takes away Kubernetes has again.
    front.reconfigure(|files| files.service("iris", &[&other], ""));
    assert_eq!(front.reload().await.0, 200);
    assert_eq!(score(&front).await, "by a file");
    front.reconfigure(|files| files.without("'iris'"));
    assert_eq!(front.reload().await.0, 200);
    eventually("it is scored again", async || score(&front).await == "x").await;

    // They come and go.
    api.set(SERVICES, service("models", "bikes", labels("bikes")));
    api.delete(SERVICES, service("models", "churn", json!({})));
    eventually("one is there and one is gone", async || {
        names(&front.admin("GET /v1/services HTTP/1.1").await.json()) == ["bikes"]
    })
    .await;
    front.http1().await.call(post(SCORE, "x")).await.assert_refusal(404, "ServiceNotFound", "No such service: iris.");
    // What is known goes on while the API is away.
    api.go_away();
    front.until_metric("kubernetes_watch_up{watch=\"services\",namespace=\"models\"}", 0).await;
    assert_eq!(names(&front.admin("GET /v1/services HTTP/1.1").await.json()), ["bikes"]);
}

#[tokio::test]
async fn a_service_that_kubernetes_names_is_open_only_if_the_defaults_say_so() {
    const HASH_OF_TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let (api, replica) = (Api::start(), Replica::echo());
    name(&api, &[&replica]);
    let labels = json!({"isazuremlapp": "true", "webservicename": "iris"});
    api.set(SERVICES, service("models", "churn", labels.clone()));
    let front = discovering(&api, &replica).section("defaults", "auth = true\nhealth_interval = '0s'").start();
    let call = async |key: &str| {
        let mut request = post(SCORE, "x");
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("a value"));
        front.http1().await.call(request).await
    };
    eventually("it is known and nobody may call it", async || call("test").await.status == 401).await;
    let mut keyed = service("models", "churn", labels);
    keyed["metadata"]["annotations"] = json!({"scorefront/primary-key-sha256": HASH_OF_TEST});
    api.set(SERVICES, keyed);
    eventually("its own key is taken", async || call("test").await.text() == "x").await;
    assert_eq!(call("other").await.status, 401);
}

#[tokio::test]
async fn the_public_address_is_that_of_the_load_balancer() {
    let api = Api::start();
    let front = Environment::new().cname(CNAME).set(
        "kubernetes",
        "kubeconfig = 'kubeconfig'\nfront_end_service = { namespace = 'scoring', service = 'scorefront' }",
    );
    front.write("kubeconfig", &api.kubeconfig(json!({}), None));
    api.set(SERVICES, service("scoring", "another", json!({})));
    let mut balanced = service("scoring", "scorefront", json!({}));
    api.set(SERVICES, balanced.clone());
    let front = front.start();
    let shown = async || {
        let shown = front.admin("GET /v1/env HTTP/1.1").await.json();
        (shown["publicIpAddress"].as_str().expect("text").to_owned(), shown["publicIpAddressSource"].clone())
    };
    eventually("it is asked", async || api.asked(&["fieldSelector=metadata.name%3Dscorefront", "watch=true"]) > 0)
        .await;
    assert_ne!(shown().await.1, "LoadBalancer");
    balanced["status"]["loadBalancer"] = json!({"ingress": [{"hostname": "lb.example.com"}, {"ip": "203.0.113.7"}]});
    api.set(SERVICES, balanced.clone());
    eventually("it is known", async || shown().await == ("203.0.113.7".to_owned(), json!("LoadBalancer"))).await;
    // Some have a name alone, behind which addresses change; what is no name is none.
    balanced["status"]["loadBalancer"] =
        json!({"ingress": [{"hostname": "no name"}, {"hostname": "a1.elb.example.com"}]});
    api.set(SERVICES, balanced.clone());
    eventually("it is named", async || shown().await == ("a1.elb.example.com".to_owned(), json!("LoadBalancer"))).await;
    balanced["status"]["loadBalancer"] = json!({});
    api.set(SERVICES, balanced);
    eventually("it has none any more", async || shown().await.1 != "LoadBalancer").await;
}
