//! A certificate's subject as one line that can be read in one way only (RFC 4514). Whoever decides by it who a caller
//! is must not be told that somebody is called what only stands within a name.

use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// The most specific part first: `CN=batch,O=Example`. What is not printable ASCII is written as `\` and two hexadecimal
/// digits a byte of its UTF-8. `None` if a part holds no text.
pub fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let attributes: Option<Vec<_>> = relative.iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let identifier = attribute.attr_type().to_id_string();
    Some(format!("{}={}", short(&identifier), escaped(attribute.as_str().ok()?)))
}

/// The names that every reader has to know (RFC 4514 section 3), and that of an e-mail address.
fn short(identifier: &str) -> &str {
    match identifier {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        other => other,
    }
}

fn escaped(value: &str) -> String {
    use std::fmt::Write as _;

    let mut escaped = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        let is_at_edge = (index == 0 && matches!(byte, b' ' | b'#')) || (index == last && byte == b' ');
        // Writing to a string does not fail.
        let _ = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'=' | b'\\' => write!(escaped, "\\{}", char::from(byte)),
            _ if is_at_edge => write!(escaped, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(escaped, "{}", char::from(byte)),
            _ => write!(escaped, "\\{byte:02X}"),
        };
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use rustls::pki_types::CertificateDer;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn written(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate: CertificateDer<'_> = params.self_signed(&key).expect("a certificate").into();
        let (_, certificate) = X509Certificate::from_der(&certificate).expect("a certificate");
        distinguished_name(certificate.subject()).expect("text")
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let parts = [(DnType::OrganizationName, "Example"), (DnType::CommonName, "batch job")];
        assert_eq!(written(&parts), "CN=batch job,O=Example");
    }

    #[test]
    fn what_stands_within_a_name_is_not_taken_for_a_part() {
        assert_eq!(written(&[(DnType::CommonName, "mallory, CN=admin")]), r"CN=mallory\, CN\=admin");
        assert_eq!(written(&[(DnType::CommonName, "#a\"\\ ")]), r#"CN=\#a\"\\\ "#);
        assert_eq!(written(&[(DnType::CommonName, "bøb\r\n")]), r"CN=b\C3\B8b\0D\0A");
    }
}
