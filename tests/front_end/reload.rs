//! Files that change under a running front end: what is good goes live without a restart, and what is not changes
//! nothing and is told.

use std::os::unix::fs::symlink;

use rcgen::date_time_ymd;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::support::{
    Algorithm, CNAME, Environment, Front, Gate, Pair, Replica, SCORE, Step, chunk, chunked, client_config,
    client_config_for, eventually, ok, post, session, within,
};

const OTHER: &str = "other.example.com";

/// The kernel tells, and nothing else does.
const WATCHED: &str = "watch = true\npoll_interval = '1h'";
const POLLED: &str = "watch = false\npoll_interval = '100ms'";
/// Nothing is noticed but what somebody says.
const ASKED: &str = "watch = false\npoll_interval = '1h'";

const CERT: &str = "cert-0.pem";
const KEY: &str = "key-0.pem";

/// [`CNAME`] and [`OTHER`].
fn two(reload: &str) -> Environment {
    Environment::new().set("reload", reload).cname(CNAME).cname(OTHER)
}

/// Starts it, and waits for its first look at the files, which takes whatever was written since they were opened.
async fn started(environment: Environment) -> Front {
    let front = environment.start();
    front.row(CNAME).await;
    front
}

/// As a renewal that is done well writes it.
fn put(front: &Front, pair: &Pair) {
    front.files().put(KEY, &pair.key);
    front.files().put(CERT, &pair.chain);
}

async fn generation(front: &Front, cname: &str) -> u64 {
    front.row(cname).await["generation"].as_u64().expect("a number")
}

/// What a reload says of a CNAME.
fn said<'a>(report: &'a Value, cname: &str) -> &'a Value {
    let rows = report["certificates"].as_array().expect("a list");
    rows.iter().find(|row| row["cname"] == cname).unwrap_or_else(|| panic!("no {cname} in {report}"))
}

#[tokio::test]
async fn a_renewed_pair_that_is_renamed_into_place_goes_live_at_once() {
    let front = two(WATCHED).start();
    let before = front.row(CNAME).await;
    let renewed = Pair::new(&[CNAME]);
    put(&front, &renewed);
    front.until_serves(CNAME, &renewed).await;
    let row = front.row(CNAME).await;
    assert_ne!(row["serial"], before["serial"]);
    assert_eq!((&row["generation"], &row["last_reload_ok"]), (&json!(2), &json!(true)), "{row}");
    assert_eq!(generation(&front, OTHER).await, 1, "nobody touched the other one");
}

#[tokio::test]
async fn a_renewed_pair_that_is_written_in_place_goes_live_at_once() {
    let front = two(WATCHED).start();
    let renewed = Pair::new(&[CNAME]);
    front.files().write(KEY, &renewed.key);
    front.files().write(CERT, &renewed.chain);
    front.until_serves(CNAME, &renewed).await;
    assert_eq!(generation(&front, CNAME).await, 2);
}

#[tokio::test]
async fn a_renewed_pair_is_taken_by_the_poll_where_nothing_tells_of_it() {
    let front = two(POLLED).start();
    for _ in 0..2 {
        let renewed = Pair::new(&[CNAME]);
        put(&front, &renewed);
        front.until_serves(CNAME, &renewed).await;
    }
    // Written into the same file, and with the same length.
    let renewed = Pair::new(&[CNAME]);
    front.files().write(KEY, &renewed.key);
    front.files().write(CERT, &renewed.chain);
    front.until_serves(CNAME, &renewed).await;
    assert_eq!(generation(&front, CNAME).await, 4);
}

#[tokio::test]
async fn a_renewed_pair_is_taken_when_somebody_says_so() {
    let front = started(two(ASKED)).await;
    let before = front.row(CNAME).await;
    let (old, renewed) = (front.chain(CNAME).await.expect("a handshake"), Pair::new(&[CNAME]));
    put(&front, &renewed);
    assert_eq!(front.chain(CNAME).await.expect("a handshake"), old, "nobody told it");
    let (status, report) = front.reload().await;
    // What was taken is served before the answer is sent.
    assert!(front.serves(CNAME, &renewed).await);
    assert_eq!(status, 200, "{report}");
    let row = said(&report, CNAME);
    assert_eq!((&row["result"], &row["replaced_serial"]), (&json!("taken"), &before["serial"]), "{report}");
    assert_eq!(row["serial"], front.row(CNAME).await["serial"]);
    assert_eq!(said(&report, OTHER)["result"], "unchanged");
    assert_eq!(report["config"]["result"], "unchanged");

    let (status, report) = front.reload().await;
    assert_eq!((status, &said(&report, CNAME)["result"]), (200, &json!("unchanged")), "{report}");
    assert_eq!(generation(&front, CNAME).await, 2);
}

/// A Secret volume as the kubelet writes it: files are links through `..data`, which is replaced whole.
fn mount(environment: &Environment, version: u32, pair: &Pair) {
    let volume = environment.path().join("secret");
    let directory = volume.join(format!("..2026_{version}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("tls.crt"), &pair.chain).expect("a file");
    std::fs::write(directory.join("tls.key"), &pair.key).expect("a file");
    symlink(format!("..2026_{version}"), volume.join("..data_tmp")).expect("a link");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a link");
    if version > 1 {
        std::fs::remove_dir_all(volume.join(format!("..2026_{}", version - 1))).expect("the old one");
    } else {
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), volume.join(name)).expect("a link");
        }
    }
}

#[tokio::test]
async fn a_renewed_kubernetes_secret_goes_live_each_time() {
    for reload in [WATCHED, POLLED] {
        let environment = Environment::new()
            .set("reload", reload)
            .table(&format!("[[cname]]\nname = '{CNAME}'\ncert_pem = 'secret/tls.crt'\nkey_pem = 'secret/tls.key'"));
        mount(&environment, 1, &Pair::new(&[CNAME]));
        let front = environment.start();
        // Twice: after the first time other directories have to be watched.
        for version in 2..5 {
            let renewed = Pair::new(&[CNAME]);
            mount(front.files(), version, &renewed);
            front.until_serves(CNAME, &renewed).await;
            assert_eq!(generation(&front, CNAME).await, u64::from(version));
        }
    }
}

#[tokio::test]
async fn a_link_to_the_directory_of_a_pair_that_is_swapped_is_heard_of() {
    let environment = Environment::new().set("reload", WATCHED).table(&format!(
        "[[cname]]\nname = '{CNAME}'\ncert_pem = 'certs/current/cert.pem'\nkey_pem = 'certs/current/key.pem'"
    ));
    let certs = environment.path().join("certs");
    let release = |name: &str, pair: &Pair| {
        std::fs::create_dir_all(certs.join(name)).expect("a directory");
        std::fs::write(certs.join(name).join("cert.pem"), &pair.chain).expect("a file");
        std::fs::write(certs.join(name).join("key.pem"), &pair.key).expect("a file");
        symlink(name, certs.join("next")).expect("a link");
        std::fs::rename(certs.join("next"), certs.join("current")).expect("a link");
    };
    release("1", &Pair::new(&[CNAME]));
    let front = started(environment).await;
    let renewed = Pair::new(&[CNAME]);
    release("2", &renewed);
    front.until_serves(CNAME, &renewed).await;
}

#[tokio::test]
async fn while_the_certificate_is_there_and_its_key_is_not_the_old_pair_is_served() {
    for reload in [WATCHED, POLLED] {
        let old = Pair::new(&[CNAME]);
        let front = Environment::new().set("reload", reload).pair(CNAME, &old, "").start();
        let success = async || front.pair_metric("certificate_last_reload_success", CNAME, CERT).await;
        assert!((success().await - 1.0).abs() < 0.1);
        let renewed = Pair::new(&[CNAME]);
        front.files().put(CERT, &renewed.chain);
        eventually("the half pair is noticed", async || success().await < 0.5).await;
        for _ in 0..3 {
            assert!(front.serves(CNAME, &old).await);
        }
        let row = front.row(CNAME).await;
        assert_eq!((&row["generation"], &row["last_reload_ok"]), (&json!(1), &json!(false)), "{row}");
        assert_eq!(row["errors"].as_array().map(Vec::len), Some(1), "{row}");

        front.files().put(KEY, &renewed.key);
        front.until_serves(CNAME, &renewed).await;
        assert!((success().await - 1.0).abs() < 0.1);
        let row = front.row(CNAME).await;
        assert_eq!((&row["generation"], row.get("errors")), (&json!(2), None), "{row}");
    }
}

/// What is wrong with a new pair: its name, how it comes to be, and what is said of it.
type Mistake = (&'static str, fn(&Environment), &'static str);

const MISTAKES: [Mistake; 9] = [
    ("broken certificate", |files| files.put(CERT, "-----BEGIN CERTIFICATE-----\n!\n"), "cert_pem"),
    ("empty certificate", |files| files.put(CERT, ""), "cert_pem"),
    ("missing certificate", |files| files.remove(CERT), "there is no such file"),
    ("missing key", |files| files.remove(KEY), "there is no such file"),
    ("broken key", |files| files.put(KEY, "no key"), "key_pem"),
    ("another's key", |files| files.put(KEY, &Pair::new(&[CNAME]).key), "key"),
    ("expired", |files| both(files, &Pair::expired(&[CNAME])), "expired"),
    (
        "not yet valid",
        |files| both(files, &Pair::altered(&[CNAME], |params| params.not_before = date_time_ymd(2999, 1, 1))),
        "valid",
    ),
    ("not covering", |files| both(files, &Pair::new(&[OTHER])), "not for"),
];

fn both(files: &Environment, pair: &Pair) {
    files.put(KEY, &pair.key);
    files.put(CERT, &pair.chain);
}

#[tokio::test]
async fn of_a_bad_pair_the_reason_is_told_and_the_old_one_goes_on_and_others_are_taken() {
    for (what, make, reason) in MISTAKES {
        let old = Pair::new(&[CNAME]);
        let front = started(Environment::new().set("reload", ASKED).pair(CNAME, &old, "").cname(OTHER)).await;
        make(front.files());
        let other = Pair::new(&[OTHER]);
        front.files().put("key-1.pem", &other.key);
        front.files().put("cert-1.pem", &other.chain);

        let (status, report) = front.reload().await;
        assert_eq!(status, 422, "{what}: {report}");
        let row = said(&report, CNAME);
        assert_eq!(row["result"], "refused", "{what}: {report}");
        let errors = row["errors"].as_array().expect("errors");
        assert!(
            errors.iter().any(|error| error.as_str().is_some_and(|error| error.contains(reason))),
            "{what}: {report}"
        );
        // Files that have just changed are looked at again soon, which may have come first.
        assert!(
            ["taken", "unchanged"].iter().any(|result| said(&report, OTHER)["result"] == *result),
            "{what}: {report}"
        );
        assert!(front.serves(CNAME, &old).await, "{what}");
        assert!(front.serves(OTHER, &other).await, "{what}");
        assert_eq!(front.reload().await.0, 422, "{what}: it is as wrong as before");
        assert_eq!(front.row(CNAME).await["errors"], row["errors"], "{what}");

        // As it was before.
        put(&front, &old);
        let (status, report) = front.reload().await;
        assert_eq!((status, &said(&report, CNAME)["result"]), (200, &json!("unchanged")), "{what}: {report}");
        let row = front.row(CNAME).await;
        assert_eq!((&row["generation"], &row["last_reload_ok"]), (&json!(1), &json!(true)), "{what}: {row}");
    }
}

#[tokio::test]
async fn bad_pairs_that_nobody_asks_about_change_nothing_either() {
    let old = Pair::new(&[CNAME]);
    let front = Environment::new().set("reload", WATCHED).pair(CNAME, &old, "").start();
    for (what, make, _) in MISTAKES {
        make(front.files());
        eventually(what, async || front.row(CNAME).await["last_reload_ok"] == false).await;
        assert!(front.serves(CNAME, &old).await, "{what}");
        put(&front, &old);
        eventually(what, async || front.row(CNAME).await["last_reload_ok"] == true).await;
    }
    assert_eq!(generation(&front, CNAME).await, 1);
    assert!(front.serves(CNAME, &old).await);
}

#[tokio::test]
async fn a_chain_that_lost_its_intermediates_waits_for_the_rest_of_it() {
    let old = Pair::with_intermediate(&[CNAME]);
    let front = Environment::new().set("reload", WATCHED).pair(CNAME, &old, "").start();
    assert_eq!(front.chain(CNAME).await.expect("it can be verified").len(), 2);

    let renewed = Pair::with_intermediate(&[CNAME]);
    front.files().put(KEY, &renewed.key);
    front.files().put(CERT, &renewed.leaf_pem());
    eventually("the short chain is noticed", async || front.row(CNAME).await["last_reload_ok"] == false).await;
    // Its leaf alone could not be verified by this caller.
    assert!(front.serves(CNAME, &old).await);
    let (status, report) = front.reload().await;
    assert_eq!((status, &said(&report, CNAME)["result"]), (422, &json!("refused")), "{report}");
    assert!(front.serves(CNAME, &old).await);

    front.files().put(CERT, &renewed.chain);
    front.until_serves(CNAME, &renewed).await;
    assert_eq!(front.chain(CNAME).await.expect("it can be verified").len(), 2);
    assert_eq!(generation(&front, CNAME).await, 2);
}

#[tokio::test]
async fn of_a_chain_that_waits_for_the_rest_of_it_the_reason_is_told() {
    let environment = Environment::new().set("reload", ASKED);
    let front = started(environment.pair(CNAME, &Pair::with_intermediate(&[CNAME]), "")).await;
    let renewed = Pair::with_intermediate(&[CNAME]);
    front.files().put(KEY, &renewed.key);
    front.files().put(CERT, &renewed.leaf_pem());
    let (status, report) = front.reload().await;
    let row = said(&report, CNAME);
    assert_eq!((status, &row["result"]), (422, &json!("refused")), "{report}");
    assert!(row["errors"].to_string().contains("intermediate"), "{report}");
    assert_eq!(front.row(CNAME).await["errors"], row["errors"]);
}

#[tokio::test]
async fn a_chain_that_stays_without_intermediates_is_taken_after_a_while() {
    let old = Pair::with_intermediate(&[CNAME]);
    let front = Environment::new().set("reload", WATCHED).pair(CNAME, &old, "").start();
    // Issued by the root itself now.
    let renewed = Pair::new(&[CNAME]);
    put(&front, &renewed);
    front.until_serves(CNAME, &renewed).await;
    assert_eq!(generation(&front, CNAME).await, 2);
}

#[tokio::test]
async fn connections_that_were_open_before_a_change_go_on() {
    let replica = Replica::echo();
    let mut front = started(Environment::iris(&[&replica]).set("reload", ASKED)).await;
    let mut callers = front.both().await;
    for caller in &mut callers {
        assert_eq!(caller.call(post(SCORE, "before")).await.status, 200);
    }
    let renewed = Pair::new(&[CNAME]);
    put(&front, &renewed);
    front.reconfigure(|files| files.service("churn", &[&replica], ""));
    assert_eq!(front.reload().await.0, 200);
    assert!(front.serves(CNAME, &renewed).await);
    for caller in &mut callers {
        // A connection that had to be opened anew would fail here: these callers know no way to open one.
        assert_eq!(caller.call(post(SCORE, "after")).await.text(), "after");
        assert_eq!(caller.call(post("/api/v1/service/churn/score", "new")).await.text(), "new");
    }
}

#[tokio::test]
async fn sessions_from_before_a_change_are_resumed_after_it() {
    for version in [&TLS12, &TLS13] {
        let mut front = started(two(ASKED)).await;
        let config = client_config_for(&[version], &[]);
        assert_ne!(session(&front, &config, CNAME).await.expect("a session"), HandshakeKind::Resumed);
        let renewed = Pair::new(&[CNAME]);
        put(&front, &renewed);
        front.reconfigure(|files| files.set("limits", "idle_timeout = '20s'"));
        assert_eq!(front.reload().await.0, 200);
        assert!(front.serves(CNAME, &renewed).await);
        assert_eq!(session(&front, &config, CNAME).await.expect("a session"), HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn cnames_come_and_go_with_the_configuration() {
    let mut front = Environment::new().set("reload", WATCHED).cname(CNAME).start();
    assert!(front.chain(OTHER).await.is_err());
    front.reconfigure(|files| files.cname(OTHER));
    eventually("the new name is served", async || front.chain(OTHER).await.is_ok()).await;
    front.reconfigure(|files| files.without(OTHER));
    eventually("the name is gone", async || front.chain(OTHER).await.is_err()).await;
    assert!(front.chain(CNAME).await.is_ok());
    assert_eq!(front.row(OTHER).await, Value::Null);
    assert_eq!(generation(&front, CNAME).await, 1, "it was there all the time");
}

#[tokio::test]
async fn included_files_come_and_go() {
    for reload in [WATCHED, POLLED] {
        let environment = Environment::new().set("reload", reload).cname(CNAME).table("include = ['more/*.toml']");
        std::fs::create_dir(environment.path().join("more")).expect("a directory");
        let pair = Pair::new(&[OTHER]);
        environment.write("more/cert.pem", &pair.chain);
        environment.write("more/key.pem", &pair.key);
        let replica = Replica::echo();
        let front = environment.start();
        let called = async || front.http1().await.call(post("/api/v1/service/churn/score", "x")).await.status;
        assert!(front.chain(OTHER).await.is_err());
        assert_eq!(called().await, 404);

        let cname = format!("[[cname]]\nname = '{OTHER}'\ncert_pem = 'cert.pem'\nkey_pem = 'key.pem'\n");
        let service = format!("[[service]]\nname = 'churn'\nreplicas = ['http://{}']\n", replica.address);
        front.files().put("more/other.toml", &format!("{cname}{service}"));
        front.until_serves(OTHER, &pair).await;
        eventually("the service is served", async || called().await == 200).await;
        front.files().remove("more/other.toml");
        eventually("the name is gone", async || front.chain(OTHER).await.is_err()).await;
        eventually("the service is gone", async || called().await == 404).await;
    }
}

#[tokio::test]
async fn services_are_added_changed_and_removed() {
    let (one, other) = (Replica::start([Step::ReadBody, ok("one")]), Replica::start([Step::ReadBody, ok("other")]));
    let mut front = started(Environment::iris(&[&one]).set("reload", ASKED)).await;
    let mut caller = front.http1().await;
    let churn = "/api/v1/service/churn/score";
    assert_eq!(caller.call(post(churn, "x")).await.status, 404);

    front.reconfigure(|files| files.service("churn", &[&other], "max_body = 3"));
    let (status, report) = front.reload().await;
    assert_eq!((status, &report["config"]["result"]), (200, &json!("taken")), "{report}");
    assert_eq!(caller.call(post(churn, "x")).await.text(), "other");
    assert_eq!(caller.call(post(churn, "long")).await.status, 413);

    front.reconfigure(|files| files.without("churn").service("churn", &[&one], "max_body = 4"));
    assert_eq!(front.reload().await.0, 200);
    assert_eq!(caller.call(post(churn, "long")).await.text(), "one");

    front.reconfigure(|files| files.without("churn"));
    assert_eq!(front.reload().await.0, 200);
    assert_eq!(caller.call(post(churn, "x")).await.status, 404);
    assert_eq!(caller.call(post(SCORE, "x")).await.text(), "one");
    front.until_metric("config_generation", 4).await;
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing_and_is_told_and_a_mended_one_is_taken() {
    for reload in [WATCHED, POLLED] {
        let replica = Replica::echo();
        let mut front = Environment::iris(&[&replica]).set("reload", reload).start();
        front.until_metric("config_last_reload_success", 1).await;
        for broken in ["x = ]", "[[service]]\nname = 'churn'", "[[cname]]\nname = 'b.example.com'"] {
            front.reconfigure(|files| files.table(broken));
            front.until_metric("config_last_reload_success", 0).await;
            let (status, report) = front.reload().await;
            assert_eq!((status, &report["config"]["result"]), (422, &json!("refused")), "{report}");
            let errors = report["config"]["errors"].as_array().expect("errors");
            assert!(errors.iter().all(|error| error.as_str().is_some_and(|error| error.contains("scorefront.toml:"))));
            assert_eq!(front.http2().await.call(post(SCORE, "x")).await.status, 200, "{broken}");
            // What else changed is taken, also while the configuration is broken.
            let renewed = Pair::new(&[CNAME]);
            put(&front, &renewed);
            front.until_serves(CNAME, &renewed).await;
            front.reconfigure(|files| files.without(broken));
            front.until_metric("config_last_reload_success", 1).await;
        }
        front.reconfigure(|files| files.service("churn", &[&replica], ""));
        let mut caller = front.http1().await;
        let churn = "/api/v1/service/churn/score";
        eventually("the service is served", async || caller.call(post(churn, "x")).await.status == 200).await;
        assert_eq!(front.reload().await.0, 200);
    }
}

#[tokio::test]
async fn a_configuration_that_is_empty_for_an_instant_is_not_taken() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("reload", WATCHED).start();
    let text = std::fs::read_to_string(front.files().path().join("scorefront.toml")).expect("a file");
    front.files().write("scorefront.toml", "");
    let (status, report) = front.reload().await;
    assert_eq!((status, &report["config"]["result"]), (422, &json!("refused")), "{report}");
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200);
    front.files().write("scorefront.toml", &text);
    assert_eq!(front.reload().await.0, 200);
    front.until_metric("config_generation", 1).await;
}

#[tokio::test]
async fn a_configuration_that_is_written_in_pieces_is_taken_when_it_is_whole() {
    let replica = Replica::echo();
    let number = "max_connections = 10000";
    let front = Environment::iris(&[&replica]).set("reload", WATCHED).set("limits", number).start();
    let whole = std::fs::read_to_string(front.files().path().join("scorefront.toml")).expect("a file");
    // Cut in the middle of a line, and before a table: both are configurations.
    let (before, _) = whole.split_once(number).expect("it is there");
    let cut_in_line = &format!("{before}max_connections = 1000");
    let cut_at_table = whole.split("[[service]]").next().expect("a part");
    for part in [cut_in_line, cut_at_table] {
        front.files().write("scorefront.toml", part);
        front.until_metric("config_last_reload_success", 0).await;
        assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200, "after {part:?}");
        front.files().write("scorefront.toml", &whole);
        front.until_metric("config_last_reload_success", 1).await;
    }
    front.until_metric("config_generation", 1).await;
    // Whoever says that it is whole is believed.
    front.files().write("scorefront.toml", cut_at_table);
    assert_eq!(front.reload().await.0, 200);
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 404);
}

#[tokio::test]
async fn a_change_of_what_is_read_at_the_start_says_that_it_waits_for_a_restart() {
    let mut front = Environment::iris(&[&Replica::echo()]).set("reload", WATCHED).start();
    front.until_metric("config_waits_for_restart", 0).await;
    front.reconfigure(|files| files.section("frontend", "https = '127.0.0.1:1'\nhttp = '127.0.0.1:0'"));
    front.until_metric("config_waits_for_restart", 1).await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200, "on the port it was started with");
    front.reconfigure(|files| files.section("frontend", "https = '127.0.0.1:0'\nhttp = '127.0.0.1:0'"));
    front.until_metric("config_waits_for_restart", 0).await;
}

#[tokio::test]
async fn limits_change_live() {
    let mut front = started(two(ASKED)).await;
    // The default would have it wait for longer than the test does.
    front.reconfigure(|files| files.set("limits", "header_read_timeout = '100ms'\nidle_timeout = '100ms'"));
    assert_eq!(front.reload().await.0, 200);
    let mut wire = front.wire().await;
    wire.send("GET / HTTP/1.1\r\nHo").await;
    wire.gone().await;
    front.until_metric("caller_timeouts_total{kind=\"header\"}", 1).await;
}

#[tokio::test]
async fn the_oldest_tls_version_changes_live() {
    let mut front = started(two(ASKED)).await;
    let old = client_config_for(&[&TLS12], &[]);
    assert!(front.tls(old.clone(), CNAME).await.is_ok());
    front.reconfigure(|files| files.section("tls", "min_version = '1.3'"));
    assert_eq!(front.reload().await.0, 200);
    assert!(front.tls(old.clone(), CNAME).await.is_err());
    assert!(front.tls(client_config(&[]), CNAME).await.is_ok());
    front.reconfigure(|files| files.section("tls", ""));
    assert_eq!(front.reload().await.0, 200);
    assert!(front.tls(old, CNAME).await.is_ok());
}

#[tokio::test]
async fn the_default_name_and_whether_tls_is_enabled_change_live() {
    let names = [OTHER, "unknown.example.com"];
    let mut front =
        started(Environment::new().set("reload", ASKED).cname(CNAME).certificate(OTHER, &names, Algorithm::Ecdsa))
            .await;
    assert!(front.chain("unknown.example.com").await.is_err());
    front.reconfigure(|files| files.section("tls", &format!("default_cname = '{OTHER}'")));
    assert_eq!(front.reload().await.0, 200);
    assert!(front.chain("unknown.example.com").await.is_ok());
    assert_eq!(front.plain().await.ask("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 403);
    front.reconfigure(|files| files.section("tls", "status = 'Disabled'"));
    assert_eq!(front.reload().await.0, 200);
    assert!(front.chain("unknown.example.com").await.is_err());
    assert_eq!(front.plain().await.ask("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 404);
}

#[tokio::test]
async fn a_bad_pair_at_the_start_keeps_nobody_else_from_being_served_and_is_taken_when_it_is_mended() {
    for (what, make) in [
        ("missing", (|files| files.remove(CERT)) as fn(&Environment)),
        ("broken", |files| files.put(KEY, "no key")),
        ("another's key", |files| files.put(KEY, &Pair::new(&[CNAME]).key)),
        ("not covering", |files| both(files, &Pair::new(&[OTHER]))),
    ] {
        let environment = two(WATCHED);
        make(&environment);
        let front = environment.start();
        assert!(front.chain(OTHER).await.is_ok(), "{what}");
        assert!(front.chain(CNAME).await.is_err(), "{what}");
        let row = front.row(CNAME).await;
        assert_eq!((&row["generation"], &row["last_reload_ok"], row.get("serial")), (&json!(0), &json!(false), None));
        let mended = Pair::new(&[CNAME]);
        put(&front, &mended);
        front.until_serves(CNAME, &mended).await;
        assert_eq!(generation(&front, CNAME).await, 1, "{what}");
    }
}

#[tokio::test]
async fn an_expired_pair_is_served_for_want_of_a_better_one() {
    let expired = Pair::expired(&[CNAME]);
    let front = Environment::new().set("reload", WATCHED).pair(CNAME, &expired, "").start();
    // This caller refuses it, and it is there.
    let refused = front.chain(CNAME).await.expect_err("expired").to_string();
    assert!(refused.contains("expired"), "{refused}");
    let serial = front.row(CNAME).await["serial"].clone();
    assert!(serial.is_string());
    let good = Pair::new(&[CNAME]);
    put(&front, &good);
    front.until_serves(CNAME, &good).await;
    assert_ne!(front.row(CNAME).await["serial"], serial);
    // The other way round nothing happens.
    put(&front, &expired);
    eventually("it is noticed", async || front.row(CNAME).await["last_reload_ok"] == false).await;
    assert!(front.serves(CNAME, &good).await);
}

#[tokio::test]
async fn it_is_ready_as_soon_and_as_long_as_there_is_a_good_certificate() {
    let environment = Environment::new().set("reload", WATCHED).cname(CNAME);
    environment.remove(KEY);
    let front = environment.start();
    let ready = async || front.admin("GET /readyz HTTP/1.1").await.status;
    assert_eq!(ready().await, 503);
    put(&front, &Pair::new(&[CNAME]));
    eventually("it is ready", async || ready().await == 200).await;
    front.files().remove(KEY);
    eventually("the loss is noticed", async || front.row(CNAME).await["last_reload_ok"] == false).await;
    assert_eq!(ready().await, 200);
    assert!(front.chain(CNAME).await.is_ok());
}

/// The status of an admin page with a token.
async fn status_with(front: &Front, token: &str) -> u16 {
    front.admin(&format!("GET /v1/certificates HTTP/1.1\r\nAuthorization: Bearer {token}")).await.status
}

#[tokio::test]
async fn the_admin_token_changes_with_its_file() {
    let (old, new) = ("0123456789abcdef", "fedcba9876543210");
    let environment = two(WATCHED);
    environment.write("admin.token", old);
    let front = environment.set("admin", "listen = '127.0.0.1:0'\ntoken_file = 'admin.token'").start();
    assert_eq!((status_with(&front, old).await, status_with(&front, new).await), (200, 401));
    front.files().put("admin.token", &format!("{new}\n"));
    eventually("the new token lets in", async || status_with(&front, new).await == 200).await;
    assert_eq!((status_with(&front, old).await, status_with(&front, "").await), (401, 401));
    // What is no token leaves the last one in use, like everything else that is bad.
    for bad in ["", "short"] {
        front.files().put("admin.token", bad);
        let reload = format!("POST /v1/reload HTTP/1.1\r\nAuthorization: Bearer {new}");
        assert_eq!(front.admin(&reload).await.status, 422, "{bad:?}");
        assert_eq!((status_with(&front, new).await, status_with(&front, bad).await), (200, 401), "{bad:?}");
    }
}

#[tokio::test]
async fn with_an_empty_token_file_from_the_start_nobody_is_let_in_until_there_is_a_token() {
    let environment = two(WATCHED);
    environment.write("admin.token", "");
    let front = environment.set("admin", "listen = '127.0.0.1:0'\ntoken_file = 'admin.token'").start();
    assert_eq!((status_with(&front, "").await, status_with(&front, "x").await), (401, 401));
    assert_eq!(front.admin("GET /metrics HTTP/1.1").await.status, 401);
    front.files().put("admin.token", "0123456789abcdef");
    eventually("the token lets in", async || status_with(&front, "0123456789abcdef").await == 200).await;
}

fn in_flight(replica: &Replica) -> String {
    let address = replica.address;
    format!("replica_requests_in_flight{{service=\"iris\",deployment=\"default\",replica=\"{address}\"}}")
}

/// A call that `replica` answers as soon as the gate is open.
async fn call_in_flight(front: &Front, replica: &Replica) -> tokio::task::JoinHandle<u16> {
    let mut caller = front.http2().await;
    let before = replica.requests().len();
    let call = tokio::spawn(async move { caller.call(post(SCORE, "x")).await.status });
    replica.saw(before + 1).await;
    call
}

#[tokio::test]
async fn requests_in_flight_are_counted_exactly_across_changes() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let mut front = started(Environment::iris(&[&replica]).without_permits().set("reload", ASKED).threads(2)).await;
    let first = call_in_flight(&front, &replica).await;
    front.until_metric(&in_flight(&replica), 1).await;
    front.reconfigure(|files| files.service("churn", &[&replica], ""));
    assert_eq!(front.reload().await.0, 200);
    front.until_metric(&in_flight(&replica), 1).await;
    let second = call_in_flight(&front, &replica).await;
    front.until_metric(&in_flight(&replica), 2).await;
    front.reconfigure(|files| files.without("churn"));
    assert_eq!(front.reload().await.0, 200);
    gate.open();
    assert_eq!((within(first).await.expect("200"), within(second).await.expect("200")), (200, 200));
    front.until_metric(&in_flight(&replica), 0).await;
}

#[tokio::test]
async fn requests_in_flight_are_counted_also_when_their_replica_was_away_for_a_while() {
    let gate = Gate::new();
    let replica = Replica::start([Step::ReadBody, Step::Wait(gate.clone()), ok("done")]);
    let mut front = started(Environment::iris(&[&replica]).set("reload", ASKED)).await;
    let call = call_in_flight(&front, &replica).await;
    let other = Replica::echo();
    front.reconfigure(|files| files.without("iris").service("iris", &[&other], ""));
    assert_eq!(front.reload().await.0, 200);
    front.reconfigure(|files| files.without("iris").service("iris", &[&replica, &other], ""));
    assert_eq!(front.reload().await.0, 200);
    front.until_metric(&in_flight(&replica), 1).await;
    gate.open();
    assert_eq!(within(call).await.expect("an answer"), 200, "its service changed under it");
    front.until_metric(&in_flight(&replica), 0).await;
}

#[tokio::test]
async fn an_answer_that_streams_goes_on_when_its_service_is_removed() {
    let gate = Gate::new();
    let replica =
        Replica::start([Step::ReadBody, chunked(), chunk("one"), Step::Wait(gate.clone()), chunk("two"), chunk("")]);
    let mut front = started(Environment::iris(&[&replica]).set("reload", ASKED)).await;
    let mut wire = front.wire().await;
    wire.post("Content-Length: 1\r\n", "x").await;
    assert_eq!(wire.head().await.status, 200);
    assert_eq!(wire.chunk().await.expect("a chunk"), b"one");
    front.reconfigure(|files| files.without("iris"));
    assert_eq!(front.reload().await.0, 200);
    gate.open();
    assert_eq!(wire.chunk().await.expect("a chunk"), b"two");
    assert_eq!(wire.chunk().await.expect("the end"), b"");
}

#[tokio::test]
async fn files_that_the_configuration_names_anew_and_that_are_bad_leave_the_last_good_pair_in_use() {
    let old = Pair::new(&[CNAME]);
    let mut front = started(Environment::new().set("reload", ASKED).pair(CNAME, &old, "")).await;
    // The next table would be written to cert-1.pem.
    front.reconfigure(|files| {
        let files = files.without(CERT).pair(CNAME, &Pair::new(&[CNAME]), "");
        files.remove("key-1.pem");
        files
    });
    assert_eq!(front.reload().await.0, 422);
    assert!(front.serves(CNAME, &old).await);
}

#[tokio::test]
async fn a_configuration_that_includes_other_files_than_before_is_taken_once() {
    let mut front = started(Environment::new().set("reload", ASKED).cname(CNAME)).await;
    front.files().write("more.toml", "[[service]]\nname = 'iris'\nreplicas = ['http://127.0.0.1:1']\n");
    front.reconfigure(|files| files.table("include = ['more.toml']"));
    // On a busy machine it may have been taken before it was asked for.
    assert_eq!(front.reload().await.0, 200);
    let (_, report) = front.reload().await;
    assert_eq!(report["config"]["result"], "unchanged", "{report}");
    front.until_metric("config_generation", 2).await;
}

#[tokio::test]
async fn a_configuration_that_stays_empty_does_not_take_everything_away() {
    let replica = Replica::echo();
    let front = started(Environment::iris(&[&replica]).set("reload", ASKED)).await;
    // As a full disk leaves it.
    front.files().write("scorefront.toml", "");
    // A while it may wait for its text. Then it is said what is wrong, or else it was taken.
    eventually("it is judged", async || {
        let (_, report) = front.reload().await;
        let is_waiting = report["config"].to_string().contains("waiting");
        report["config"]["result"] == "taken" || (report["config"]["errors"].is_array() && !is_waiting)
    })
    .await;
    assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200);
}

#[tokio::test]
async fn how_often_is_polled_changes_live() {
    let mut front = started(two(ASKED)).await;
    front.reconfigure(|files| files.section("reload", POLLED));
    assert_eq!(front.reload().await.0, 200);
    let renewed = Pair::new(&[CNAME]);
    put(&front, &renewed);
    front.until_serves(CNAME, &renewed).await;
}

#[tokio::test]
async fn of_two_certificates_of_a_name_each_is_renewed_and_each_may_be_bad_alone() {
    let [rsa, ecdsa] = [Algorithm::Rsa, Algorithm::Ecdsa].map(|algorithm| Pair::of(&[CNAME], algorithm));
    let environment = Environment::new().set("reload", ASKED).pair(CNAME, &rsa, "").pair(CNAME, &ecdsa, "");
    environment.remove("key-1.pem");
    let front = started(environment).await;
    assert!(front.serves(CNAME, &rsa).await, "for want of the other one");
    front.files().put("key-1.pem", &ecdsa.key);
    assert_eq!(front.reload().await.0, 200);
    assert!(front.serves(CNAME, &ecdsa).await, "the cheaper one");
    // A bad new one of the first kind, a good one of the other.
    front.files().put(CERT, "");
    let renewed = Pair::of(&[CNAME], Algorithm::Ecdsa);
    front.files().put("key-1.pem", &renewed.key);
    front.files().put("cert-1.pem", &renewed.chain);
    assert_eq!(front.reload().await.0, 422);
    assert!(front.serves(CNAME, &renewed).await);
    let success = async |file| front.pair_metric("certificate_last_reload_success", CNAME, file).await > 0.5;
    assert_eq!((success(CERT).await, success("cert-1.pem").await), (false, true));
}

#[tokio::test]
async fn handshakes_go_on_being_counted_when_a_pair_is_renewed() {
    let front = started(Environment::new().set("reload", ASKED).cname(CNAME)).await;
    for handshakes in 1..4 {
        put(&front, &Pair::new(&[CNAME]));
        assert_eq!(front.reload().await.0, 200);
        assert!(front.chain(CNAME).await.is_ok());
        // The caller has its certificate before we have its last word.
        eventually("a handshake is counted", async || front.row(CNAME).await["handshakes"] == handshakes).await;
    }
    front.until_metric(&format!("certificate_handshakes_total{{cname=\"{CNAME}\"}}"), 3).await;
}

#[tokio::test]
async fn under_load_no_handshake_and_no_call_fails_while_pairs_are_renewed() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).set("reload", WATCHED).threads(2).start();
    let calls = async {
        for _ in 0..100 {
            assert_eq!(front.http1().await.call(post(SCORE, "x")).await.status, 200);
        }
    };
    let renewals = async {
        for _ in 0..10 {
            let renewed = Pair::new(&[CNAME]);
            put(&front, &renewed);
            front.until_serves(CNAME, &renewed).await;
        }
    };
    tokio::join!(calls, renewals);
    assert_eq!(generation(&front, CNAME).await, 11);
}
