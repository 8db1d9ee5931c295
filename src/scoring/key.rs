//! Who may call a service: the bearer keys (RFC 6750 section 2.1).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config::{Auth, Key};

/// Whether the caller may go on.
pub fn is_authorized(auth: &Auth, headers: &HeaderMap) -> bool {
    let Auth::Keys(keys) = auth else { return true };
    let Some(key) = bearer(headers) else { return false };
    let hash = digest(&SHA256, key);
    let is = |expected: &Key| verify_slices_are_equal(hash.as_ref(), expected.hash.as_bytes()).is_ok();
    // All are always compared, so that time tells nothing.
    keys.iter().fold(false, |found, key| found | is(key))
}

/// The key of the one `Authorization` field there may be.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, key) = field.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii()).filter(|key| !key.is_empty())
}
