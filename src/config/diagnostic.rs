//! What is wrong with a configuration: which place, what, and the remedy.
//!
//! Every finding is collected, so that one run shows all of them. This file words nothing itself and reads no file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The path as the operator gave it.
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Location {
    /// The place of findings that concern a file as a whole.
    pub fn start_of(file: Arc<Path>) -> Self {
        Self { file, line: 1, column: 1 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// What a value is refused for, and the remedy where one is known. It has no place yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{}", Found(found.as_deref()), Remedy(remedy.as_deref()))]
pub struct Problem {
    pub message: String,
    /// What is there instead; absent if the message says it, or need not.
    pub found: Option<String>,
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem whose message says enough.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), found: None, remedy: None }
    }

    /// The same problem with what was found instead.
    pub fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    /// The same problem with what the operator should do.
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Whether a finding stops the configuration from being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding. Displayed on one line: `file:line:column: error: message; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub at: Location,
    pub message: String,
    pub remedy: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, at, message, remedy } = self;
        write!(f, "{at}: {severity}: {message}{}", Remedy(remedy.as_deref()))
    }
}

/// All findings, in the order of their places. Displayed one per line.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    unreadable: Vec<Unreadable>,
}

impl Diagnostics {
    /// Adds an error.
    pub fn error(&mut self, at: Location, message: impl Into<String>) {
        self.add(Severity::Error, at, Problem::new(message));
    }

    /// Adds an error and what to do about it.
    pub fn error_with(&mut self, at: Location, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Error, at, Problem::new(message).remedy(remedy));
    }

    /// Adds a warning.
    pub fn warning(&mut self, at: Location, message: impl Into<String>) {
        self.add(Severity::Warning, at, Problem::new(message));
    }

    /// Adds a warning and what to do about it.
    pub fn warning_with(&mut self, at: Location, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, at, Problem::new(message).remedy(remedy));
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        for Diagnostic { severity, at, message, remedy } in others.list {
            self.add(severity, at, Problem { message, found: None, remedy });
        }
    }

    /// Whether anything stops the configuration from being taken.
    pub fn has_errors(&self) -> bool {
        self.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Whether nothing was found, warnings included.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The findings by file, line and column.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Adds a problem at its place.
    pub(super) fn problem(&mut self, at: Location, problem: Problem) {
        self.add(Severity::Error, at, problem);
    }

    /// From here on drops findings about lines `first` to `last` of `file`, because their syntax is broken: what can
    /// still be read from them is not what the operator meant.
    pub(super) fn drop_further(&mut self, file: Arc<Path>, first: usize, last: usize) {
        self.unreadable.push(Unreadable { file, first, last });
    }

    fn add(&mut self, severity: Severity, at: Location, problem: Problem) {
        if self.unreadable.iter().any(|lines| lines.contains(&at)) {
            return;
        }
        let index = self.list.partition_point(|other| other.at <= at);
        let Problem { message, found, remedy } = problem;
        let message = format!("{message}{}", Found(found.as_deref()));
        self.list.insert(index, Diagnostic { severity, at, message, remedy });
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The one of `candidates` that `word` was most likely meant to be, if any is close.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let tolerance = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `text` as it may stand in a one-line message: quoted, control characters escaped, cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[derive(Clone, Debug)]
struct Unreadable {
    file: Arc<Path>,
    first: usize,
    last: usize,
}

impl Unreadable {
    fn contains(&self, at: &Location) -> bool {
        self.file == at.file && (self.first..=self.last).contains(&at.line)
    }
}

struct Found<'a>(Option<&'a str>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(found) => write!(f, ", found {found}"),
            None => Ok(()),
        }
    }
}

struct Remedy<'a>(Option<&'a str>);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
