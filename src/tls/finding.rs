//! What is worth saying about a certificate file or a key file. No file is named but in the remedy's command: whoever
//! says it knows which file it was, and in which place of the configuration it is written.

use std::fmt;
use std::path::Path;

/// How many names a message lists before it counts the rest.
const LISTED: usize = 10;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; nothing to do.
    Note,
    /// It works, but not for everybody or not for long.
    Warning,
    /// It cannot be served, or callers will refuse it.
    Error,
}

/// Which file of a pair a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Chain,
    Key,
}

/// What the two files are called in the commands of remedies.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    pub chain: &'a Path,
    pub key: &'a Path,
}

/// One thing that was found. Nothing of a key's content is ever in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub part: Part,
    /// What it is, with the line of the file where there is one.
    pub message: String,
    /// What to do about it; a command where one does it.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn new(severity: Severity, part: Part, message: impl Into<String>) -> Self {
        Self { severity, part, message: message.into(), remedy: None }
    }

    pub(super) fn error(part: Part, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, part, message)
    }

    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// `items` for a message: the first ten, and how many more there are.
pub(super) fn listed(items: &[impl AsRef<str>], separator: &str) -> String {
    let list = items.iter().take(LISTED).map(AsRef::as_ref).collect::<Vec<_>>().join(separator);
    match items.len().saturating_sub(LISTED) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

/// A file's name as a shell takes it.
pub(crate) fn quoted(file: &Path) -> String {
    quoted_text(&file.to_string_lossy())
}

/// A word as a shell takes it: in quotes where it means anything else without them.
pub(super) fn quoted_text(word: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || "/._-+=:,@%".contains(char);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_any_file_name_as_one_word() {
        assert_eq!(quoted(Path::new("/etc/tls/a.pem")), "/etc/tls/a.pem");
        assert_eq!(quoted(Path::new("my cert.pem")), "'my cert.pem'");
        assert_eq!(quoted(Path::new("it's;rm")), r"'it'\''s;rm'");
        assert_eq!(quoted(Path::new("")), "''");
    }

    #[test]
    fn long_lists_are_cut_short() {
        let items: Vec<_> = (1..=12).map(|number| number.to_string()).collect();
        assert_eq!(listed(&items, ", "), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
        assert_eq!(listed(&items[..2], "; "), "1; 2");
    }
}
