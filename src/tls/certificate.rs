//! One chain and its key, known to belong together and ready to be served.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::SignatureAlgorithm;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};

use super::facts::Facts;
use super::{names, strength};

/// A certificate that can be served, and what operators and the request path ask about it.
#[derive(Debug)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    lacks_issuer: bool,
    /// DNS names of the leaf's subjectAltName, lower case; a wildcard as `*.example.com`.
    names: Box<[Box<str>]>,
    addresses: Box<[IpAddr]>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: Box<str>,
}

impl Certificate {
    /// Puts together a chain, leaf first, and the key that is known to be the leaf's.
    pub(super) fn new(
        mut chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
        leaf: Facts,
        lacks_issuer: bool,
    ) -> Self {
        // Kept by the ten thousand, and for as long as the process runs.
        chain.shrink_to_fit();
        Self {
            certified: Arc::new(CertifiedKey::new(chain, key)),
            lacks_issuer,
            names: leaf.names.into(),
            addresses: leaf.addresses.into(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: leaf.serial.into(),
        }
    }

    /// Whether part of the chain of `before` is not in this one: its certificates are fewer, or the leaf stands alone
    /// that did not.
    pub fn is_shorter_than(&self, before: &Self) -> bool {
        self.certified.cert.len() < before.certified.cert.len() || (self.lacks_issuer && !before.lacks_issuer)
    }

    /// The chain and the key as rustls takes them.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Whether it is signed for with RSA, which every caller can verify and which costs us fifteen times an ECDSA
    /// signature.
    pub fn is_rsa(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Whether this certificate proves that we are `host`: a lower-case DNS name without trailing dot, or an IP
    /// address (RFC 9525 section 6: subjectAltName only, a wildcard stands for exactly one whole label).
    pub fn covers(&self, host: &str) -> bool {
        names::covers(&self.names, &self.addresses, host)
    }

    /// Whether a CNAME (exact, or `*.` and a name) may be served with this certificate.
    pub fn covers_cname(&self, cname: &str) -> bool {
        names::covers_cname(&self.names, &self.addresses, cname)
    }

    /// DNS names of the leaf's subjectAltName, lower case.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// SHA-256 of the leaf, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let leaf = self.certified.cert.first().map(|leaf| digest(&SHA256, leaf));
        leaf.iter().flat_map(AsRef::as_ref).fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The smallest of 30, 14, 7 and 1 days within which it expires, and 0 when it has: whoever watches it speaks of it
    /// each time this changes.
    pub fn expiry_stage(&self, now: SystemTime) -> Option<u8> {
        strength::expiry_stage(self.not_after, now)
    }

    /// The leaf's serial number, in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::tls::pair::{self, Files};

    /// A self-signed certificate for `names`.
    pub(crate) fn certificate(names: &[&str]) -> Arc<Certificate> {
        let (chain, key) = pair(names);
        let files = Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") };
        let examined = pair::examine(chain.as_bytes(), key.as_bytes(), files, None, SystemTime::now());
        Arc::new(examined.certificate.expect("a good pair"))
    }

    fn pair(names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("sign");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn it_covers_its_names_and_a_wildcard_covers_one_label() {
        let certificate = certificate(&["a.example", "*.m.example", "127.0.0.1"]);
        for host in ["a.example", "x.m.example", "127.0.0.1"] {
            assert!(certificate.covers(host), "{host}");
        }
        for host in ["b.example", "m.example", "x.y.m.example", ".m.example", "127.0.0.2", ""] {
            assert!(!certificate.covers(host), "{host}");
        }
        assert!(certificate.covers_cname("*.m.example"));
        assert!(!certificate.covers_cname("b.example"));
    }
}
