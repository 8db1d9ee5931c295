//! Which service a path names, and what of it is asked for: `/api/v1/service/<name>/…`.
//!
//! Paths are taken byte for byte. What two readers could take for two different paths is refused, so that a replica
//! never sees a path that means something else to it than it meant here.

use http::Method;

use crate::config::Paths;
use crate::scoring::error::Refusal;

const PREFIX: &str = "/api/v1/service/";

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    pub service: &'a str,
    pub resource: Resource<'a>,
}

/// The part of a service that is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `…/`: is the service's model there?
    Health,
    /// `…/score`, with whatever follows it: empty, or a path that starts with `/`.
    Score(&'a str),
    /// `…/swagger.json`.
    Swagger,
}

impl<'a> Route<'a> {
    /// Reads a path (RFC 3986 section 3.3), without its query.
    ///
    /// # Errors
    ///
    /// 404 when it is none of ours, 400 when replicas could read it differently.
    pub fn parse(path: &'a str) -> Result<Self, Refusal> {
        let rest = path.strip_prefix(PREFIX).ok_or_else(Refusal::not_found)?;
        let (service, rest) = rest.split_at(rest.find('/').ok_or_else(Refusal::not_found)?);
        let resource = match rest {
            "/" => Resource::Health,
            "/swagger.json" => Resource::Swagger,
            _ => match rest.strip_prefix("/score") {
                Some(below) if below.is_empty() || below.starts_with('/') => Resource::Score(below),
                _ => return Err(Refusal::not_found()),
            },
        };
        if service.is_empty() {
            return Err(Refusal::not_found());
        }
        if let Resource::Score(below) = resource
            && is_ambiguous(below)
        {
            return Err(Refusal::bad_request(
                "The path has a dot segment, a backslash or a control character, which replicas read differently.",
            ));
        }
        Ok(Self { service, resource })
    }
}

impl Resource<'_> {
    /// Checks the method (RFC 9110 section 9).
    ///
    /// # Errors
    ///
    /// 405 with the methods there are.
    pub fn check_method(self, method: &Method) -> Result<(), Refusal> {
        let (known, allow) = match self {
            Self::Score(_) => (matches!(*method, Method::POST | Method::GET | Method::OPTIONS), "POST, GET, OPTIONS"),
            Self::Health | Self::Swagger => {
                (matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS), "GET, HEAD, OPTIONS")
            }
        };
        if known { Ok(()) } else { Err(Refusal::method_not_allowed(allow)) }
    }

    /// The path and query to ask a replica for.
    pub fn target(self, paths: &Paths, query: Option<&str>) -> String {
        let (path, below) = match self {
            Self::Health => (paths.health.as_str(), ""),
            Self::Score(below) => (paths.score.as_str(), below),
            Self::Swagger => (paths.swagger.as_str(), ""),
        };
        let query = query.unwrap_or_default();
        let mut target = String::with_capacity(path.len() + below.len() + query.len() + 1);
        // A deployment whose path is `/` must not turn `/a` into `//a`.
        target.push_str(if below.is_empty() { path } else { path.strip_suffix('/').unwrap_or(path) });
        target.push_str(below);
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}

/// Whether decoding percent-escapes, or taking `\` for `/`, makes a dot segment or a control character appear.
fn is_ambiguous(path: &str) -> bool {
    // Nearly every call ends at `/score`.
    if path.is_empty() {
        return false;
    }
    let decoded = percent_decode(path);
    decoded.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\')
        || decoded.split(|byte| *byte == b'/').any(|segment| {
            // Some servers cut parameters off a segment: `..;x` is `..` to them.
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            name == b"." || name == b".."
        })
}

/// Decoded once; escapes that are none stay as they are.
fn percent_decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let escaped = match tail {
            [high, low, ..] if *byte == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => decoded.push(*byte),
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scoring::error::Code;

    fn paths() -> Paths {
        Paths { score: "/invocations".into(), health: "/ping".into(), swagger: "/swagger.json".into() }
    }

    #[test]
    fn the_prefix_is_replaced_by_the_deployments_path() {
        for (path, query, expected) in [
            ("/api/v1/service/iris/score", None, "/invocations"),
            ("/api/v1/service/iris/score", Some("a=1&b=/"), "/invocations?a=1&b=/"),
            ("/api/v1/service/iris/score/", None, "/invocations/"),
            ("/api/v1/service/iris/score/a%20b//c", Some("x"), "/invocations/a%20b//c?x"),
            ("/api/v1/service/iris/", None, "/ping"),
            ("/api/v1/service/iris/swagger.json", Some("version=3"), "/swagger.json?version=3"),
        ] {
            let route = Route::parse(path).expect(path);
            assert_eq!(route.service, "iris");
            assert_eq!(route.resource.target(&paths(), query), expected, "{path}");
        }
        let root = Paths { score: "/".into(), ..paths() };
        assert_eq!(Resource::Score("").target(&root, None), "/");
        assert_eq!(Resource::Score("/a").target(&root, None), "/a");
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in [
            "/",
            "*",
            "/api/v1/service/",
            "/api/v1/service/iris",
            "/api/v1/service//score",
            "/api/v1/service/iris/scores",
            "/api/v1/service/iris/score%2fx",
            "/api/v1/service/iris/Score",
            "//api/v1/service/iris/score",
            "/api/v1/services/iris/score",
            "/api/v1/service/iris/../x/score",
        ] {
            assert_eq!(Route::parse(path).expect_err(path).code, Code::NotFound, "{path}");
        }
    }

    #[test]
    fn paths_that_replicas_read_differently_are_refused() {
        for below in [
            "/..",
            "/./x",
            "/a/../b",
            "/%2e%2E/x",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/..;/x",
            "/..;a=b/x",
            "/a%5cb",
            "/%00",
            "/a%0d%0ax",
            "/.%2e",
        ] {
            let path = format!("/api/v1/service/iris/score{below}");
            assert_eq!(Route::parse(&path).expect_err(&path).code, Code::BadRequest, "{path}");
        }
        for below in ["/...", "/.a", "/a..b", "/%2e%2e%2e", "/%zz", "/a%", "/%25%32%65"] {
            let path = format!("/api/v1/service/iris/score{below}");
            assert!(Route::parse(&path).is_ok(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_target_never_leaves_the_deployments_path(below in r"(/|\.|%2e|%2f|%5c|\\|a|%00|%){0,12}") {
            let path = format!("/api/v1/service/iris/score/{below}");
            if let Ok(route) = Route::parse(&path) {
                let target = route.resource.target(&paths(), None);
                let decoded = String::from_utf8_lossy(&percent_decode(&target)).replace('\\', "/");
                let mut depth = 0i32;
                for segment in decoded.split('/').skip(1) {
                    depth += match segment { ".." => -1, "." | "" => 0, _ => 1 };
                    prop_assert!(depth >= 1 || segment.is_empty(), "{target}");
                }
            }
        }
    }
}
