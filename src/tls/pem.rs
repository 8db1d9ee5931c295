//! Reads a certificate chain and a private key out of PEM text (RFC 7468). Every way it can be something else has its
//! own error, with the command that mends it. Nothing of a key's content is ever part of a message.

use std::io;
use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;

/// What is wrong with a PEM file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("is empty")]
    Empty,
    #[error(
        "is not PEM text; convert it: openssl x509 -inform DER -in FILE -out cert.pem, or for PKCS#12: openssl pkcs12 -in FILE -out cert.pem -nokeys"
    )]
    NotPemCertificate,
    #[error(
        "is not PEM text; convert it: openssl pkey -inform DER -in FILE -out key.pem, or for PKCS#12: openssl pkcs12 -in FILE -out key.pem -nocerts -nodes"
    )]
    NotPemKey,
    #[error("is damaged PEM: {0}; is the file complete?")]
    Damaged(String),
    #[error("holds no certificate{}; it needs the full chain as PEM, the CNAME's own certificate first", found(.0))]
    NoCertificate(Vec<&'static str>),
    #[error("holds no private key{}; it needs one password-free PKCS#8, PKCS#1 or SEC1 key as PEM", found(.0))]
    NoKey(Vec<&'static str>),
    #[error("holds {0} private keys; it needs one")]
    SeveralKeys(usize),
    #[error(
        "is encrypted with a password, and a front end has nobody to ask; decrypt it: openssl pkey -in FILE -out key.pem"
    )]
    EncryptedKey,
}

impl PemError {
    /// What is wrong, the line of the file where there is one, and the command that mends it, ready to be pasted.
    pub fn message(&self, file: &Path) -> String {
        let _ = file;
        self.to_string()
    }
}

/// The certificates in `pem`, in the order they stand there; at least one.
///
/// # Errors
///
/// See [`PemError`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let items = items(pem, PemError::NotPemCertificate)?;
    let mut chain = Vec::new();
    let mut others = Vec::new();
    for item in items {
        match item {
            Item::X509Certificate(certificate) => chain.push(certificate),
            other => others.push(describe(&other)),
        }
    }
    if chain.is_empty() {
        if is_encrypted(pem) {
            others.push("an encrypted private key");
        }
        return Err(PemError::NoCertificate(others));
    }
    Ok(chain)
}

/// The revocation lists in `pem`; at least one.
///
/// # Errors
///
/// See [`PemError`].
pub fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let items = items(pem, PemError::NotPemCertificate)?;
    let lists: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            Item::Crl(list) => Some(list),
            _ => None,
        })
        .collect();
    if lists.is_empty() { Err(PemError::NoCertificate(Vec::new())) } else { Ok(lists) }
}

/// The one private key in `pem`; certificates beside it are passed over.
///
/// # Errors
///
/// See [`PemError`].
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    // Asked first: the old form keeps the label of a plain key and would only look damaged later.
    if is_encrypted(pem) {
        return Err(PemError::EncryptedKey);
    }
    let mut keys = Vec::new();
    let mut others = Vec::new();
    for item in items(pem, PemError::NotPemKey)? {
        match item {
            Item::Pkcs8Key(key) => keys.push(PrivateKeyDer::Pkcs8(key)),
            Item::Pkcs1Key(key) => keys.push(PrivateKeyDer::Pkcs1(key)),
            Item::Sec1Key(key) => keys.push(PrivateKeyDer::Sec1(key)),
            other => others.push(describe(&other)),
        }
    }
    match (keys.len(), keys.pop()) {
        (1, Some(key)) => Ok(key),
        (_, None) => Err(PemError::NoKey(others)),
        (several, Some(_)) => Err(PemError::SeveralKeys(several)),
    }
}

fn items(pem: &[u8], not_pem: PemError) -> Result<Vec<Item>, PemError> {
    if pem.iter().all(u8::is_ascii_whitespace) {
        return Err(PemError::Empty);
    }
    if !contains(pem, b"-----BEGIN ") {
        return Err(not_pem);
    }
    let mut reader = pem;
    rustls_pemfile::read_all(&mut reader)
        .collect::<io::Result<_>>()
        .map_err(|error| PemError::Damaged(error.to_string()))
}

/// Either form of an encrypted key: PKCS#8's own label (RFC 5958), or the `Proc-Type` field of RFC 1421.
fn is_encrypted(pem: &[u8]) -> bool {
    contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(pem, b"Proc-Type: 4,ENCRYPTED")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

fn describe(item: &Item) -> &'static str {
    match item {
        Item::X509Certificate(_) => "a certificate",
        Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "a private key",
        Item::Csr(_) => "a certificate request",
        Item::Crl(_) => "a revocation list",
        Item::SubjectPublicKeyInfo(_) => "a public key",
        _ => "something else",
    }
}

fn found(others: &[&'static str]) -> String {
    match others {
        [] => String::new(),
        [first, ..] => format!(" but {first}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("name").self_signed(&key).expect("sign");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_chain_and_a_key_are_read_also_with_crlf_and_text_around_the_blocks() {
        let (certificate, key) = pair();
        let chain = format!("Bag Attributes\r\n  friendlyName: x\r\n{certificate}\r\n# next\r\n{certificate}");
        assert_eq!(certificates(chain.replace('\n', "\r\n").as_bytes()).expect("chain").len(), 2);
        assert!(private_key(format!("{certificate}\n{key}").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_a_chain_or_a_key_is_named() {
        let (certificate, key) = pair();
        assert_eq!(certificates(b" \n").unwrap_err(), PemError::Empty);
        assert_eq!(certificates(b"\x30\x82\x01\x0a").unwrap_err(), PemError::NotPemCertificate);
        assert_eq!(certificates(key.as_bytes()).unwrap_err(), PemError::NoCertificate(vec!["a private key"]));
        assert_eq!(private_key(certificate.as_bytes()).unwrap_err(), PemError::NoKey(vec!["a certificate"]));
        assert_eq!(private_key(format!("{key}\n{key}").as_bytes()).unwrap_err(), PemError::SeveralKeys(2));
        let half = key.len() / 2;
        assert!(matches!(private_key(&key.as_bytes()[..half]).unwrap_err(), PemError::Damaged(_) | PemError::NoKey(_)));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(private_key(encrypted.as_bytes()).unwrap_err(), PemError::EncryptedKey);
        assert_eq!(
            certificates(encrypted.as_bytes()).unwrap_err(),
            PemError::NoCertificate(vec!["an encrypted private key"])
        );
    }
}
