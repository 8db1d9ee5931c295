//! One chain and its key, known to belong together and ready to be served.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::facts::Facts;

/// A certificate that can be served, and what operators and the request path ask about it.
#[derive(Debug)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    /// DNS names of the leaf's subjectAltName, lower case; a wildcard as `*.example.com`.
    names: Box<[Box<str>]>,
    addresses: Box<[IpAddr]>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: Box<str>,
}

/// Why a chain and a key are no pair.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("cannot be used: {0}")]
    UnusableKey(String),
    #[error("does not belong to the certificate: their public keys differ")]
    Mismatch,
}

impl Certificate {
    /// Puts together a chain, leaf first, and a key.
    ///
    /// # Errors
    ///
    /// See [`CertificateError`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        leaf: Facts,
    ) -> Result<Self, CertificateError> {
        let key = any_supported_type(key).map_err(|error| CertificateError::UnusableKey(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok(Self {
            certified: Arc::new(certified),
            names: leaf.names.into(),
            addresses: leaf.addresses.into(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            serial: leaf.serial.into(),
        })
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
        let covers = |name: &str| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == host,
        };
        if self.names.iter().any(|name| covers(name)) {
            return true;
        }
        !self.addresses.is_empty() && host.parse().is_ok_and(|address| self.addresses.contains(&address))
    }

    /// Whether a CNAME (exact, or `*.` and a name) may be served with this certificate.
    pub fn covers_cname(&self, cname: &str) -> bool {
        match cname.strip_prefix("*.") {
            Some(_) => self.names.iter().any(|name| **name == *cname),
            None => self.covers(cname),
        }
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
        leaf.iter().flat_map(|digest| digest.as_ref()).fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
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
