//! A real model server behind the front end: azureml-inference-server-http under gunicorn, as Azure's containers run it.

use std::thread;

use crate::harness::{Azmlinfsrv, CNAME, Environment, FrontEnd, eventually, h2load, needs};

const JSON: &[&str] = &["-H", "content-type: application/json", "-d", "{\"data\": [5.1, 3.5, 1.4, 0.2]}"];

fn before(replica: &Azmlinfsrv) -> FrontEnd {
    Environment::new().service("iris", replica.address).serve()
}

fn carries_2_000_calls_over_64_connections(replica: &Azmlinfsrv) {
    // How fast this machine runs a model is not what is looked at.
    let environment = Environment::new().set("defaults.max_queue_wait", "20s");
    let front_end = environment.service("iris", replica.address).serve();
    for protocol in [&["--h1"][..], &[]] {
        let load = h2load(&front_end, "iris", &[&["-n2000", "-c64"], protocol].concat());
        assert_eq!((load.ok, load.failed), (2000, 0), "{}", load.output);
    }
}

#[test]
fn a_replica_that_closes_after_every_answer_fails_no_call_in_2_000_over_64_connections() {
    needs!("h2load");
    let Some(replica) = Azmlinfsrv::run("import json\nreturn len(json.loads(data)['data'])") else { return };
    carries_2_000_calls_over_64_connections(&replica);
}

#[test]
fn a_replica_that_keeps_connections_alive_fails_no_call_in_2_000_over_64_connections() {
    needs!("h2load");
    let script = "import json\ndef run(data): return len(json.loads(data)['data'])";
    let settings = [("GUNICORN_CMD_ARGS", "-k gthread --threads 4 --keep-alive 30")];
    let Some(replica) = Azmlinfsrv::start(script, &settings) else { return };
    carries_2_000_calls_over_64_connections(&replica);
}

#[test]
fn the_500_of_a_script_that_raises_passes_through() {
    needs!("curl");
    let Some(replica) = Azmlinfsrv::run("raise ValueError('no such flower')") else { return };
    let answer = before(&replica).curl("iris/score", JSON);
    assert_eq!((answer.status, answer.header("x-ms-run-function-failed")), (500, Some("True")), "{answer:?}");
    let message = "An unexpected error occurred in scoring script. Check the logs for more info.";
    assert_eq!(answer.json(), serde_json::json!({ "message": message }));
}

#[test]
fn a_status_and_fields_of_the_models_own_choice_pass_through() {
    needs!("curl");
    let script = "
from azureml_inference_server_http.api.aml_response import AMLResponse
def run(data): return AMLResponse('short and stout', 418, {'x-handle': 'left', 'Content-Type': 'text/x-teapot'})";
    let Some(replica) = Azmlinfsrv::start(script, &[]) else { return };
    let answer = before(&replica).curl("iris/score", JSON);
    assert_eq!((answer.status, &*answer.body), (418, "short and stout"));
    assert_eq!(answer.header("x-handle"), Some("left"));
    assert_eq!(answer.header("content-type"), Some("text/x-teapot"));
    assert_eq!(answer.header("x-ms-run-function-failed"), Some("False"));
}

#[test]
fn the_first_part_of_a_stream_arrives_before_the_last_is_made() {
    needs!("curl");
    let script = "
import time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def parts():
    yield 'data: one\\n\\n'
    time.sleep(1)
    yield 'data: two\\n\\n'

@rawhttp
def run(request): return AMLResponse(parts(), 200, {'content-type': 'text/event-stream'})";
    let Some(replica) = Azmlinfsrv::start(script, &[]) else { return };
    let front_end = before(&replica);
    for version in ["--http1.1", "--http2"] {
        let answer = front_end.curl("iris/score", &[&[version, "-N"], JSON].concat());
        assert_eq!((answer.status, &*answer.body), (200, "data: one\n\ndata: two\n\n"));
        assert!(answer.total - answer.first_byte > 0.9, "{version} held back the first part: {answer:?}");
    }
}

#[test]
fn a_script_that_takes_too_long_gets_its_caller_a_504() {
    needs!("curl");
    let Some(replica) = Azmlinfsrv::run("import time\ntime.sleep(2)") else { return };
    let environment = Environment::new().set("defaults.scoring_timeout", "300ms");
    let front_end = environment.service("iris", replica.address).serve();
    let answer = front_end.curl("iris/score", JSON);
    answer.assert_refused(504, "ScoringTimeout", "Scoring timeout after 300 ms.");
    assert!(answer.total < 1.5, "{answer:?}");
}

#[test]
fn ids_of_any_length_do_not_become_the_replicas_431() {
    needs!("curl");
    let Some(replica) = Azmlinfsrv::run("return 'fine'") else { return };
    let front_end = before(&replica);
    let long = "x".repeat(200);
    for name in ["x-ms-client-request-id", "x-ms-request-id", "x-request-id"] {
        let answer = front_end.curl("iris/score", &[JSON, &["-H", &format!("{name}: {long}")]].concat());
        assert_eq!((answer.status, &*answer.body), (200, "\"fine\""), "{name}: {answer:?}");
    }
}

#[test]
fn the_script_sees_the_ids_of_the_answer_and_neither_key_nor_stranger_fields() {
    needs!("curl");
    let script = "
from azureml_inference_server_http.api.aml_request import rawhttp
@rawhttp
def run(request): return {name.lower(): value for name, value in request.headers}";
    let Some(replica) = Azmlinfsrv::start(script, &[]) else { return };
    // The SHA-256 of "secret".
    let sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let address = replica.address;
    let service =
        format!("[[service]]\nname = \"iris\"\nprimary_key_sha256 = \"{sha256}\"\nreplicas = [\"http://{address}\"]");
    let front_end = Environment::new().table(&service).serve();
    let fields = [
        "-H",
        "authorization: Bearer secret",
        "-H",
        "x-ms-client-request-id: call-7",
        "-H",
        "x-forwarded-for: 6.6.6.6",
    ];
    let answer = front_end.curl("iris/score", &[JSON, &fields].concat());
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    let id = answer.header("x-ms-request-id").expect("an id");
    assert_eq!(seen["x-request-id"], id);
    assert_eq!(seen["x-ms-client-request-id"], "call-7");
    assert_eq!(answer.header("x-ms-client-request-id"), Some("call-7"));
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert_eq!(seen["x-forwarded-host"], format!("{CNAME}:{}", front_end.https.port()));
    assert_eq!(seen["host"], address.to_string());
    assert!(seen["x-forwarded-for"].as_str().expect("it").ends_with("127.0.0.1"), "{seen}");
    assert!(seen["traceparent"].is_string(), "{seen}");
    assert!(seen.get("authorization").is_none(), "{seen}");
    let line = front_end.access.wait_for(id);
    assert!(line.contains("\"client_id\":\"call-7\""), "{line}");
}

#[test]
fn a_service_shows_its_health_and_its_api_description() {
    needs!("curl");
    let Some(replica) = Azmlinfsrv::run("return 1") else { return };
    let front_end = before(&replica);
    let health = front_end.curl("iris/", &[]);
    assert_eq!((health.status, &*health.body), (200, "Healthy"));
    assert_eq!(front_end.curl("iris/", &["--head"]).status, 200);
    let swagger = front_end.curl("iris/swagger.json?version=3", &[]);
    assert_eq!(swagger.status, 200);
    assert!(swagger.json()["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{swagger:?}");
    let answer = front_end.curl("iris/swagger.json?version=9", &[]);
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("Swagger version [9] is not valid"), "{answer:?}");
}

#[test]
fn a_replica_killed_under_calls_is_told_in_the_contracts_words_and_serves_again_once_it_is_back() {
    needs!("curl");
    let Some(mut replica) = Azmlinfsrv::run("import time\ntime.sleep(0.05)\nreturn 1") else { return };
    let front_end = before(&replica);
    let ask = || front_end.curl("iris/score", JSON);

    let answers = thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    // Each caller goes on until it has met the replica that is gone.
                    eventually("no replica", || {
                        answers.push(ask());
                        answers.last().filter(|answer| answer.status == 503).map(drop)
                    });
                    answers
                })
            })
            .collect();
        front_end.access.wait_for_count(20);
        replica.kill();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect::<Vec<_>>()
    });
    for answer in &answers {
        match answer.status {
            200 => {}
            502 => answer.assert_refused(502, "ReplicaClosed", "Replica closed connection before replying"),
            _ => answer.assert_refused(503, "NoReadyReplicas", "No ready replicas for service iris."),
        }
    }
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert!(count(200) >= 16 && count(502) >= 1, "{} answers of 200, {} of 502", count(200), count(502));

    replica.restart();
    assert_eq!(ask().status, 200);
}
