//! How a replica, and the access log, are told whose certificate a caller showed. It was verified in the handshake; here
//! nothing is checked, only written down once for all requests of the connection.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::distinguished_name;
use crate::upstream::Request;

/// The certificate itself (RFC 9440 section 2.1).
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// What would belong to it; it is not sent, and not taken from callers.
pub const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Who it says the caller is, as Envoy writes it and meshes read it.
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The longest value. Servers of replicas take 8 KiB for a whole field (gunicorn: 8190 bytes).
const MAX_VALUE: usize = 8_000;

/// What of the distinguished name is logged, in bytes.
const MAX_LOGGED: usize = 256;

/// A caller's certificate, written down.
#[derive(Debug)]
pub struct CallerCertificate {
    /// The beginning of the distinguished name, for the log.
    pub subject: Box<str>,
    client_cert: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
}

impl CallerCertificate {
    pub fn new(certificate: &CertificateDer<'_>) -> Self {
        let names = X509Certificate::from_der(certificate).ok().and_then(|(_, certificate)| Names::of(&certificate));
        let subject = names.as_ref().map(|names| names.subject.as_str()).unwrap_or_default();
        Self {
            client_cert: value(&format!(":{}:", BASE64_STANDARD.encode(certificate))),
            forwarded: names.as_ref().and_then(|names| value(&names.forwarded(certificate))),
            subject: subject.split_at(subject.floor_char_boundary(MAX_LOGGED)).0.into(),
        }
    }

    /// Writes it into a request to a replica, which has nothing of what the caller wrote there itself.
    pub fn write<B>(&self, request: &mut Request<B>) {
        if let Some(value) = &self.client_cert {
            request.field(&CLIENT_CERT, value.as_bytes());
        }
        if let Some(value) = &self.forwarded {
            request.field(&X_FORWARDED_CLIENT_CERT, value.as_bytes());
        }
    }
}

/// A value that would be too long is left out: half of one would be somebody else.
fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok().filter(|value| value.len() <= MAX_VALUE)
}

/// Who a certificate says it is for, if that can be written so that it is read in one way only.
struct Names {
    subject: String,
    alternatives: Vec<(&'static str, String)>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let alternatives = certificate.subject_alternative_name().ok()?;
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some(("URI", (*uri).to_owned())),
            GeneralName::DNSName(name) => Some(("DNS", (*name).to_owned())),
            _ => None,
        });
        let alternatives: Vec<_> = names.collect();
        let is_plain = |name: &str| name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !alternatives.iter().all(|(_, name)| is_plain(name)) {
            return None;
        }
        Some(Self { subject: distinguished_name(certificate.subject())?, alternatives })
    }

    /// The value of `x-forwarded-client-cert`.
    fn forwarded(&self, certificate: &CertificateDer<'_>) -> String {
        let mut forwarded = String::from("Hash=");
        for byte in digest(&SHA256, certificate).as_ref() {
            // Writing to a string does not fail.
            let _ = write!(forwarded, "{byte:02x}");
        }
        let _ = write!(forwarded, ";Subject={}", quoted(&self.subject));
        for (kind, name) in &self.alternatives {
            let _ = write!(forwarded, ";{kind}={}", quoted(name));
        }
        forwarded
    }
}

/// In quotes, with quotes and backslashes escaped, and nothing in it that cannot stand in a field.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").into()
    }

    fn written(certificate: &CertificateDer<'_>) -> HeaderMap {
        let mut request = Request::new(&http::Method::POST, "/score", ());
        CallerCertificate::new(certificate).write(&mut request);
        let lines = String::from_utf8(request.parts().0.to_vec()).expect("text");
        let fields = lines.lines().skip(1).map(|line| line.split_once(": ").expect("a field"));
        fields.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn it_is_sent_whole_and_by_its_names() {
        let uri = SanType::URI("spiffe://cluster/ns/batch".try_into().expect("ASCII"));
        let certificate = certificate("batch job", vec![uri]);
        let headers = written(&certificate);
        let whole = headers[CLIENT_CERT].to_str().expect("text").trim_matches(':').to_owned();
        assert_eq!(BASE64_STANDARD.decode(whole).expect("base64"), certificate.as_ref());
        let names = headers[X_FORWARDED_CLIENT_CERT].to_str().expect("text");
        assert!(names.ends_with(";Subject=\"CN=batch job\";URI=\"spiffe://cluster/ns/batch\""), "{names}");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_quotes() {
        let headers = written(&certificate("x\";Subject=\"CN=admin\\\r\nä", Vec::new()));
        let names = headers[X_FORWARDED_CLIENT_CERT].to_str().expect("text");
        let (_, subject) = names.split_once(";Subject=").expect("a subject");
        // Past the escaped pairs nothing may end the quotes but the last character.
        let inside = subject[1..subject.len() - 1].replace("\\\\", "").replace("\\\"", "");
        assert!(!inside.contains('"'), "{names}");
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let headers = written(&certificate(&"x".repeat(9_000), Vec::new()));
        assert!(headers.is_empty());
    }
}
