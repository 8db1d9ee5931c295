//! The call that is asked about, as a caller's library would make it from the URL.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST};
use http::uri::{InvalidUri, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri};
use rustls::pki_types::ServerName;

use super::Arguments;
use crate::cli::WrongUsage;
use crate::scoring::judge::route::{Resource, Route};

/// See the module.
pub(super) struct Call {
    /// As it was given, without what callers keep to themselves: fragments.
    pub url: String,
    pub is_tls: bool,
    /// Of the URL: a name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// What the caller's library names in the handshake; addresses are not named (RFC 6066 section 3).
    pub server_name: Option<String>,
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    pub headers: HeaderMap,
    pub from: Option<IpAddr>,
    /// Whether it comes with credentials of the caller's own.
    pub is_keyed: bool,
}

impl Call {
    /// # Errors
    ///
    /// The URL is none, or the key cannot be read.
    pub fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let uri = parse(&arguments.url).map_err(|why| WrongUsage::new(format!("the URL: {why}")))?;
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let target = target(&uri)?;
        let mut headers = arguments.fields()?;
        if !headers.contains_key(HOST) {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            headers.insert(HOST, HeaderValue::try_from(authority)?);
        }
        if let Some(key) = arguments.key()? {
            headers.append(AUTHORIZATION, key);
        }
        let is_score = Route::parse(target.path()).is_ok_and(|route| matches!(route.resource, Resource::Score(_)));
        let method = if is_score { Method::POST } else { Method::GET };
        Ok(Self {
            url: arguments.url.split('#').next().unwrap_or_default().to_owned(),
            is_tls,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            server_name: match ServerName::try_from(host)? {
                ServerName::DnsName(name) => Some(name.as_ref().to_ascii_lowercase()),
                _ => None,
            },
            method: arguments.method.clone().unwrap_or(method),
            target,
            is_keyed: headers.contains_key(AUTHORIZATION),
            headers,
            from: arguments.from,
        })
    }
}

/// What a caller asks for with this URL: never without a path (RFC 9112 section 3.2.1).
fn target(uri: &Uri) -> Result<Uri, InvalidUri> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.starts_with('/') { target.parse() } else { format!("/{target}").parse() }
}

/// An absolute http or https URL with a host that can be called.
fn parse(text: &str) -> Result<Uri, String> {
    const EXPECTED: &str = "expected https://CNAME/api/v1/service/NAME/score, or the same with http";
    if !text.is_ascii() {
        return Err(
            "it holds characters other than ASCII; percent-encode those of the path, and write the name in its \
                    A-label form (xn--…)"
                .to_owned(),
        );
    }
    let uri: Uri = text.parse().map_err(|error| format!("{EXPECTED} ({error})"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(EXPECTED.to_owned());
    }
    let authority = uri.authority().ok_or(EXPECTED)?;
    if authority.as_str().contains('@') {
        return Err("leave out user and password; a service's key goes into --key FILE".to_owned());
    }
    // `host:` is the scheme's own port (RFC 3986 section 3.2.3), and `host:99999` is none.
    let port = authority.as_str().rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    if port.is_some_and(|port| !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err("the port is a number from 1 to 65535".to_owned());
    }
    let host = authority.host().trim_matches(['[', ']']);
    ServerName::try_from(host).map_err(|_| format!("{:?} is neither a DNS name nor an address", authority.host()))?;
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_url_or_is_not(text in "(https?://)?[a-z:@/?#\\[\\]%. -]{0,20}|\\PC{0,20}") {
            if let Ok(uri) = parse(&text) {
                prop_assert!(uri.host().is_some_and(|host| !host.is_empty()), "{text}");
                let target = target(&uri).map(|target| target.path().starts_with('/'));
                prop_assert!(target.is_ok_and(|has_path| has_path), "{text}");
            }
        }
    }

    #[test]
    fn what_cannot_be_called_is_no_url() {
        for (text, said) in [
            ("", "expected https://"),
            ("iris", "expected https://"),
            ("/api/v1/service/iris/score", "expected https://"),
            ("a.example/api", "expected https://"),
            ("ftp://a.example/", "expected https://"),
            ("https:///api", "expected https://"),
            ("https://a b/", "expected https://"),
            ("https://ä.example/", "A-label"),
            ("https://me:secret@a.example/", "--key FILE"),
            ("https://a.example:0/", "1 to 65535"),
            ("https://a.example:99999/", "1 to 65535"),
            ("https://a.example:x/", "1 to 65535"),
            ("https://-a.example/", "neither a DNS name nor an address"),
        ] {
            let why = parse(text).expect_err(text);
            assert!(why.contains(said) && !why.contains("secret"), "{text}: {why}");
        }
        for text in ["https://a.example", "http://127.0.0.1:8080/?x", "https://[::1]:8443/a", "HTTPS://A.example:/a#b"]
        {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
