//! What the parts of a line are made of (RFC 9110 section 5, RFC 9112 section 3).

/// How many bytes of a token `text` begins with.
pub(super) fn token_length(text: &[u8]) -> usize {
    length_of(text, TOKEN)
}

/// How many bytes `text` begins with that may stand in a request target.
pub(super) fn target_length(text: &[u8]) -> usize {
    length_of(text, TARGET)
}

fn length_of(text: &[u8], class: u8) -> usize {
    text.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(text.len())
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Whether a request target begins like one of its four forms (RFC 9112 section 3.2).
pub(super) fn has_target_form(method: &[u8], target: &[u8]) -> bool {
    let absolute = |scheme: &[u8]| {
        target.split_at_checked(scheme.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(scheme))
    };
    target.starts_with(b"/")
        || target == b"*"
        || (method == b"CONNECT" && !target.is_empty())
        || absolute(b"http://")
        || absolute(b"https://")
}

/// The name and the value of a field line, without the white space around the value; `None` if it is none.
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = line.split_at(token_length(line));
    match rest {
        [b':', value @ ..] if !name.is_empty() && !has_control(value) => Some((name, trim(value))),
        _ => None,
    }
}

/// Without blanks and tabs at its ends, which is all the white space there is.
fn trim(text: &[u8]) -> &[u8] {
    let is_white = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = text.iter().position(|byte| !is_white(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_white(byte)).map_or(from, |last| last + 1);
    text.get(from..to).unwrap_or_default()
}

/// Whether there is a control character but for tabs.
fn has_control(text: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    // Eight bytes at a time for whether there is any at all. A byte borrows from the one above it if it is below the
    // bound, or if it is equal and another has borrowed from it, so that what is seen first is right.
    let (words, rest) = text.as_chunks();
    let suspicious = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        let below_space = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7f);
        found | below_space | (delete.wrapping_sub(EACH) & !delete)
    });
    (suspicious & (EACH * 0x80) != 0 && words.as_flattened().iter().any(is_control)) || rest.iter().any(is_control)
}

/// One in each byte.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// A number in decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The elements of a list that are not empty.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

const TOKEN: u8 = 1;

/// What may stand in a URI, but for a fragment, which would be cut off by one reader and kept by another.
const TARGET: u8 = 2;

/// To which of these a byte belongs.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        if matches!(byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
        {
            classes[byte as usize] |= TOKEN;
        }
        if !matches!(byte, b'#' | b'<' | b'>' | b'`') {
            classes[byte as usize] |= TARGET;
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn control_characters_are_found_wherever_they_stand(
            text in prop::collection::vec(prop_oneof![8 => b' '..=b'~', 1 => any::<u8>(), 1 => Just(b'\t')], 0..40),
        ) {
            let naive = text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f);
            prop_assert_eq!(has_control(&text), naive);
        }
    }
}
