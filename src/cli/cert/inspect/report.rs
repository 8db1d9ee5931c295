//! Everything that is told of a target, with the names that programs know it by. How it looks to people is `text`'s.

use std::time::SystemTime;

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use serde::{Serialize, Serializer};

use super::endpoint::{Client, Served};
use crate::cli::cert::{key, say};
use crate::tls::facts::{Facts, date};
use crate::tls::{Finding, Severity};

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub target: String,
    /// `file`, `cname` or `endpoint`.
    pub kind: &'static str,
    pub valid: bool,
    pub errors: usize,
    pub warnings: usize,
    /// Whether it is invalid for its warnings alone.
    #[serde(skip)]
    pub strict: bool,
    pub items: Vec<Item>,
}

/// One chain, one key, or both.
#[derive(Serialize)]
pub(super) struct Item {
    pub source: String,
    /// What the file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// In the order they stand there, or were sent.
    pub certificates: Vec<Shown>,
    pub keys: Vec<ShownKey>,
    #[serde(serialize_with = "findings")]
    pub findings: Vec<Finding>,
    /// What findings about the chain and about the key are said of.
    #[serde(skip)]
    pub subjects: [String; 2],
    #[serde(skip)]
    now: SystemTime,
}

/// What a handshake settled.
#[derive(Serialize)]
pub(super) struct Connection {
    pub asked_for: String,
    pub client_verifies: Client,
    pub tls_version: String,
    pub cipher_suite: String,
    pub key_exchange: String,
    pub alpn: Option<String>,
}

/// One certificate.
#[derive(Serialize)]
pub(super) struct Shown {
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    pub not_before: String,
    pub not_after: String,
    pub days_left: i64,
    pub serial: String,
    pub fingerprint_sha256: String,
    pub key: String,
    pub signature: String,
    pub is_ca: bool,
    pub is_self_issued: bool,
    pub public_key_sha256: String,
    #[serde(skip)]
    pub expiry: String,
}

/// A private key, as far as it may be told.
#[derive(Serialize)]
pub(super) struct ShownKey {
    pub kind: String,
    /// Of its public half, as DER: what `openssl pkey -pubout -outform DER | openssl sha256` says.
    pub public_key_sha256: String,
    /// Whether it belongs to the first certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub belongs: Option<bool>,
}

impl Report {
    pub fn new(target: &str, kind: &'static str, items: Vec<Item>, strict: bool) -> Self {
        let count = |severity| {
            items.iter().flat_map(|item| &item.findings).filter(|finding| finding.severity == severity).count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let strict = strict && errors == 0 && warnings > 0;
        Self { target: target.to_owned(), kind, valid: errors == 0 && !strict, errors, warnings, strict, items }
    }
}

impl Item {
    pub fn new(source: String, now: SystemTime) -> Self {
        let (files, certificates, keys, findings) = Default::default();
        let subjects = [source.clone(), source.clone()];
        Self { source, form: None, files, connection: None, certificates, keys, findings, subjects, now }
    }

    pub fn show_certificates(&mut self, certificates: &[CertificateDer<'_>]) -> anyhow::Result<()> {
        for (index, certificate) in certificates.iter().enumerate() {
            let unreadable =
                |reason| anyhow!("{}: certificate number {} cannot be read: {reason}", self.source, index + 1);
            let facts = Facts::read(certificate).map_err(unreadable)?;
            self.certificates.push(Shown::of(&facts, self.now));
        }
        Ok(())
    }

    /// Adds a key by its public half; after the certificates.
    pub fn show_key(&mut self, public: &[u8]) {
        let public_key_sha256 = sha256(public);
        let belongs = self.certificates.first().map(|leaf| leaf.public_key_sha256 == public_key_sha256);
        self.keys.push(ShownKey { kind: key::kind(public), public_key_sha256, belongs });
    }
}

impl Connection {
    pub fn of(served: &Served, asked_for: &str, client_verifies: Client) -> Self {
        Self {
            asked_for: asked_for.to_owned(),
            client_verifies,
            tls_version: served.version.clone(),
            cipher_suite: served.cipher_suite.clone(),
            key_exchange: served.group.clone(),
            alpn: served.alpn.clone(),
        }
    }
}

impl Shown {
    fn of(facts: &Facts, now: SystemTime) -> Self {
        Self {
            subject: facts.subject.clone(),
            issuer: facts.issuer.clone(),
            names: say::names(facts),
            not_before: date(facts.not_before),
            not_after: date(facts.not_after),
            days_left: say::days_left(facts.not_after, now),
            serial: facts.serial.clone(),
            fingerprint_sha256: with_colons(&facts.fingerprint),
            key: facts.key.to_string(),
            signature: facts.signature.clone(),
            is_ca: facts.is_ca,
            is_self_issued: facts.is_self_issued,
            public_key_sha256: sha256(&facts.public_key),
            expiry: say::expiry(facts, now),
        }
    }
}

/// As `openssl x509 -fingerprint` writes it.
fn with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// As `sha256sum` writes it.
fn sha256(bytes: &[u8]) -> String {
    with_colons(digest(&SHA256, bytes).as_ref()).replace(':', "").to_lowercase()
}

fn findings<S: Serializer>(findings: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        severity: &'static str,
        part: &'static str,
        message: &'a str,
        remedy: Option<&'a str>,
    }

    serializer.collect_seq(findings.iter().map(|finding| Told {
        severity: say::severity(finding.severity),
        part: say::part(finding.part),
        message: &finding.message,
        remedy: finding.remedy.as_deref(),
    }))
}
