//! `scorefront cert`: every form that certificates and keys come in, made by openssl, and every mistake, word for word.
//! After a change of words, run with `INSTA_UPDATE=always` and read each snapshot.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{Write as _, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{CNAME, Environment, OTHER_CNAME, SCOREFRONT, free_port, needs};

const PASSWORD: &str = "correct horse";

/// A directory in which certificates are made and taken apart, with an environment in `env`.
struct Workshop {
    directory: TempDir,
}

impl Workshop {
    /// `leaf.pem` and `leaf.key` for [`CNAME`], their `issuer.pem` and `root.pem`, all in `chain.pem`; `other.pem` and
    /// `other.key` for another name; `password` and `wrong`.
    fn new() -> Self {
        let workshop = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let root = CertifiedIssuer::self_signed(authority("Root"), key()).expect("a root");
        let issuer = CertifiedIssuer::signed_by(authority("Issuer"), key(), &root).expect("an issuer");
        workshop.write("root.pem", root.pem());
        workshop.write("issuer.pem", issuer.pem());
        for (file, name) in [("leaf", CNAME), ("other", OTHER_CNAME)] {
            let key = key();
            let leaf = leaf(&[name]).signed_by(&key, &issuer).expect("sign");
            workshop.write(&format!("{file}.pem"), leaf.pem());
            workshop.write(&format!("{file}.key"), key.serialize_pem());
        }
        let chain = ["leaf.pem", "issuer.pem", "root.pem"].map(|file| workshop.text(file)).concat();
        workshop.write("chain.pem", chain);
        workshop.write("password", format!("{PASSWORD}\nand nothing more\n"));
        workshop.write("wrong", "battery staple");
        fs::create_dir(workshop.path("env")).expect("create");
        workshop
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("read")
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(file), content).expect("write");
    }

    /// Runs `openssl` with these words, which has to succeed.
    fn openssl(&self, words: &str) {
        let mut command = Command::new("openssl");
        let output =
            command.args(words.split(' ')).env("PASSWORD", PASSWORD).current_dir(self.directory.path()).output();
        let output = output.expect("run");
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn scorefront(&self, words: &[&str]) -> Output {
        let mut command = Command::new(SCOREFRONT);
        command.arg("cert").args(words).current_dir(self.directory.path()).stdin(Stdio::null()).output().expect("run")
    }

    /// Runs `scorefront cert` with these words: its exit code and all that it says.
    fn cert(&self, words: &str) -> String {
        let said = said(&self.scorefront(&words.split(' ').collect::<Vec<_>>()));
        self.assert_nothing_secret_in(&said);
        said
    }

    fn json(&self, words: &str) -> Value {
        let words: Vec<_> = words.split(' ').chain(["-o", "json"]).collect();
        serde_json::from_slice(&self.scorefront(&words).stdout).expect("JSON")
    }

    /// `cert` with what is different each time replaced by its name.
    fn cert_neutral(&self, words: &str) -> String {
        neutral(self.cert(words), &self.json(words))
    }

    fn assert_nothing_secret_in(&self, said: &str) {
        assert!(!said.contains(PASSWORD), "the password in {said}");
        for line in ["leaf.key", "other.key"].map(|file| self.text(file)).concat().lines() {
            assert!(line.contains("-----") || !said.contains(line), "a part of a key in {said}");
        }
    }

    /// Imports `leaf.pem` in some form and looks at what came of it.
    #[track_caller]
    fn assert_imports(&self, words: &str) {
        let _ = fs::remove_dir_all(self.path("env/certs"));
        let said = self.cert(&format!("import --env env {words}"));
        assert!(said.starts_with("exit 0\n"), "{words}: {said}");
        self.assert_imported(words);
    }

    #[track_caller]
    fn assert_imported(&self, words: &str) {
        let directory = format!("env/certs/{CNAME}");
        let expected = [self.certificates("leaf.pem"), self.certificates("issuer.pem")].concat();
        assert_eq!(self.certificates(&format!("{directory}/cert.pem")), expected, "{words}");
        let key_pem = self.text(&format!("{directory}/key.pem"));
        assert!(key_pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{words}");
        assert_eq!(self.public_key(&format!("{directory}/key.pem")), self.public_key("leaf.key"), "{words}");
        assert_eq!(self.modes(&directory), [("cert.pem".to_owned(), 0o644), ("key.pem".to_owned(), 0o600)], "{words}");
    }

    fn certificates(&self, file: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(file)).expect("read").map(|one| one.expect("PEM")).collect()
    }

    fn public_key(&self, file: &str) -> Vec<u8> {
        let output = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(self.path(file)).output();
        let output = output.expect("run");
        assert!(output.status.success(), "{file}");
        output.stdout
    }

    /// The files in a directory, hidden ones included.
    fn modes(&self, directory: &str) -> Vec<(String, u32)> {
        let mut modes: Vec<_> = fs::read_dir(self.path(directory))
            .expect("read")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
                (entry.file_name().into_string().expect("UTF-8"), mode)
            })
            .collect();
        modes.sort();
        modes
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("DNS names");
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params
}

fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    format!("exit {}\n{}", output.status.code().expect("a code"), streams.concat())
}

/// Puts names in the place of dates, serials and hashes, as a report in JSON has them.
fn neutral(mut text: String, report: &Value) -> String {
    let mut replace = |value: &Value, name: &str| {
        let value = value.as_str().unwrap_or_default();
        if !value.is_empty() {
            text = text.replace(value, name);
        }
    };
    for item in report["items"].as_array().expect("items") {
        for certificate in item["certificates"].as_array().expect("certificates") {
            for (field, name) in [("serial", "SERIAL"), ("fingerprint_sha256", "FINGERPRINT")] {
                replace(&certificate[field], name);
            }
            replace(&certificate["public_key_sha256"], "PUBLIC-KEY");
        }
        item["keys"].as_array().expect("keys").iter().for_each(|key| replace(&key["public_key_sha256"], "PUBLIC-KEY"));
        for certificate in item["certificates"].as_array().expect("certificates") {
            let days = certificate["days_left"].as_i64().expect("a number").unsigned_abs().to_string();
            replace(&Value::from(format!("({days} days left)")), "(DAYS days left)");
        }
    }
    text
}

macro_rules! assert_says {
    ($name:expr, $said:expr) => {
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(concat!("cert-", $name), $said);
        });
    };
}

/// Makes a PKCS#12 file of the chain.
fn pkcs12(workshop: &Workshop, file: &str, options: &str) {
    let words = format!("pkcs12 -export -in chain.pem -inkey leaf.key -out {file}");
    let words = if options.is_empty() { words } else { format!("{words} {options}") };
    let words = if words.contains("-passout") { words } else { format!("{words} -passout env:PASSWORD") };
    workshop.openssl(&words);
}

#[test]
fn pem_in_any_order_becomes_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    workshop.assert_imports("chain.pem leaf.key");
    workshop.assert_imports("leaf.key root.pem issuer.pem leaf.pem");
    workshop.assert_imports("issuer.pem leaf.pem --key leaf.key");
    let all = workshop.text("leaf.key") + &workshop.text("chain.pem");
    workshop.write("all.pem", all.replace('\n', "\r\n"));
    workshop.assert_imports("all.pem");
    workshop.assert_imports("all.pem --key all.pem");
    workshop.assert_imports("all.pem leaf.key chain.pem");
}

#[test]
fn der_and_old_key_forms_become_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    for (command, file) in [
        ("x509 -in leaf.pem -outform DER -out leaf.cer", ""),
        ("pkey -in leaf.key -outform DER -out pkcs8.der", "pkcs8.der"),
        ("ec -in leaf.key -out sec1.pem", "sec1.pem"),
        ("ec -in leaf.key -outform DER -out sec1.der", "sec1.der"),
    ] {
        workshop.openssl(command);
        if !file.is_empty() {
            workshop.assert_imports(&format!("{file} issuer.pem leaf.cer"));
        }
    }
}

#[test]
fn an_rsa_key_of_either_form_becomes_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    let subject = format!("-subj /CN=rsa -addext subjectAltName=DNS:{CNAME}");
    workshop.openssl(&format!("req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -days 90 {subject}"));
    workshop.openssl("rsa -in rsa.key -traditional -out pkcs1.pem");
    workshop.openssl("rsa -in rsa.key -traditional -outform DER -out pkcs1.der");
    for file in ["rsa.key", "pkcs1.pem", "pkcs1.der"] {
        let said = workshop.cert(&format!("import --env env rsa.pem {file}"));
        assert!(said.starts_with("exit 0\n"), "{file}: {said}");
        let key_pem = format!("env/certs/{CNAME}/key.pem");
        assert!(workshop.text(&key_pem).starts_with("-----BEGIN PRIVATE KEY-----\n"), "{file}");
        assert_eq!(workshop.public_key(&key_pem), workshop.public_key("rsa.key"), "{file}");
    }
}

#[test]
fn pkcs12_of_every_age_becomes_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    for options in [
        "",
        "-legacy",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
        "-macalg sha512 -keypbe AES-128-CBC -certpbe AES-256-CBC",
        "-passout pass:",
        "-legacy -passout pass:",
        "-nomac -keypbe NONE -certpbe NONE -passout pass:",
    ] {
        pkcs12(&workshop, "pair.pfx", options);
        workshop.assert_imports("pair.pfx --password-file password");
    }
    workshop.openssl("pkcs12 -export -nocerts -inkey leaf.key -out key.p12 -passout env:PASSWORD");
    workshop.assert_imports("key.p12 chain.pem --password-file password");
}

#[test]
fn an_empty_password_is_tried_before_anybody_is_asked() {
    needs!("openssl");
    let workshop = Workshop::new();
    pkcs12(&workshop, "pair.pfx", "-passout pass:");
    workshop.assert_imports("pair.pfx");
}

#[test]
fn pkcs7_of_every_form_becomes_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    workshop.openssl("crl2pkcs7 -nocrl -certfile chain.pem -out chain.p7c");
    workshop.openssl("crl2pkcs7 -nocrl -certfile chain.pem -outform DER -out chain.p7b");
    // Lengths that are not said ahead, which is BER and not DER.
    let sign = "cms -sign -stream -nodetach -binary -signer leaf.pem -inkey leaf.key -certfile issuer.pem";
    workshop.openssl(&format!("{sign} -in root.pem -outform DER -out chain.ber"));
    for file in ["chain.p7c", "chain.p7b", "chain.ber"] {
        workshop.assert_imports(&format!("{file} leaf.key"));
    }
}

#[test]
fn a_locked_key_of_every_form_becomes_a_pair() {
    needs!("openssl");
    let workshop = Workshop::new();
    for options in ["", "-outform DER", "-v2 des3", "-v2 aes128 -v2prf hmacWithSHA1", "-scrypt", "-iter 600000"] {
        let words = format!("pkcs8 -topk8 -in leaf.key -out locked -passout env:PASSWORD {options}");
        workshop.openssl(words.trim_end());
        workshop.assert_imports("chain.pem locked --password-file password");
    }
}

#[test]
fn what_stays_locked_is_said_with_the_command_that_opens_it() {
    needs!("openssl");
    let workshop = Workshop::new();
    workshop.openssl("pkcs8 -topk8 -in leaf.key -out v1.key -v1 PBE-SHA1-3DES -passout env:PASSWORD");
    assert_says!("old-cipher", workshop.cert("import chain.pem v1.key --password-file password"));
    workshop.openssl("ec -in leaf.key -aes128 -out old.key -passout env:PASSWORD");
    assert_says!("old-form", workshop.cert("import chain.pem old.key --password-file password"));
}

#[test]
fn a_password_that_is_wrong_or_missing_is_said() {
    needs!("openssl");
    let workshop = Workshop::new();
    pkcs12(&workshop, "new.pfx", "");
    pkcs12(&workshop, "old.pfx", "-legacy");
    workshop.openssl("pkcs8 -topk8 -in leaf.key -out locked.key -passout env:PASSWORD");
    for file in ["new.pfx", "old.pfx", "locked.key"] {
        let said = workshop.cert(&format!("import --env env {file} --password-file wrong"));
        assert_eq!(said, format!("exit 1\nerror: {file}: the password on the first line of wrong does not open it\n"));
    }
    assert_says!("no-terminal", workshop.cert("import --env env new.pfx"));
    assert_says!("no-password-file", workshop.cert("import --env env new.pfx --password-file nowhere"));
    assert!(!workshop.path("env/certs").exists());
}

#[test]
fn a_password_is_asked_for_on_a_terminal() {
    needs!("openssl", "script");
    let workshop = Workshop::new();
    pkcs12(&workshop, "pair.pfx", "");
    let on_terminal = |typed: &str| {
        let command = format!("{SCOREFRONT} cert import --env env pair.pfx");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(workshop.directory.path());
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run");
        script.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("write");
        said(&script.wait_with_output().expect("wait"))
    };
    let said = on_terminal("one\ntwo\nthree\n");
    assert!(said.starts_with("exit 1\n"), "{said}");
    assert!(said.contains("error: pair.pfx: stays locked after 3 wrong passwords"), "{said}");
    let said = on_terminal(&format!("one\n{PASSWORD}\n"));
    assert!(said.starts_with("exit 0\n") && said.contains("Password of pair.pfx: "), "{said}");
    workshop.assert_imported("typed");
}

#[test]
fn what_is_no_pair_is_told_and_nothing_is_written() {
    needs!("openssl");
    let workshop = Workshop::new();
    workshop.write("garbage", "It was a dark and stormy night.\n");
    workshop.write("empty", "");
    workshop.write("cut.pem", &workshop.text("leaf.pem")[..200]);
    pkcs12(&workshop, "pair.pfx", "");
    let pfx = fs::read(workshop.path("pair.pfx")).expect("read");
    workshop.write("cut.pfx", &pfx[..pfx.len() / 2]);
    workshop.openssl("req -new -key leaf.key -subj /CN=x -out request.pem");
    workshop.write("large", vec![b'x'; 1024 * 1024 + 1]);
    let mut all = String::new();
    for words in [
        "chain.pem",
        "leaf.key",
        "chain.pem leaf.key other.key",
        "chain.pem --key other.key --cname scoring.example.com",
        "chain.pem leaf.key --cname model.example.com",
        "nowhere.pem",
        "env",
        "garbage",
        "empty",
        "large",
        "cut.pem leaf.key",
        "cut.pfx --password-file password",
        "request.pem leaf.key",
    ] {
        let said = workshop.cert(&format!("import --env env {words}"));
        assert!(said.starts_with("exit 1\n"), "{words}: {said}");
        let _ = writeln!(all, "$ scorefront cert import --env env {words}\n{said}");
        assert!(!workshop.path("env/certs").exists(), "{words}");
    }
    for certificate in workshop.json("inspect chain.pem")["items"][0]["certificates"].as_array().expect("an array") {
        all = all.replace(certificate["serial"].as_str().expect("a serial"), "SERIAL");
    }
    assert_says!("no-pair", all);
}

#[test]
fn an_expired_certificate_is_not_written() {
    let workshop = Workshop::new();
    let key = key();
    let mut params = leaf(&[CNAME]);
    params.not_after = rcgen::date_time_ymd(2020, 2, 29);
    workshop.write("expired.pem", params.self_signed(&key).expect("sign").pem());
    workshop.write("expired.key", key.serialize_pem());
    let said = workshop.cert("import --env env expired.pem expired.key");
    assert!(said.starts_with("exit 1\n") && said.contains("error: nothing was written"), "{said}");
    assert!(!workshop.path("env/certs").exists());
}

#[test]
fn of_several_names_one_has_to_be_chosen() {
    let workshop = Workshop::new();
    let key = key();
    let names = ["a.example.com", "*.models.example.com"];
    workshop.write("several.pem", leaf(&names).self_signed(&key).expect("sign").pem());
    workshop.write("several.key", key.serialize_pem());
    assert_says!("several-names", workshop.cert("import --env env several.pem several.key"));
    let said = workshop.cert("import --env env several.pem several.key --cname *.models.example.com");
    assert!(said.starts_with("exit 0\n"), "{said}");
    assert!(said.contains("cert_pem = \"certs/_.models.example.com/cert.pem\""), "{said}");
    assert!(workshop.path("env/certs/_.models.example.com/key.pem").exists());
}

#[test]
fn it_says_what_to_add_and_what_was_replaced() {
    let environment = Environment::new();
    let workshop = Workshop::new();
    let report = workshop.json("inspect chain.pem");
    assert_says!("imported", neutral_import(workshop.cert("import --env env chain.pem leaf.key"), &report));
    let config = environment.config();
    fs::copy(config, workshop.path("env/scorefront.toml")).expect("copy");
    assert_says!("replaced", neutral_import(workshop.cert("import --env env chain.pem leaf.key"), &report));
    workshop
        .write("env/scorefront.toml", "[[cname]]\nname = \"else.example.com\"\ncert_pem = \"a\"\nkey_pem = \"b\"\n");
    assert_says!("to-add", neutral_import(workshop.cert("import --env env chain.pem leaf.key"), &report));
}

/// Dates are not in snapshots; the report has them.
fn neutral_import(text: String, report: &Value) -> String {
    dateless(neutral(text, report), report)
}

fn dateless(mut text: String, report: &Value) -> String {
    for item in report["items"].as_array().expect("items") {
        for certificate in item["certificates"].as_array().expect("certificates") {
            for field in ["not_before", "not_after"] {
                let date = certificate[field].as_str().expect("a date");
                text = text.replace(date, "DATE").replace(date.split('T').next().expect("a day"), "DAY");
            }
        }
    }
    text
}

#[test]
fn a_pair_that_cannot_be_written_leaves_the_old_one_and_nothing_else() {
    let workshop = Workshop::new();
    let directory = format!("env/certs/{CNAME}");
    // A directory in the certificate's place: everything succeeds but the last step.
    fs::create_dir_all(workshop.path(&format!("{directory}/cert.pem/x"))).expect("create");
    workshop.write(&format!("{directory}/key.pem"), "the old key");
    let said = workshop.cert("import --env env chain.pem leaf.key");
    assert!(said.starts_with("exit 1\n") && said.contains("cert.pem: cannot be replaced: "), "{said}");
    assert_eq!(workshop.text(&format!("{directory}/key.pem")), "the old key");
    let files: Vec<_> = workshop.modes(&directory).into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, ["cert.pem", "key.pem"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let workshop = Workshop::new();
    workshop.write("env/certs", "a file in the directory's place");
    let said = workshop.cert("import --env env chain.pem leaf.key");
    assert!(
        said.starts_with("exit 1\n") && said.contains("env/certs/scoring.example.com: cannot make the directory"),
        "{said}"
    );
    assert_says!("no-environment", workshop.cert("import --env nowhere chain.pem leaf.key"));
}

#[test]
fn an_unwritable_directory_is_said() {
    let workshop = Workshop::new();
    let directory = workshop.path("env");
    fs::set_permissions(&directory, Permissions::from_mode(0o555)).expect("chmod");
    let is_root = fs::write(directory.join("probe"), "").is_ok();
    if !is_root {
        let said = workshop.cert("import --env env chain.pem leaf.key");
        assert!(said.starts_with("exit 1\n") && said.contains("Permission denied"), "{said}");
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("chmod");
}

#[test]
fn a_file_is_shown_whatever_its_form() {
    needs!("openssl");
    let workshop = Workshop::new();
    pkcs12(&workshop, "pair.pfx", "");
    let show = |words: &str| dateless(workshop.cert_neutral(words), &workshop.json(words));
    assert_says!("inspect-chain", show("inspect chain.pem"));
    assert_says!("inspect-pair", show("inspect leaf.pem --key leaf.key"));
    assert_says!("inspect-pkcs12", show("inspect pair.pfx --password-file password"));
    assert_says!("inspect-key", show("inspect leaf.key"));
    assert_says!("inspect-other-key", show("inspect chain.pem --key other.key"));
    assert_says!("inspect-not-covered", show("inspect chain.pem --cname model.example.com"));
}

#[test]
fn hashes_are_those_that_openssl_prints() {
    needs!("openssl");
    let workshop = Workshop::new();
    let report = workshop.json("inspect chain.pem --key leaf.key");
    let fingerprint = openssl_output(&workshop, "x509 -in leaf.pem -noout -fingerprint -sha256");
    let certificate = &report["items"][0]["certificates"][0];
    assert!(fingerprint.trim_end().ends_with(certificate["fingerprint_sha256"].as_str().expect("text")));
    workshop.openssl("pkey -in leaf.key -pubout -outform DER -out public.der");
    let public = openssl_output(&workshop, "dgst -sha256 public.der");
    let key = &report["items"][0]["keys"][0];
    assert!(public.trim_end().ends_with(key["public_key_sha256"].as_str().expect("text")));
    assert_eq!((&key["belongs"], &key["kind"]), (&Value::from(true), &Value::from("ECDSA P-256")));
    let serial = openssl_output(&workshop, "x509 -in leaf.pem -noout -serial").to_lowercase();
    assert!(
        serial
            .trim_end()
            .trim_start_matches("serial=")
            .ends_with(certificate["serial"].as_str().expect("text").trim_start_matches("00"))
    );
}

fn openssl_output(workshop: &Workshop, words: &str) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(words.split(' ')).current_dir(workshop.directory.path()).output().expect("run");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn warnings_are_errors_under_strict() {
    let workshop = Workshop::new();
    assert!(workshop.cert("inspect leaf.pem").starts_with("exit 0\n"));
    let said = workshop.cert("inspect leaf.pem --strict");
    assert!(said.starts_with("exit 1\n") && said.contains("--strict takes warnings for errors"), "{said}");
    assert_eq!(workshop.json("inspect leaf.pem --strict")["valid"], false);
}

#[test]
fn a_cname_is_looked_up_in_the_configuration() {
    let environment = Environment::new();
    environment.config();
    let inspect = |target: &str, arguments: &[&str]| {
        let mut command = Command::new(SCOREFRONT);
        command.args(["cert", "inspect", target]).args(arguments).arg("--env").arg(environment.path());
        command.output().expect("run")
    };
    let text = said(&inspect(CNAME, &[])).replace(environment.path().to_str().expect("UTF-8"), "ENV");
    let report = serde_json::from_slice(&inspect(CNAME, &["-o", "json"]).stdout).expect("JSON");
    assert_says!("inspect-cname", dateless(neutral(text, &report), &report));
    let unknown = said(&inspect("model.example.com", &[]));
    assert!(unknown.starts_with("exit 1\nerror: model.example.com: neither a file, nor host:port, nor a CNAME of "));
    assert!(unknown.ends_with(&format!("which has: {CNAME}, {OTHER_CNAME}\n")), "{unknown}");
    fs::remove_file(environment.file(&format!("certs/{CNAME}/key.pem"))).expect("remove");
    let missing = said(&inspect(CNAME, &[]));
    assert!(missing.starts_with("exit 1\n") && missing.contains("key.pem: there is no such file"), "{missing}");
}

#[test]
fn a_running_front_end_is_asked_what_it_serves() {
    needs!("openssl");
    let workshop = Workshop::new();
    let subject = format!("-subj /CN=rsa -addext subjectAltName=DNS:{CNAME}");
    workshop.openssl(&format!("req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -days 90 {subject}"));
    let [cert_pem, key_pem] = ["rsa.pem", "rsa.key"].map(|file| workshop.path(file).display().to_string());
    fs::set_permissions(&key_pem, Permissions::from_mode(0o600)).expect("chmod");
    let table = format!("[[cname]]\nname = \"{CNAME}\"\ncert_pem = \"{cert_pem}\"\nkey_pem = \"{key_pem}\"");
    let front_end = Environment::new().table(&table).serve();
    let target = front_end.https.to_string();

    let report = workshop.json(&format!("inspect {target} --sni {CNAME}"));
    assert_eq!(report["kind"], "endpoint");
    let items = report["items"].as_array().expect("items");
    let seen: Vec<_> =
        items.iter().map(|item| (&item["connection"]["client_verifies"], &item["certificates"][0]["key"])).collect();
    let expected = ["ecdsa_and_rsa", "ECDSA P-256", "rsa_only", "RSA 2048"].map(Value::from);
    assert_eq!(seen, [(&expected[0], &expected[1]), (&expected[2], &expected[3])]);
    let connection = &items[0]["connection"];
    assert_eq!((&connection["tls_version"], &connection["alpn"]), (&Value::from("TLS 1.3"), &Value::from("h2")));
    let fingerprint = workshop.json("inspect rsa.pem")["items"][0]["certificates"][0]["fingerprint_sha256"].clone();
    assert_eq!(items[1]["certificates"][0]["fingerprint_sha256"], fingerprint);

    let words = format!("inspect {target} --sni {OTHER_CNAME}");
    let text = workshop.cert(&words).replace(&target, "FRONT-END");
    let report = workshop.json(&words);
    assert_says!("inspect-endpoint", dateless(neutral(text, &report), &report));

    let said = workshop.cert(&format!("inspect {target} --sni {CNAME} --cname model.example.com"));
    assert!(said.starts_with("exit 1\n") && said.contains("not for model.example.com"), "{said}");
    let said = workshop.cert(&format!("inspect https://{target}/api --sni nobody.example.com"));
    assert_eq!(
        said,
        format!(
            "exit 1\nerror: {target}: has no certificate for this name (alert unrecognized_name); ask for another one with --sni NAME\n"
        )
    );
    let plain = front_end.http.to_string();
    let said = workshop.cert(&format!("inspect {plain}"));
    assert_eq!(said, format!("exit 1\nerror: {plain}: what answers does not speak TLS; is it the plain HTTP port?\n"));
}

#[test]
fn what_cannot_be_inspected_is_said() {
    let workshop = Workshop::new();
    let port = free_port();
    let said = workshop.cert(&format!("inspect 127.0.0.1:{port}"));
    assert!(
        said.starts_with(&format!("exit 1\nerror: 127.0.0.1:{port}: cannot be reached: Connection refused")),
        "{said}"
    );
    workshop.write("garbage", "It was a dark and stormy night.\n");
    let mut all = String::new();
    for words in
        ["nowhere.pem", "./nowhere.pem", "env", "garbage", "chain.pem --key garbage", "chain.pem --key issuer.pem"]
    {
        let said = workshop.cert(&format!("inspect {words}"));
        assert!(said.starts_with("exit 1\n"), "{words}: {said}");
        let _ = writeln!(all, "$ scorefront cert inspect {words}\n{said}");
    }
    assert_says!("not-inspected", all);
}

#[test]
fn wrong_usage_of_cert_exits_2() {
    let workshop = Workshop::new();
    for words in ["import", "inspect", "import chain.pem --cname https://a.example.com", "inspect a -o yaml", "export"]
    {
        let said = workshop.cert(words);
        assert!(said.starts_with("exit 2\n"), "{words}: {said}");
    }
}

#[test]
fn a_reader_that_stops_reading_does_not_disturb_inspect() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let workshop = Workshop::new();
    let mut command = Command::new(SCOREFRONT);
    let command = command.args(["cert", "inspect", "chain.pem"]).current_dir(Path::new(workshop.directory.path()));
    let output = command.stdout(writer).output().expect("run");
    assert_eq!(said(&output), "exit 0\n");
}
