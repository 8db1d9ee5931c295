//! The keys that session tickets are sealed with (RFC 5077, RFC 8446 section 4.6.1).
//!
//! They are derived from a secret and the time alone. Every front end that holds the same secret derives the same keys
//! at the same time, and so resumes sessions that another one, or the one before a restart, began; nothing is exchanged
//! between them. This file knows no files: whoever reads the secret hands it over.
//!
//! A ticket is `key name (16) ‖ salt (32) ‖ AES-256-GCM`, its key and nonce derived from the salt: with a key for each
//! ticket, no number of front ends can meet the limit on random nonces (NIST SP 800-38D section 8.3). The identity it was
//! given by is authenticated with it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// How long one key seals, in seconds.
const PERIOD: u64 = 6 * 60 * 60;

/// Periods after its own in which a key still opens tickets: a ticket lives for two periods at least and three at most,
/// and by a clock that is behind for one more.
const PERIODS_AFTER: u64 = 2;

/// How long callers are told to keep a ticket, in seconds.
const LIFETIME: u32 = 12 * 60 * 60;

/// Secrets that went out of use and still open tickets; more are only held if somebody rotates them by the minute.
const MAX_RETIRED: usize = 8;

/// Characters that a secret has at least: what 24 random bytes take in base64.
pub const MIN_SECRET: usize = 32;

/// Secrets in one file: the current one, the one before and the one to come, with room to spare.
const MAX_SECRETS: usize = 8;

const NAME: usize = 16;
const SALT: usize = 32;
const KEY: usize = 32;
const NONCE: usize = 12;

/// What ticket keys are derived from.
#[derive(Clone)]
pub struct Secret {
    prk: Prk,
    /// Tells secrets apart and says nothing of them.
    name: [u8; NAME],
}

/// Why a file holds no secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("is not text")]
    NotText,
    #[error("is empty")]
    Empty,
    #[error("line {0} is too short: a secret has at least {MIN_SECRET} characters")]
    Short(usize),
    #[error("holds more than {MAX_SECRETS} secrets")]
    TooMany,
    #[error("cannot be used: the cryptographic library refused")]
    Refused,
}

impl Secret {
    fn random() -> Result<Self, Unspecified> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(&mut *bytes)?;
        Self::new(&*bytes)
    }

    /// The secrets in a file's text: one a line, the first of which seals.
    ///
    /// # Errors
    ///
    /// See [`SecretError`]; nothing of a secret is in it.
    pub fn parse(text: &[u8]) -> Result<Vec<Self>, SecretError> {
        if !text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')) {
            return Err(SecretError::NotText);
        }
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
        let mut secrets = Vec::new();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            if line.len() < MIN_SECRET {
                return Err(SecretError::Short(index + 1));
            }
            if secrets.len() == MAX_SECRETS {
                return Err(SecretError::TooMany);
            }
            secrets.push(Self::new(line).map_err(|_| SecretError::Refused)?);
        }
        if secrets.is_empty() { Err(SecretError::Empty) } else { Ok(secrets) }
    }

    fn new(bytes: &[u8]) -> Result<Self, Unspecified> {
        let prk = Salt::new(HKDF_SHA256, b"scorefront session tickets 1").extract(bytes);
        let mut name = [0; NAME];
        expand(&prk, &[b"secret"], &mut name)?;
        Ok(Self { prk, name })
    }

    fn key(&self, period: u64) -> Result<PeriodKey, Unspecified> {
        let period = period.to_be_bytes();
        let mut name = [0; NAME];
        expand(&self.prk, &[b"name", &period], &mut name)?;
        let mut key = Zeroizing::new([0; KEY]);
        expand(&self.prk, &[b"key", &period], &mut *key)?;
        Ok(PeriodKey { name, prk: Prk::new_less_safe(HKDF_SHA256, &*key) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The process's ticket keys. They outlive every change of certificates, so that no change loses a session.
pub struct TicketKeys {
    /// Used while no other secret is given.
    own: Secret,
    ring: ArcSwap<Ring>,
}

impl TicketKeys {
    /// Keys that only this process has.
    ///
    /// # Errors
    ///
    /// The system has no random bytes to give.
    pub fn random() -> Result<Self, Unspecified> {
        let own = Secret::random()?;
        Ok(Self { ring: ArcSwap::from_pointee(Ring::new(vec![own.clone()], Vec::new(), now())), own })
    }

    /// Seals with the first of `secrets` from now on; with none, with one that only this process has. Tickets sealed
    /// before can be opened as long as callers were told to keep them.
    pub fn follow(&self, secrets: Option<&[Secret]>) {
        let secrets = secrets.unwrap_or(std::slice::from_ref(&self.own));
        let names = |secrets: &[Secret]| secrets.iter().map(|secret| secret.name).collect::<Vec<_>>();
        if names(&self.ring.load().secrets) != names(secrets) {
            let now = now();
            self.ring.rcu(|ring| ring.replaced(secrets.to_vec(), now));
        }
    }

    fn ring(&self, now: u64) -> Arc<Ring> {
        let ring = self.ring.load_full();
        if ring.period == now / PERIOD {
            return ring;
        }
        // Several threads may come here at once; they all derive the same.
        self.ring.rcu(|ring| Ring::new(ring.secrets.clone(), ring.retired.clone(), now));
        self.ring.load_full()
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// The tickets of one identity, which no other opens. rustls compares the names that callers sent; those that send none
/// would resume under another `default_cname` than the one whose certificate they saw.
#[derive(Debug)]
pub struct Ticketer {
    keys: Arc<TicketKeys>,
    identity: Box<str>,
}

impl Ticketer {
    pub fn new(keys: Arc<TicketKeys>, identity: &str) -> Self {
        Self { keys, identity: identity.into() }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.ring(now()).seal(plain, &self.identity)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.ring(now()).open(ticket, &self.identity)
    }
}

/// The keys of one period.
struct Ring {
    period: u64,
    secrets: Vec<Secret>,
    /// Secrets out of use, and until when they open tickets.
    retired: Vec<(Secret, u64)>,
    /// The first one seals; all of them open.
    keys: Vec<PeriodKey>,
}

impl Ring {
    fn new(secrets: Vec<Secret>, mut retired: Vec<(Secret, u64)>, now: u64) -> Self {
        retired.retain(|(_, until)| *until > now);
        let period = now / PERIOD;
        // A front end whose clock is ahead may be a period ahead.
        let accepted = period.saturating_sub(PERIODS_AFTER)..=period + 1;
        let all = secrets.iter().chain(retired.iter().map(|(secret, _)| secret));
        let opening = all.flat_map(|secret| accepted.clone().filter_map(|period| secret.key(period).ok()));
        let sealing = secrets.first().and_then(|secret| secret.key(period).ok());
        let keys = sealing.into_iter().chain(opening).collect();
        Self { period, secrets, retired, keys }
    }

    fn replaced(&self, secrets: Vec<Secret>, now: u64) -> Self {
        let until = now + u64::from(LIFETIME);
        let leaving = self.secrets.iter().map(|secret| (secret.clone(), until)).chain(self.retired.iter().cloned());
        let is_used = |secret: &Secret| secrets.iter().any(|used| used.name == secret.name);
        let retired = leaving.filter(|(secret, _)| !is_used(secret)).take(MAX_RETIRED).collect();
        Self::new(secrets, retired, now)
    }

    fn seal(&self, plain: &[u8], identity: &str) -> Option<Vec<u8>> {
        self.keys.first()?.seal(plain, identity).ok()
    }

    fn open(&self, ticket: &[u8], identity: &str) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        key.open(salt, sealed, identity).ok()
    }
}

/// One secret's key in one period.
struct PeriodKey {
    /// Stands in the ticket, so that whoever opens it knows which key it needs.
    name: [u8; NAME],
    prk: Prk,
}

impl PeriodKey {
    fn seal(&self, plain: &[u8], identity: &str) -> Result<Vec<u8>, Unspecified> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt)?;
        let (key, nonce) = self.key_for(&salt)?;
        let mut sealed = Zeroizing::new(plain.to_vec());
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(identity), &mut sealed)?;
        Ok([&self.name[..], &salt, &sealed, tag.as_ref()].concat())
    }

    fn open(&self, salt: &[u8; SALT], sealed: &[u8], identity: &str) -> Result<Vec<u8>, Unspecified> {
        let (key, nonce) = self.key_for(salt)?;
        let mut opened = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::from(identity), &mut opened)?.len();
        opened.truncate(length);
        Ok(opened)
    }

    fn key_for(&self, salt: &[u8; SALT]) -> Result<(LessSafeKey, Nonce), Unspecified> {
        let mut bytes = Zeroizing::new([0; KEY + NONCE]);
        expand(&self.prk, &[b"ticket", salt], &mut *bytes)?;
        let (key, nonce) = bytes.split_first_chunk::<KEY>().ok_or(Unspecified)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        Ok((LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?), nonce))
    }
}

/// HKDF-Expand (RFC 5869 section 2.3). Every use has a label of its own, so that no output is another's.
fn expand(prk: &Prk, info: &[&[u8]], output: &mut [u8]) -> Result<(), Unspecified> {
    struct Length(usize);

    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    prk.expand(info, Length(output.len()))?.fill(output)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 1_800_000_000;

    fn secrets(letters: &str) -> Vec<Secret> {
        letters.chars().map(|letter| Secret::new(letter.to_string().repeat(40).as_bytes()).expect("a secret")).collect()
    }

    fn ring(letters: &str, now: u64) -> Ring {
        Ring::new(secrets(letters), Vec::new(), now)
    }

    #[test]
    fn what_one_front_end_seals_another_with_the_same_secret_opens() {
        let ticket = ring("a", NOON).seal(b"session", "a.example").expect("a ticket");
        assert_eq!(ring("a", NOON).open(&ticket, "a.example").as_deref(), Some(&b"session"[..]));
        assert_eq!(
            ring("ba", NOON).open(&ticket, "a.example").as_deref(),
            Some(&b"session"[..]),
            "any line of the file opens"
        );
        assert_eq!(ring("b", NOON).open(&ticket, "a.example"), None);
    }

    #[test]
    fn a_ticket_can_be_opened_for_twelve_hours_and_by_clocks_that_differ() {
        let ticket = ring("a", NOON).seal(b"session", "a.example").expect("a ticket");
        for later in [0, u64::from(LIFETIME)] {
            assert!(ring("a", NOON + later).open(&ticket, "a.example").is_some());
        }
        assert!(ring("a", NOON - PERIOD).open(&ticket, "a.example").is_some(), "sealed by a clock that is ahead");
        assert!(ring("a", NOON + (PERIODS_AFTER + 1) * PERIOD).open(&ticket, "a.example").is_none());
    }

    #[test]
    fn a_secret_that_was_replaced_opens_for_a_while_but_does_not_seal() {
        let before = ring("a", NOON);
        let ticket = before.seal(b"session", "a.example").expect("a ticket");
        let after = before.replaced(secrets("b"), NOON + 60);
        assert!(after.open(&ticket, "a.example").is_some());
        assert!(before.open(&after.seal(b"session", "a.example").expect("a ticket"), "a.example").is_none());
        let long_after = Ring::new(after.secrets, after.retired, NOON + 60 + u64::from(LIFETIME));
        assert!(long_after.retired.is_empty());
        assert!(long_after.open(&ticket, "a.example").is_none());
    }

    #[test]
    fn a_ticket_of_one_identity_is_nothing_to_another() {
        let ring = ring("a", NOON);
        let ticket = ring.seal(b"session", "a.example").expect("a ticket");
        assert_eq!(ring.open(&ticket, "b.example"), None);
    }

    #[test]
    fn two_tickets_are_never_the_same() {
        let ring = ring("a", NOON);
        assert_ne!(ring.seal(b"session", "a.example"), ring.seal(b"session", "a.example"));
    }

    #[test]
    fn a_file_holds_one_secret_a_line() {
        let line = "x".repeat(MIN_SECRET);
        assert_eq!(Secret::parse(format!("{line}1\r\n\n  {line}2\n").as_bytes()).expect("two").len(), 2);
        let error = |text: &[u8]| Secret::parse(text).unwrap_err();
        assert_eq!(error(b" \n"), SecretError::Empty);
        assert_eq!(error(&[0x80; 40]), SecretError::NotText);
        assert_eq!(error(format!("{line}\nshort").as_bytes()), SecretError::Short(2));
        assert_eq!(error(format!("{line}\n").repeat(9).as_bytes()), SecretError::TooMany);
    }

    proptest! {
        #[test]
        fn a_ticket_that_was_changed_in_any_place_is_refused(plain in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, flip in 1..=255u8) {
            let ring = ring("a", NOON);
            let mut ticket = ring.seal(&plain, "a.example").expect("a ticket");
            prop_assert_eq!(ring.open(&ticket, "a.example"), Some(plain));
            let at = at.index(ticket.len());
            ticket[at] ^= flip;
            prop_assert_eq!(ring.open(&ticket, "a.example"), None);
        }

        #[test]
        fn anything_at_all_can_be_opened_without_harm(ticket in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(ring("a", NOON).open(&ticket, "a.example"), None);
        }
    }
}
