//! Recognises by its content what is not PEM: the other forms in which certificates and keys are handed around, and
//! what a mistake has put in their place. A peek at the first elements; nothing is decoded or checked here.

/// What a file is that is not PEM text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// An X.509 certificate as DER.
    Certificate,
    /// A key as DER: PKCS#8 (RFC 5208), PKCS#1 (RFC 8017) or SEC1 (RFC 5915).
    Pkcs8,
    Pkcs1,
    Sec1,
    /// An encrypted PKCS#8 key as DER.
    EncryptedKey,
    /// `.pfx`, `.p12`: certificates and key under one password (RFC 7292).
    Pkcs12,
    /// `.p7b`, `.p7c`: certificates without a key (RFC 2315), as DER.
    Pkcs7,
    /// Request, revocation list and public key as DER.
    Request,
    RevocationList,
    PublicKey,
    /// Java's own keystore, JKS or JCEKS.
    JavaKeystore,
    /// PEM text in base64, as Kubernetes keeps it in a Secret.
    Base64OfPem,
    /// DER in base64 without the lines around it.
    Base64OfDer,
    /// Text in UTF-16, as PowerShell's `>` writes it.
    Utf16,
    /// A page out of a browser.
    Html,
}

impl Foreign {
    /// What it is, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate in DER form",
            Self::Pkcs8 => "a private key in DER form (PKCS#8)",
            Self::Pkcs1 => "a private key in DER form (PKCS#1)",
            Self::Sec1 => "a private key in DER form (SEC1)",
            Self::EncryptedKey => "an encrypted private key in DER form (PKCS#8)",
            Self::Pkcs12 => "a PKCS#12 file (.pfx, .p12)",
            Self::Pkcs7 => "a PKCS#7 file (.p7b) in DER form",
            Self::Request => "a certificate request (CSR) in DER form",
            Self::RevocationList => "a revocation list (CRL) in DER form",
            Self::PublicKey => "a public key in DER form",
            Self::JavaKeystore => "a Java keystore",
            Self::Base64OfPem => "PEM encoded in base64 once more, as in a Kubernetes Secret",
            Self::Base64OfDer => "base64 without the BEGIN and END lines of PEM",
            Self::Utf16 => "text in UTF-16, as PowerShell's > writes it",
            Self::Html => "an HTML page",
        }
    }
}

// Tags of X.690 that tell the forms apart.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

/// What `bytes` are, if they are none of what PEM text is and are known.
pub fn recognise(bytes: &[u8]) -> Option<Foreign> {
    binary(bytes).or_else(|| text(bytes))
}

/// One element of DER, or of the BER that some tools write: its tag and its content, as far as it is there.
type Element<'a> = (u8, &'a [u8]);

fn binary(bytes: &[u8]) -> Option<Foreign> {
    match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => return Some(Foreign::JavaKeystore),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'-', 0, b'-', 0, ..] | [0, b'-', 0, b'-', ..] => {
            return Some(Foreign::Utf16);
        }
        _ => {}
    }
    let ((SEQUENCE, content), _) = element(bytes)? else { return None };
    structure(&elements(content))
}

fn structure(elements: &[Element<'_>]) -> Option<Foreign> {
    match elements {
        [(SEQUENCE, signed), (SEQUENCE, _), (BIT_STRING, _), ..] => signed_structure(signed),
        [(SEQUENCE, _), (BIT_STRING, _), ..] | [(INTEGER, _), (INTEGER, _)] => Some(Foreign::PublicKey),
        [(SEQUENCE, _), (OCTET_STRING, _), ..] => Some(Foreign::EncryptedKey),
        [(INTEGER, [3]), (SEQUENCE, content), ..] => {
            matches!(element(content)?, ((OID, _), _)).then_some(Foreign::Pkcs12)
        }
        [(OID, content_type), ..] => content_type.starts_with(PKCS7).then_some(Foreign::Pkcs7),
        [(INTEGER, [0 | 1]), (SEQUENCE, _), (OCTET_STRING, _), ..] => Some(Foreign::Pkcs8),
        [(INTEGER, [1]), (OCTET_STRING, _), ..] => Some(Foreign::Sec1),
        [(INTEGER, [0]), (INTEGER, _), (INTEGER, _), (INTEGER, _), (INTEGER, _), (INTEGER, _), (INTEGER, _), ..] => {
            Some(Foreign::Pkcs1)
        }
        _ => None,
    }
}

/// 1.2.840.113549.1.7, of which all content types of PKCS#7 are.
const PKCS7: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];

/// Certificates, requests and revocation lists are all a signed something with an algorithm and a signature.
fn signed_structure(signed: &[u8]) -> Option<Foreign> {
    let tags: Vec<u8> = elements(signed).iter().map(|(tag, _)| *tag).collect();
    match tags.as_slice() {
        [CONTEXT_0, ..] => Some(Foreign::Certificate),
        tags if tags.contains(&UTC_TIME) || tags.contains(&GENERALIZED_TIME) => Some(Foreign::RevocationList),
        [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, ..] => Some(Foreign::Certificate),
        [INTEGER, SEQUENCE, SEQUENCE, ..] => Some(Foreign::Request),
        _ => None,
    }
}

/// The elements that stand one after the other in `content`; at most ten, which no structure here needs more of.
fn elements(mut content: &[u8]) -> Vec<Element<'_>> {
    let mut elements = Vec::new();
    while let (Some((element, rest)), true) = (element(content), elements.len() < 10) {
        elements.push(element);
        content = rest;
    }
    elements
}

/// The first element and what follows it. One that is cut off, or does not say its length, takes all there is.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (length, rest) = length(rest)?;
    let (content, rest) = rest.split_at(length.unwrap_or(rest.len()).min(rest.len()));
    Some(((tag, content), rest))
}

/// A length of X.690 section 8.1.3, and what follows it; `None` inside is the indefinite form.
fn length(bytes: &[u8]) -> Option<(Option<usize>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let count = usize::from(first & 0x7f);
    match first {
        0x80 => Some((None, rest)),
        0..0x80 => Some((Some(count), rest)),
        // More than four bytes of length is no file of ours.
        _ if count > 4 => None,
        _ => {
            let (length, rest) = rest.split_at_checked(count)?;
            Some((Some(length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))), rest))
        }
    }
}

/// Whether `der` is as long as it says that it is, no less and no more.
pub(super) fn is_whole(der: &[u8]) -> bool {
    der.split_first().and_then(|(_, rest)| length(rest)).is_some_and(|(length, content)| length == Some(content.len()))
}

fn text(bytes: &[u8]) -> Option<Foreign> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    let starts_with = |start: &[u8]| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    if starts_with(b"<!doctype") || starts_with(b"<html") || starts_with(b"<?xml") {
        return Some(Foreign::Html);
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=".contains(byte);
    match text.iter().all(is_base64) {
        // The base64 of `-----BEGIN` and of a SEQUENCE of some hundred bytes.
        true if text.starts_with(b"LS0tLS1CRUdJT") => Some(Foreign::Base64OfPem),
        true if text.starts_with(b"MI") && text.len() > 64 => Some(Foreign::Base64OfDer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_is_whole_if_it_is_as_long_as_it_says() {
        assert!(is_whole(&[0x30, 1, 0]));
        assert!(!is_whole(&[0x30, 2, 0]));
        assert!(!is_whole(&[0x30, 1, 0, 0]));
        assert!(!is_whole(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]));
        assert!(!is_whole(&[0x30]));
    }

    #[test]
    fn lengths_of_any_size_are_followed_no_further_than_the_file() {
        assert_eq!(recognise(&[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(recognise(&[0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80, 0x06, 0x00]), Some(Foreign::Pkcs12));
        assert_eq!(recognise(&[0x30, 0x84, 0xff, 0xff]), None);
    }
}
