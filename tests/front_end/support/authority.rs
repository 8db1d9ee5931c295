//! The test's own certificate authority; one for the whole process.

use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use rustls::RootCertStore;

static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "scorefront test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
});

static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add(AUTHORITY.der().clone()).expect("a root");
    Arc::new(roots)
});

#[derive(Clone, Copy)]
pub enum Algorithm {
    Ecdsa,
    Rsa,
}

/// What callers trust.
pub fn roots() -> Arc<RootCertStore> {
    Arc::clone(&ROOTS)
}

/// A certificate for `names` and its key, as PEM.
pub fn issue(names: &[&str], algorithm: Algorithm) -> (String, String) {
    let key = KeyPair::generate_for(match algorithm {
        Algorithm::Ecdsa => &PKCS_ECDSA_P256_SHA256,
        Algorithm::Rsa => &PKCS_RSA_SHA256,
    });
    let key = key.expect("a key");
    let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let certificate = params.expect("names").signed_by(&key, &AUTHORITY).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}
