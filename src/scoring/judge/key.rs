//! Who may call a service: the bearer keys (RFC 6750 section 2.1).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config::Key;

/// The place among `keys` of the one that the caller has; of two that are the same, the first.
pub fn find(keys: &[Key], headers: &HeaderMap) -> Option<usize> {
    let hash = digest(&SHA256, bearer(headers)?);
    let mut found = None;
    // All are always compared, so that time does not tell which is near or where one was found.
    for (index, key) in keys.iter().enumerate() {
        let is_equal = verify_slices_are_equal(hash.as_ref(), key.hash.as_bytes()).is_ok();
        found = found.or(is_equal.then_some(index));
    }
    found
}

/// The key of the one `Authorization` field there may be.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, key) = field.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii()).filter(|key| !key.is_empty())
}
