//! How commands write: text for people, JSON for programs, rows under each other. What is written is theirs to say.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde::Serialize;

/// The width of the first of two columns.
const LABEL: usize = 12;

/// For whom the outcome is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Writes to standard output. Whoever reads may stop when they have seen enough (`| head`); the exit code says the rest.
pub(super) fn out(text: &str) {
    bytes(text.as_bytes());
}

/// The same for what need not be text.
pub(super) fn bytes(bytes: &[u8]) {
    let _ = io::stdout().write_all(bytes);
}

/// Writes a line to standard error.
pub(super) fn err(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes `value` as JSON to standard output, its fields in the order of the type.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    out(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}

/// Whether somebody looks at standard output.
pub(super) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Adds a line with `value` under the others.
pub(super) fn row(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "{label:<LABEL$}{value}");
}

/// Lines of cells, each column as wide as its widest cell; the first line has the columns' names.
pub(super) fn table<const N: usize>(names: [&str; N], lines: &[[String; N]]) -> String {
    let mut widths = names.map(|name| name.chars().count());
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in std::iter::once(&names.map(str::to_owned)).chain(lines) {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["iris".to_owned(), "x".to_owned()], ["churn-of-all".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "STATE"], &lines), "NAME          STATE\niris          x\nchurn-of-all\n");
    }
}
