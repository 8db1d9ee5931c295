//! What requests have in common that should get the same deployment.
//!
//! It says what to look at in a request, and looks at none.

use std::str::FromStr;

use http::HeaderName;

use crate::config::diagnostic::{Problem, nearest, quoted};

/// What a request is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// The key it came with.
    Key,
    /// The address it came from.
    Address,
    /// The value of this field.
    Header(HeaderName),
}

impl StickyBy {
    /// As messages tell what may be written.
    pub const EXPECTED: &str = "\"key\", \"address\" or \"header:<name>\"";
}

impl FromStr for StickyBy {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = || Problem::new(format!("expected {}, found {}", Self::EXPECTED, quoted(text)));
        match text {
            "key" => return Ok(Self::Key),
            "address" => return Ok(Self::Address),
            _ => {}
        }
        let Some(name) = text.strip_prefix("header:") else {
            let is_header = text.split_once(':').is_some_and(|(word, _)| nearest(word, ["header"]).is_some());
            return Err(match nearest(text, ["key", "address"]) {
                Some(near) => problem().remedy(format!("did you mean \"{near}\"?")),
                None if is_header || text.starts_with("x-") => problem().remedy("for example \"header:x-session-id\""),
                None => problem(),
            });
        };
        HeaderName::from_bytes(name.as_bytes())
            .map(Self::Header)
            .map_err(|_| problem().remedy("for example \"header:x-session-id\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_in_either_case() {
        assert_eq!("key".parse(), Ok(StickyBy::Key));
        assert_eq!("address".parse(), Ok(StickyBy::Address));
        let session = StickyBy::Header(HeaderName::from_static("x-session-id"));
        assert_eq!("header:X-Session-Id".parse(), Ok(session));
        for wrong in ["", "Key", "keys", "cookie", "header", "header:", "header: x", "header:ü", "header:a:b"] {
            assert!(wrong.parse::<StickyBy>().is_err(), "{wrong}");
        }
    }
}
