//! What operators change through the admin listener: it is written to the files as an operator would write it, and served
//! when it is answered.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    CNAME, CallerAuthority, CallerPair, Environment, Front, Pair, Replica, Reply, SCORE, Wire, client_config,
    client_config_as, eventually, post,
};

/// Serves services from files of their own, and asks for keys.
fn managed() -> Environment {
    let environment = Environment::new().cname(CNAME).section("defaults", "health_interval = '0s'");
    fs::create_dir(environment.path().join("services")).expect("a directory");
    environment.table("include = ['services/*.toml']")
}

fn addresses(replicas: &[&Replica]) -> Vec<String> {
    replicas.iter().map(|replica| format!("http://{}", replica.address)).collect()
}

async fn create(front: &Front, body: &Value) -> Reply {
    front.manage("POST /v1/services HTTP/1.1", &body.to_string()).await
}

async fn update(front: &Front, name: &str, body: &Value) -> Reply {
    front.manage(&format!("PUT /v1/services/{name} HTTP/1.1"), &body.to_string()).await
}

async fn patch(front: &Front, fields: &str, ssl: &Value) -> Reply {
    let body = json!({"globalServiceConfiguration": {"ssl": ssl}});
    front.manage(&format!("PATCH /v1/env HTTP/1.1{fields}"), &body.to_string()).await
}

async fn keys(front: &Front, name: &str) -> Value {
    front.admin(&format!("GET /v1/services/{name}/keys HTTP/1.1")).await.json()
}

/// The status of a call with this key.
async fn scored(front: &Front, key: &Value) -> u16 {
    let mut request = post(SCORE, "x");
    let key = format!("Bearer {}", key.as_str().unwrap_or_default());
    request.headers_mut().insert("authorization", key.parse().expect("a field"));
    front.http1().await.call(request).await.status
}

/// Every file and what it holds.
fn files(front: &Front) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut directories = vec![front.files().path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with(".lock") {
                let content = fs::read(&path).expect("read");
                found.push((path.display().to_string(), content));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_service_that_is_created_is_served_when_it_is_answered_and_stands_in_a_file_of_its_own() {
    let replica = Replica::echo();
    let front = managed().start();
    let body = json!({"name": "iris", "replicas": addresses(&[&replica]), "scoringTimeoutMs": 30_000, "maxQueueWaitMs": 250,
        "maxBodyBytes": 1_048_576});
    let reply = create(&front, &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let service = reply.json();
    assert_eq!(service["scoringUri"], format!("https://{CNAME}:{}{SCORE}", front.https().port()));
    assert_eq!((&service["scoringTimeoutMs"], &service["maxQueueWaitMs"]), (&json!(30_000), &json!(250)));

    let given = keys(&front, "iris").await;
    assert_eq!(scored(&front, &given["primaryKey"]).await, 200);
    assert_eq!(scored(&front, &given["secondaryKey"]).await, 200);
    assert_eq!(scored(&front, &json!("another")).await, 401);

    let path = front.files().path().join("services/iris.toml");
    let text = fs::read_to_string(&path).expect("a file");
    for line in ["scoring_timeout = \"30s\"", "max_queue_wait = \"250ms\"", "max_body = \"1MiB\""] {
        assert!(text.lines().any(|written| written == line), "{line} in {text}");
    }
    assert!(!text.contains(given["primaryKey"].as_str().expect("a key")), "{text}");
    let secret = fs::metadata(front.files().path().join("keys/iris.toml")).expect("the keys");
    assert_eq!(secret.mode() & 0o777, 0o600);

    let operation = reply.field("operation-location").expect("where it can be followed").to_owned();
    let followed = front.admin(&format!("GET {operation} HTTP/1.1")).await.json();
    assert_eq!((&followed["state"], &followed["resourceLocation"]), (&json!("Succeeded"), &json!("/v1/services/iris")));
    assert_eq!(create(&front, &body).await.refusal(), (409, "ServiceAlreadyExists".to_owned()));
}

#[tokio::test]
async fn a_service_is_succeeded_only_while_a_replica_answers() {
    let gone = Replica::refusing();
    let front = managed().start();
    assert_eq!(create(&front, &json!({"name": "iris", "replicas": addresses(&[&gone])})).await.status, 202);
    let service = front.admin("GET /v1/services/iris HTTP/1.1").await.json();
    assert_eq!(service["state"], "Creating");
    let message = service["error"]["message"].as_str().expect("a reason");
    assert!(message.contains("Connection refused"), "{message}");

    // Five minutes are over.
    let file = front.files().path().join("services/iris.toml");
    let text = fs::read_to_string(&file).expect("read");
    let old = text
        .lines()
        .map(|line| if line.starts_with("created_at") { "created_at = 2026-01-01T00:00:00Z" } else { line });
    fs::write(&file, old.collect::<Vec<_>>().join("\n") + "\n").expect("written");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(301);
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(long_ago)).expect("a time");
    front.reload().await;
    assert_eq!(front.admin("GET /v1/services/iris HTTP/1.1").await.json()["state"], "Failed");

    let replica = Replica::echo();
    let reply = update(&front, "iris", &json!({"replicas": addresses(&[&replica])})).await;
    assert_eq!((reply.status, &reply.json()["state"]), (202, &json!("Updating")));
    let service = front.admin("GET /v1/services/iris HTTP/1.1").await.json();
    assert_eq!((&service["state"], &service["createdAt"]), (&json!("Succeeded"), &json!("2026-01-01T00:00:00Z")));
}

#[tokio::test]
async fn an_update_leaves_what_it_does_not_name_and_comments_as_they_are() {
    let replica = Replica::echo();
    let environment = managed();
    let replicas = format!("{:?}", addresses(&[&replica]));
    let text = format!(
        "# Who asks for more talks to the owners.\n[[service]]\nname = 'iris'\nauth = false # for now\n\n\
         max_queue   = 7  # a comment\nreplicas = {replicas}\n\n[[service]]\nname = 'other'\nauth = false\nreplicas = {replicas}\n"
    );
    fs::write(environment.path().join("services/both.toml"), &text).expect("written");
    let front = environment.start();

    let reply = update(&front, "iris", &json!({"maxQueue": 9, "scoringTimeoutMs": 1500})).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let expected = text.replace("max_queue   = 7  #", "max_queue   = 9  #").replacen(
        "\n\n[[service]]\nname = 'other'",
        "\nscoring_timeout = \"1500ms\"\n\n[[service]]\nname = 'other'",
        1,
    );
    let path = front.files().path().join("services/both.toml");
    assert_eq!(fs::read_to_string(&path).expect("read"), expected);

    let reply = update(&front, "iris", &json!({"scoringTimeoutMs": null})).await;
    assert_eq!((reply.status, &reply.json()["scoringTimeoutMs"]), (202, &Value::Null));
    assert_eq!(fs::read_to_string(&path).expect("read"), text.replace("max_queue   = 7  #", "max_queue   = 9  #"));

    assert_eq!(front.admin("DELETE /v1/services/iris HTTP/1.1").await.status, 200);
    assert_eq!(front.admin("DELETE /v1/services/iris HTTP/1.1").await.status, 204);
    assert_eq!(front.admin("GET /v1/services/iris HTTP/1.1").await.refusal(), (404, "ServiceNotFound".to_owned()));
    assert_eq!(front.admin("GET /v1/services/other HTTP/1.1").await.status, 200);
    assert_eq!(front.admin("DELETE /v1/services/other HTTP/1.1").await.status, 200);
    assert!(!path.exists());
}

#[tokio::test]
async fn shares_are_moved_and_deployments_that_stay_keep_their_tables() {
    let [blue, green] = [Replica::echo(), Replica::echo()];
    let front = managed().start();
    let deployments = |shares: [u8; 2]| {
        json!([{"name": "blue", "traffic": shares[0], "replicas": addresses(&[&blue])},
               {"name": "green", "traffic": shares[1], "replicas": addresses(&[&green]), "protocol": "mlflow"}])
    };
    let body = json!({"name": "iris", "authEnabled": false, "deployments": deployments([100, 0])});
    assert_eq!(create(&front, &body).await.status, 202);
    let reply = update(&front, "iris", &json!({"deployments": deployments([60, 30])})).await;
    assert_eq!(reply.refusal(), (400, "InvalidConfiguration".to_owned()));
    let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert_eq!(message, "the traffic shares of service `iris` add up to 90, not 100; give 10 more.");
    let reply = update(&front, "iris", &json!({"deployments": deployments([0, 100])})).await;
    assert_eq!((reply.status, reply.json()["deployments"].clone()), (202, deployments([0, 100])));
    assert_eq!(scored(&front, &Value::Null).await, 200);
    assert!(green.only_request().line().starts_with("POST /invocations "));
}

#[tokio::test]
async fn one_key_is_made_anew_while_the_other_goes_on() {
    let replica = Replica::echo();
    let front = managed().start();
    create(&front, &json!({"name": "iris", "replicas": addresses(&[&replica])})).await;
    let before = keys(&front, "iris").await;
    let regenerate = "POST /v1/services/iris/regenerateKeys HTTP/1.1";
    let after = front.manage(regenerate, r#"{"keyType": "Primary"}"#).await.json();
    assert_eq!(keys(&front, "iris").await, after);
    assert_eq!(after["secondaryKey"], before["secondaryKey"]);
    assert_eq!(scored(&front, &before["primaryKey"]).await, 401);
    assert_eq!(scored(&front, &after["primaryKey"]).await, 200);
    assert_eq!(scored(&front, &before["secondaryKey"]).await, 200);

    let own = r#"{"keyType": "Secondary", "keyValue": "0123456789abcdef-mine"}"#;
    assert_eq!(front.manage(regenerate, own).await.json()["secondaryKey"], "0123456789abcdef-mine");
    assert_eq!(scored(&front, &json!("0123456789abcdef-mine")).await, 200);
    let same = r#"{"keyType": "Primary", "keyValue": "0123456789abcdef-mine"}"#;
    for (wrong, code) in [
        (same, "InvalidKey"),
        (r#"{"keyType": "Primary", "keyValue": "short"}"#, "InvalidKey"),
        (r#"{"keyType": "Third"}"#, "BadRequest"),
        (r#"{"keyType": "Primary", "value": "0123456789abcdef-mine"}"#, "BadRequest"),
    ] {
        let reply = front.manage(regenerate, wrong).await;
        assert_eq!(reply.refusal(), (400, code.to_owned()));
        assert!(!reply.text().contains("-mine"), "{}", reply.text());
    }
}

#[tokio::test]
async fn of_a_service_that_was_written_by_hand_only_the_hashes_are_known() {
    let replica = Replica::echo();
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let front = managed().service("iris", &[&replica], &format!("primary_key_sha256 = '{hash}'")).start();
    assert_eq!(keys(&front, "iris").await, json!({"primaryKey": null, "secondaryKey": null}));
    let made =
        front.manage("POST /v1/services/iris/regenerateKeys HTTP/1.1", r#"{"keyType": "Secondary"}"#).await.json();
    assert_eq!(made["primaryKey"], Value::Null);
    assert_eq!(scored(&front, &made["secondaryKey"]).await, 200);
    // The SHA-256 of it is above.
    assert_eq!(scored(&front, &json!("test")).await, 200);
}

#[tokio::test]
async fn a_cluster_without_tls_is_given_a_certificate_and_turned_back() {
    let replica = Replica::echo();
    let front = Environment::new()
        .set("tls", "status = 'Disabled' # until there is a certificate")
        .service("iris", &[&replica], "")
        .start();
    let uri = async || front.admin("GET /v1/services/iris HTTP/1.1").await.json()["scoringUri"].clone();
    let call = async || {
        let mut wire = front.plain().await;
        wire.post("Content-Length: 1\r\n", "x").await;
        wire.reply().await
    };
    assert_eq!(uri().await, format!("http://127.0.0.1:{}{SCORE}", front.http().port()));
    assert_eq!(call().await.status, 200);

    let pair = Pair::new(&[CNAME]);
    let ssl = json!({"status": "Enabled", "cert": pair.chain, "key": pair.key, "cname": CNAME});
    let reply = patch(&front, "", &ssl).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let shown = &reply.json()["globalServiceConfiguration"]["ssl"];
    assert_eq!(
        (&shown["status"], &shown["cname"], &shown["cert"]),
        (&json!("Enabled"), &json!(CNAME), &json!(pair.chain))
    );
    assert_eq!(shown["key"], Value::Null);
    assert!(front.serves(CNAME, &pair).await);
    assert_eq!(uri().await, format!("https://{CNAME}:{}{SCORE}", front.https().port()));
    assert_eq!(call().await.refusal(), (403, "HttpsRequired".to_owned()));
    assert_eq!(scored(&front, &Value::Null).await, 200);

    let secret = front.admin("POST /v1/env/listKeys HTTP/1.1").await.json();
    assert_eq!(secret["sslConfiguration"]["key"], json!(pair.key));
    let toml = fs::read_to_string(front.files().path().join("scorefront.toml")).expect("read");
    assert!(toml.contains("status = \"Enabled\" # until there is a certificate"), "{toml}");
    let key = fs::metadata(front.files().path().join(format!("certs/{CNAME}/key.pem"))).expect("a key");
    assert_eq!(key.mode() & 0o777, 0o600);

    assert_eq!(patch(&front, "", &json!({"status": "Disabled"})).await.status, 200);
    assert_eq!(call().await.status, 200);
    assert_eq!(uri().await, format!("http://127.0.0.1:{}{SCORE}", front.http().port()));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_served_beside_the_first_and_names_the_scoring_uris() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let pair = Pair::new(&["new.example.com"]);
    let reply = patch(&front, "", &json!({"cert": pair.chain, "key": pair.key, "cname": "new.example.com"})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let shown = &reply.json()["globalServiceConfiguration"]["ssl"];
    assert_eq!((&shown["cname"], &shown["cnames"]), (&json!("new.example.com"), &json!(["new.example.com", CNAME])));
    assert!(front.serves("new.example.com", &pair).await);
    assert!(front.chain(CNAME).await.is_ok());
    let service = front.admin("GET /v1/services/iris HTTP/1.1").await.json();
    assert_eq!(service["scoringUri"], format!("https://new.example.com:{}{SCORE}", front.https().port()));

    assert_eq!(patch(&front, "", &json!({"cname": CNAME})).await.status, 200);
    let service = front.admin("GET /v1/services/iris HTTP/1.1").await.json();
    assert_eq!(service["scoringUri"], format!("https://{CNAME}:{}{SCORE}", front.https().port()));
}

#[tokio::test]
async fn a_renewed_pair_takes_the_place_of_the_old_one_in_its_files() {
    let front = Environment::new().cname(CNAME).start();
    let pair = Pair::new(&[CNAME]);
    // As a variable of a script may have it.
    let reply = patch(&front, "", &json!({"cert": pair.chain.trim_end(), "key": pair.key.trim_end()})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(front.serves(CNAME, &pair).await);
    assert_eq!(fs::read_to_string(front.files().path().join("cert-0.pem")).expect("read"), pair.chain);
    let etag = reply.json()["globalServiceConfiguration"]["etag"].clone();
    assert_eq!(reply.field("etag"), Some(format!("\"{}\"", etag.as_str().expect("a tag"))).as_deref());
}

#[tokio::test]
async fn a_change_of_what_is_another_by_now_is_refused() {
    let replica = Replica::echo();
    let front = managed().start();
    let created =
        create(&front, &json!({"name": "iris", "authEnabled": false, "replicas": addresses(&[&replica])})).await;
    let old = created.field("etag").expect("a tag").to_owned();
    let with = |etag: &str| format!("PUT /v1/services/iris HTTP/1.1\r\nIf-Match: {etag}");
    let reply = front.manage(&with(&old), r#"{"maxQueue": 1}"#).await;
    assert_eq!(reply.status, 202);
    let new = reply.field("etag").expect("a tag").to_owned();
    assert_eq!(front.manage(&with(&old), r#"{"maxQueue": 2}"#).await.refusal(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(front.manage(&with("*"), r#"{"maxQueue": 3}"#).await.status, 202);
    let stale = format!("DELETE /v1/services/iris HTTP/1.1\r\nIf-Match: {new}");
    assert_eq!(front.admin(&stale).await.status, 412);

    // By hand, and noticed by nobody yet.
    let file = front.files().path().join("services/iris.toml");
    let shown = front.admin("GET /v1/services/iris HTTP/1.1").await.field("etag").expect("a tag").to_owned();
    let text = fs::read_to_string(&file).expect("read").replace("max_queue = 3", "max_queue = 4");
    fs::write(&file, &text).expect("written");
    assert_eq!(front.manage(&with(&shown), r#"{"maxQueue": 5}"#).await.status, 412);
    assert_eq!(fs::read_to_string(&file).expect("read"), text);

    let env = front.admin("GET /v1/env HTTP/1.1").await;
    let tag = env.field("etag").expect("a tag").to_owned();
    let pair = Pair::new(&[CNAME]);
    let ssl = json!({"cert": pair.chain, "key": pair.key});
    assert_eq!(patch(&front, &format!("\r\nIf-Match: {tag}"), &ssl).await.status, 200);
    assert_eq!(patch(&front, &format!("\r\nIf-Match: {tag}"), &ssl).await.status, 412);
    let body = json!({"globalServiceConfiguration": {"etag": tag.trim_matches('"'), "ssl": {"status": "Disabled"}}});
    assert_eq!(front.manage("PATCH /v1/env HTTP/1.1", &body.to_string()).await.status, 412);
}

#[tokio::test]
async fn files_that_are_wrong_already_are_mended_first() {
    let replica = Replica::echo();
    let front = managed().start();
    front.files().put("services/broken.toml", "[[service]]\nname = 'x'\n");
    let reply = create(&front, &json!({"name": "iris", "replicas": addresses(&[&replica])})).await;
    assert_eq!(reply.refusal(), (409, "ConfigurationInvalid".to_owned()));
    let details = reply.json()["error"]["details"].to_string();
    assert!(details.contains("services/broken.toml:2:8: error:"), "{details}");
    assert!(!front.files().path().join("services/iris.toml").exists());
    assert_eq!(front.admin("GET /v1/services HTTP/1.1").await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_a_reason_and_changes_nothing() {
    let replica = Replica::echo();
    let front = managed().start();
    let replicas = addresses(&[&replica]);
    create(&front, &json!({"name": "iris", "replicas": replicas})).await;
    let before = files(&front);
    let (pair, other) = (Pair::new(&[CNAME]), Pair::new(&["other.example.com"]));
    let base64 = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    let services = [
        (json!({"name": "Iris", "replicas": replicas}), "InvalidServiceName", "a service name"),
        (json!({"replicas": replicas}), "InvalidService", "`name` is missing"),
        (json!({"name": "two", "replica": replicas}), "InvalidService", "did you mean `replicas`?"),
        (json!({"name": "two", "numReplicas": 2}), "InvalidService", "containers are run by others"),
        (json!({"name": "two"}), "InvalidConfiguration", "has no replicas"),
        (json!({"name": "two", "replicas": ["https://10.0.0.1"]}), "InvalidConfiguration", "TLS ends at the front end"),
        (json!({"name": "two", "replicas": replicas, "maxQueue": "many"}), "InvalidService", "`maxQueue`"),
        (json!({"name": "two", "replicas": replicas, "scoringTimeoutMs": 0}), "InvalidConfiguration", "above zero"),
        (json!({"name": "two", "replicas": replicas, "scoringTimeoutMs": -1}), "InvalidService", "scoringTimeoutMs"),
        (json!({"name": "two", "replicas": replicas, "dns": "a:1"}), "InvalidConfiguration", "`dns`"),
        (
            json!({"name": "two", "replicas": replicas, "cnames": ["nowhere.example.com"]}),
            "InvalidConfiguration",
            "covers",
        ),
    ];
    for (body, code, says) in services {
        let reply = create(&front, &body).await;
        assert_eq!(reply.refusal(), (400, code.to_owned()), "{body}");
        let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(says), "{message}");
    }
    let certificates = [
        (json!({"cert": pair.chain}), "Certificate key file must be provided if certificate is provided."),
        (json!({"key": pair.key}), "Certificate file must be provided if certificate key file is provided."),
        (json!({"cert": pair.chain, "key": other.key}), "`"),
        (json!({"cert": base64, "key": pair.key}), "raw PEM text"),
        (json!({"cert": "/etc/cert.pem", "key": "/etc/key.pem"}), "raw PEM text"),
        (json!({"cert": other.chain, "key": other.key, "cname": CNAME}), CNAME),
        (json!({"cname": "unknown.example.com"}), "There is no certificate for unknown.example.com"),
        (json!({"cname": "not a name"}), "`cname`"),
        (json!({"state": "Enabled"}), "there are status, cert, key, cname"),
        (json!({"status": "On"}), "globalServiceConfiguration.ssl.status"),
    ];
    for (ssl, says) in certificates {
        let reply = patch(&front, "", &ssl).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(says), "{message}");
        let secret = pair.key.lines().nth(1).expect("a line");
        assert!(!reply.text().contains(secret), "{}", reply.text());
    }
    // Pasted where it does not belong.
    let key = &pair.key;
    for ssl in [json!({"status": key}), json!({"cname": key}), json!({"cert": {"key": key}}), json!(key)] {
        let reply = patch(&front, "", &ssl).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(!key.lines().any(|line| reply.text().contains(line)), "{}", reply.text());
    }
    let reply = front.manage("POST /v1/services/iris/regenerateKeys HTTP/1.1", r#"{"keyType": "my-secret-key"}"#).await;
    assert_eq!(reply.json()["error"]["message"], "`keyType`: expected `Primary` or `Secondary`.");
    let long = json!({"name": "two", "path": "x".repeat(1024 * 1024)}).to_string();
    for (head, body, status) in [
        ("POST /v1/services HTTP/1.1", "{\"name\":", 400),
        ("POST /v1/services HTTP/1.1", "[]", 400),
        ("POST /v1/services HTTP/1.1", long.as_str(), 413),
        ("POST /v1/services HTTP/1.1", "", 415),
        ("PUT /v1/services/nowhere HTTP/1.1", "{}", 404),
        ("PUT /v1/services/%ff HTTP/1.1", "{}", 400),
        ("PUT /v1/services/iris HTTP/1.1", r#"{"name": "other"}"#, 400),
        ("GET /v1/services?count=0 HTTP/1.1", "", 400),
        ("GET /v1/services?count=many HTTP/1.1", "", 400),
        ("GET /v1/operations/iris_0 HTTP/1.1", "", 404),
        ("GET /v1/services HTTP/1.1\r\nOrigin: https://example.com", "", 403),
    ] {
        let reply = front.manage(head, body).await;
        assert_eq!(reply.status, status, "{head}: {}", reply.text());
        assert!(reply.json()["error"]["message"].as_str().is_some_and(|message| message.ends_with(['.', '?'])));
    }
    assert_eq!(files(&front), before);
    assert_eq!(scored(&front, &keys(&front, "iris").await["primaryKey"]).await, 200);
}

#[tokio::test]
async fn services_come_in_pages() {
    let replica = Replica::echo();
    let front = managed()
        .service("cat", &[&replica], "auth = false")
        .service("ant", &[&replica], "auth = false")
        .service("bee", &[&replica], "auth = false")
        .start();
    let page = |reply: &Reply| -> Vec<String> {
        let page = reply.json();
        page["value"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let first = front.admin("GET /v1/services?count=2 HTTP/1.1").await;
    assert_eq!(page(&first), ["ant", "bee"]);
    let next = first.json()["nextLink"].as_str().expect("there are more").to_owned();
    let last = front.admin(&format!("GET {next} HTTP/1.1")).await;
    assert_eq!((page(&last), &last.json()["nextLink"]), (vec!["cat".to_owned()], &Value::Null));
    assert_eq!(page(&front.admin("GET /v1/services?serviceName=bee HTTP/1.1").await), ["bee"]);
}

#[tokio::test]
async fn many_clients_at_once_change_different_services_and_nothing_is_lost() {
    let replica = Replica::echo();
    let front = managed().start();
    let front = Arc::new(front);
    let replicas = addresses(&[&replica]);
    let mut created = JoinSet::new();
    for number in 0..20 {
        let body = json!({"name": format!("service-{number}"), "authEnabled": false, "replicas": replicas});
        let front = Arc::clone(&front);
        created.spawn(async move { create(&front, &body).await.status });
    }
    assert!(created.join_all().await.into_iter().all(|status| status == 202));
    let mut changed = JoinSet::new();
    for number in 0..20 {
        let front = Arc::clone(&front);
        let change =
            async move { update(&front, &format!("service-{number}"), &json!({"maxQueue": number})).await.status };
        changed.spawn(change);
    }
    assert!(changed.join_all().await.into_iter().all(|status| status == 202));
    let all = front.admin("GET /v1/services HTTP/1.1").await.json();
    let all = all["value"].as_array().expect("a list");
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|service| service["name"] == format!("service-{}", service["maxQueue"])));
}

#[tokio::test]
async fn a_change_goes_on_to_its_end_if_nobody_waits_for_it() {
    let replica = Replica::echo();
    let front = managed().set("reload", "watch = false\npoll_interval = '1h'").start();
    let body = json!({"name": "iris", "authEnabled": false, "replicas": addresses(&[&replica])});
    front.manage_and_leave("POST /v1/services HTTP/1.1", &body.to_string()).await;
    eventually("the service is served", async || scored(&front, &Value::Null).await == 200).await;
}

#[tokio::test]
async fn with_a_token_nothing_can_be_changed_or_read_without_it() {
    let environment = managed();
    environment.write("admin.token", "0123456789abcdef\n");
    let front = environment.set("admin", "listen = '127.0.0.1:0'\ntoken_file = 'admin.token'").start();
    for path in ["GET /v1/env", "GET /v1/services", "POST /v1/env/listKeys", "GET /openapi.json"] {
        assert_eq!(front.admin(&format!("{path} HTTP/1.1")).await.refusal(), (401, "Unauthorized".to_owned()));
    }
    let token = "\r\nAuthorization: Bearer 0123456789abcdef";
    assert_eq!(front.admin(&format!("GET /v1/env HTTP/1.1{token}")).await.status, 200);
    // With a token it may be called by any name.
    let named = front.admin(&format!("GET /v1/env HTTP/1.1{token}\r\nOrigin: https://example.com")).await;
    assert_eq!(named.status, 200);
}

/// Over TLS as this operator, or as nobody: the status, or why there was none.
async fn asked_over_tls(front: &Front, operator: Option<&CallerPair>, fields: &str) -> std::io::Result<u16> {
    let config = match operator {
        Some(operator) => client_config_as(operator, rustls::ALL_VERSIONS, &["http/1.1"]),
        None => client_config(&["http/1.1"]),
    };
    let mut wire = Wire::new(front.admin_tls(config, "admin.example.com").await?);
    wire.try_send(format!("GET /v1/env HTTP/1.1\r\nHost: admin.example.com\r\n{fields}\r\n")).await?;
    Ok(wire.try_reply().await?.status)
}

#[tokio::test]
async fn operators_may_be_asked_for_certificates_and_the_listeners_own_is_renewed_while_it_serves() {
    let (ours, strangers) = (CallerAuthority::new("operators"), CallerAuthority::new("strangers"));
    let pair = Pair::new(&["admin.example.com"]);
    let environment = managed();
    environment.write("admin.crt", &pair.chain);
    environment.write("admin.key", &pair.key);
    environment.write("operators.pem", &ours.pem());
    let tls = "cert_pem = 'admin.crt'\nkey_pem = 'admin.key'\nclient_ca_pem = 'operators.pem'";
    let front = environment.set("admin", &format!("listen = '127.0.0.1:0'\n{tls}")).start();

    let operator = ours.issue(1);
    assert_eq!(asked_over_tls(&front, Some(&operator), "").await.expect("an answer"), 200);
    assert!(asked_over_tls(&front, None, "").await.is_err());
    assert!(asked_over_tls(&front, Some(&strangers.issue(2)), "").await.is_err());
    // In the clear nobody is answered.
    assert!(front.send_admin("GET /livez HTTP/1.1", "").await.try_reply().await.is_err());

    let renewed = Pair::new(&["admin.example.com"]);
    front.files().put("admin.key", &renewed.key);
    front.files().put("admin.crt", &renewed.chain);
    let is_renewed = async || {
        let config = client_config_as(&operator, rustls::ALL_VERSIONS, &["http/1.1"]);
        let stream = front.admin_tls(config, "admin.example.com").await.expect("a handshake");
        stream.get_ref().1.peer_certificates().expect("certificates")[0] == renewed.leaf
    };
    eventually("the new certificate is served", is_renewed).await;
}

#[tokio::test]
async fn a_token_counts_over_tls_too() {
    let pair = Pair::new(&["admin.example.com"]);
    let environment = managed();
    environment.write("admin.crt", &pair.chain);
    environment.write("admin.key", &pair.key);
    environment.write("admin.token", "0123456789abcdef\n");
    let keys = "token_file = 'admin.token'\ncert_pem = 'admin.crt'\nkey_pem = 'admin.key'";
    let front = environment.set("admin", &format!("listen = '127.0.0.1:0'\n{keys}")).start();
    assert_eq!(asked_over_tls(&front, None, "").await.expect("an answer"), 401);
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(asked_over_tls(&front, None, token).await.expect("an answer"), 200);
}

#[tokio::test]
async fn the_document_that_describes_the_api_is_the_one_that_is_committed() {
    let front = managed().start();
    let served = front.admin("GET /openapi.json HTTP/1.1").await;
    let committed = fs::read_to_string("docs/openapi.json").unwrap_or_default();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write("docs/openapi.json", served.text()).expect("written");
    } else {
        assert!(served.text() == committed, "docs/openapi.json is old; UPDATE_OPENAPI=1 cargo test writes it anew");
    }
    assert_eq!(served.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn files_that_are_read_only_are_said_to_be_changed_elsewhere() {
    let replica = Replica::echo();
    let front = managed().start();
    // Nobody can make a file there, not even root.
    std::os::unix::fs::symlink("/sys/kernel/scorefront.lock", front.files().path().join(".lock")).expect("a link");
    let before = files(&front);
    let refused = create(&front, &json!({"name": "iris", "replicas": addresses(&[&replica])})).await;
    assert_eq!(refused.refusal(), (403, "ReadOnly".to_owned()));
    let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("read-only here") && message.contains("ConfigMaps and Secrets"), "{message}");
    assert_eq!(files(&front), before);
}
