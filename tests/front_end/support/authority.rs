//! The test's own certificate authorities: one for all front ends of the process, and as many for callers as a test wants.

use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

type Authority = CertifiedIssuer<'static, KeyPair>;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let params = authority("scorefront test CA", 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
});

static INTERMEDIATE: LazyLock<Authority> = LazyLock::new(|| {
    let params = authority("scorefront test intermediate", 0);
    CertifiedIssuer::signed_by(params, KeyPair::generate().expect("a key"), &AUTHORITY).expect("a certificate")
});

static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add(AUTHORITY.der().clone()).expect("a root");
    Arc::new(roots)
});

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[derive(Clone, Copy)]
pub enum Algorithm {
    Ecdsa,
    Rsa,
}

/// What callers trust.
pub fn roots() -> Arc<RootCertStore> {
    Arc::clone(&ROOTS)
}

/// The same as PEM.
pub fn roots_pem() -> String {
    AUTHORITY.pem()
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
    pub leaf: CertificateDer<'static>,
}

impl Pair {
    pub fn new(names: &[&str]) -> Self {
        Self::altered(names, |_| {})
    }

    /// One that is as the test wants it.
    pub fn altered(names: &[&str], alter: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::issued(names, Algorithm::Ecdsa, &AUTHORITY, alter)
    }

    /// One whose time was over long ago.
    pub fn expired(names: &[&str]) -> Self {
        Self::altered(names, |params| params.not_after = date_time_ymd(2020, 2, 29))
    }

    /// One that callers can verify only if the second certificate of the chain is sent.
    pub fn with_intermediate(names: &[&str]) -> Self {
        let mut pair = Self::issued(names, Algorithm::Ecdsa, &INTERMEDIATE, |_| {});
        pair.chain += &INTERMEDIATE.pem();
        pair
    }

    pub fn of(names: &[&str], algorithm: Algorithm) -> Self {
        Self::issued(names, algorithm, &AUTHORITY, |_| {})
    }

    /// The first certificate alone.
    pub fn leaf_pem(&self) -> String {
        let (leaf, _) = self.chain.split_once("-----END CERTIFICATE-----").expect("PEM");
        format!("{leaf}-----END CERTIFICATE-----\n")
    }

    fn issued(
        names: &[&str],
        algorithm: Algorithm,
        issuer: &Issuer<'_, KeyPair>,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate_for(match algorithm {
            Algorithm::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Algorithm::Rsa => &PKCS_RSA_SHA256,
        });
        let key = key.expect("a key");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        alter(&mut params);
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        Self { chain: certificate.pem(), key: key.serialize_pem(), leaf: certificate.der().clone() }
    }
}

/// An authority that vouches for callers.
pub struct CallerAuthority(Authority);

/// A caller's certificate and its key.
pub struct CallerPair {
    pub leaf: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl CallerAuthority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(authority(name, 0), key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with a serial number that it can be revoked by.
    pub fn issue(&self, serial: u64) -> CallerPair {
        self.issue_altered(serial, |_| {})
    }

    pub fn issue_altered(&self, serial: u64, alter: impl FnOnce(&mut CertificateParams)) -> CallerPair {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("caller {serial}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        alter(&mut params);
        let certificate = params.signed_by(&key, &*self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        CallerPair { leaf: certificate.der().clone(), key }
    }

    /// The list of those that are revoked, as PEM.
    pub fn revoking(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 6, 17),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 6, 17),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(u64::try_from(serials.len()).expect("few")),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}
