//! Who may call a service.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use scorefront::config::LogFormat;
use scorefront::telemetry::log;
use scorefront::telemetry::writer::LineWriter;

use crate::support::{CNAME, Captured, Environment, PATIENCE, Replica, Reply, SCORE, score};

const PRIMARY: &str = "primary-key-of-iris-0123456789";
const SECONDARY: &str = "secondary-key-of-iris-0123456789";

pub fn sha256(key: &str) -> String {
    digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("memory");
        hex
    })
}

fn keyed(replica: &Replica) -> Environment {
    let (primary, secondary) = (sha256(PRIMARY), sha256(SECONDARY));
    let keys = format!("auth = true\nprimary_key_sha256 = '{primary}'\nsecondary_key_sha256 = '{secondary}'");
    Environment::new().cname(CNAME).service("iris", &[replica], &keys)
}

#[track_caller]
fn assert_unauthorized(reply: &Reply) {
    reply.assert_refusal(401, "Unauthorized", "Missing or wrong key for service iris.");
    assert_eq!(reply.field("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn both_keys_open_the_service_and_stay_with_the_front_end() {
    let replica = Replica::echo();
    let front = keyed(&replica).start();
    for mut caller in front.both().await {
        for given in [
            format!("Bearer {PRIMARY}"),
            format!("Bearer {SECONDARY}"),
            format!("bearer {PRIMARY}"),
            format!("BEARER  {PRIMARY}"),
        ] {
            assert_eq!(caller.call(score(&[("authorization", &given)])).await.status, 200, "{given}");
        }
    }
    assert!(replica.requests().iter().all(|seen| seen.field("authorization").is_none()));
}

#[tokio::test]
async fn without_a_right_key_nobody_gets_in() {
    let replica = Replica::echo();
    let front = keyed(&replica).start();
    for mut caller in front.both().await {
        assert_unauthorized(&caller.call(score(&[])).await);
        let long = "x".repeat(5000);
        for given in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            "Bearer wrong".to_owned(),
            format!("Bearer {long}"),
            format!("Bearer {PRIMARY}x"),
            format!("Bearer {PRIMARY} {SECONDARY}"),
            format!("Basic {PRIMARY}"),
            format!("Bearer{PRIMARY}"),
            PRIMARY.to_owned(),
            format!("Bearer {}", sha256(PRIMARY)),
        ] {
            assert_unauthorized(&caller.call(score(&[("authorization", &given)])).await);
        }
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn two_authorization_fields_are_one_too_many() {
    let replica = Replica::echo();
    let front = keyed(&replica).start();
    let right = format!("Bearer {PRIMARY}");
    for mut caller in front.both().await {
        for fields in [[&*right, "Bearer wrong"], ["Bearer wrong", &right], [&right, &right]] {
            let mut request = score(&[]);
            for field in fields {
                request.headers_mut().append("authorization", field.parse().expect("a value"));
            }
            assert_unauthorized(&caller.call(request).await);
        }
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn every_resource_of_a_service_needs_the_key() {
    let replica = Replica::echo();
    let front = keyed(&replica).start();
    let mut caller = front.http1().await;
    for path in ["/api/v1/service/iris/", "/api/v1/service/iris/swagger.json", SCORE, "/api/v1/service/iris/score/x"] {
        assert_unauthorized(&caller.call(crate::support::get(path)).await);
    }
}

#[tokio::test]
async fn an_open_service_leaves_authorization_to_the_model() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    assert_eq!(front.http1().await.call(score(&[("authorization", "Bearer models-own")])).await.status, 200);
    assert_eq!(replica.only_request().field("authorization"), Some("Bearer models-own"));
}

/// Every log event of this process, from the first use on.
static EVENTS: LazyLock<(Captured, LineWriter)> = LazyLock::new(|| {
    let events = Captured::default();
    let writer = LineWriter::start("log", events.clone(), Arc::default()).expect("a thread");
    log::start(LogFormat::Json, "scorefront=trace,h2=debug", writer.clone()).expect("the first log");
    (events, writer)
});

#[tokio::test]
async fn a_key_is_in_no_log() {
    let (events, writer) = &*EVENTS;
    // One that answers, and one that makes the front end say why it failed.
    for replica in [Replica::echo(), Replica::refusing()] {
        let front = keyed(&replica).start();
        for mut caller in front.both().await {
            caller.call(score(&[("authorization", &format!("Bearer {PRIMARY}"))])).await;
            caller.call(score(&[("authorization", &format!("Bearer wrong-{SECONDARY}"))])).await;
        }
        let access = front.log_lines(4).await;
        assert_eq!(access.len(), 4);
        for line in access {
            assert!(!line.to_string().contains("key-of-iris"), "{line}");
        }
    }
    writer.flush(PATIENCE);
    let events = events.text();
    assert!(events.contains("replica unreachable"), "the log is on");
    assert!(!events.contains("key-of-iris"));
}
