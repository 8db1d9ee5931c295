//! PKCS#7 (`.p7b`, RFC 5652): an envelope that certificate authorities send chains in. Its signatures, if it has any,
//! mean nothing here and are not looked at.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Class, Tag};

use super::ber;

/// `signedData`, 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// The certificates in it, byte for byte and in the order they stand there; none if it is no such envelope.
pub(super) fn certificates(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let envelope = ber::sequence(bytes)?;
    let [content_type, content, ..] = envelope.as_slice() else { return None };
    if content_type.content != SIGNED_DATA {
        return None;
    }
    let signed_data = ber::sequence(content.content)?;
    let is_set = |element: &&ber::Element<'_>| element.class == Class::ContextSpecific && element.tag == Tag(0);
    let Some(set) = signed_data.iter().find(is_set) else { return Some(Vec::new()) };
    let choices = ber::elements(set.content)?;
    // Beside certificates there may be kinds that nobody uses any more; those are tagged.
    let certificates = choices.into_iter().filter(|choice| choice.tag == Tag::Sequence);
    Some(certificates.map(|certificate| CertificateDer::from(certificate.whole.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An envelope with this in the place of its SET of certificates; every length is left open, as BER allows.
    fn envelope(certificates: &[u8]) -> Vec<u8> {
        let end = [0, 0];
        let content_type: &[u8] = &[0x06, 9];
        let signed_data: &[u8] = &[0xa0, 0x80, 0x30, 0x80, 0x02, 1, 1, 0x31, 0, 0x30, 0];
        [&[0x30, 0x80], content_type, SIGNED_DATA, signed_data, &[0xa0, 0x80], certificates, &end, &end, &end, &end]
            .concat()
    }

    #[test]
    fn certificates_are_taken_out_byte_for_byte() {
        let (one, other) = ([0x30, 3, 2, 1, 5], [0x30, 0x80, 2, 1, 7, 0, 0]);
        // What is tagged is no certificate.
        let found = certificates(&envelope(&[&one[..], &[0xa1, 0], &other].concat())).unwrap();
        assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), [&one[..], &other]);
        assert_eq!(certificates(&one), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![Just(0x30), Just(0x80), Just(0), any::<u8>()], 0..64)) {
            certificates(&bytes);
            certificates(&envelope(&bytes));
        }
    }
}
