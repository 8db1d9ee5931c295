//! Reads one TOML table key by key.
//!
//! Each key is asked for once, by name; what was never asked for is an unknown key. Nothing stops at the first error:
//! a value that cannot be read becomes [`Field::Invalid`], so that later checks can tell it from one that is not there.
//! This file knows TOML and how to report, but no key of ours.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::diagnostic::{Diagnostics, Location, Problem, nearest};
use super::source::Source;
use super::value::{describe, kind, unshown};

/// Nobody reads more at once; a file with more is likely no configuration at all.
const MAX_SYNTAX_ERRORS: usize = 100;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub value: T,
    pub at: Location,
}

/// What became of one key.
#[derive(Clone, Debug, Default)]
pub enum Field<T> {
    #[default]
    Absent,
    /// It is there but already reported, or the file is too broken to say whether it is there.
    Invalid,
    Given(Located<T>),
}

impl<T> Field<T> {
    /// The value and its place, if it is there and sound.
    pub fn given(&self) -> Option<&Located<T>> {
        match self {
            Self::Given(located) => Some(located),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// Whether the operator left the key out.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value alone, if it is there and sound.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Given(located) => Some(located.value),
            Self::Absent | Self::Invalid => None,
        }
    }
}

/// Parses the text of `source` and has `read` take it apart. Syntax errors, unknown keys and whatever `read` finds all
/// end up in `diagnostics`.
pub fn document<T>(source: &Source, diagnostics: &mut Diagnostics, read: impl FnOnce(&mut Table<'_, '_>) -> T) -> T {
    let (root, errors) = DeTable::parse_recoverable(source.text());
    let complete = errors.is_empty();
    report_syntax_errors(source, &errors, diagnostics);
    let root = Table {
        source,
        diagnostics,
        place: "at the top level",
        at: Location::start_of(source.file().clone()),
        entries: Some(root.get_ref()),
        complete,
        secretive: false,
        known: Vec::new(),
        refused: Vec::new(),
    };
    root.read(read)
}

fn plain_table(table: &DeTable<'_>) -> toml::Table {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect()
}

fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        // What is out of bounds is reported by whoever reads the key.
        DeValue::Integer(number) => {
            toml::Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_default())
        }
        DeValue::Float(number) => toml::Value::Float(number.as_str().parse().unwrap_or_default()),
        DeValue::Boolean(value) => toml::Value::Boolean(*value),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(array) => toml::Value::Array(array.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => toml::Value::Table(plain_table(table)),
    }
}

/// One table being read.
pub struct Table<'a, 'd> {
    source: &'a Source,
    diagnostics: &'d mut Diagnostics,
    /// As it stands in messages, such as `in [frontend]`.
    place: &'static str,
    at: Location,
    /// `None` for a table that is not there: every key of it is absent.
    entries: Option<&'a DeTable<'a>>,
    /// Whether a key that is not found was really left out, and not lost to a syntax error.
    complete: bool,
    /// Whether what is wrong in it may be a secret.
    secretive: bool,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'a> Table<'a, '_> {
    /// Where the table begins.
    pub fn at(&self) -> Location {
        self.at.clone()
    }

    /// What is written in it, without places, comments and the rest of its form.
    pub fn written(&self) -> toml::Table {
        self.entries.map(plain_table).unwrap_or_default()
    }

    /// Whether a key that is not found was really left out, and not lost to a syntax error.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Has no message show what is written in this table, texts or unknown keys: it may be a secret in a wrong place.
    pub fn hide(&mut self) {
        self.secretive = true;
    }

    /// The value of `key`, if it is there.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Field<T> {
        let Some(value) = self.find(key) else {
            return self.not_found();
        };
        self.parse(key, value, parse).map_or(Field::Invalid, Field::Given)
    }

    /// The value of `key`, which must be there. `example` is what the operator could write.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Located<T>> {
        match self.optional(key, parse) {
            Field::Given(located) => Some(located),
            Field::Invalid => None,
            Field::Absent => {
                let message = format!("`{key}` is missing {}", self.place);
                self.diagnostics.error_with(self.at(), message, format!("add {key} = {example}"));
                None
            }
        }
    }

    /// The sound entries of the list `key`. It is [`Field::Invalid`] if it has entries but none is sound.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Field<Vec<Located<T>>> {
        let Some(value) = self.find(key) else {
            return self.not_found();
        };
        let at = self.source.location(value.span().start);
        let DeValue::Array(array) = value.get_ref() else {
            // A text is not shown: it may be an address with a password.
            let found = if value.get_ref().is_str() { "a single text".to_owned() } else { describe(value.get_ref()) };
            let message = format!("`{key}`: expected a list of {expected}, found {found}");
            let problem = Problem::new(message);
            let is_text = value.get_ref().is_str();
            self.diagnostics.problem(at, if is_text { problem.remedy("put it in brackets: [\"…\"]") } else { problem });
            return Field::Invalid;
        };
        let sound: Vec<_> = array.iter().filter_map(|item| self.parse(key, item, &parse)).collect();
        if sound.is_empty() && !array.is_empty() { Field::Invalid } else { Field::Given(Located { value: sound, at }) }
    }

    /// Has `read` take apart the table `key`, or an empty one if it is not there. `place` is how messages name it, such
    /// as `in [frontend]`.
    pub fn section<T>(
        &mut self,
        key: &'static str,
        place: &'static str,
        read: impl FnOnce(&mut Table<'_, '_>) -> T,
    ) -> T {
        let found = self.find(key);
        let at = found.map_or_else(|| self.at(), |value| self.source.location(value.span().start));
        let (entries, complete) = match found.map(Spanned::get_ref) {
            None => (None, self.complete),
            Some(DeValue::Table(entries)) => (Some(entries), self.complete),
            Some(other) => {
                let message = format!("`{key}`: expected a table, found {}", describe(other));
                self.diagnostics.error_with(at.clone(), message, format!("write [{key}] on a line of its own"));
                (None, false)
            }
        };
        self.inner(place, at, entries, complete).read(read)
    }

    /// Has `read` take apart the table `key`, which is written in one line, if it is there. `place` is how messages name
    /// it, and `example` is what the operator could write.
    pub fn inline<T>(
        &mut self,
        key: &'static str,
        place: &'static str,
        example: &str,
        read: impl FnOnce(&mut Table<'_, '_>) -> T,
    ) -> Field<T> {
        let Some(value) = self.find(key) else {
            return self.not_found();
        };
        let at = self.source.location(value.span().start);
        let DeValue::Table(entries) = value.get_ref() else {
            let message = format!("`{key}`: expected a table, found {}", describe(value.get_ref()));
            self.diagnostics.error_with(at, message, format!("write {key} = {example}"));
            return Field::Invalid;
        };
        let complete = self.complete;
        let value = self.inner(place, at.clone(), Some(entries), complete).read(read);
        Field::Given(Located { value, at })
    }

    /// Has `read` take apart each of the tables `key`. `header` is how they are written, such as `[[service]]`, and
    /// `place` is how messages name one, such as `in [[service]]`.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        header: &str,
        place: &'static str,
        mut read: impl FnMut(&mut Table<'_, '_>) -> T,
    ) -> Field<Vec<T>> {
        let Some(value) = self.find(key) else {
            return self.not_found();
        };
        let at = self.source.location(value.span().start);
        let remedy = format!("begin each with {header} on a line of its own");
        let DeValue::Array(array) = value.get_ref() else {
            let message = format!("`{key}`: expected {header} tables, found {}", kind(value.get_ref()));
            self.diagnostics.error_with(at, message, remedy);
            return Field::Invalid;
        };
        let mut tables = Vec::new();
        for item in array {
            let at = self.source.location(item.span().start);
            if let DeValue::Table(entries) = item.get_ref() {
                let complete = self.complete;
                tables.push(self.inner(place, at, Some(entries), complete).read(&mut read));
            } else {
                let message = format!("`{key}`: expected {header} tables, found {}", kind(item.get_ref()));
                self.diagnostics.error_with(at, message, remedy.clone());
            }
        }
        if tables.len() < array.len() { Field::Invalid } else { Field::Given(Located { value: tables, at }) }
    }

    /// Reports `key` if it is there: it is known, but does not belong here.
    pub fn refuse(&mut self, key: &'static str, problem: impl FnOnce() -> Problem) {
        let found = self.entries.and_then(|entries| entries.get_key_value(key));
        if let Some((written, _)) = found {
            self.diagnostics.problem(self.source.location(written.span().start), problem());
        }
        self.refused.push(key);
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.and_then(|entries| entries.get(key))
    }

    fn not_found<T>(&self) -> Field<T> {
        if self.complete { Field::Absent } else { Field::Invalid }
    }

    fn parse<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Located<T>> {
        let at = self.source.location(value.span().start);
        let parsed = if self.secretive { unshown(value.get_ref(), parse) } else { parse(value.get_ref()) };
        match parsed {
            Ok(value) => Some(Located { value, at }),
            Err(problem) => {
                let message = format!("`{key}`: {}", problem.message);
                self.diagnostics.problem(at, Problem { message, ..problem });
                None
            }
        }
    }

    fn inner(
        &mut self,
        place: &'static str,
        at: Location,
        entries: Option<&'a DeTable<'a>>,
        complete: bool,
    ) -> Table<'a, '_> {
        let (source, secretive) = (self.source, self.secretive);
        let (known, refused) = (Vec::new(), Vec::new());
        Table { source, diagnostics: self.diagnostics, place, at, entries, complete, secretive, known, refused }
    }

    fn read<T>(mut self, read: impl FnOnce(&mut Table<'_, '_>) -> T) -> T {
        let meaning = read(&mut self);
        self.report_unknown_keys();
        meaning
    }

    fn report_unknown_keys(self) {
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) || self.refused.contains(&name) {
                continue;
            }
            let near = nearest(name, self.known.iter().copied());
            let remedy = match near {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys are `{}`", self.known.join("`, `")),
            };
            // A slip of a known key is no secret.
            let message = if self.secretive && near.is_none() {
                format!("unknown key {}", self.place)
            } else {
                format!("unknown key `{}` {}", name.escape_debug(), self.place)
            };
            self.diagnostics.error_with(self.source.location(key.span().start), message, remedy);
        }
    }
}

/// Reports the parser's errors in our words, one per line of the file: the others on a line follow from it.
fn report_syntax_errors(source: &Source, errors: &[Error], diagnostics: &mut Diagnostics) {
    let mut errors: Vec<_> = errors
        .iter()
        .map(|error| SyntaxError { message: error.message(), span: error.span().unwrap_or_default() })
        .collect();
    errors.sort_by_key(|error| error.span.start);
    let lines = errors.chunk_by(|one, other| source.line(one.span.start) == source.line(other.span.start));
    for (index, line) in lines.enumerate() {
        let Some(error) = line.iter().find(|error| error.in_open_list()).or(line.first()) else {
            continue;
        };
        let at = source.location(error.span.start);
        if index == MAX_SYNTAX_ERRORS {
            let message = format!("more than {MAX_SYNTAX_ERRORS} lines are not TOML: the rest is not read");
            diagnostics.error_with(at.clone(), message, "make sure that this is a configuration file");
            diagnostics.drop_further(at.file, at.line, source.lines());
            return;
        }
        // The rest of the file is taken for entries of the list: nothing more can be said about it.
        let last = if error.in_open_list() { source.lines() } else { at.line };
        diagnostics.problem(at.clone(), error.problem(source));
        diagnostics.drop_further(at.file, at.line, last);
        if error.in_open_list() {
            return;
        }
    }
}

struct SyntaxError<'a> {
    /// The parser's words.
    message: &'a str,
    span: Range<usize>,
}

impl SyntaxError<'_> {
    /// Whether a key was met where a list has not ended yet.
    fn in_open_list(&self) -> bool {
        self.message.starts_with("unexpected `=` in array")
    }

    fn problem(&self, source: &Source) -> Problem {
        const NOT_A_VALUE: [&str; 4] =
            ["string values must be quoted", "invalid float", "invalid boolean", "invalid integer"];
        let begins = |start: &&str| self.message.starts_with(*start);
        let found = source.text().get(self.span.clone()).unwrap_or_default();
        if self.message == "duplicate key" {
            let before = source.text().get(..self.span.start).and_then(|before| before.rsplit('\n').next());
            let is_header = before.is_some_and(|before| before.trim_start().starts_with('['));
            let problem = Problem::new(format!("`{}` is given twice", found.escape_debug()));
            return problem.remedy(match is_header {
                true => "join the two, or write [[…]] with two brackets if it is a table that may be repeated",
                false => "delete one of the two",
            });
        }
        if self.in_open_list() {
            return Problem::new("the list before this `=` is not closed").remedy("end it with `]`");
        }
        if found.is_empty() && NOT_A_VALUE.iter().any(begins) {
            return Problem::new("a value is missing").remedy("write one after the `=`, or delete the key");
        }
        if NOT_A_VALUE.iter().any(begins) {
            return Problem::new("this is not a TOML value").remedy("text stands in double quotes: \"…\"");
        }
        Problem::new(format!("this is not TOML: {}", self.message))
    }
}
