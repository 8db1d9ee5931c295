//! The secret that front ends of one cluster know each other by. It never crosses the network: what does is a keyed
//! digest of what is said and to whom (HMAC-SHA-256), so that who receives one can use it nowhere else.
//!
//! The file has one secret a line. The first is used, and all are accepted, so that a new one can come in everywhere
//! before it is used anywhere.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use http::HeaderValue;

/// Characters that a secret has at least.
pub const MIN_SECRET: usize = 32;

/// More in one file is a slip.
const MAX_SECRETS: usize = 8;

/// Bytes of a digest.
const DIGEST: usize = 32;

/// Those that hold now; none as long as the file could not be read.
#[derive(Clone, Default)]
pub struct Secrets {
    keys: Vec<Key>,
    /// Of all of them; they are compared by it.
    digest: [u8; DIGEST],
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// What is wrong with a file of secrets; nothing of a secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("is empty")]
    Empty,
    #[error("the secret in line {0} has fewer than {MIN_SECRET} characters")]
    Short(usize),
    #[error("has more than {MAX_SECRETS} secrets")]
    TooMany,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Reads a file's text, one secret a line.
    ///
    /// # Errors
    ///
    /// See [`SecretError`].
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
        let mut keys = Vec::new();
        let mut all = Context::new(&SHA256);
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            if line.len() < MIN_SECRET {
                return Err(SecretError::Short(index + 1));
            }
            if keys.len() == MAX_SECRETS {
                return Err(SecretError::TooMany);
            }
            keys.push(Key::new(HMAC_SHA256, line));
            all.update(line);
            all.update(b"\n");
        }
        if keys.is_empty() {
            return Err(SecretError::Empty);
        }
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(all.finish().as_ref());
        Ok(Self { keys, digest })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The digest of a message, in hexadecimal digits; `None` without a secret.
    pub fn sign(&self, message: &[u8]) -> Option<HeaderValue> {
        let digest = sign(self.keys.first()?, message);
        let mut text = String::with_capacity(2 * DIGEST);
        for byte in digest.as_ref() {
            // Memory takes everything.
            let _ = write!(text, "{byte:02x}");
        }
        HeaderValue::try_from(text).ok()
    }

    /// Whether `digest` is one of `message` by any of the secrets, found out in a time that says nothing of them.
    pub fn fits(&self, message: &[u8], digest: &HeaderValue) -> bool {
        let Some(digest) = from_hex(digest.as_bytes()) else { return false };
        self.keys.iter().fold(false, |fits, key| fits | verify(key, message, &digest).is_ok())
    }
}

/// What is signed of every request that `from` hands over to `to`.
pub fn handing_over(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    format!("scorefront 1 request from {from} to {to}").into_bytes()
}

/// What is signed of a question.
pub fn question(to: SocketAddr, body: &[u8]) -> Vec<u8> {
    let mut message = format!("scorefront 1 question to {to}\n").into_bytes();
    message.extend_from_slice(body);
    message
}

/// What is signed of the answer to the question that was signed so.
pub fn answer(question: &HeaderValue, body: &[u8]) -> Vec<u8> {
    let mut message = b"scorefront 1 answer to ".to_vec();
    message.extend_from_slice(question.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(body);
    message
}

fn from_hex(text: &[u8]) -> Option<[u8; DIGEST]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if text.len() != 2 * DIGEST {
        return None;
    }
    let mut bytes = [0; DIGEST];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one-secret-of-32-characters-0123";
    const TWO: &str = "two-secret-of-32-characters-0123";

    fn secrets(lines: &[&str]) -> Secrets {
        Secrets::parse(lines.join("\n").as_bytes()).expect("secrets")
    }

    #[test]
    fn a_digest_fits_by_any_of_the_secrets_and_for_nothing_else() {
        let digest = secrets(&[ONE]).sign(b"message").expect("a digest");
        assert!(secrets(&[ONE]).fits(b"message", &digest));
        assert!(secrets(&[TWO, ONE]).fits(b"message", &digest));
        assert!(!secrets(&[TWO]).fits(b"message", &digest));
        assert!(!secrets(&[ONE]).fits(b"messages", &digest));
        assert!(!Secrets::default().fits(b"message", &digest));
        for wrong in ["", "00", &"0".repeat(64), &"g".repeat(64), &format!("{}0", digest.to_str().unwrap())] {
            assert!(!secrets(&[ONE]).fits(b"message", &wrong.parse().unwrap()), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_one_secret_a_line() {
        assert_eq!(secrets(&[ONE, "", TWO, ""]).keys.len(), 2);
        let wrong = |text: &str| Secrets::parse(text.as_bytes()).expect_err("refused");
        assert_eq!(wrong(" \n"), SecretError::Empty);
        assert_eq!(wrong(&format!("{ONE}\nshort")), SecretError::Short(2));
        assert_eq!(wrong(&[ONE; 9].join("\n")), SecretError::TooMany);
        assert!(!format!("{:?}", secrets(&[ONE])).contains("one-secret"));
    }
}
