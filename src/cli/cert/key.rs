//! What can be told of a private key without telling it, and its one form on the disk.

use anyhow::{Context, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
};
use pkcs8::LineEnding;
use pkcs8::der::pem;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

use super::unpack::Key;
use crate::tls::facts::KeyKind;

/// The public half, as `SubjectPublicKeyInfo`.
pub(super) fn public(key: &Key) -> anyhow::Result<Vec<u8>> {
    let key = any_supported_type(key).map_err(|error| anyhow!("has a key that cannot be used: {error}"))?;
    let public = key.public_key().context("has a key without a public half")?;
    Ok(public.as_ref().to_vec())
}

/// What kind of key has this public half.
pub(super) fn kind(public: &[u8]) -> String {
    match SubjectPublicKeyInfo::from_der(public) {
        Ok((_, parsed)) => KeyKind::of(&parsed).to_string(),
        Err(_) => "of an unknown kind".to_owned(),
    }
}

/// PKCS#8 PEM text, whatever the key was before.
pub(super) fn to_pem(key: &Key) -> anyhow::Result<Zeroizing<String>> {
    let pkcs8;
    let der = match &**key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der(),
        other => {
            pkcs8 = to_pkcs8(other)?;
            pkcs8.as_slice()
        }
    };
    Ok(Zeroizing::new(encode("PRIVATE KEY", der)?))
}

/// PEM text of certificates, in their order.
pub(super) fn chain_to_pem(chain: &[CertificateDer<'_>]) -> anyhow::Result<String> {
    chain.iter().map(|certificate| encode("CERTIFICATE", certificate)).collect()
}

fn encode(label: &str, der: &[u8]) -> anyhow::Result<String> {
    pem::encode_string(label, LineEnding::LF, der).map_err(|error| anyhow!("cannot be written as PEM: {error}"))
}

/// From the older forms, which say less of what they are.
fn to_pkcs8(key: &PrivateKeyDer<'_>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let unusable = || anyhow!("has a key that cannot be used");
    let der = key.secret_der();
    if let PrivateKeyDer::Pkcs1(_) = key {
        let key = rsa::KeyPair::from_der(der).map_err(|_| unusable())?;
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(|_| unusable())?;
        return Ok(Zeroizing::new(pkcs8.as_ref().to_vec()));
    }
    let curves = [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
    let key = curves.iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok());
    let pkcs8 = key.ok_or_else(unusable)?.to_pkcs8v1().map_err(|_| unusable())?;
    Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
}
