//! How commands write: text for people, JSON for programs, rows under each other. What is written is theirs to say.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use rustix::termios::tcgetwinsize;
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
    bytes(plain(text).as_bytes());
}

/// The same for what need not be text.
pub(super) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout();
    // What is not a whole line would stay here until there is one.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(super) fn err(text: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(text));
}

/// What a terminal takes for text. Much of what is written was said by somebody else: a front end, a certificate, a file.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_command) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.replace("\r\n", "\n").chars() {
        if is_command(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal does something else with it than show it: control characters, and those that turn the direction of
/// what follows (Unicode Standard Annex 9).
fn is_command(char: char) -> bool {
    let is_turn = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_turn || (char.is_control() && !matches!(char, '\n' | '\t'))
}

/// Whether standard output is a terminal that can be drawn on.
pub(super) fn is_drawn_on() -> bool {
    is_watched() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Puts `line` in the place of the last one, as much of it as there is room for.
pub(super) fn redraw(line: &str) {
    let (_, columns) = room();
    let line: String = plain(line).chars().take(columns).collect();
    bytes(format!("\r{line}\x1b[K").as_bytes());
}

/// Puts `text` in the place of all that the terminal shows, as much of it as there is room for.
pub(super) fn draw(text: &str) {
    let (rows, columns) = room();
    bytes(screen(&plain(text), rows, columns).as_bytes());
}

/// Rows and columns that can be written to without anything being moved; no end of them where there is no size.
fn room() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok();
    let (rows, columns) = size.map_or((0, 0), |size| (usize::from(size.ws_row), usize::from(size.ws_col)));
    (rows.checked_sub(1).unwrap_or(usize::MAX), if columns == 0 { usize::MAX } else { columns })
}

/// `text` as a terminal takes it: from the top, each line to its end, and nothing below (ECMA-48: CUP, EL, ED).
fn screen(text: &str, rows: usize, columns: usize) -> String {
    let mut drawn = "\x1b[H".to_owned();
    let lines: Vec<_> = text.lines().collect();
    let hidden = lines.len().saturating_sub(rows);
    let shown = if hidden > 0 { rows.saturating_sub(1) } else { lines.len() };
    let more = (hidden > 0).then(|| format!("… {} more", lines.len() - shown));
    for line in lines.into_iter().take(shown).chain(more.as_deref()) {
        drawn.extend(line.chars().take(columns));
        drawn.push_str("\x1b[K\n");
    }
    drawn.push_str("\x1b[J");
    drawn
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
    fn no_more_is_drawn_than_there_is_room_for() {
        assert_eq!(screen("ab\nc\n", 9, 9), "\x1b[Hab\x1b[K\nc\x1b[K\n\x1b[J");
        assert_eq!(screen("abc\nd\n", 2, 2), "\x1b[Hab\x1b[K\nd\x1b[K\n\x1b[J");
        assert_eq!(screen("a\nb\nc\n", 2, 9), "\x1b[Ha\x1b[K\n… 2 more\x1b[K\n\x1b[J");
    }

    #[test]
    fn nobody_commands_the_terminal_through_what_is_shown() {
        assert_eq!(plain("a table\twith\na line, ümlaut and …"), "a table\twith\na line, ümlaut and …");
        assert_eq!(plain("lines\r\nof HTTP\r\n"), "lines\nof HTTP\n");
        assert_eq!(plain("\x1b[2J\x07\r\u{9b}31m\u{202e}x"), "\\u{1b}[2J\\u{7}\\r\\u{9b}31m\\u{202e}x");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["iris".to_owned(), "x".to_owned()], ["churn-of-all".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "STATE"], &lines), "NAME          STATE\niris          x\nchurn-of-all\n");
    }
}
