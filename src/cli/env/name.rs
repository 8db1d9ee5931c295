//! The names of environments and their resource groups, by the rules of Azure Resource Manager.

const LONGEST: usize = 90;

/// `^[a-zA-Z][-\w._()]+[a-zA-Z0-9]$`, at most 90 characters.
///
/// # Errors
///
/// The rule, where the text does not follow it.
pub fn environment(text: &str) -> Result<String, String> {
    let is_sound = (3..=LONGEST).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric());
    let rule = "expected 3 to 90 letters, digits, \"-\", \".\", \"_\", \"(\" and \")\", a letter first, \
                a letter or digit last";
    if is_sound { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

/// 1 to 90 of the same characters, no full stop last.
///
/// # Errors
///
/// The rule, where the text does not follow it.
pub fn resource_group(text: &str) -> Result<String, String> {
    let is_sound = (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_plain) && !text.ends_with('.');
    let rule = "expected 1 to 90 letters, digits, \"-\", \".\", \"_\", \"(\" and \")\", and no \".\" last";
    if is_sound { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._()".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for sound in ["my-cluster", "abc", "A_(1).b", &"a".repeat(90)] {
            assert!(environment(sound).is_ok(), "{sound}");
        }
        for wrong in ["", "ab", "1ab", "abc-", "a/b", "a b", "äbc", "../x", &"a".repeat(91)] {
            assert!(environment(wrong).is_err(), "{wrong}");
        }
        for sound in ["r", "my-rg", "(rg)"] {
            assert!(resource_group(sound).is_ok(), "{sound}");
        }
        for wrong in ["", "rg.", "r/g", "r g", &"a".repeat(91)] {
            assert!(resource_group(wrong).is_err(), "{wrong}");
        }
    }
}
