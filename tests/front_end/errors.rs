//! Every answer of the front end's own, in both forms, word for word: callers compare them.

use crate::support::{CNAME, Environment, Replica, Reply, SCORE, Step};

const KEYED: &str =
    "auth = true\nprimary_key_sha256 = '0000000000000000000000000000000000000000000000000000000000000000'";

/// Each kind of refusal: the service called, fields of the call, its body, and what is said.
const REFUSALS: [(&str, &str, &str, u16, &str, &str); 12] = [
    (
        "iris/score",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "x",
        400,
        "BadRequest",
        "Content-Length is not one decimal number.",
    ),
    (
        "iris/score",
        "X-Request-Timeout-Ms: soon\r\n",
        "",
        400,
        "BadRequest",
        "x-request-timeout-ms is a whole number of milliseconds.",
    ),
    ("keyed/score", "", "", 401, "Unauthorized", "Missing or wrong key for service keyed."),
    ("nowhere", "", "", 404, "NotFound", "No such path."),
    ("rose/score", "", "", 404, "ServiceNotFound", "No such service: rose."),
    (
        "iris/score",
        "Azureml-Model-Deployment: red\r\n",
        "",
        404,
        "DeploymentNotFound",
        "Service iris has no deployment red.",
    ),
    ("iris/swagger.json", "", "", 405, "MethodNotAllowed", "This path takes GET, HEAD, OPTIONS."),
    (
        "iris/score",
        "Content-Length: 10\r\n",
        "some",
        408,
        "RequestTimeout",
        "The request body did not arrive within 500 ms.",
    ),
    (
        "iris/score",
        "Content-Length: 100\r\n",
        "",
        413,
        "BodyTooLarge",
        "The request body is larger than the limit of 99 bytes.",
    ),
    ("closing/score", "", "", 502, "ReplicaClosed", "Replica closed connection before replying"),
    ("refusing/score", "", "", 503, "NoReadyReplicas", "No ready replicas for service refusing."),
    ("hanging/score", "", "", 504, "ScoringTimeout", "Scoring timeout after 500 ms."),
];

struct Services([Replica; 4]);

impl Services {
    fn new() -> Self {
        let closing = Replica::start([Step::ReadBody, Step::Close]);
        let hanging = Replica::start([Step::Hang]);
        Self([Replica::start([Step::ReadBody]), closing, hanging, Replica::refusing()])
    }

    fn environment(&self) -> Environment {
        let Self([iris, closing, hanging, refusing]) = self;
        Environment::iris(&[iris])
            .set("defaults", "scoring_timeout = '500ms'\nmax_body = 99")
            .service("keyed", &[iris], KEYED)
            .service("closing", &[closing], "")
            .service("hanging", &[hanging], "")
            .service("refusing", &[refusing], "")
    }
}

fn request(resource: &str, fields: &str, body: &str) -> String {
    format!("POST /api/v1/service/{resource} HTTP/1.1\r\nHost: {CNAME}\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn errors_are_json() {
    let services = Services::new();
    let front = services.environment().start();
    for (resource, fields, body, status, code, message) in REFUSALS {
        let reply = front.wire().await.ask(request(resource, fields, body)).await;
        reply.assert_refusal(status, code, message);
    }
    // The form of the body, byte for byte.
    let reply = front.wire().await.ask(request("nowhere", "", "")).await;
    let id = reply.field("x-ms-request-id").expect("an id");
    let body = format!("{{\"error\":{{\"code\":\"NotFound\",\"message\":\"No such path.\"}},\"requestId\":\"{id}\"}}");
    assert_eq!(reply.text(), body);
}

#[track_caller]
fn assert_text(reply: &Reply, status: u16, message: &str) {
    assert_eq!((reply.status, reply.text()), (status, message));
    assert_eq!(reply.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.field("x-ms-request-id").map(str::len), Some(36));
}

#[tokio::test]
async fn errors_are_the_message_alone_where_text_is_asked_for() {
    let services = Services::new();
    let front = services.environment().set("defaults", "error_format = 'text'").start();
    for (resource, fields, body, status, _, message) in REFUSALS {
        let reply = front.wire().await.ask(request(resource, fields, body)).await;
        assert_text(&reply, status, message);
    }
    let reply = front.wire().await.ask(request("iris/score", &"X: 1\r\n".repeat(100), "")).await;
    assert_text(&reply, 431, "The request has more than the limit of 100 header fields.");
    let reply = front.plain().await.ask(request("iris/score", "", "")).await;
    let uri = format!("https://{CNAME}:{}{SCORE}", front.https().port());
    assert_text(&reply, 403, &format!("This service is called over TLS only: {uri}"));
    let reply = front.wire().await.ask(request("iris/score", "", "").replace(CNAME, "a.example")).await;
    assert_text(
        &reply,
        421,
        "The certificate served on this connection does not cover a.example; open a new connection.",
    );
}

#[tokio::test]
async fn a_service_may_have_a_form_of_its_own() {
    let replica = Replica::refusing();
    let front = Environment::iris(&[&replica]).service("text", &[&replica], "error_format = 'text'").start();
    let mut wire = front.wire().await;
    wire.ask(request("iris/score", "", "")).await.assert_refusal(
        503,
        "NoReadyReplicas",
        "No ready replicas for service iris.",
    );
    assert_text(&wire.ask(request("text/score", "", "")).await, 503, "No ready replicas for service text.");
}
