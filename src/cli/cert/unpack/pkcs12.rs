//! PKCS#12 (`.pfx`, `.p12`, RFC 7292): certificates and keys under one password, as Windows and Java export them.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::Key;
use crate::cli::cert::password::Refusal;

/// Everything in it.
pub(super) fn open(der: &[u8], password: &str) -> Result<(Vec<CertificateDer<'static>>, Vec<Key>), Refusal> {
    let archive = Pkcs12Archive::from_pkcs12(der, password).map_err(refusal)?;
    let certificates = archive.certs.iter().map(|bag| CertificateDer::from(bag.cert.as_der().to_vec())).collect();
    let keys = archive.keys.iter().map(|bag| {
        let key = PrivatePkcs8KeyDer::from(bag.key.as_der().to_vec());
        Zeroizing::new(PrivateKeyDer::Pkcs8(key))
    });
    Ok((certificates, keys.collect()))
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => Refusal::WrongPassword,
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm | Error::UnsupportedContentType => {
            Refusal::Unsupported("a PKCS#12 file with a cipher that is not known here")
        }
        Error::InvalidParameters => {
            Refusal::Broken("is a PKCS#12 file that asks for more computing than any should".to_owned())
        }
        other => Refusal::Broken(format!("is a PKCS#12 file that cannot be read ({other}); is it complete?")),
    }
}
