//! The front end's own id of a request: a random UUID (RFC 9562 version 4). It names a request in logs and errors and
//! protects nothing, so a fast generator is good enough.

use http::HeaderValue;
use uuid::{Builder, fmt::Hyphenated};

/// A request's id as text.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    text: [u8; Hyphenated::LENGTH],
    bits: u128,
}

impl RequestId {
    pub fn random() -> Self {
        let uuid = Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self { text, bits: uuid.as_u128() }
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or_default()
    }

    pub fn to_value(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// A W3C Trace Context whose trace id is this id, for requests that came without one; not sampled.
    pub fn to_traceparent(self) -> HeaderValue {
        // Parent ids must not be all zero.
        let parent = fastrand::u64(1..);
        HeaderValue::try_from(format!("00-{:032x}-{parent:016x}-00", self.bits))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}
