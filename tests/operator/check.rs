//! `scorefront check`: what it says of each mistake, word for word. After a change of words, run with
//! `INSTA_UPDATE=always` and read each snapshot: does it say where, what, and how to mend it, and nothing of a key?

use std::fs::{self, Permissions};
use std::io::pipe;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use rcgen::{SanType, date_time_ymd};

use crate::harness::{CNAME, Environment, NameServer, OTHER_CNAME, SCOREFRONT, Stub, free_port, needs, openssl};

const SERVICE: &str = "[[service]]\nname = \"iris\"\nauth = false";

/// A good environment with a replica that is there.
fn good() -> (Environment, Stub) {
    let replica = Stub::start();
    (Environment::new().service("iris", replica.address), replica)
}

fn cert(environment: &Environment) -> PathBuf {
    environment.file(&format!("certs/{CNAME}/cert.pem"))
}

fn key(environment: &Environment) -> PathBuf {
    environment.file(&format!("certs/{CNAME}/key.pem"))
}

/// Puts in a file's place what an openssl command makes of it.
fn rewrite(file: PathBuf, command: &[&str]) {
    let (before, after) = (file.with_extension("before"), file.display().to_string());
    fs::rename(&file, &before).expect("rename");
    openssl(&[command, &["-in", before.to_str().expect("UTF-8"), "-out", &after]].concat(), "");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
}

/// All that `scorefront check` says, and its exit code, with nothing in it that is different each time.
fn check(environment: &Environment, arguments: &[&str]) -> String {
    let output = environment.run("check", arguments);
    let said = said(&output);
    assert_no_key_in(&said, environment);
    fixed(&said.replace(environment.path().to_str().expect("UTF-8"), "ENV"))
}

/// The same every day and for every certificate.
fn fixed(said: &str) -> String {
    let words: Vec<_> = said.split(' ').collect();
    let fixed = words.iter().enumerate().map(|(index, word)| {
        let number = word.trim_end_matches([')', ':']);
        let before = index.checked_sub(1).map(|before| words[before]);
        let after = words.get(index + 1);
        if before.is_some_and(|before| before.ends_with("serial")) {
            word.replace(number, "SERIAL")
        } else if after.is_some_and(|after| after.starts_with("days")) {
            word.replace(number, "N")
        } else {
            (*word).to_owned()
        }
    });
    fixed.collect::<Vec<_>>().join(" ")
}

fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    format!("exit {}\n{}", output.status.code().expect("a code"), streams.concat())
}

fn assert_no_key_in(said: &str, environment: &Environment) {
    for name in [CNAME, OTHER_CNAME] {
        let pem = fs::read(environment.file(&format!("certs/{name}/key.pem"))).unwrap_or_default();
        let pem = String::from_utf8_lossy(&pem).into_owned();
        for line in pem.lines().filter(|line| line.len() >= 16 && line.is_ascii() && !line.contains([':', ' '])) {
            assert!(!said.contains(&line[..16]), "a part of a key in {said}");
        }
    }
}

#[track_caller]
fn assert_all_told(said: &str, errors: &[&str]) {
    for error in errors {
        assert!(said.lines().any(|line| line.contains(&format!(": error: {error}"))), "no {error:?} in {said}");
    }
}

macro_rules! assert_says {
    ($name:expr, $said:expr) => {
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, $said);
        });
    };
}

/// What is said of the good environment after one thing in it was changed.
fn check_changed(change: impl FnOnce(&Environment)) -> String {
    let (environment, _replica) = good();
    change(&environment);
    check(&environment, &[])
}

#[test]
fn a_good_environment_passes_by_file_and_by_directory() {
    let (environment, _replica) = good();
    assert_says!("good", check(&environment, &["--strict"]));
    let by_directory = Command::new(SCOREFRONT).args(["check", "--env"]).arg(environment.path()).output();
    assert_eq!(by_directory.expect("run").status.code(), Some(0));
}

#[test]
fn a_missing_file_is_named() {
    assert_says!("missing-certificate", check_changed(|e| fs::remove_file(cert(e)).expect("remove")));
    assert_says!("missing-key", check_changed(|e| fs::remove_file(key(e)).expect("remove")));
}

#[test]
fn a_key_of_another_certificate_is_seen() {
    let other = format!("certs/{OTHER_CNAME}/key.pem");
    assert_says!("another-key", check_changed(|e| assert!(fs::copy(e.file(&other), key(e)).is_ok())));
}

#[test]
fn an_encrypted_key_of_either_form_is_seen() {
    needs!("openssl");
    for (name, form) in [("encrypted-key", &[][..]), ("encrypted-key-traditional", &["-traditional"])] {
        let text = check_changed(|e| {
            rewrite(key(e), &[&["pkey", "-aes256", "-passout", "pass:secret"], form].concat());
            assert!(fs::read_to_string(key(e)).expect("read").contains("ENCRYPTED"));
        });
        assert_says!(name, text);
    }
}

#[test]
fn der_in_place_of_pem_is_seen() {
    needs!("openssl");
    assert_says!("der-certificate", check_changed(|e| rewrite(cert(e), &["x509", "-outform", "DER"])));
    let text = check_changed(|e| rewrite(key(e), &["pkey", "-outform", "DER"]));
    assert!(text.contains("a private key in DER form"), "{text}");
    assert_says!("der-key", text);
}

#[test]
fn certificate_and_key_in_each_others_place_are_seen() {
    let text = check_changed(|e| {
        let (certificate, secret) = (fs::read(cert(e)).expect("read"), fs::read(key(e)).expect("read"));
        fs::write(cert(e), secret).expect("write");
        fs::write(key(e), certificate).expect("write");
    });
    assert_all_told(&text, &["cert_pem ", "key_pem "]);
    assert_says!("swapped", text);
}

#[test]
fn an_empty_file_is_seen() {
    assert_says!("empty-certificate", check_changed(|e| fs::write(cert(e), "").expect("write")));
    assert_says!("empty-key", check_changed(|e| fs::write(key(e), "\n").expect("write")));
}

#[test]
fn a_damaged_file_is_seen() {
    let cut = |file: PathBuf| {
        let text = fs::read(&file).expect("read");
        fs::write(&file, &text[..text.len() / 2]).expect("write");
    };
    assert_says!("cut-certificate", check_changed(|e| cut(cert(e))));
    assert_says!("cut-key", check_changed(|e| cut(key(e))));
}

#[test]
fn a_certificate_that_does_not_cover_its_cname_is_seen() {
    let text = check_changed(|e| {
        e.write_pair(CNAME, |params| {
            params.subject_alt_names = ["a.example.com", "*.b.example.com"]
                .map(|name| SanType::DnsName(name.try_into().expect("a name")))
                .to_vec();
        });
    });
    assert_says!("not-covered", text);
    assert_says!("no-names", check_changed(|e| e.write_pair(CNAME, |params| params.subject_alt_names.clear())));
}

#[test]
fn a_certificate_out_of_its_time_is_an_error() {
    let text = check_changed(|e| {
        e.write_pair(CNAME, |params| params.not_after = date_time_ymd(2020, 2, 29));
        e.write_pair(OTHER_CNAME, |params| params.not_before = date_time_ymd(2999, 1, 1));
    });
    assert_says!("out-of-time", text);
}

#[test]
fn a_key_that_everybody_can_read_is_a_warning() {
    let open = |e: &Environment| fs::set_permissions(key(e), Permissions::from_mode(0o644)).expect("chmod");
    assert_says!("readable-key", check_changed(open));
}

#[test]
fn an_unreachable_replica_is_a_warning_and_with_strict_an_error() {
    let port = free_port();
    let environment = Environment::new().service("iris", ([127, 0, 0, 1], port).into());
    let text = |arguments: &[&str]| check(&environment, arguments).replace(&port.to_string(), "PORT");
    assert_says!("unreachable", text(&[]));
    assert_says!("unreachable-strict", text(&["--strict"]));
}

#[test]
fn a_replica_whose_name_nobody_knows_is_a_warning() {
    let service = format!("{SERVICE}\nreplicas = [\"http://model.invalid:5001\"]");
    let text = check(&Environment::new().table(&service), &[]);
    // What the resolver says differs from system to system.
    assert!(text.starts_with("exit 0\nENV/scorefront.toml:"), "{text}");
    assert!(text.contains(": warning: replica http://model.invalid:5001 cannot be reached: "), "{text}");
}

/// What is said of a service whose replicas `server` is asked for.
fn check_looked_up(server: &NameServer, arguments: &[&str]) -> String {
    let service = format!("{SERVICE}\ndns = \"_http._tcp.models.test\"");
    let servers = vec![server.address.to_string()];
    let said = check(&Environment::new().set("dns.servers", servers).table(&service), arguments);
    assert!(server.asked() > 0, "{said}");
    said.replace(&server.address.to_string(), "SERVER")
}

#[test]
fn replicas_that_dns_names_are_tried_too() {
    let (server, replica, port) = (NameServer::start(), Stub::start(), free_port());
    server.set(&[replica.address]);
    let text = check_looked_up(&server, &["--strict"]);
    assert!(text.starts_with("exit 0\nENV/scorefront.toml: valid"), "{text}");
    server.set(&[replica.address, ([127, 0, 0, 1], port).into()]);
    assert_says!("looked-up-unreachable", check_looked_up(&server, &[]).replace(&port.to_string(), "PORT"));
}

#[test]
fn a_name_without_replicas_and_a_name_server_that_fails_are_warnings() {
    let server = NameServer::start();
    server.set(&[]);
    assert_says!("looked-up-none", check_looked_up(&server, &[]));
    server.fail();
    assert_says!("looked-up-failed", check_looked_up(&server, &[]));
    assert_says!("looked-up-failed-strict", check_looked_up(&server, &["--strict"]));
}

#[test]
fn a_missing_token_file_is_named() {
    let text = check(&Environment::new().set("admin.token_file", "admin.token"), &[]);
    assert!(text.starts_with("exit 1\n"), "{text}");
    assert_all_told(&text, &["token_file ENV/admin.token: "]);
}

#[test]
fn mistakes_in_the_configuration_are_all_told_at_once() {
    let environment = Environment::new()
        .set("limits.max_connections", "many")
        .set("frontend.drain_timeot", "30s")
        .table(&format!("{SERVICE}\nreplicas = [\"http://127.0.0.1:5001\"]"))
        .table(&format!("{SERVICE}\nreplicas = [\"http://127.0.0.1:5002\"]"))
        .table("[[service]]\nname = \"churn\"\nauth = false")
        .table("[[service.deployment]]\nname = \"blue\"\ntraffic = 90\nreplicas = [\"http://127.0.0.1:5003\"]")
        .table("[[service.deployment]]\nname = \"green\"\ntraffic = 20\nreplicas = [\"http://127.0.0.1:5004\"]");
    assert_says!("configuration", check(&environment, &[]));
}

#[test]
fn mistakes_in_several_certificates_are_all_told_at_once() {
    let text = check_changed(|e| {
        fs::remove_file(cert(e)).expect("remove");
        fs::write(key(e), "").expect("write");
        e.write_pair(OTHER_CNAME, |params| params.subject_alt_names.clear());
    });
    let [one, other] = [CNAME, OTHER_CNAME].map(|name| format!("cert_pem ENV/certs/{name}/cert.pem: "));
    assert_all_told(&text, &[&one, &format!("key_pem ENV/certs/{CNAME}/key.pem: "), &other]);
    assert_says!("certificates", text);
}

#[test]
fn mistakes_in_the_configuration_do_not_hide_those_in_certificates() {
    let (environment, _replica) = good();
    let environment = environment.set("frontend.drain_timeot", "30s");
    fs::remove_file(cert(&environment)).expect("remove");
    let text = check(&environment, &[]);
    assert_all_told(&text, &["unknown key `drain_timeot`", "cert_pem "]);
    assert_says!("configuration-and-certificate", text);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let output = Command::new(SCOREFRONT).args(["check", "--config", "/nowhere/scorefront.toml"]).output();
    assert_says!("missing-configuration", said(&output.expect("run")));
}

/// What is said of these CNAMEs with `public_ip_address`.
fn check_names(names: &[&str], address: &str, arguments: &[&str]) -> String {
    let replica = Stub::start();
    let environment = Environment::with_names(names).service("iris", replica.address);
    let said = check(&environment.set("frontend.public_ip_address", address), arguments);
    // Some machines give localhost a second address.
    said.replace("127.0.0.1 and ::1", "127.0.0.1")
}

#[test]
fn a_name_that_leads_here_is_nothing_to_speak_of() {
    for (address, arguments) in [("127.0.0.1", &["--strict"][..]), ("::ffff:127.0.0.1", &["--strict"])] {
        let text = check_names(&["localhost"], address, arguments);
        assert!(text.starts_with("exit 0\nENV/scorefront.toml: valid"), "{text}");
    }
}

#[test]
fn of_a_name_that_leads_elsewhere_or_nowhere_the_record_to_create_is_told() {
    assert_says!("name-elsewhere", check_names(&["localhost"], "203.0.113.7", &[]));
    assert_says!("name-elsewhere-strict", check_names(&["localhost"], "203.0.113.7", &["--strict"]));
    assert_says!("name-elsewhere-ipv6", check_names(&["localhost"], "2001:db8::7", &[]));
    // RFC 6761 section 6.4: nobody has it.
    let text = check_names(&["nothing.invalid", "*.nothing.invalid"], "203.0.113.7", &[]);
    if text.contains("no name server answers") {
        // So it is where there is none; then no record is asked for.
        assert!(!text.contains("create the record"), "{text}");
    } else {
        assert_says!("name-nowhere", text);
    }
}

#[test]
fn names_are_looked_up_only_to_compare_them() {
    let replica = Stub::start();
    let environment = Environment::with_names(&["nothing.invalid"]).service("iris", replica.address);
    let text = check(&environment, &["--strict"]);
    assert!(text.starts_with("exit 0\n"), "{text}");
}

#[test]
fn a_certificate_that_expires_soon_is_a_warning_and_with_strict_an_error() {
    let (environment, _replica) = good();
    environment.write_pair(CNAME, |params| params.not_after = (SystemTime::now() + Duration::from_hours(60)).into());
    let text = |arguments: &[&str]| {
        let text = check(&environment, arguments);
        let (before, rest) = text.split_once(" expires on ").unwrap_or_else(|| panic!("{text}"));
        let (_, after) = rest.split_once(',').expect("a time and how far it is");
        format!("{before} expires on TIME,{after}")
    };
    assert_says!("expiring", text(&[]));
    assert_says!("expiring-strict", text(&["--strict"]));
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in [&["check"][..], &["check", "--config", "a", "--env", "b"], &["serve"], &["chekc"], &[]] {
        let output = Command::new(SCOREFRONT).args(arguments).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: scorefront"), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_stops_reading_changes_nothing() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let environment = Environment::new().set("frontend.drain_timeot", "30s");
    let mut command = Command::new(SCOREFRONT);
    let output = command.args(["check", "--config"]).arg(environment.config()).stdout(writer).output().expect("run");
    assert_eq!(said(&output), "exit 1\n");
}
