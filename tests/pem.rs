//! Certificate and key files as operators hold them: those that are taken, and the exact words for those that are not.
//!
//! `tests/fixtures/pem` has the files; its `make.sh` made them. After a change of words, run with `INSTA_UPDATE=always`
//! and read each snapshot: does it say what, where, and how to mend it, and nothing of a key?

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::format_collect, reason = "lines of text are put together here, and not often")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use scorefront::tls::facts::Facts;
use scorefront::tls::foreign::{self, Foreign};
use scorefront::tls::pair::{self, Examined, Files};
use scorefront::tls::{chain, pem};

const CNAME: &str = "a.example.com";
/// 2025-01-01, while all fixtures but the one that is made old are valid.
const NOW: u64 = 1_735_689_600;
const DAY: u64 = 24 * 60 * 60;

fn file(name: &str) -> Vec<u8> {
    let path = Path::new("tests/fixtures/pem").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Several files, one after the other, as `cat` puts them.
fn files(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| file(name)).collect()
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn pair_files() -> Files<'static> {
    Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") }
}

fn examine(chain: &[u8], key: &[u8]) -> Examined {
    pair::examine(chain, key, pair_files(), Some(CNAME), now())
}

/// All that is said, and whether it can be served.
fn said(examined: &Examined) -> String {
    let mut said = String::new();
    for finding in &examined.findings {
        writeln!(said, "{:?}, {:?}: {finding}", finding.severity, finding.part).unwrap();
    }
    let served = if examined.certificate.is_some() { "can be served" } else { "cannot be served" };
    assert_no_key_in(&said);
    format!("{said}{served}\n")
}

/// Every sixteen characters of every key's base64 are looked for in what was said.
fn assert_no_key_in(said: &str) {
    for entry in fs::read_dir("tests/fixtures/pem").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            for line in fs::read_to_string(&path).unwrap().lines().filter(|line| !line.contains(['-', ':'])) {
                for run in line.as_bytes().windows(16) {
                    assert!(!said.contains(str::from_utf8(run).unwrap()), "a part of {} in {said}", path.display());
                }
            }
        }
    }
}

macro_rules! assert_says {
    ($name:expr, $said:expr) => {
        insta::with_settings!({
            prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "snapshots/pem"
        }, {
            insta::assert_snapshot!($name, $said);
        });
    };
}

/// One snapshot of a certificate file beside the good key.
fn chain_says(name: &str, chain: &[u8]) {
    assert_says!(format!("chain-{name}"), said(&examine(chain, &file("leaf.key"))));
}

/// One snapshot of a key file beside the good chain.
fn key_says(name: &str, key: &[u8]) {
    assert_says!(format!("key-{name}"), said(&examine(&good_chain(), key)));
}

fn good_chain() -> Vec<u8> {
    files(&["leaf.crt", "issuing.crt", "middle.crt"])
}

#[test]
fn good_files_are_taken_without_a_word() {
    let (chain, key) = (String::from_utf8(good_chain()).unwrap(), text("leaf.key"));
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let bags = format!("Bag Attributes\n    friendlyName: x\nsubject=CN = a\n{chain}\n# end");
    let cases = [
        ("as they are", chain.clone(), key.clone()),
        ("CRLF", crlf(&chain), crlf(&key)),
        ("CR", chain.replace('\n', "\r"), key.replace('\n', "\r")),
        ("a BOM", format!("\u{feff}{chain}"), format!("\u{feff}{key}")),
        ("text between", bags.clone(), format!("Bag Attributes\nKey Attributes: <No Attributes>\n{key}")),
        ("no last line break", chain.trim_end().to_owned(), key.trim_end().to_owned()),
        ("the key first in one file", format!("{key}{chain}"), format!("{key}{chain}")),
        // What the sed of the remedy makes of text whose line breaks were blanks, or nothing.
        ("blanks in base64", blanks(&chain, " "), blanks(&key, " ")),
        ("one long line", blanks(&chain, ""), blanks(&key, "")),
        ("SEC1 with parameters", chain.clone(), text("leaf.sec1.key")),
    ];
    for (name, chain, key) in cases {
        assert_eq!(said(&examine(chain.as_bytes(), key.as_bytes())), "can be served\n", "{name}");
    }
    let rsa = files(&["rsa.crt", "issuing.crt"]);
    for key in ["rsa.key", "rsa.pkcs1.key"] {
        assert_eq!(said(&examine(&rsa, &file(key))), "can be served\n", "{key}");
    }
    let ed25519 = examine(&files(&["ed25519.crt", "issuing.crt"]), &file("ed25519.key"));
    assert_eq!(said(&ed25519), "can be served\n");
}

#[test]
fn other_forms_of_a_certificate_are_named_with_the_command_that_converts_them() {
    for name in [
        "leaf.der",
        "leaf.pfx",
        "leaf.p7b.der",
        "leaf.p7b",
        "leaf.cms",
        "leaf.csr",
        "leaf.csr.der",
        "leaf.pub",
        "leaf.pub.der",
        "issuing.crl",
        "issuing.crl.der",
        "leaf.trusted.crt",
        "leaf.jks",
        "leaf.key",
        "leaf.pkcs8.der",
        "leaf.encrypted.key",
        "openssh.key",
    ] {
        chain_says(name, &file(name));
    }
}

#[test]
fn other_forms_of_a_key_are_named_with_the_command_that_converts_them() {
    for name in [
        "leaf.pkcs8.der",
        "rsa.pkcs1.der",
        "leaf.sec1.der",
        "leaf.encrypted.key",
        "leaf.encrypted.der",
        "leaf.traditional.key",
        "leaf.pfx",
        "leaf.jks",
        "openssh.key",
        "dsa.key",
        "leaf.pub",
        "leaf.csr",
        "leaf.crt",
        "leaf.der",
        "leaf.p7b",
    ] {
        key_says(name, &file(name));
    }
    key_says("several", &files(&["leaf.key", "rsa.key", "other.key"]));
    let parameters = text("leaf.sec1.key");
    key_says("parameters-only", parameters.split_inclusive("-----END EC PARAMETERS-----\n").next().unwrap().as_bytes());
}

#[test]
fn a_key_in_the_wrong_container_is_named_by_its_real_file() {
    let files = Files { chain: Path::new("/etc/my certs/it's.pfx"), key: Path::new("/etc/my certs/key.pem") };
    let examined = pair::examine(&file("leaf.pfx"), &file("leaf.encrypted.key"), files, Some("*.example.com"), now());
    assert_says!("quoted-names", said(&examined));
    let both = Files { chain: Path::new("both.pem"), key: Path::new("both.pem") };
    let text = crate::files(&["leaf.crt", "issuing.crt", "leaf.encrypted.key"]);
    assert_says!("same-file-encrypted", said(&pair::examine(&text, &text, both, Some(CNAME), now())));
}

#[test]
fn swapped_files_are_said_to_be_swapped() {
    assert_says!("swapped", said(&examine(&file("leaf.key"), &good_chain())));
    assert_says!("swapped-encrypted", said(&examine(&file("leaf.encrypted.key"), &good_chain())));
}

#[test]
fn text_that_went_through_the_wrong_hands_is_named() {
    let (chain, key) = (text("leaf.crt"), text("leaf.key"));
    let utf16 = |text: &str| -> Vec<u8> {
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let base64 = |bytes: &[u8]| to_base64(bytes);
    for (name, change) in [
        ("utf16", &utf16 as &dyn Fn(&str) -> Vec<u8>),
        ("escaped", &|text| text.replace('\n', "\\n").into_bytes()),
        ("quoted", &|text| format!("\"{}\"", text.replace('\n', "\\n")).into_bytes()),
        ("blanks", &|text| text.replace('\n', " ").into_bytes()),
        ("no-breaks", &|text| text.replace('\n', "").into_bytes()),
        ("glued", &|text| format!("{}{text}", text.trim_end()).into_bytes()),
        ("indented", &|text| text.lines().map(|line| format!("    {line}\n")).collect::<String>().into_bytes()),
        ("cut", &|text| text.as_bytes()[..text.len() / 2].to_vec()),
        ("bad-character", &|text| replace_in_line(text, 2, "!").into_bytes()),
        ("short-line", &|text| replace_in_line(text, 2, "").into_bytes()),
        ("lost-line", &|text| without_line(text, 2).into_bytes()),
        ("lost-end", &|text| format!("{}{text}", text.lines().next().unwrap().to_owned() + "\n").into_bytes()),
        ("lost-begin", &|text| without_line(text, 1).into_bytes()),
        ("wrong-end", &|text| text.replace("-----END ", "-----END X509 ").into_bytes()),
        ("dashes", &|text| text.replace("-----BEGIN ", "----BEGIN ").into_bytes()),
        ("empty", &|_| b" \r\n".to_vec()),
        ("html", &|_| b"\n<!DOCTYPE html><html><body>Sign in</body></html>".to_vec()),
        ("prose", &|_| b"see the vault".to_vec()),
        ("base64-of-pem", &|text| base64(text.as_bytes())),
        ("no-markers", &|text| text.lines().filter(|line| !line.contains('-')).collect::<String>().into_bytes()),
    ] {
        chain_says(name, &change(&chain));
        key_says(name, &change(&key));
    }
    let mislabelled = text("leaf.p7b").replace("PKCS7", "CERTIFICATE");
    chain_says("mislabelled", mislabelled.as_bytes());
    key_says("mislabelled", text("leaf.encrypted.key").replace("ENCRYPTED ", "").as_bytes());
}

/// The base64 of each block in one line, with `between` where its line breaks were.
fn blanks(pem: &str, between: &str) -> String {
    let line = |line: &str| if line.contains("---") { format!("\n{line}\n") } else { format!("{between}{line}") };
    pem.lines().map(line).collect::<String>().replace("\n\n", "\n")
}

fn to_base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let number = three.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        (0..4).map(move |at| number >> (18 - 6 * at) & 63)
    };
    bytes
        .chunks(3)
        .flat_map(|three| {
            digits(three).enumerate().map(|(at, digit)| if at > three.len() { b'=' } else { DIGITS[digit] })
        })
        .collect()
}

fn replace_in_line(text: &str, number: usize, with: &str) -> String {
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| if at + 1 == number { format!("{}{with}\n", &line[1..]) } else { format!("{line}\n") })
        .collect()
}

fn without_line(text: &str, number: usize) -> String {
    text.lines().enumerate().filter(|(at, _)| at + 1 != number).map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn chains_are_put_in_order_and_what_does_not_belong_is_named() {
    for (name, chain) in [
        ("wrong-order", &["issuing.crt", "middle.crt", "leaf.crt"][..]),
        ("root", &["leaf.crt", "issuing.crt", "middle.crt", "root.crt"]),
        ("direct-root", &["direct.crt", "root.crt"]),
        ("direct", &["direct.crt"]),
        ("alone", &["leaf.crt"]),
        ("incomplete", &["leaf.crt", "issuing.crt"]),
        ("cross-signed", &["leaf.crt", "issuing.crt", "middle.crt", "cross.crt", "stranger.crt"]),
        ("duplicates", &["leaf.crt", "issuing.crt", "leaf.crt", "issuing.crt", "middle.crt"]),
        ("unrelated", &["leaf.crt", "issuing.crt", "stranger.crt"]),
        ("two-leaves", &["rsa.crt", "leaf.crt", "issuing.crt", "middle.crt"]),
        ("renewed-authority", &["leaf.crt", "renewed.crt", "middle.crt"]),
        ("expired-intermediate", &["leaf.crt", "old.crt", "middle.crt"]),
        ("no-authority", &["leaf.crt", "noca.crt", "middle.crt"]),
        ("weak-intermediate", &["underweak.crt", "weakca.crt", "root.crt"]),
        ("authorities-only", &["issuing.crt", "middle.crt"]),
    ] {
        chain_says(name, &files(chain));
    }
}

#[test]
fn a_file_with_too_many_certificates_is_no_chain() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |number: u64| {
        let mut params = rcgen::CertificateParams::new(vec![CNAME.to_owned()]).unwrap();
        params.serial_number = Some(number.into());
        params.self_signed(&key).unwrap().pem()
    };
    chain_says("too-many", (1..=201).map(certificate).collect::<String>().as_bytes());
}

#[test]
fn a_certificate_that_callers_refuse_is_said_to_be() {
    for name in ["isca", "client", "nosign", "sha1", "nosan", "names"] {
        chain_says(name, &files(&[&format!("{name}.crt"), "issuing.crt", "middle.crt"]));
    }
    for name in ["small", "koblitz", "ed448", "self"] {
        let chain = match name {
            "self" => file("self.crt"),
            name => files(&[&format!("{name}.crt"), "issuing.crt", "middle.crt"]),
        };
        assert_says!(format!("pair-{name}"), said(&examine(&chain, &file(&format!("{name}.key")))));
    }
    key_says("of-another", &file("other.key"));
    key_says("of-another-rsa", &file("rsa.key"));
}

#[test]
fn a_name_that_is_not_covered_is_said_beside_those_that_are() {
    let (chain, key) = (files(&["names.crt", "issuing.crt"]), file("leaf.key"));
    for (name, cname) in
        [("deeper", "x.y.example.com"), ("above", "example.com"), ("wildcard", "*.test"), ("other", "q.net")]
    {
        let examined = pair::examine(&chain, &key, pair_files(), Some(cname), now());
        assert!(examined.certificate.is_none());
        assert_says!(format!("name-{name}"), said(&examined));
    }
    for cname in ["b.example.com", "x.example.com", "*.example.com", "192.0.2.1"] {
        let examined = pair::examine(&chain, &key, pair_files(), Some(cname), now());
        assert!(examined.certificate.is_some(), "{cname}");
    }
}

#[test]
fn the_end_of_a_certificate_is_spoken_of_before_and_after_it() {
    let (chain, key) = (good_chain(), file("leaf.key"));
    let certificate = examine(&chain, &key).certificate.unwrap();
    let at = |time| pair::examine(&files(&["leaf.crt", "issuing.crt"]), &key, pair_files(), Some(CNAME), time);
    let days = |days| Duration::from_secs(days * DAY);
    let (start, end) = (certificate.not_before(), certificate.not_after());
    assert_eq!(said(&at(end - days(31))), "can be served\n");
    let leaf_only = |time| {
        let text = said(&pair::examine(&file("leaf.crt"), &key, pair_files(), Some(CNAME), time));
        text.lines()
            .filter(|line| !line.contains("without its issuer"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    assert_says!("time-30-days", leaf_only(end - days(30)));
    assert_says!("time-hours", leaf_only(end - Duration::from_secs(5 * 3600)));
    assert_says!("time-expired", leaf_only(end + days(3)));
    assert_says!("time-not-yet", leaf_only(start - days(2)));
    assert_eq!(
        [31, 30, 14, 7, 1].map(|left| certificate.expiry_stage(end - days(left))),
        [None, Some(30), Some(14), Some(7), Some(1)]
    );
    assert_eq!(certificate.expiry_stage(end + days(1)), Some(0));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_errors_come_first() {
    let chain = files(&["issuing.crt", "stranger.crt", "client.crt", "root.crt", "middle.crt"]);
    let late = now() + Duration::from_secs(400 * 365 * DAY) + Duration::from_secs(575 * 365 * DAY);
    let examined = pair::examine(&chain, &file("other.key"), pair_files(), Some("q.net"), late);
    assert_says!("all-at-once", said(&examined));
}

#[test]
fn a_chain_without_a_key_is_examined_the_same() {
    let examined =
        pair::examine_chain(&files(&["middle.crt", "leaf.crt", "issuing.crt"]), Path::new("c.pem"), None, now());
    let subjects: Vec<_> = examined.facts.iter().map(|facts| &*facts.subject).collect();
    assert_eq!(subjects, ["CN=a.example.com", "O=Example, CN=Issuing", "O=Example, CN=Middle"]);
    assert!(!examined.has_errors() && examined.findings.len() == 1, "{:?}", examined.findings);
    assert!(pair::examine_chain(b"", Path::new("c.pem"), None, now()).has_errors());
}

#[test]
fn facts_are_what_the_certificate_says() {
    let read = |name: &str| Facts::read(&pem::certificates(&file(name)).unwrap()[0]).unwrap();
    let said: String = ["leaf", "rsa", "ed25519", "ed448", "koblitz", "sha1", "issuing", "root", "names"]
        .iter()
        .map(|name| {
            let facts = read(&format!("{name}.crt"));
            let Facts { subject, issuer, key, signature, is_ca, is_self_issued, names, addresses, .. } = &facts;
            format!("{name}: {subject} < {issuer}; {key}; {signature}; CA {is_ca}, self {is_self_issued}; {names:?} {addresses:?}\n")
        })
        .collect();
    assert_says!("facts", said);
}

#[test]
fn every_fixture_is_recognised() {
    for (name, expected) in [
        ("leaf.der", Some(Foreign::Certificate)),
        ("leaf.pkcs8.der", Some(Foreign::Pkcs8)),
        ("rsa.pkcs1.der", Some(Foreign::Pkcs1)),
        ("leaf.sec1.der", Some(Foreign::Sec1)),
        ("leaf.encrypted.der", Some(Foreign::EncryptedKey)),
        ("leaf.pfx", Some(Foreign::Pkcs12)),
        ("leaf.p7b.der", Some(Foreign::Pkcs7)),
        ("leaf.csr.der", Some(Foreign::Request)),
        ("issuing.crl.der", Some(Foreign::RevocationList)),
        ("leaf.pub.der", Some(Foreign::PublicKey)),
        ("leaf.jks", Some(Foreign::JavaKeystore)),
        ("leaf.crt", None),
        ("leaf.key", None),
    ] {
        assert_eq!(foreign::recognise(&file(name)), expected, "{name}");
    }
}

fn fixtures() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir("tests/fixtures/pem").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn der(names: &[&str]) -> Vec<CertificateDer<'static>> {
    names.iter().flat_map(|name| pem::certificates(&file(name)).unwrap()).collect()
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(chain in prop::collection::vec(any::<u8>(), 0..400), key in any::<Vec<u8>>()) {
        examine(&chain, &key);
        foreign::recognise(&chain);
    }

    #[test]
    fn damaged_files_do_no_harm_and_no_key_is_told(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<Option<u8>>()), 1..6),
    ) {
        let mut bytes = fs::read(which.get(&fixtures())).unwrap();
        for (at, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                Some(byte) => bytes[at] = byte,
                None => { bytes.remove(at); }
            }
        }
        said(&examine(&bytes, &file("leaf.key")));
        said(&examine(&good_chain(), &bytes));
        said(&examine(&bytes, &bytes));
        foreign::recognise(&bytes);
    }

    #[test]
    fn a_chain_is_ordered_the_same_however_it_stands_in_the_file(
        shuffled in Just(der(&MANY)).prop_shuffle(),
        with_key in any::<bool>(),
    ) {
        let key = Facts::read(&der(&["leaf.crt"])[0]).unwrap().public_key;
        let ordered = |certificates| chain::order(certificates, with_key.then_some(&*key)).unwrap().certificates;
        prop_assert_eq!(ordered(shuffled), ordered(der(&MANY)));
    }
}

/// A chain with two ways up, an expired intermediate, one of another key, and the roots.
const MANY: [&str; 8] =
    ["leaf.crt", "issuing.crt", "middle.crt", "cross.crt", "old.crt", "root.crt", "stranger.crt", "renewed.crt"];
