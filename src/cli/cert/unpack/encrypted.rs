//! Private keys under a password (`ENCRYPTED PRIVATE KEY`, RFC 5958 with RFC 8018).

use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::Key;
use crate::cli::cert::password::Refusal;

/// The most that a password is stretched. `OpenSSL` does 2,048 rounds and careful people 600,000; more of them is a file
/// made to keep us busy.
const MAX_ROUNDS: u32 = 10_000_000;

/// The most memory scrypt may be asked to use, in bytes.
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;

/// The key in it.
pub(super) fn open(der: &[u8], password: &str) -> Result<Key, Refusal> {
    let unknown = || Refusal::Unsupported("a key encrypted with a cipher that is not known here");
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| unknown())?;
    let EncryptionScheme::Pbes2(parameters) = &encrypted.encryption_algorithm else { return Err(unknown()) };
    if !is_affordable(&parameters.kdf) {
        return Err(Refusal::Broken("asks for more computing than any encrypted key should".to_owned()));
    }
    let key = encrypted.decrypt(password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }) => unknown(),
        _ => Refusal::WrongPassword,
    })?;
    // One wrong password in 256 decrypts to something.
    PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| Refusal::WrongPassword)?;
    Ok(Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()))))
}

fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count <= MAX_ROUNDS,
        Kdf::Scrypt(parameters) => {
            let block = 128 * u64::from(parameters.block_size);
            let memory = parameters.cost_parameter.checked_mul(block);
            parameters.parallelization <= 16 && memory.is_some_and(|memory| memory <= MAX_SCRYPT_MEMORY)
        }
        _ => false,
    }
}
