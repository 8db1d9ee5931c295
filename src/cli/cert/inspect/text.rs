//! A report as people read it on a terminal of 100 columns. It decides nothing.

use std::fmt::Write as _;

use super::report::{Connection, Item, Report, Shown, ShownKey};
use crate::cli::cert::say;
use crate::tls::Part;

pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    for item in &report.items {
        write_item(&mut text, item);
        text.push('\n');
    }
    let _ = writeln!(text, "{}: {}", report.target, verdict(report));
    text
}

fn write_item(text: &mut String, item: &Item) {
    let _ = writeln!(text, "{}", item.source);
    if let Some(form) = item.form {
        say::row(text, "form", form);
    }
    for (label, file) in ["cert_pem", "key_pem"].into_iter().zip(&item.files) {
        say::row(text, label, file);
    }
    if let Some(connection) = &item.connection {
        write_connection(text, connection);
    }
    if let Some(leaf) = item.certificates.first() {
        write_leaf(text, leaf);
    }
    for key in &item.keys {
        write_key(text, key);
    }
    if !item.certificates.is_empty() {
        text.push_str("chain\n");
    }
    for (index, certificate) in item.certificates.iter().enumerate() {
        write_link(text, index + 1, certificate);
    }
    for finding in &item.findings {
        let [chain, key] = &item.subjects;
        let subject = if finding.part == Part::Chain { chain } else { key };
        let _ = writeln!(text, "{}", say::finding(subject, finding));
    }
}

fn write_connection(text: &mut String, connection: &Connection) {
    let Connection { asked_for, client_verifies, tls_version, cipher_suite, key_exchange, alpn } = connection;
    say::row(text, "asked for", &format!("{asked_for}, by a client that can verify {client_verifies}"));
    say::row(text, "TLS", &format!("{tls_version}, {cipher_suite}, {key_exchange}"));
    say::row(text, "ALPN", alpn.as_deref().unwrap_or("none"));
}

fn write_leaf(text: &mut String, leaf: &Shown) {
    say::list(text, "names", &leaf.names);
    say::row(text, "from", &leaf.not_before);
    say::row(text, "until", &leaf.expiry);
    say::row(text, "serial", &leaf.serial);
    // With a label before it, it would not fit on a line.
    let _ = writeln!(text, "SHA-256\n    {}", leaf.fingerprint_sha256);
}

fn write_key(text: &mut String, key: &ShownKey) {
    let belongs = match key.belongs {
        Some(true) => ", the certificate's",
        Some(false) => ", another certificate's",
        None => "",
    };
    say::row(text, "key", &format!("{}{belongs}", key.kind));
    say::row(text, "public key", &key.public_key_sha256);
    if key.belongs.is_none() {
        text.push_str("It belongs to the certificate for which this prints the same:\n");
        text.push_str("    openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum\n");
    }
}

fn write_link(text: &mut String, number: usize, certificate: &Shown) {
    let Shown { subject, issuer, not_before, not_after, key, signature, .. } = certificate;
    let day = |time: &str| time.split('T').next().unwrap_or_default().to_owned();
    let subject = if subject.is_empty() { "(no subject)" } else { subject };
    let _ = writeln!(text, "{number:>3}  {subject}");
    let _ = writeln!(text, "     issued by {issuer}");
    let _ = writeln!(text, "     {} to {}, {key}, signed {signature}", day(not_before), day(not_after));
}

fn verdict(report: &Report) -> String {
    let count = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        several => format!("{several} {word}s"),
    };
    let (errors, warnings) = (count(report.errors, "error"), count(report.warnings, "warning"));
    match (report.errors, report.warnings) {
        (0, 0) => "fine".to_owned(),
        (0, _) if report.strict => format!("invalid, because --strict takes warnings for errors: {warnings}"),
        (0, _) => format!("fine, with {warnings}"),
        (_, 0) => format!("invalid: {errors}"),
        _ => format!("invalid: {errors}, {warnings}"),
    }
}
