//! Which name a request is for, read strictly: what one reader takes for the host and another for something else is
//! refused (RFC 9110 section 7.2, RFC 9112 section 3.2, RFC 9113 section 8.3.1).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};

use crate::scoring::error::Refusal;

/// The host a request names.
#[derive(Debug)]
pub struct Host<'a> {
    /// Lower case, without port, trailing dot or the brackets of an IPv6 address.
    pub name: Cow<'a, str>,
    /// As the caller wrote it, with the port if there was one.
    pub authority: HeaderValue,
}

impl<'a> Host<'a> {
    /// Reads the host out of a request's target and its `Host` field.
    ///
    /// `server_name` is what the TLS handshake asked for: an HTTP/1.0 request needs no `Host`, and is for that.
    ///
    /// # Errors
    ///
    /// 400 when there is none, more than one, or one that is not a plain host and port.
    pub fn of(
        version: Version,
        uri: &'a Uri,
        headers: &'a HeaderMap,
        server_name: Option<&'a str>,
    ) -> Result<Self, Refusal> {
        let mut fields = headers.get_all(HOST).iter();
        let (field, more) = (fields.next(), fields.next());
        if more.is_some() {
            return Err(Refusal::bad_request("There is more than one Host field."));
        }
        let written = field.map(|value| value.to_str().map_err(|_| invalid())).transpose()?;
        let named = written.map(parse).transpose()?;
        if let Some(authority) = uri.authority() {
            let name = parse(authority.as_str())?;
            if named.is_some_and(|named| named != name) {
                return Err(Refusal::bad_request("The request target and the Host field name different hosts."));
            }
            let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?;
            return Ok(Self { name, authority });
        }
        match (field, named, server_name) {
            (Some(field), Some(name), _) => Ok(Self { name, authority: field.clone() }),
            (_, _, Some(server_name)) if version <= Version::HTTP_10 => {
                let authority = HeaderValue::from_str(server_name).map_err(|_| invalid())?;
                Ok(Self { name: parse(server_name)?, authority })
            }
            _ => Err(Refusal::bad_request("The Host field is missing.")),
        }
    }
}

/// Reads `uri-host [":" port]` (RFC 3986 section 3.2).
fn parse(authority: &str) -> Result<Cow<'_, str>, Refusal> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(invalid)?;
            address.parse::<Ipv6Addr>().map_err(|_| invalid())?;
            (address, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let host = host.strip_suffix('.').unwrap_or(host);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || !host.bytes().all(is_name) {
                return Err(invalid());
            }
            (host, port)
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => {}
        // A colon without digits is allowed by RFC 3986 and means the scheme's own port.
        Some(port) if port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()) => {}
        _ => return Err(invalid()),
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

fn invalid() -> Refusal {
    Refusal::bad_request("The Host field is not one plain host name and port.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, hosts: &[&str], version: Version) -> Option<String> {
        let uri = target.parse().expect("target");
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().expect("value"));
        }
        Host::of(version, &uri, &headers, Some("sni.example")).ok().map(|host| host.name.into_owned())
    }

    #[test]
    fn a_host_is_read_without_port_case_and_trailing_dot() {
        for (field, host) in [
            ("a.example", "a.example"),
            ("A.Example:8443", "a.example"),
            ("a.example.", "a.example"),
            ("a.example:", "a.example"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("[::1]:8443", "::1"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(read("/", &[field], Version::HTTP_11).as_deref(), Some(host), "{field}");
        }
    }

    #[test]
    fn hosts_that_can_be_read_in_two_ways_are_refused() {
        for field in [
            "",
            " ",
            ".",
            ":80",
            "a.example,b.example",
            "user@a.example",
            "a.example/x",
            "a.example:80:80",
            "a b",
            "a.example:x",
            "a.example:99999",
            "[::1",
            "[::1]x",
            "[a.example]",
            "a.example?x",
            "a.example#x",
            "a%2eb",
            "a.example:+80",
        ] {
            assert_eq!(read("/", &[field], Version::HTTP_11), None, "{field:?}");
        }
        assert_eq!(read("/", &["a.example", "a.example"], Version::HTTP_11), None);
        assert_eq!(read("/", &[], Version::HTTP_11), None);
    }

    #[test]
    fn the_request_target_names_the_host_too_and_must_agree() {
        assert_eq!(read("https://a.example/x", &["A.EXAMPLE:443"], Version::HTTP_11).as_deref(), Some("a.example"));
        assert_eq!(read("https://a.example/x", &[], Version::HTTP_2).as_deref(), Some("a.example"));
        assert_eq!(read("https://a.example/x", &["b.example"], Version::HTTP_2), None);
        assert_eq!(read("https://user@a.example/x", &[], Version::HTTP_2), None);
    }

    #[test]
    fn http_1_0_without_host_is_for_the_name_of_the_handshake() {
        assert_eq!(read("/", &[], Version::HTTP_10).as_deref(), Some("sni.example"));
    }
}
