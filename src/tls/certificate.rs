//! A chain and its key, checked to belong together and ready to be served.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::{self, PemError};

/// A certificate that can be served, and what operators and the request path ask about it.
#[derive(Debug)]
pub struct Certificate {
    /// One chain and key a signature algorithm, the cheapest for us first.
    keys: Vec<Arc<CertifiedKey>>,
    /// DNS names of the leaf's subjectAltName, lower case; a wildcard as `*.example.com`.
    names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
}

/// Why a pair cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate file {0}")]
    Chain(PemError),
    #[error("the key file {0}")]
    Key(PemError),
    #[error("the certificate file's first certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the key cannot be used: {0}; make an ECDSA P-256 key: openssl ecparam -genkey -name prime256v1 -noout")]
    UnusableKey(String),
    #[error(
        "the key does not belong to the certificate (their public keys differ); compare: openssl x509 -in CERT \
         -noout -pubkey and openssl pkey -in KEY -pubout"
    )]
    Mismatch,
    #[error(
        "the certificate has no DNS name in its subjectAltName (a common name does not count); have it reissued for {0}"
    )]
    NoName(String),
    #[error("the certificate is for {names}, not for {cname}; the name must be in its subjectAltName")]
    NotFor { cname: String, names: String },
}

impl Certificate {
    /// Takes a chain (leaf first) and a key from PEM text and checks that they belong together.
    ///
    /// # Errors
    ///
    /// See [`CertificateError`]; the texts name no file, since the caller knows which they were.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = pem::certificates(chain).map_err(CertificateError::Chain)?;
        let key = pem::private_key(key).map_err(CertificateError::Key)?;
        Self::from_parts(chain, &key)
    }

    /// The same from what has been read out of the PEM text.
    ///
    /// # Errors
    ///
    /// See [`CertificateError`].
    pub fn from_parts(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let key = aws_lc_rs::sign::any_supported_type(key)
            .map_err(|error| CertificateError::UnusableKey(error.to_string()))?;
        Self::new(chain, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<Self, CertificateError> {
        let facts = chain.first().map(Facts::read).transpose()?.unwrap_or_default();
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok(Self {
            keys: vec![Arc::new(certified)],
            names: facts.names,
            addresses: facts.addresses,
            not_before: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
        })
    }

    /// Serves `other`'s chain and key too, to callers that can verify its signature but not this one's.
    pub fn add_alternative(&mut self, other: Self) {
        self.not_after = self.not_after.min(other.not_after);
        self.not_before = self.not_before.max(other.not_before);
        self.keys.extend(other.keys);
        // An RSA signature costs fifteen times an ECDSA one.
        self.keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
    }

    /// The chain and key for a caller: the first whose signature it says it can verify.
    pub fn key_for(&self, hello: &ClientHello<'_>) -> Option<&Arc<CertifiedKey>> {
        self.keys.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some())
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

    /// Checks that a CNAME (exact, or `*.` and a name) may be served with this certificate.
    ///
    /// # Errors
    ///
    /// [`CertificateError::NotFor`] or [`CertificateError::NoName`] when it is not among the certificate's names.
    pub fn check_covers(&self, cname: &str) -> Result<(), CertificateError> {
        let covered = match cname.strip_prefix("*.") {
            Some(_) => self.names.iter().any(|name| **name == *cname),
            None => self.covers(cname),
        };
        if covered {
            return Ok(());
        }
        if self.names.is_empty() {
            return Err(CertificateError::NoName(cname.to_owned()));
        }
        Err(CertificateError::NotFor { cname: cname.to_owned(), names: self.names.join(", ") })
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf's serial number, in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// What is read out of a leaf.
struct Facts {
    names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            addresses: Vec::new(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
            serial: String::new(),
        }
    }
}

impl Facts {
    fn read(leaf: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        let mut facts = Self {
            not_before: to_system_time(leaf.validity().not_before.timestamp()),
            not_after: to_system_time(leaf.validity().not_after.timestamp()),
            serial: leaf.raw_serial_as_string().replace(':', ""),
            ..Self::default()
        };
        let alternatives =
            leaf.subject_alternative_name().map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => facts.names.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(octets) => facts.addresses.extend(to_address(octets)),
                _ => {}
            }
        }
        Ok(facts)
    }
}

fn to_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Seconds since 1970; dates before it count as that day.
fn to_system_time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A self-signed certificate for `names`.
    pub(crate) fn certificate(names: &[&str]) -> Arc<Certificate> {
        let (chain, key) = pair(names);
        Arc::new(Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("a good pair"))
    }

    fn pair(names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("sign");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (chain, _) = pair(&["a.example"]);
        let (_, key) = pair(&["a.example"]);
        assert_eq!(Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err(), CertificateError::Mismatch);
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
        assert!(certificate.check_covers("*.m.example").is_ok());
        assert_eq!(
            certificate.check_covers("b.example").unwrap_err().to_string(),
            "the certificate is for a.example, *.m.example, not for b.example; the name must be in its subjectAltName"
        );
    }
}
