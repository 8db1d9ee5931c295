//! `scorefront service`: services made, called, changed and taken away while the front end serves, and every mistake on the
//! way.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use rcgen::{BasicConstraints, IsCa};
use serde_json::{Value, json};

use crate::harness::{Cluster, Iris, NOWHERE, Stub, free_port, needs};

const FLOWER: &str = r#"{"data":[[5.1,3.5,1.4,0.2]]}"#;

/// A cluster that serves the model as `iris`.
fn iris() -> (Cluster, Iris) {
    let (cluster, iris) = (Cluster::serving(), Iris::start());
    cluster.service("create", &format!("-n iris --replica {}", iris.url())).succeeded();
    (cluster, iris)
}

/// `service run realtime -n iris`, trusting the test's authority.
fn run(cluster: &Cluster, words: &str) -> crate::harness::Said {
    cluster.service("run", &format!("-n iris --cacert ca.pem -d {FLOWER} {words}"))
}

fn keys(cluster: &Cluster) -> (String, String) {
    let keys = cluster.service("keys", "-n iris -o json").json();
    let key = |name: &str| keys[name].as_str().expect("a key").to_owned();
    (key("primaryKey"), key("secondaryKey"))
}

/// The seed's page: the scoring URI has the https and the CNAME of the cluster's certificate by itself.
#[test]
fn a_service_is_made_shown_called_and_taken_away() {
    let (cluster, _iris) = iris();
    let shown = cluster.service("show", "-n iris").succeeded();
    let fields: Vec<_> = shown.lines().filter_map(|line| line.trim().split('"').nth(1)).collect();
    assert_eq!(fields, ["id", "name", "state", "createdAt", "updatedAt", "scoringUri"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["id"], &shown["state"]), (&json!("iris.my-cluster.my-rg"), &json!("Succeeded")));
    let uri = shown["scoringUri"].as_str().expect("a URI");
    assert!(uri.starts_with("https://scoring.invalid:") && uri.ends_with("/api/v1/service/iris/score"), "{uri}");
    let by_id = cluster.service("show", "-i iris.my-cluster.my-rg -v").json();
    assert_eq!((&by_id["readyReplicas"], &by_id["name"]), (&json!(1), &json!("iris")));
    let listed = cluster.service("list", "-o json").json();
    assert_eq!(listed, json!([shown]));
    let table = cluster.service("list", "").succeeded();
    assert!(table.starts_with("NAME") && table.contains(uri), "{table}");

    let scored: Value = run(&cluster, "").json();
    assert_eq!(scored[0]["class"], "setosa");
    assert_eq!(cluster.service("delete", "-n iris").succeeded(), "deleted iris\n");
    cluster.service("delete", "-n iris").failed(1, "No such service: iris.");
    cluster.service("show", "-n iris").failed(1, "No such service: iris.");
    assert_eq!(cluster.service("list", "-o json").json(), json!([]));
}

#[test]
fn what_usage_says_works_as_pasted() {
    needs!("curl");
    let (cluster, _iris) = iris();
    let usage = cluster.service("usage", "-n iris --cacert ca.pem -o json").json();
    let line = |name: &str| usage[name].as_str().expect("a line").to_owned();
    let (primary, _) = keys(&cluster);
    assert!(line("sampleCurl").contains(&format!("Authorization: Bearer {primary}")), "{usage}");
    // Nobody has made the DNS record.
    assert!(line("sampleCurl").contains(&format!("--resolve {NOWHERE}:")), "{usage}");
    let path = format!(
        "{}:/usr/bin:/bin",
        std::path::Path::new(crate::harness::SCOREFRONT).parent().expect("a directory").display()
    );
    for command in [line("sampleCurl"), line("sampleCli")] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(cluster.files.path()).env("PATH", &path);
        let ran = shell.output().expect("sh");
        let answer: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{command}: {ran:?}"));
        assert!(answer[0]["class"].is_string(), "{answer}");
    }
    let text = cluster.service("usage", "-n iris").succeeded();
    for heading in ["Scoring URL:", "Headers:", "Swagger URL:", "Sample CLI command:", "Sample CURL call:"] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
    assert!(text.contains("--cacert ca.pem") && text.contains("Note: ca.pem is"), "{text}");
}

#[test]
fn usage_says_only_what_is_needed() {
    let (cluster, iris) = iris();
    cluster.env("set", "--ssl-status Disabled").succeeded();
    cluster.service("update", "-n iris --auth false").succeeded();
    let open = cluster.service("usage", "-n iris -o json").json();
    assert_eq!(open["headers"], json!(["Content-Type: application/json"]));
    let line = open["sampleCurl"].as_str().expect("a line");
    assert!(!line.contains("--cacert") && !line.contains("--resolve") && line.contains("http://127.0.0.1:"), "{line}");
    cluster.service("run", &format!("-n iris -d {FLOWER}")).succeeded();
    let stub = Stub::start();
    cluster.service("create", &format!("-n plain --replica http://{}", stub.address)).succeeded();
    drop(iris);
    let plain = cluster.service("usage", "-n iris -o json").json();
    assert!(plain["notes"][0].as_str().is_some_and(|note| note.contains("request.json")), "{plain}");
}

#[test]
fn a_key_is_made_anew_while_the_other_goes_on() {
    let (cluster, _iris) = iris();
    let (primary, secondary) = keys(&cluster);
    fs::write(cluster.path("primary"), format!("{primary}\n")).expect("write");
    fs::write(cluster.path("secondary"), &secondary).expect("write");
    run(&cluster, "--key primary").succeeded();
    let text = cluster.service("keys", "-n iris --regen --key primary").succeeded();
    assert!(text.starts_with("PrimaryKey: ") && text.ends_with(&format!("\nSecondaryKey: {secondary}\n")), "{text}");
    assert!(!text.contains(&primary), "it is the old one");
    let refused = run(&cluster, "--key primary");
    assert!(!refused.err.contains(&primary), "{refused:?}");
    refused.failed(1, "401 Unauthorized");
    run(&cluster, "--key secondary").succeeded();
    run(&cluster, "--key missing").failed(1, "key file missing");
    fs::write(cluster.path("torn"), "two\nlines").expect("write");
    run(&cluster, "--key torn").failed(1, "the key holds what no key does");

    cluster.service("keys", "-n iris --regen").failed(2, "--key");
    cluster.service("keys", "-n iris --key Primary").failed(2, "--regen");
    cluster.service("keys", "-n iris --regen --key Third").failed(2, "invalid value");
    cluster.service("keys", "-n nowhere").failed(1, "No such service: nowhere.");
}

#[test]
fn a_key_of_which_only_the_hash_is_kept_is_told_so() {
    let (cluster, _iris) = iris();
    fs::remove_file(cluster.path("my-cluster/keys/iris.toml")).expect("remove");
    let text = cluster.service("keys", "-n iris").succeeded();
    let told = "PrimaryKey: (only its hash is kept; a new one: scorefront service keys realtime -n iris --regen --key Primary --env my-cluster)";
    assert!(text.starts_with(told), "{text}");
    let usage = cluster.service("usage", "-n iris --cacert ca.pem").succeeded();
    assert!(usage.contains("Bearer KEY") && usage.contains("Note: KEY is"), "{usage}");
}

#[test]
fn a_new_version_takes_over_step_by_step() {
    let (cluster, _iris) = iris();
    let green = Iris::start();
    let deployments = |cluster: &Cluster| cluster.service("show", "-n iris -v").json()["deployments"].clone();
    let shares = |cluster: &Cluster| -> Vec<(String, u64)> {
        let deployments = deployments(cluster);
        let share =
            |one: &Value| (one["name"].as_str().expect("a name").to_owned(), one["traffic"].as_u64().expect("a share"));
        deployments.as_array().expect("some").iter().map(share).collect()
    };
    assert_eq!(deployments(&cluster), Value::Null);
    cluster.service("update", &format!("-n iris --deployment name=green,replica={}", green.url())).succeeded();
    assert_eq!(shares(&cluster), [("default".to_owned(), 100), ("green".to_owned(), 0)]);
    run(&cluster, "--deployment green").succeeded();
    cluster.service("update", "-n iris --traffic default=50,green=50 --scoring-timeout 5s").succeeded();
    assert_eq!(shares(&cluster), [("default".to_owned(), 50), ("green".to_owned(), 50)]);
    cluster.service("update", "-n iris --traffic green=60").failed(1, "add up to 110");
    cluster
        .service("update", "-n iris --traffic red=60")
        .failed(1, "there is no deployment red; there are default, green");
    cluster.service("update", "-n iris --remove-deployment red").failed(1, "there is no deployment red");
    cluster
        .service("update", "-n iris --traffic green=100 --remove-deployment default --unset scoring-timeout")
        .succeeded();
    assert_eq!(shares(&cluster), [("green".to_owned(), 100)]);
    assert_eq!(cluster.service("show", "-n iris -v").json()["scoringTimeoutMs"], Value::Null);
    run(&cluster, "").succeeded();
}

#[test]
fn settings_are_set_and_have_their_defaults_again() {
    let (cluster, iris) = iris();
    let flags = "--scoring-timeout 90s --max-queue-wait 250ms --max-queue 7 --max-body 1MiB --auth false \
                 --cname scoring.invalid --max-requests-per-second 10 --burst 20 --max-requests-in-flight 5 \
                 --replica-max-concurrent-requests 4 --health-interval 0s --health-timeout 1s --error-format text \
                 --protocol mlflow --path /score --health-path /";
    cluster.service("update", &format!("-n iris {flags}")).succeeded();
    let shown = cluster.service("show", "-n iris -v").json();
    for (field, value) in [
        ("scoringTimeoutMs", json!(90_000)),
        ("maxQueueWaitMs", json!(250)),
        ("maxQueue", json!(7)),
        ("maxBodyBytes", json!(1 << 20)),
        ("authEnabled", json!(false)),
        ("cnames", json!([NOWHERE])),
        ("maxRequestsPerSecond", json!(10)),
        ("burst", json!(20)),
        ("maxRequestsInFlight", json!(5)),
        ("maxConcurrentRequestsPerContainer", json!(4)),
        ("healthIntervalMs", json!(0)),
        ("healthTimeoutMs", json!(1000)),
        ("errorFormat", json!("text")),
        ("protocol", json!("mlflow")),
        ("path", json!("/score")),
        ("healthPath", json!("/")),
        ("replicas", json!([iris.url()])),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    cluster.service("update", "-n iris --unset max-queue,cname auth --unset burst").succeeded();
    let shown = cluster.service("show", "-n iris -v").json();
    for field in ["maxQueue", "cnames", "authEnabled", "burst"] {
        assert_eq!(shown[field], Value::Null, "{field}");
    }
    assert_eq!(shown["scoringTimeoutMs"], 90_000);
    // What is looked up takes the place of what is listed.
    cluster.service("update", "-n iris --dns localhost:1 --no-wait").succeeded();
    let shown = cluster.service("show", "-n iris -v").json();
    assert_eq!((&shown["replicas"], &shown["dns"]), (&Value::Null, &json!("localhost:1")));
}

#[test]
fn a_service_without_a_replica_that_answers_is_made_all_the_same() {
    let cluster = Cluster::serving();
    let said = cluster.service("create", &format!("-n dead --replica http://127.0.0.1:{} --wait 1ms", free_port()));
    assert!(said.err.contains("warning: dead is not Succeeded yet"), "{said:?}");
    let out = said.succeeded();
    assert!(out.contains("dead.my-cluster.my-rg") && out.contains("scorefront service keys realtime -n dead"), "{out}");
    let said =
        cluster.service("create", &format!("-n other --replica http://127.0.0.1:{} --no-wait -o json", free_port()));
    assert_eq!(said.err, "");
    assert_eq!(said.json()["name"], "other");
    cluster.service("run", &format!("-n dead --cacert ca.pem -d {FLOWER} --timeout 5s")).failed(1, "error: 50");
}

#[test]
fn the_certificate_is_verified_before_the_key_is_sent() {
    let (cluster, _iris) = iris();
    let said = cluster.service("run", &format!("-n iris -d {FLOWER}"));
    said.failed(1, "--cacert FILE names the certificate of the authority that signed it");
    fs::write(cluster.path("none.pem"), "nothing").expect("write");
    cluster.service("run", &format!("-n iris -d {FLOWER} --cacert none.pem")).failed(1, "holds no certificate as PEM");
    cluster.service("run", &format!("-n iris -d {FLOWER} --cacert missing.pem")).failed(1, "missing.pem");
    // One that signed itself vouches for itself, if it was named.
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new([NOWHERE.to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("sign");
    fs::write(cluster.path("own.pem"), own.pem()).expect("write");
    fs::write(cluster.path("own.key"), key.serialize_pem()).expect("write");
    cluster.env("set", "--ssl-cert-pem own.pem --ssl-key-pem own.key").succeeded();
    cluster.service("run", &format!("-n iris -d {FLOWER} --cacert own.pem")).succeeded();
    cluster.service("run", &format!("-n iris -d {FLOWER} --cacert ca.pem")).failed(1, "signed by nobody");
}

#[test]
fn what_is_scored_comes_from_an_argument_a_file_or_a_pipe() {
    use std::io::Write as _;
    use std::process::Stdio;

    let (cluster, _iris) = iris();
    fs::write(cluster.path("flower.json"), FLOWER).expect("write");
    let run = |data: &str| cluster.service("run", &format!("-n iris --cacert ca.pem -d {data}"));
    assert_eq!(run("@flower.json").json()[0]["class"], "setosa");
    run("@missing.json").failed(1, "missing.json");
    run("nonsense").failed(1, "error: 400");
    let words = ["service", "run", "realtime", "--env", "my-cluster", "-n", "iris", "--cacert", "ca.pem", "-d", "@-"];
    let mut command = cluster.command(&words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run");
    child.stdin.take().expect("a pipe").write_all(FLOWER.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("setosa"), "{output:?}");
    cluster.service("run", "-n nowhere -d x").failed(1, "No such service: nowhere.");
    cluster.service("run", "-n iris").failed(2, "--data");
    cluster.service("run", "-n iris -d x --timeout 0s").failed(2, "above zero");
    run("x --deployment nowhere").failed(1, "error: 4");
}

#[test]
fn an_answer_that_does_not_come_is_told_by_the_front_end() {
    let cluster = Cluster::serving();
    // Takes connections, and no more.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = silent.local_addr().expect("an address");
    cluster.service("create", &format!("-n slow --replica http://{address} --no-wait")).succeeded();
    cluster.service("run", "-n slow --cacert ca.pem -d x --timeout 200ms").failed(1, "error: 504");
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_right() {
    let (cluster, iris) = iris();
    let url = iris.url();
    for (verb, words, text) in [
        ("create", "-n next", "--replica"),
        ("create", "--replica http://a:1", "--name"),
        ("create", "-n next --replica a:1", "expected \"http://\" before the host"),
        ("create", "-n next --replica https://a:1", "TLS ends at the front end"),
        ("create", "-n next --dns a", "the port is missing"),
        ("create", "-n next --dns a:1 --replica http://a:1", "cannot be used with"),
        ("create", "-n next --deployment blue", "expected key=value"),
        ("create", "-n next --deployment traffic=90,replica=http://a:1", "it has no name"),
        ("create", "-n next --deployment name=blue,colour=red", "is not known here"),
        ("create", "-n Next --dns a:1", "expected a service name"),
        ("create", "-n ab --dns a:1", "expected a service name"),
        ("create", "-n next --dns a:1 --protocol morse", "possible values"),
        ("create", "-n next --dns a:1 --scoring-timeout 60", "with its unit"),
        ("create", "-n next --dns a:1 --scoring-timeout 0s", "above zero"),
        ("create", "-n next --dns a:1 --max-body 1XB", "expected a size"),
        ("create", "-n next --dns a:1 --auth maybe", "possible values"),
        ("create", "-n next --dns a:1 --sticky-by cookie", "expected \"key\""),
        ("create", "-n next --dns a:1 --mirror green", "expected a deployment and a percentage"),
        ("create", "-n next --dns a:1 --max-queue -1", "unexpected argument"),
        ("create", "-n next --dns a:1 --wait", "a value is required"),
        ("create", "-n next --dns a:1 --wait 1s --no-wait", "cannot be used with"),
        ("show", "", "--name"),
        ("show", "-n iris -i iris", "cannot be used with"),
        ("show", "-i", "a value is required"),
        ("update", "-n iris", "nothing to change"),
        ("update", "-n iris --unset nothing", "possible values"),
        ("update", "-n iris --auth true --unset auth", "set and unset at once"),
        ("update", "-n iris --traffic blue", "expected a deployment and a percentage"),
        ("list", "more", "unexpected argument"),
    ] {
        cluster.service(verb, words).failed(2, text);
    }
    cluster.run(&["service", "create", "batch", "-n", "next"]).failed(2, "unrecognized subcommand");
    cluster
        .service("create", &format!("-n iris --replica {url}"))
        .failed(1, "scorefront service update realtime -n iris --env my-cluster");
    cluster.service("create", &format!("-n next --replica {url} --burst 5")).failed(1, "burst");
    cluster
        .service("create", &format!("-n next --replica {url} --cname other.example.com"))
        .failed(1, "other.example.com");
    cluster.service("show", "-i ../env").failed(1, "No such service: ../env.");
    assert_eq!(cluster.service("list", "-o json").json().as_array().map(Vec::len), Some(1));
}

#[test]
fn where_no_front_end_runs_every_command_says_how_to_start_it() {
    let cluster = Cluster::none();
    cluster.create(&[]).succeeded();
    for (verb, words) in [
        ("create", "-n iris --dns a:1"),
        ("show", "-n iris"),
        ("list", ""),
        ("update", "-n iris --auth false"),
        ("delete", "-n iris"),
        ("keys", "-n iris"),
        ("usage", "-n iris"),
        ("run", "-n iris -d x"),
    ] {
        cluster.service(verb, words).failed(1, "scorefront serve --env my-cluster starts it");
    }
}

#[test]
fn completions_and_manual_pages_are_of_these_commands() {
    let cluster = Cluster::none();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cluster.run(&["completions", shell]).succeeded();
        assert!(script.contains("realtime") && script.contains("scoring-timeout"), "{shell}");
    }
    cluster.run(&["completions", "csh"]).failed(2, "possible values");
    let page = cluster.run(&["man"]).succeeded();
    assert!(page.contains(".TH scorefront 1"), "{page}");
    cluster.run(&["man", "--out", "pages"]).succeeded();
    assert!(cluster.path("pages/scorefront-env-create.1").exists());
    cluster.run(&["man", "--out", "ca.pem"]).failed(1, "ca.pem");
}
