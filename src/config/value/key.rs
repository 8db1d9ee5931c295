//! A service's key as configuration holds it: hashed.
//!
//! The key itself never comes near a file, a message or a log.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::config::diagnostic::Problem;

/// How to make what belongs in `primary_key_sha256`, in any shell.
pub const HOW_TO_HASH: &str = "printf %s \"$KEY\" | sha256sum";

/// The SHA-256 of no bytes: what the command above prints when `$KEY` is not set.
const HASH_OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The SHA-256 of a service's key, compared in constant time.
#[derive(Clone)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of the key itself.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for KeyHash {}

impl FromStr for KeyHash {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        // What was found is not shown: it may be the key itself, pasted by mistake.
        let problem = |found: String| {
            Problem::new(format!("expected the SHA-256 of a key as 64 hexadecimal digits, found {found}"))
                .remedy(format!("make it with: {HOW_TO_HASH}"))
        };
        let length = text.chars().count();
        if length != 64 {
            return Err(problem(format!("{length} characters")));
        }
        let hash = decode_hex(text).ok_or_else(|| problem("other characters".to_owned()))?;
        if hash == HASH_OF_NOTHING {
            return Err(
                problem("the SHA-256 of an empty key".to_owned()).remedy(format!("set KEY, then: {HOW_TO_HASH}"))
            );
        }
        Ok(Self(hash))
    }
}

/// As the configuration has it: 64 hexadecimal digits.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_of_either_case_becomes_bytes() {
        let hash: KeyHash = "00Ff".repeat(16).parse().unwrap();
        assert_eq!(hash.as_bytes()[..4], [0x00, 0xff, 0x00, 0xff]);
        assert_eq!(format!("{hash:?}"), "KeyHash(…)");
    }

    #[test]
    fn what_is_not_a_hash_is_never_shown() {
        for wrong in ["", "hunter2-hunter2", &"é".repeat(64), &"+f".repeat(32)] {
            let problem = wrong.parse::<KeyHash>().unwrap_err().to_string();
            assert!(wrong.is_empty() || !problem.contains(wrong), "{problem}");
        }
    }
}
