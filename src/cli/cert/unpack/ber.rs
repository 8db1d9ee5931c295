//! The elements of DER, and of the BER that some tools write. They are handed out byte for byte, never written anew: a
//! certificate is signed as it stands.

use x509_parser::asn1_rs::{Any, Class, FromBer, Tag};

/// One element, and where it stands.
pub(super) struct Element<'a> {
    pub class: Class,
    pub tag: Tag,
    /// What is in it.
    pub content: &'a [u8],
    /// All of it, with its tag and length.
    pub whole: &'a [u8],
}

/// The elements that follow each other in `bytes`.
pub(super) fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let (rest, any) = Any::from_ber(bytes).ok()?;
        let whole = bytes.get(..bytes.len() - rest.len())?;
        elements.push(Element { class: any.class(), tag: any.tag(), content: any.data, whole });
        bytes = rest;
    }
    Some(elements)
}

/// The elements of the one SEQUENCE that `bytes` is. What stands behind it is passed over: some programs write a line
/// break there.
pub(super) fn sequence(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let (_, any) = Any::from_ber(bytes).ok()?;
    if any.tag() == Tag::Sequence { elements(any.data) } else { None }
}
