//! What is read out of one certificate. Nothing here judges it.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{AlgorithmIdentifier, FromDer, SubjectPublicKeyInfo, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// 9999-12-31T23:59:59Z, the last second a certificate can name; it stands for "never" (RFC 5280 section 4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

/// One certificate, as people and checks look at it (RFC 5280).
#[allow(clippy::struct_excessive_bools, reason = "what extensions say is each a yes or a no of its own")]
#[derive(Clone, Debug)]
pub struct Facts {
    /// As RFC 4514 writes names, but in the order of the certificate: `O=Example, CN=Example CA`.
    pub subject: String,
    pub issuer: String,
    /// DNS names of the subjectAltName, lower case; a wildcard as `*.example.com`.
    pub names: Vec<Box<str>>,
    pub addresses: Vec<IpAddr>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Hexadecimal, lower case, without colons.
    pub serial: String,
    pub key: KeyKind,
    /// How it was signed by its issuer: `ECDSA with SHA-256`.
    pub signature: String,
    /// Whether it may issue others.
    pub is_ca: bool,
    /// Whether subject and issuer are the same: a root, or a certificate that vouches for itself.
    pub is_self_issued: bool,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// The public key as `SubjectPublicKeyInfo`, DER.
    pub public_key: Vec<u8>,
    /// Whether it is meant for TLS servers: its extendedKeyUsage has serverAuth, or is not there.
    pub is_for_servers: bool,
    /// Whether its key may sign handshakes: its keyUsage has digitalSignature, or is not there.
    pub may_sign: bool,
}

/// What a public key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Rsa {
        bits: usize,
    },
    /// The curve as NIST calls it (`P-256`), where it does.
    Ecdsa {
        curve: String,
    },
    Ed25519,
    Other(String),
}

impl Facts {
    /// # Errors
    ///
    /// Why it is no certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        Self::of(&parsed)
    }

    /// The facts of a certificate that is parsed already.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut facts = Self {
            subject: readable(certificate.subject()),
            issuer: readable(certificate.issuer()),
            names: Vec::new(),
            addresses: Vec::new(),
            not_before: to_system_time(certificate.validity().not_before.timestamp()),
            not_after: to_system_time(certificate.validity().not_after.timestamp()),
            serial: certificate.raw_serial_as_string().replace(':', ""),
            key: KeyKind::of(certificate.public_key()),
            signature: signature(&certificate.signature_algorithm),
            is_ca: certificate.is_ca(),
            is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            fingerprint: [0; 32],
            public_key: certificate.public_key().raw.to_vec(),
            is_for_servers: true,
            may_sign: true,
        };
        facts.fingerprint.copy_from_slice(digest(&SHA256, certificate.as_raw()).as_ref());
        facts.read_extensions(certificate).map_err(|error| error.to_string())?;
        Ok(facts)
    }

    fn read_extensions(&mut self, certificate: &X509Certificate<'_>) -> Result<(), x509_parser::error::X509Error> {
        if let Some(usage) = certificate.extended_key_usage()? {
            self.is_for_servers = usage.value.server_auth || usage.value.any;
        }
        if let Some(usage) = certificate.key_usage()? {
            self.may_sign = usage.value.digital_signature();
        }
        let alternatives = certificate.subject_alternative_name()?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                // What is not printable names no host, and would only disturb whoever reads messages.
                GeneralName::DNSName(name) if name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    self.names.push(name.to_ascii_lowercase().into());
                }
                GeneralName::IPAddress(octets) => self.addresses.extend(to_address(octets)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it was signed over a hash for which others can be made to collide.
    pub fn has_weak_signature(&self) -> bool {
        ["MD2", "MD5", "SHA-1"].iter().any(|hash| self.signature.ends_with(hash))
    }
}

impl KeyKind {
    pub(crate) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = key.algorithm.algorithm.to_id_string();
        match algorithm.as_str() {
            "1.2.840.113549.1.1.1" => match key.parsed() {
                Ok(PublicKey::RSA(rsa)) => Self::Rsa { bits: bits(rsa.modulus) },
                _ => Self::Other("RSA".to_owned()),
            },
            "1.2.840.10045.2.1" => Self::Ecdsa { curve: curve(&key.algorithm) },
            "1.3.101.112" => Self::Ed25519,
            "1.3.101.113" => Self::Other("Ed448".to_owned()),
            "1.2.840.113549.1.1.10" => Self::Other("RSA-PSS".to_owned()),
            "1.2.840.10040.4.1" => Self::Other("DSA".to_owned()),
            _ => Self::Other(algorithm),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Ecdsa { curve } => write!(f, "ECDSA {curve}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A date as people and programs read it; what no calendar holds is the last one it does.
pub fn date(time: SystemTime) -> String {
    let last = UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    humantime::format_rfc3339_seconds(time.clamp(UNIX_EPOCH, last)).to_string()
}

fn readable(name: &X509Name<'_>) -> String {
    let name = name.to_string();
    name.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

fn curve(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let Some(Ok(oid)) = algorithm.parameters.as_ref().map(x509_parser::asn1_rs::Any::as_oid) else {
        return "with a curve of its own".to_owned();
    };
    let oid = oid.to_id_string();
    let name = match oid.as_str() {
        "1.2.840.10045.3.1.7" => "P-256",
        "1.3.132.0.34" => "P-384",
        "1.3.132.0.35" => "P-521",
        "1.3.132.0.10" => "secp256k1",
        "1.3.132.0.33" => "P-224",
        other => other,
    };
    name.to_owned()
}

/// RFC 8017 appendix C, RFC 5758, RFC 8410.
fn signature(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let oid = algorithm.algorithm.to_id_string();
    let name = match oid.as_str() {
        "1.2.840.113549.1.1.2" => "RSA with MD2",
        "1.2.840.113549.1.1.4" => "RSA with MD5",
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "RSA with SHA-1",
        "1.2.840.113549.1.1.14" => "RSA with SHA-224",
        "1.2.840.113549.1.1.11" => "RSA with SHA-256",
        "1.2.840.113549.1.1.12" => "RSA with SHA-384",
        "1.2.840.113549.1.1.13" => "RSA with SHA-512",
        "1.2.840.113549.1.1.10" => return format!("RSA-PSS with {}", pss_hash(algorithm)),
        "1.2.840.10045.4.1" => "ECDSA with SHA-1",
        "1.2.840.10045.4.3.1" => "ECDSA with SHA-224",
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256",
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384",
        "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "1.2.840.10040.4.3" => "DSA with SHA-1",
        "2.16.840.1.101.3.4.3.2" => "DSA with SHA-256",
        other => other,
    };
    name.to_owned()
}

/// The hash is a parameter of RSA-PSS, and SHA-1 where it is left out (RFC 4055 section 3.1).
fn pss_hash(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let parameters = algorithm.parameters.as_ref().and_then(|any| RsaSsaPssParams::try_from(any).ok());
    let oid = parameters.map(|parameters| parameters.hash_algorithm_oid().to_id_string());
    match oid.as_deref() {
        Some("2.16.840.1.101.3.4.2.1") => "SHA-256".to_owned(),
        Some("2.16.840.1.101.3.4.2.2") => "SHA-384".to_owned(),
        Some("2.16.840.1.101.3.4.2.3") => "SHA-512".to_owned(),
        Some("1.3.14.3.2.26") | None => "SHA-1".to_owned(),
        Some(other) => other.to_owned(),
    }
}

/// How long a big-endian number is, without its leading zeros.
fn bits(number: &[u8]) -> usize {
    let zeros: usize = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let top = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - top
}

fn to_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Seconds since 1970; dates before it count as that day.
fn to_system_time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0).min(LAST_SECOND))
}
