//! `scorefront env`: environments from nothing to served, changed while they serve, and gone; and every mistake on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Cluster, NOWHERE, OTHER_CNAME, needs};

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The service of the seed's page: a cluster with a certificate, in one command.
#[test]
fn create_makes_what_check_finds_valid_and_serve_serves() {
    let mut cluster = Cluster::none();
    let said = cluster.create(&Cluster::with_pair()).succeeded();
    for line in
        ["scorefront serve --env my-cluster", "scorefront env show --env my-cluster", "scoring.invalid. 300 IN A"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(names(&cluster.path("my-cluster")), ["certs", "keys", "scorefront.toml", "services"]);
    for (name, expected) in [("keys", 0o700), ("certs/scoring.invalid/key.pem", 0o600)] {
        let mode = fs::metadata(cluster.path("my-cluster").join(name)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, expected, "{name}");
    }
    cluster.run(&["check", "--env", "my-cluster"]).succeeded();

    cluster.env("show", "").failed(1, "scorefront serve --env my-cluster starts it");
    cluster.serve();
    let shown = cluster.env("show", "-g my-rg -n my-cluster").json();
    assert_eq!(
        (&shown["name"], &shown["resourceGroup"], &shown["clusterType"]),
        (&json!("my-cluster"), &json!("my-rg"), &json!("ACS"))
    );
    assert_eq!(shown["publicIpAddress"], "127.0.0.1");
    assert_eq!(shown["containerService"]["systemServices"][0]["publicIpAddress"], "127.0.0.1");
    assert_eq!(shown["globalServiceConfiguration"]["ssl"]["cname"], NOWHERE);
    let text = cluster.env("show", "-o text").succeeded();
    assert!(text.contains("scoring.invalid. 300 IN A 127.0.0.1"), "{text}");
    cluster.env("show", "-n other").failed(1, "serves the environment my-cluster of resource group my-rg");
    cluster.env("show", "-g other").failed(1, "and not the one asked for");
}

#[test]
fn create_leaves_nothing_behind_that_is_not_whole() {
    let cluster = Cluster::none();
    let before = names(cluster.files.path());
    cluster.files.write_pair(OTHER_CNAME, |_| {});
    let with = |cert: &str, key: &str| words(&format!("--cert-cname {NOWHERE} --cert-pem {cert} --key-pem {key}"));
    let (cert, key) = ("certs/scoring.invalid/cert.pem", "certs/scoring.invalid/key.pem");
    let (other_cert, other_key) = ("certs/other.example.com/cert.pem", "certs/other.example.com/key.pem");
    cluster.create(&with(cert, other_key)).failed(1, "does not belong to the certificate");
    cluster.create(&with(key, cert)).failed(1, "certificate and key are swapped");
    cluster.create(&with(other_cert, other_key)).failed(1, "not for scoring.invalid");
    cluster.create(&with("missing.pem", key)).failed(1, "missing.pem: there is no such file");
    cluster.create(&with("certs", key)).failed(1, "certs: is a directory");
    // What only the whole shows.
    cluster.create(&words("--https 127.0.0.1:8443 --http 127.0.0.1:8443")).failed(1, "scorefront.toml:");
    cluster.create(&words("--dir missing/deep")).failed(1, "mkdir -p");
    assert_eq!(names(cluster.files.path()), before);
}

#[test]
fn create_touches_no_directory_with_anything_in_it() {
    let cluster = Cluster::none();
    fs::create_dir(cluster.path("my-cluster")).expect("create");
    fs::write(cluster.path("my-cluster/notes"), "mine").expect("write");
    cluster.create(&Cluster::with_pair()).failed(1, "my-cluster: is there already and not empty");
    assert_eq!(names(&cluster.path("my-cluster")), ["notes"]);
    cluster.create(&words("--dir ca.pem")).failed(1, "ca.pem: is there already");
    fs::create_dir(cluster.path("empty")).expect("create");
    cluster.create(&words("--dir empty")).succeeded();
    assert!(cluster.path("empty/scorefront.toml").exists());
}

#[test]
fn create_asks_for_all_of_a_certificate_in_the_words_of_the_original() {
    let cluster = Cluster::none();
    for (arguments, text) in [
        ("--cert-pem a", "Certificate key file must be provided if certificate is provided."),
        ("--key-pem a", "Certificate file must be provided if certificate key file is provided."),
        ("--cert-pem a --key-pem b", "Certificate CNAME must be provided if certificate is provided."),
        ("--cert-cname a.example", "must be provided if certificate CNAME is provided"),
        ("--cert-cname https://a.example --cert-pem a --key-pem b", "it holds more than a name"),
        ("--https localhost:1", "invalid value"),
        ("--public-ip-address nowhere", "invalid value"),
        ("--public-https-port 0", "invalid value"),
        ("--admin-listen unix:relative", "an absolute path"),
        ("-o xml", "invalid value"),
    ] {
        cluster.create(&words(arguments)).failed(2, text);
    }
    for name in ["", "1st", "a/b", "../up", "a b", "end-", &"a".repeat(91)] {
        cluster.run(&["env", "create", "-n", name]).failed(2, "invalid value");
    }
    cluster.run(&["env", "create", "-c", "-n", "abc"]).failed(2, "--resource-group");
    cluster.run(&["env", "create"]).failed(2, "--name");
}

#[test]
fn without_a_cluster_it_is_for_this_machine_alone() {
    let cluster = Cluster::none();
    cluster.run(&["env", "create", "-n", "dev"]).succeeded();
    let text = fs::read_to_string(cluster.path("dev/scorefront.toml")).expect("read");
    for line in ["cluster_type = \"Local\"", "http = \"127.0.0.1:8080\"", "status = \"Disabled\"", "auth = false"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let pair = Cluster::with_pair();
    let with_pair: Vec<_> = ["env", "create", "-n", "tls"].into_iter().chain(pair.iter().map(String::as_str)).collect();
    cluster.run(&with_pair).failed(2, "add -c");
    cluster.run(&["env", "create", "-n", "out", "--http", "0.0.0.0:80"]).failed(2, "127.0.0.1:80");
}

#[test]
fn an_admin_address_that_others_reach_is_given_a_token() {
    let cluster = Cluster::none();
    let made = cluster.run(&["env", "create", "-n", "open", "--admin-listen", "192.0.2.1:8900", "-o", "json"]).json();
    assert_eq!((&made["directory"], &made["sslStatus"]), (&json!("open"), &json!("Disabled")));
    let token = fs::read_to_string(cluster.path("open/admin.token")).expect("read");
    assert!(token.len() >= 32, "too short");
    let text = fs::read_to_string(cluster.path("open/scorefront.toml")).expect("read");
    assert!(text.contains("token_file = \"admin.token\""), "{text}");
}

/// `Set-AzureRmMlOpCluster` of the seed's page: a cluster that was made without a certificate gets one.
#[test]
fn set_gives_a_running_cluster_its_certificate() {
    let mut cluster = Cluster::none();
    cluster.create(&[]).succeeded();
    cluster.serve();
    let ssl = |shown: &Value| shown["globalServiceConfiguration"]["ssl"].clone();
    assert_eq!(ssl(&cluster.env("show", "").json())["status"], "Disabled");
    cluster.env("set", "--ssl-status Enabled").failed(1, "There is no certificate that could be served");
    let pair = "--ssl-cert-pem certs/scoring.invalid/cert.pem --ssl-key-pem certs/scoring.invalid/key.pem";
    cluster.env("set", pair).failed(1, "Certificate CNAME must be provided");
    let set = cluster.env("set", &format!("--ssl-status Enabled --ssl-cname {NOWHERE} {pair} -n my-cluster")).json();
    assert_eq!((&ssl(&set)["status"], &ssl(&set)["cname"]), (&json!("Enabled"), &json!(NOWHERE)));
    let renewed = fs::read_to_string(cluster.path("my-cluster/certs/scoring.invalid/cert.pem")).expect("read");
    assert_eq!(ssl(&set)["cert"], renewed);
    // Of the only name there is none need be said.
    cluster.files.write_pair(NOWHERE, |_| {});
    let again = cluster.env("set", pair).json();
    assert_ne!(ssl(&again)["cert"], renewed);
    assert_eq!(ssl(&cluster.env("set", "--ssl-status disabled").json())["status"], "Disabled");
}

#[test]
fn set_changes_only_what_is_still_as_it_was() {
    let cluster = Cluster::serving();
    let etag = |shown: &Value| shown["globalServiceConfiguration"]["etag"].as_str().expect("a tag").to_owned();
    let first = etag(&cluster.env("show", "").json());
    let set = cluster.env("set", &format!("--description one --if-match {first}")).json();
    assert_eq!(set["description"], "one");
    cluster.env("set", &format!("--description two --if-match {first}")).failed(1, "it is no longer what");
    cluster.env("set", &format!("--description two --if-match {}", etag(&set))).succeeded();
    cluster.env("set", "--description three -g other").failed(1, "and not the one asked for");
    assert_eq!(cluster.env("show", "").json()["description"], "two");
}

#[test]
fn set_says_what_is_wrong_with_a_file() {
    needs!("openssl");
    let cluster = Cluster::serving();
    let cert = cluster.path("certs/scoring.invalid/cert.pem");
    let openssl = |arguments: &[&str], out: &str| {
        let ran =
            Command::new("openssl").args(arguments).arg("-in").arg(&cert).arg("-out").arg(cluster.path(out)).status();
        assert!(ran.expect("openssl").success());
    };
    openssl(&["x509", "-outform", "DER"], "cert.der");
    openssl(&["base64"], "cert.base64");
    fs::write(cluster.path("cert.path"), "certs/scoring.invalid/cert.pem").expect("write");
    for (file, text) in [
        ("cert.der", "is a certificate in DER form"),
        ("cert.base64", "is PEM encoded in base64 once more"),
        ("cert.path", "is not PEM text"),
        ("missing", "missing: there is no such file"),
    ] {
        let said = cluster.env("set", &format!("--ssl-cert-pem {file} --ssl-key-pem certs/scoring.invalid/key.pem"));
        said.failed(1, &format!("{file}: {}", text.trim_start_matches("missing: ")));
    }
    let before = fs::read(&cert).expect("read");
    assert_eq!(fs::read(cluster.path("my-cluster/certs/scoring.invalid/cert.pem")).expect("read"), before);
    for (arguments, text) in [
        ("", "nothing to change"),
        ("--ssl-cert-pem a", "Certificate key file must be provided"),
        ("--ssl-key-pem a", "Certificate file must be provided"),
        ("--ssl-status On", "invalid value"),
        ("--ssl-cname 127.0.0.1", "an IP address is not a name"),
    ] {
        cluster.env("set", arguments).failed(2, text);
    }
    cluster
        .env("set", &format!("--ssl-cname {OTHER_CNAME}"))
        .failed(1, "There is no certificate for other.example.com");
}

#[test]
fn a_front_end_is_named_by_its_address_its_files_or_a_variable() {
    let cluster = Cluster::serving();
    let url = cluster.admin_url();
    cluster.run(&["env", "show", "--admin", &url]).succeeded();
    cluster.run(&["env", "show", "--config", "my-cluster/scorefront.toml"]).succeeded();
    cluster.run(&["env", "show", "--dir", "my-cluster"]).succeeded();
    let by_variable = cluster.command(&["env", "show"]).env("SCOREFRONT_ADMIN", &url).output().expect("run");
    assert!(by_variable.status.success(), "{by_variable:?}");
    // What is said goes before what is set.
    let said =
        cluster.command(&["env", "show", "--env", "my-cluster"]).env("SCOREFRONT_ADMIN", "http://127.0.0.1:1").output();
    assert!(said.expect("run").status.success());
    let wrong = cluster.command(&["env", "show"]).env("SCOREFRONT_ADMIN", "nowhere").output().expect("run");
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert!(text.contains("SCOREFRONT_ADMIN=nowhere: expected http://ADDRESS:PORT"), "{text}");
}

#[test]
fn list_says_what_the_files_say() {
    let cluster = Cluster::none();
    assert_eq!(cluster.run(&["env", "list", "-o", "json"]).json(), json!([]));
    cluster.create(&Cluster::with_pair()).succeeded();
    cluster.run(&["env", "create", "-n", "dev"]).succeeded();
    fs::create_dir(cluster.path("broken")).expect("create");
    fs::write(cluster.path("broken/scorefront.toml"), "[environment").expect("write");
    let said = cluster.run(&["env", "list", "-o", "json"]);
    assert!(said.err.contains("broken/scorefront.toml"), "{said:?}");
    let listed = said.json();
    assert_eq!(listed[0]["name"], "dev");
    assert_eq!(
        listed[1],
        json!({
            "name": "my-cluster", "resourceGroup": "my-rg", "clusterType": "ACS", "sslStatus": "Enabled",
            "cnames": [NOWHERE], "directory": "my-cluster",
        })
    );
    let text = cluster.run(&["env", "list", "--dir", "my-cluster"]).succeeded();
    assert!(text.starts_with("NAME") && text.contains("my-cluster"), "{text}");
    cluster.run(&["env", "list", "--dir", "nowhere"]).failed(1, "nowhere");
}

#[test]
fn delete_removes_what_is_meant_and_does_not_run() {
    let mut cluster = Cluster::serving();
    let delete = |cluster: &Cluster, arguments: &str| {
        cluster.run(&["env", "delete"].into_iter().chain(arguments.split_whitespace()).collect::<Vec<_>>())
    };
    delete(&cluster, "-n my-cluster -y").failed(1, "stop it first");
    cluster.stop();
    delete(&cluster, "-n other --dir my-cluster -y").failed(1, "holds the environment my-cluster");
    delete(&cluster, "-g other -n my-cluster -y").failed(1, "and not the one asked for");
    delete(&cluster, "-n nowhere -y").failed(1, "there is no such directory");
    delete(&cluster, "-n certs --dir certs -y").failed(1, "is no environment");
    fs::create_dir(cluster.path("plain")).expect("create");
    fs::write(cluster.path("plain/scorefront.toml"), "").expect("write");
    delete(&cluster, "-n plain -y").failed(1, "is no environment");
    // Nobody is there to be asked.
    delete(&cluster, "-n my-cluster").failed(1, "-y");
    assert!(cluster.path("my-cluster/scorefront.toml").exists() && cluster.path("plain/scorefront.toml").exists());
    let before = names(cluster.files.path());
    delete(&cluster, "-g MY-RG -n my-cluster -y").succeeded();
    let after: Vec<_> = before.into_iter().filter(|name| name != "my-cluster").collect();
    assert_eq!(names(cluster.files.path()), after);
}
