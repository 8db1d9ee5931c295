//! From the text of two files to a certificate that can be served, with everything there is to say about it.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::chain::{self, Ordered};
use super::facts::Facts;
pub use super::finding::Files;
use super::finding::{Finding, Part, Severity, quoted};
use super::pem::{self, PemError};
use super::remedy::Remedy;
use super::{names, strength};

/// What came of a pair.
#[derive(Debug)]
pub struct Examined {
    /// There if it can be served at all: chain and key can be read and belong together, and the CNAME is covered. A
    /// finding that is an error may still advise against it, such as an expired one.
    pub certificate: Option<Certificate>,
    /// The errors first.
    pub findings: Vec<Finding>,
}

/// What came of a file of certificates without a key.
#[derive(Debug)]
pub struct ExaminedChain {
    /// As they would be sent, leaf first; empty if the file cannot be read.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Of each of `certificates`.
    pub facts: Vec<Facts>,
    /// The errors first.
    pub findings: Vec<Finding>,
}

impl Examined {
    pub fn has_errors(&self) -> bool {
        has_errors(&self.findings)
    }
}

impl ExaminedChain {
    pub fn has_errors(&self) -> bool {
        has_errors(&self.findings)
    }
}

/// Reads the chain and the key, and checks them against each other, against `cname` (exact, or `*.` and a name) where
/// one is given, and against the time.
pub fn examine(chain: &[u8], key: &[u8], files: Files<'_>, cname: Option<&str>, now: SystemTime) -> Examined {
    let mut findings = Vec::new();
    let remedy = Remedy { files, cname };
    let (chain, key) = (pem::certificates(chain), pem::private_key(key));
    if let (Err(chain), Err(key)) = (&chain, &key)
        && chain.found_a_key()
        && key.found_a_certificate()
    {
        return Examined { certificate: None, findings: swapped(files) };
    }
    let key = signing_key(key, &remedy);
    let public = key.as_ref().ok().and_then(|key| key.public_key()).map(|public| public.to_vec());
    let chain = ordered(chain, public.as_deref(), &remedy, &mut findings);
    let leaf = chain.as_ref().and_then(|chain| chain.facts.first());
    // A leaf with a key of no use says so itself, and better.
    let is_told = leaf.is_some_and(|leaf| !strength::is_usable(&leaf.key));
    let key = key
        .map_err(|finding| {
            if !is_told {
                findings.push(finding);
            }
        })
        .ok();
    let certificate = chain.and_then(|chain| {
        let is_usable = check(&chain, &remedy, now, &mut findings);
        let key = key?;
        let leaf = chain.facts.into_iter().next()?;
        if public.is_some_and(|public| leaf.public_key != public) {
            findings.push(mismatch(&leaf, files));
            return None;
        }
        is_usable.then(|| Certificate::new(chain.certificates, key, leaf, chain.lacks_issuer))
    });
    Examined { certificate, findings: errors_first(findings) }
}

/// Reads a file of certificates and checks what can be checked without the key.
pub fn examine_chain(chain: &[u8], file: &Path, cname: Option<&str>, now: SystemTime) -> ExaminedChain {
    let mut findings = Vec::new();
    let remedy = Remedy { files: Files { chain: file, key: file }, cname };
    let Some(chain) = ordered(pem::certificates(chain), None, &remedy, &mut findings) else {
        return ExaminedChain { certificates: Vec::new(), facts: Vec::new(), findings };
    };
    check(&chain, &remedy, now, &mut findings);
    let Ordered { certificates, facts, .. } = chain;
    ExaminedChain { certificates, facts, findings: errors_first(findings) }
}

/// The key as rustls signs with it.
fn signing_key(
    key: Result<Zeroizing<PrivateKeyDer<'static>>, PemError>,
    remedy: &Remedy<'_>,
) -> Result<Arc<dyn SigningKey>, Finding> {
    let key = key.map_err(|problem| problem.finding(Part::Key, remedy))?;
    // What rustls says of it is of no help, and not ours to vouch for.
    aws_lc_rs::sign::any_supported_type(&key).map_err(|_| unusable(remedy))
}

fn ordered(
    chain: Result<Vec<CertificateDer<'static>>, PemError>,
    key: Option<&[u8]>,
    remedy: &Remedy<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Ordered> {
    let chain = chain.map_err(|problem| problem.finding(Part::Chain, remedy));
    let mut ordered =
        chain.and_then(|chain| chain::order(chain, key)).map_err(|finding| findings.push(finding)).ok()?;
    findings.append(&mut ordered.findings);
    Some(ordered)
}

/// Everything that can be said of a chain; whether its names are as they have to be.
fn check(chain: &Ordered, remedy: &Remedy<'_>, now: SystemTime, findings: &mut Vec<Finding>) -> bool {
    let Some(leaf) = chain.facts.first() else { return false };
    if chain.lacks_issuer {
        findings.push(lacks_issuer(leaf, remedy.files.chain));
    }
    findings.extend(strength::check(&chain.facts, remedy.cname, now));
    let names = names::check(&leaf.names, &leaf.addresses, remedy.cname);
    let is_covered = names.is_none();
    findings.extend(names);
    is_covered
}

fn swapped(files: Files<'_>) -> Vec<Finding> {
    let finding = |part, holds: &str, other: &Path| {
        Finding::new(Severity::Error, part, format!("holds {holds}: certificate and key are swapped"))
            .remedy(format!("name each file in the other's place, here {}", other.display()))
    };
    vec![
        finding(Part::Chain, "a private key and no certificate", files.key),
        finding(Part::Key, "certificates and no private key", files.chain),
    ]
}

fn unusable(remedy: &Remedy<'_>) -> Finding {
    let key = quoted(remedy.files.key);
    let message = "holds a private key that is damaged or of a kind that cannot be used: it has to be RSA of at least \
                   2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519";
    Finding::new(Severity::Error, Part::Key, message).remedy(format!(
        "see what it is: openssl pkey -in {key} -noout -text_pub; and make a new one with a request for a certificate: {}",
        names::request(remedy.cname.unwrap_or("NAME"))
    ))
}

/// Both commands print the public key, whatever its kind.
fn mismatch(leaf: &Facts, files: Files<'_>) -> Finding {
    let [chain, key] = [files.chain, files.key].map(quoted);
    let message =
        format!("does not belong to the certificate ({}, serial {}): their public keys differ", leaf.key, leaf.serial);
    Finding::new(Severity::Error, Part::Key, message).remedy(format!(
        "these print the same for a pair: openssl x509 -in {chain} -noout -pubkey and openssl pkey -in {key} -pubout"
    ))
}

fn lacks_issuer(leaf: &Facts, file: &Path) -> Finding {
    let issuer = &leaf.issuer;
    let message = format!(
        "holds the certificate alone, without its issuer {issuer}; callers that do not hold that cannot verify it"
    );
    Finding::new(Severity::Warning, Part::Chain, message).remedy(format!(
        "append the issuer's certificate, as PEM, also if it is the root (which is not sent): cat issuer.pem >> {}",
        quoted(file)
    ))
}

fn errors_first(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}
