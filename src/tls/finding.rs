//! What is worth saying about a certificate file or a key file. No file is named but in the remedy's command: whoever
//! says it knows which file it was, and in which place of the configuration it is written.

use std::fmt;

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
