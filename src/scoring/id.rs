//! The front end's own id of a request: a random UUID (RFC 9562 version 4). It names a request in logs and errors and
//! protects nothing, so a fast generator is good enough.

use http::HeaderValue;
use uuid::fmt::{Hyphenated, Simple};
use uuid::{Builder, Uuid};

/// A request's id, and its text.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    uuid: Uuid,
    text: [u8; Hyphenated::LENGTH],
}

impl RequestId {
    pub fn random() -> Self {
        let uuid = Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self { uuid, text }
    }

    /// An id in the form that this one is written in.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let text: [u8; Hyphenated::LENGTH] = value.as_bytes().try_into().ok()?;
        let uuid = Uuid::try_parse_ascii(&text).ok()?;
        Some(Self { uuid, text }).filter(|_| text.iter().all(|byte| !byte.is_ascii_uppercase()))
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or_default()
    }

    pub fn to_value(self) -> HeaderValue {
        // Digits and hyphens can always stand in a field.
        HeaderValue::from_bytes(&self.text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Appends a W3C Trace Context whose trace id is this id, for requests that came without one; not sampled.
    pub fn push_traceparent(&self, text: &mut Vec<u8>) {
        let mut digits = [0; Simple::LENGTH];
        self.uuid.simple().encode_lower(&mut digits);
        text.extend_from_slice(b"00-");
        text.extend_from_slice(&digits);
        text.push(b'-');
        // Parent ids must not be all zero; the second half of a UUID has its variant.
        text.extend_from_slice(&digits[16..]);
        text.extend_from_slice(b"-00");
    }
}
