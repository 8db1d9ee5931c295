//! What requests have in common that should get the same deployment.
//!
//! It says what to look at in a request, and looks at none.

use std::str::FromStr;

use http::HeaderName;

use crate::config::diagnostic::{Problem, nearest, quoted};

/// What to write in place of a field that is none, or says nothing.
const EXAMPLE: &str = "name a field that callers keep, for example \"header:x-session-id\"";

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
                None if is_header || text.starts_with("x-") => problem().remedy(EXAMPLE),
                None => problem(),
            });
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| problem().remedy(EXAMPLE))?;
        match says_nothing_of_callers(&name) {
            Some(why) => {
                Err(Problem::new(format!("the field \"{name}\" does not tell callers apart: {why}")).remedy(EXAMPLE))
            }
            None => Ok(Self::Header(name)),
        }
    }
}

/// Why the field `name` does not tell callers apart, if it does not. Front ends, HTTP versions and proxies on the way
/// would even disagree about most of these.
fn says_nothing_of_callers(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "host" => Some("it is the same for all callers of a CNAME"),
        "content-length" | "transfer-encoding" | "trailer" | "expect" => Some("it is about one body"),
        "connection" | "keep-alive" | "te" | "upgrade" | "http2-settings" => Some("it is about one connection"),
        "x-request-id" | "x-ms-request-id" | "x-request-timeout-ms" => Some("it is about one request"),
        proxy if proxy.starts_with("proxy-") => Some("it is for the nearest proxy"),
        _ => None,
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

    #[test]
    fn a_field_tells_callers_apart() {
        for wrong in [
            "Host",
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "keep-alive",
            "http2-settings",
            "proxy-authorization",
            "Proxy-Connection",
            "x-request-id",
            "x-ms-request-id",
            "X-Request-Timeout-Ms",
        ] {
            assert!(format!("header:{wrong}").parse::<StickyBy>().is_err(), "{wrong}");
        }
        for sound in ["cookie", "authorization", "x-forwarded-for", "x-host", "proxy", "traceparent"] {
            assert!(format!("header:{sound}").parse::<StickyBy>().is_ok(), "{sound}");
        }
    }
}
