//! The text of one configuration file, and where in it an offset lies.
//!
//! It knows nothing of TOML.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::diagnostic::{Diagnostics, Location};
use super::overlay::Overlay;

/// More than any real configuration needs; keeps a path that was mistaken for one from filling the memory.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// One file's text.
pub struct Source {
    file: Arc<Path>,
    text: String,
    /// The offset of the first byte of each line.
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads `file`; if that fails, reports why and gives `None`. A file that cannot be opened is reported at
    /// `wanted_at`, the place that asked for it.
    pub fn read(file: &Path, wanted_at: &Location, overlay: &Overlay, diagnostics: &mut Diagnostics) -> Option<Self> {
        let unreadable = |error: io::Error, diagnostics: &mut Diagnostics| {
            diagnostics.error(wanted_at.clone(), format!("cannot read {}: {error}", file.display()));
        };
        Self::read_or(file, overlay, unreadable, diagnostics)
    }

    /// The same of a file that was found a moment ago: if it is gone by now, nobody asks for it any more.
    pub fn read_found(
        file: &Path,
        wanted_at: &Location,
        overlay: &Overlay,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let unreadable = |error: io::Error, diagnostics: &mut Diagnostics| {
            if error.kind() != io::ErrorKind::NotFound {
                diagnostics.error(wanted_at.clone(), format!("cannot read {}: {error}", file.display()));
            }
        };
        Self::read_or(file, overlay, unreadable, diagnostics)
    }

    fn read_or(
        file: &Path,
        overlay: &Overlay,
        unreadable: impl FnOnce(io::Error, &mut Diagnostics),
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        if let Some(Some(text)) = overlay.get(file) {
            return Some(Self::new(file, text.to_owned()));
        }
        let bytes = match read_limited(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                unreadable(error, diagnostics);
                return None;
            }
        };
        let start = Location::start_of(file.into());
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("the file is larger than {} MiB", MAX_BYTES / 1024 / 1024);
            diagnostics.error_with(start, message, "split it with `include`");
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(Self::new(file, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let readable = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()).into_owned();
                let at = Self::new(file, readable).location(valid);
                diagnostics.error_with(at, "the file is not UTF-8 text from here on", "save it as UTF-8");
                None
            }
        }
    }

    /// Takes `text` as the content of `file`.
    pub fn new(file: &Path, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.into(), text, line_starts }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// The last line's number.
    pub fn lines(&self) -> usize {
        self.line_starts.len()
    }

    /// The line of byte `offset`, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The line and column of byte `offset`.
    pub fn location(&self, offset: usize) -> Location {
        let line = self.line(offset);
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        // A byte order mark is invisible in every editor, so it is not counted.
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        Location { file: Arc::clone(&self.file), line, column }
    }
}

fn read_limited(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file that can be read to an end. A pipe would make everybody wait for whoever writes into it, some devices
/// never end.
///
/// # Errors
///
/// It cannot be opened, or is something else than a file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let at_once = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if kind.is_file() { Ok(file) } else { Err(io::Error::other("it is no file but a pipe or a device")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let source = Source::new(Path::new("a.toml"), "é = 1\r\n\nab".to_owned());
        let place = |offset| {
            let at = source.location(offset);
            (at.line, at.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(2), (1, 2));
        assert_eq!(place(8), (2, 1));
        assert_eq!(place(9), (3, 1));
        assert_eq!(place(11), (3, 3));
    }

    #[test]
    fn an_offset_outside_the_text_or_inside_a_character_still_has_a_line() {
        let source = Source::new(Path::new("a.toml"), "é".to_owned());
        assert_eq!(source.location(1).line, 1);
        assert_eq!(source.location(99).line, 1);
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        let source = Source::new(Path::new("a.toml"), "\u{feff}a".to_owned());
        assert_eq!(source.location(3).column, 1);
    }
}
