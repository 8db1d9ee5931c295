//! `scorefront explain`: what it says of a call is what the call gets.

use std::fs;
use std::process::{Command, Output};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use crate::harness::{
    CNAME, Environment, FrontEnd, NameServer, OTHER_CNAME, SCOREFRONT, Stub, http_get, needs, write_secret,
};

const KEY: &str = "a-key-that-nobody-shall-see";

fn hash(key: &str) -> String {
    digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A service with a key and two deployments, one that is open, and one of another name only.
fn environment(replica: &Stub) -> Environment {
    let address = replica.address;
    Environment::new()
        .table(&format!(
            "[[service]]\nname = \"iris\"\nprimary_key_sha256 = \"{}\"\nmax_requests_per_second = 100\nscoring_timeout = \"20s\"\n\
             [[service.deployment]]\nname = \"blue\"\ntraffic = 90\nreplicas = [\"http://{address}\"]\n\
             [[service.deployment]]\nname = \"green\"\ntraffic = 10\nprotocol = \"mlflow\"\nreplicas = [\"http://{address}\"]",
            hash(KEY)
        ))
        .service("churn", address)
        .table(&format!(
            "[[service]]\nname = \"other\"\nauth = false\ncnames = [\"{OTHER_CNAME}\"]\nreplicas = [\"http://{address}\"]"
        ))
}

fn explain(environment: &Environment, arguments: &[&str]) -> Output {
    environment.run("explain", arguments)
}

/// The exit code and all it says.
fn said(output: &Output) -> (Option<i32>, String) {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    (output.status.code(), streams.concat())
}

fn json(environment: &Environment, arguments: &[&str]) -> Value {
    let output = explain(environment, &[arguments, &["-o", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn it_says_every_step_and_where_the_call_goes() {
    let replica = Stub::start();
    let environment = environment(&replica);
    let url = format!("https://{CNAME}/api/v1/service/iris/score/a?b=c#d");
    let (code, text) = said(&explain(&environment, &[&url]));
    assert_eq!(code, Some(0), "{text}");
    for wanted in [
        &*format!("POST https://{CNAME}/api/v1/service/iris/score/a?b=c\n"),
        "listener     ",
        &format!("certificate  the caller asks for {CNAME} (SNI)"),
        "the [[cname]] of that name",
        "which the certificate covers",
        "service      iris (",
        "Authorization: Bearer KEY",
        "this goes on as with primary",
        "100 requests a second",
        "20s (scoring_timeout)",
        "blue (90 %), green (10 %)",
        &format!("POST http://{}/score/a?b=c", replica.address),
        &format!("POST http://{}/invocations/a?b=c", replica.address),
        "reaches service iris",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
}

#[test]
fn what_a_caller_sends_decides_too() {
    let replica = Stub::start();
    let environment = environment(&replica);
    let url = format!("https://{CNAME}/api/v1/service/iris/score");
    let pinned =
        json(&environment, &[&url, "-H", "azureml-model-deployment: green", "-H", "x-request-timeout-ms: 1500"]);
    assert_eq!((&pinned["reached"], &pinned["service"]["timeout_ms"]), (&true.into(), &1500.into()));
    assert_eq!((&pinned["deployments"][0]["name"], &pinned["deployments"][0]["share"]), (&"green".into(), &100.into()));
    assert_eq!(pinned["deployments"][0]["target"], "/invocations");
    assert_eq!(pinned["deployments"].as_array().map(Vec::len), Some(1));

    let health = json(&environment, &[&format!("https://{CNAME}/api/v1/service/churn/")]);
    assert_eq!((&health["method"], &health["deployments"][0]["target"]), (&"GET".into(), &"/".into()));
    assert_eq!(health["deployments"][0]["replicas"][0], replica.address.to_string());
}

#[test]
fn who_calls_decides_where_callers_are_told_apart_and_copies_are_told_too() {
    let replica = Stub::start();
    let deployment = |name: &str, traffic: u8| {
        let address = replica.address;
        format!("[[service.deployment]]\nname = \"{name}\"\ntraffic = {traffic}\nreplicas = [\"http://{address}\"]\n")
    };
    let service = "[[service]]\nname = \"iris\"\nauth = false\nsticky_by = \"address\"\n\
                   mirror = { deployment = \"red\", percent = 10 }\n";
    let tables = [service, &deployment("blue", 50), &deployment("green", 50), &deployment("red", 0)].concat();
    let environment = Environment::new().table(&tables);
    let url = format!("https://{CNAME}/api/v1/service/iris/score");
    let anybody = json(&environment, &[&url]);
    assert_eq!(anybody["deployments"].as_array().map(Vec::len), Some(2), "{anybody}");
    assert_eq!(
        (&anybody["service"]["chosen_by"], &anybody["service"]["mirrored_to"]),
        (&"share".into(), &"red".into())
    );
    // As `sha256sum` has it: 4141 of 10,000.
    let somebody = json(&environment, &[&url, "--from", "192.0.2.7"]);
    assert_eq!(
        (&somebody["service"]["chosen_by"], &somebody["deployments"][0]["name"]),
        (&"sticky".into(), &"blue".into())
    );
    let pinned = json(&environment, &[&url, "-H", "azureml-model-deployment: red"]);
    assert_eq!((&pinned["service"]["chosen_by"], &pinned["service"]["mirrored_to"]), (&"caller".into(), &Value::Null));
    let health = json(&environment, &[&format!("https://{CNAME}/api/v1/service/iris/")]);
    assert_eq!(health["service"]["mirrored_to"], Value::Null, "{health}");
}

#[test]
fn a_key_is_tried_and_never_shown() {
    let replica = Stub::start();
    let environment = environment(&replica);
    let url = format!("https://{CNAME}/api/v1/service/iris/score");
    let (right, wrong) = (environment.file("right"), environment.file("wrong"));
    write_secret(&right, KEY);
    write_secret(&wrong, &format!("{KEY}-not"));
    let path = |file: &std::path::Path| file.to_str().expect("UTF-8").to_owned();
    let (code, text) = said(&explain(&environment, &[&url, "--key", &path(&right)]));
    assert!(code == Some(0) && text.contains("the one that is sent is primary") && !text.contains(KEY), "{text}");
    let (code, text) = said(&explain(&environment, &[&url, "--key", &path(&wrong)]));
    assert!(code == Some(1) && text.contains("401 Unauthorized: Missing or wrong key for service iris."), "{text}");
    assert!(!text.contains(KEY), "{text}");
    let bearer = format!("Authorization: Bearer {KEY}");
    for output in ["text", "json"] {
        let (code, text) = said(&explain(&environment, &[&url, "-H", &bearer, "-o", output]));
        assert!(code == Some(0) && !text.contains(KEY), "{text}");
    }
    // Also what is written in the wrong place or way.
    for field in [format!("Authorization Bearer {KEY}"), format!("Authorization: {KEY}\u{1}")] {
        let (code, text) = said(&explain(&environment, &[&url, "-H", &field]));
        assert!(code == Some(2) && text.contains("--header: ") && !text.contains(KEY), "{text}");
    }
    let (code, text) = said(&explain(&environment, &[&url, "--key", KEY]));
    assert!(code == Some(1) && text.contains("the file that --key names") && !text.contains(KEY), "{text}");
}

/// The call as curl makes it, beside what is said of it.
fn assert_refused_as_said(front_end: &FrontEnd, path: &str, arguments: &[&str]) {
    let port = front_end.https.port();
    let answer = front_end.curl(&format!("https://{CNAME}:{port}{path}"), &[&["--path-as-is"], arguments].concat());
    let told = json(&front_end.environment, &[&[&*format!("https://{CNAME}:{port}{path}")], arguments].concat());
    assert_eq!(told["reached"], false, "{told}");
    let refusal = &told["refusal"];
    let error = &answer.json()["error"];
    assert_eq!(
        (refusal["status"].as_u64(), &refusal["code"], &refusal["message"]),
        (Some(answer.status), &error["code"], &error["message"]),
        "{path} {arguments:?}"
    );
}

#[test]
fn what_is_refused_is_refused_as_it_says() {
    needs!("curl");
    let replica = Stub::start();
    let front_end = environment(&replica).serve();
    let key = format!("Authorization: Bearer {KEY}");
    let iris = "/api/v1/service/iris/score";
    for (path, arguments) in [
        ("/nowhere", &[][..]),
        ("/api/v1/service/nothing/score", &[]),
        ("/api/v1/service/other/score", &[]),
        ("/api/v1/service/churn/score/%2e%2e/a", &[]),
        ("/api/v1/service/churn/score", &["-X", "DELETE"]),
        ("/api/v1/service/churn/", &["-X", "POST"]),
        (iris, &["-X", "POST", "-H", "Authorization: Bearer wrong"]),
        (iris, &["-X", "POST", "-H", "Authorization: Basic eDp5"]),
        (iris, &["-X", "POST", "-H", &key, "-H", "azureml-model-deployment: red"]),
        (iris, &["-X", "POST", "-H", &key, "-H", "x-request-timeout-ms: soon"]),
        (iris, &["-X", "POST", "-H", &key, "-H", "x-request-timeout-ms: 0"]),
        (iris, &["-X", "POST", "-H", "Host: elsewhere.example.com"]),
        (iris, &["-X", "POST", "-H", "Host: a,b"]),
        (iris, &["-X", "POST", "-H", &format!("Host: {OTHER_CNAME}")]),
        (iris, &["-X", "POST", "-H", "x_request_id: 1"]),
        ("/api/v1/service/churn/score/../a", &["-X", "POST", "-H", "x_request_id: 1"]),
        ("?a", &[]),
    ] {
        assert_refused_as_said(&front_end, path, arguments);
    }
    let two = [&*format!("https://{CNAME}/api/v1/service/churn/score/../a"), "-H", "x_request_id: 1"];
    assert_eq!(json(&front_end.environment, &two)["refusal"]["at"], "fields", "what is looked at first");
    // The same in the clear.
    let url = format!("http://{CNAME}{iris}");
    let told = json(&front_end.environment, &[&url]);
    assert_eq!((&told["refusal"]["at"], &told["refusal"]["status"]), (&"transport".into(), &403.into()));
    assert!(told["refusal"]["message"].as_str().is_some_and(|text| text.contains("called over TLS only")), "{told}");
    assert_eq!(http_get(front_end.http, iris).0, 403);
}

#[test]
fn names_without_a_certificate_are_told_as_tls_tells_them() {
    let replica = Stub::start();
    let url = "https://unknown.example.com/api/v1/service/churn/score";
    let refused = json(&environment(&replica), &[url]);
    assert_eq!((&refused["refusal"]["at"], &refused["refusal"]["status"]), (&"certificate".into(), &Value::Null));
    assert!(refused["refusal"]["message"].as_str().is_some_and(|text| text.contains("unrecognized_name")), "{refused}");

    let with_default = environment(&replica).set("tls.default_cname", CNAME);
    let misdirected = json(&with_default, &[url]);
    assert_eq!(
        (&misdirected["certificate"]["found_by"], &misdirected["refusal"]["status"]),
        (&"default".into(), &421.into())
    );
    let by_address =
        json(&with_default, &["https://127.0.0.1/api/v1/service/churn/score", "-H", &format!("Host: {CNAME}")]);
    assert_eq!((&by_address["certificate"]["found_by"], &by_address["reached"]), (&"default".into(), &true.into()));

    let wildcard = Environment::with_names(&["*.models.example.com"]).service("churn", replica.address);
    let found = json(&wildcard, &["https://a.models.example.com/api/v1/service/churn/score"]);
    assert_eq!((&found["certificate"]["found_by"], &found["reached"]), (&"wildcard".into(), &true.into()));

    let broken = environment(&replica);
    fs::write(broken.file(&format!("certs/{CNAME}/cert.pem")), "none").expect("write");
    let (code, text) = said(&explain(&broken, &[&format!("https://{CNAME}/api/v1/service/churn/score")]));
    assert!(code == Some(1) && text.contains("its files cannot be served"), "{text}");
}

#[test]
fn certificates_that_no_caller_verifies_are_told() {
    let replica = Stub::start();
    let environment = environment(&replica).set("tls.default_cname", CNAME);
    let explained = |host: &str| {
        let url = format!("https://{host}/api/v1/service/churn/score");
        let (code, text) = said(&explain(&environment, &[&url, "-H", &format!("Host: {CNAME}")]));
        assert_eq!(code, Some(0), "{text}");
        text
    };
    assert!(explained("127.0.0.1").contains("callers that verify it leave here: it is not for 127.0.0.1"));
    let day = rcgen::date_time_ymd;
    for (from, to, wanted) in [(2020, 2021, "EXPIRED 2021-01-01"), (2090, 2099, "NOT VALID before 2090-01-01")] {
        environment.write_pair(CNAME, |params| {
            (params.not_before, params.not_after) = (day(from, 1, 1), day(to, 1, 1));
        });
        let text = explained(CNAME);
        assert!(text.contains(wanted) && text.contains("callers that verify it leave here"), "{text}");
    }
}

#[test]
fn a_service_may_be_called_like_a_part_of_the_path() {
    let address = Stub::start().address;
    let environment = Environment::new().service("score", address).service("scorecard", address);
    for (path, method) in
        [("score/", "GET"), ("score/swagger.json", "GET"), ("scorecard/score", "POST"), ("score/score/a", "POST")]
    {
        let told = json(&environment, &[&format!("https://{CNAME}/api/v1/service/{path}")]);
        assert_eq!((&told["method"], &told["reached"]), (&method.into(), &true.into()), "{path}: {told}");
    }
}

#[test]
fn in_the_clear_nobody_can_show_a_certificate() {
    let replica = Stub::start();
    let environment = environment(&replica).set("tls.status", "Disabled");
    let ca = environment.file("certs").join(CNAME).join("cert.pem");
    let guarded = environment.table(&format!(
        "[[cname]]\nname = \"guarded.example\"\ncert_pem = {0:?}\nkey_pem = {1:?}\nclient_ca_pem = {0:?}",
        ca,
        ca.with_file_name("key.pem")
    ));
    let url = "http://guarded.example/api/v1/service/churn/score";
    let (code, text) = said(&explain(&guarded, &[url]));
    assert!(code == Some(1) && text.contains("client_ca_pem") && text.contains("403"), "{text}");
}

#[test]
fn replicas_are_looked_up_where_a_front_end_looks() {
    let (server, replica) = (NameServer::start(), Stub::start());
    let environment = Environment::new()
        .set("dns.servers", vec![server.address.to_string()])
        .table("[[service]]\nname = \"iris\"\nauth = false\ndns = \"_http._tcp.models.test\"");
    let url = format!("https://{CNAME}/api/v1/service/iris/score");
    server.set(&[replica.address]);
    let found = json(&environment, &[&url]);
    let deployment = &found["deployments"][0];
    assert_eq!((&deployment["source"], &deployment["looked_up_by"]), (&"dns".into(), &"_http._tcp.models.test".into()));
    assert_eq!((&deployment["replicas"][0], &found["reached"]), (&replica.address.to_string().into(), &true.into()));
    server.set(&[]);
    let (code, text) = said(&explain(&environment, &[&url]));
    assert!(code == Some(1) && text.contains("503 NoReadyReplicas: No ready replicas for service iris."), "{text}");
    server.fail();
    let (code, text) = said(&explain(&environment, &[&url]));
    assert!(code == Some(0) && text.contains("cannot be looked up here"), "{text}");
}

#[test]
fn ports_and_listeners_are_part_of_the_way() {
    let replica = Stub::start();
    let environment =
        environment(&replica).set("frontend.https", "127.0.0.1:8443").set("frontend.http", "127.0.0.1:8080");
    let path = "/api/v1/service/churn/score";
    for (url, code, wanted) in [
        (format!("https://{CNAME}:8443{path}"), 0, "port 8443: [frontend] https = \"127.0.0.1:8443\""),
        (format!("https://[::1]:8443{path}"), 1, "has to lead from ::1 to there"),
        (format!("https://{CNAME}{path}"), 0, "something before the front end has to lead"),
        (format!("https://{CNAME}:8080{path}"), 1, "speaks plain HTTP"),
        (format!("http://{CNAME}:8443{path}"), 1, "speaks TLS"),
    ] {
        let (exit, text) = said(&explain(&environment, &[&url]));
        assert!(exit == Some(code) && text.contains(wanted), "{url}: {text}");
    }
    let environment = environment.set("frontend.public_https_port", 443);
    let (_, text) = said(&explain(&environment, &[&format!("https://{CNAME}{path}")]));
    assert!(text.contains("public_https_port says"), "{text}");
}

#[test]
fn wrong_usage_and_a_configuration_that_cannot_be_served() {
    let replica = Stub::start();
    let environment = environment(&replica);
    let url = format!("https://{CNAME}/api/v1/service/churn/score");
    for arguments in [
        &[][..],
        &["iris"],
        &["ftp://a.example/"],
        &["https://me:secret@a.example/"],
        &["https://a.example:99999/"],
        &[&url, "-X", "a b"],
        &[&url, "-H", "nothing"],
        &[&url, "--from", "nobody"],
        &[&url, "-o", "xml"],
        &[&url, "--env", "a"],
    ] {
        let (code, text) = said(&explain(&environment, arguments));
        assert!(code == Some(2) && !text.contains("secret"), "{arguments:?}: {text}");
    }
    let nowhere = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(SCOREFRONT);
    let here = command.args(["explain", &url]).current_dir(environment.path()).output().expect("run");
    assert_eq!(here.status.code(), Some(0), "{here:?}");
    if !std::path::Path::new("/etc/scorefront/scorefront.toml").exists() {
        let mut command = Command::new(SCOREFRONT);
        let (code, text) = said(&command.args(["explain", &url]).current_dir(nowhere.path()).output().expect("run"));
        assert!(code == Some(2) && text.contains("--config FILE or --env DIR"), "{text}");
    }
    let (code, text) = said(&explain(&environment.set("frontend.nonsense", 1), &[&url]));
    assert!(code == Some(1) && text.contains("nonsense") && text.contains("cannot be served"), "{text}");
}
