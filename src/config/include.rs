//! Which files make up a configuration: the main file, and those its `include` patterns stand for now.
//!
//! It reads directories and no file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostics, Location, quoted};
use super::overlay::Overlay;
use super::table::Located;

/// The files of a configuration, as a rule rather than a list: a file may come later.
#[derive(Clone, Debug)]
pub struct Sources {
    main: PathBuf,
    patterns: Vec<String>,
}

impl Sources {
    /// The main file alone, as long as nobody could read what it includes.
    pub fn of(main: &Path) -> Self {
        Self { main: main.to_owned(), patterns: Vec::new() }
    }

    /// The files there are now, the main file first.
    pub fn files(&self) -> Vec<PathBuf> {
        let included = self.patterns.iter().filter_map(|pattern| glob::glob_with(pattern, options()).ok());
        let included = included.flatten().filter_map(Result::ok).filter(|path| !path.is_dir());
        std::iter::once(self.main.clone()).chain(included).collect()
    }

    /// Where a file that belongs to it can appear, as far as patterns name one directory.
    pub fn directories(&self) -> Vec<PathBuf> {
        let patterns = self.patterns.iter().filter_map(|pattern| Path::new(pattern).parent());
        let fixed = patterns.filter(|directory| !is_wildcard(&directory.to_string_lossy()));
        fixed.chain(self.main.parent()).map(Path::to_owned).collect()
    }

    /// Adds what `includes` in the main file name, and gives the files there are, each once, with the place that names
    /// it. False if one cannot be found.
    pub(super) fn include(
        &mut self,
        includes: &[Located<String>],
        overlay: &Overlay,
        diagnostics: &mut Diagnostics,
    ) -> (Vec<(PathBuf, Location)>, bool) {
        let directory = self.main.parent().unwrap_or(Path::new("")).to_string_lossy();
        let directory = PathBuf::from(glob::Pattern::escape(&directory));
        let mut seen = HashSet::from([identity(&self.main)]);
        let mut found = Vec::new();
        let mut complete = true;
        for Located { value: pattern, at } in includes {
            let mut error = |message: String| {
                diagnostics.error(at.clone(), format!("`include`: {message}"));
                complete = false;
            };
            let full = directory.join(pattern).to_string_lossy().into_owned();
            let paths = match glob::glob_with(&full, options()) {
                Ok(paths) => paths,
                Err(wrong) => {
                    error(format!("{} is not a pattern: {}", quoted(pattern), wrong.msg));
                    continue;
                }
            };
            let paths = with_overlay(paths, &full, overlay);
            self.patterns.push(full);
            let mut any = false;
            for path in paths {
                any = true;
                match path {
                    Ok(path) if path.is_dir() && is_wildcard(pattern) => {}
                    Ok(path) if seen.insert(identity(&path)) => found.push((path, at.clone())),
                    Ok(_) => {}
                    Err(unreadable) => {
                        error(format!("cannot read {}: {}", unreadable.path().display(), unreadable.error()));
                    }
                }
            }
            if !any && !is_wildcard(pattern) {
                error(format!("there is no file {}", self.main.with_file_name(pattern).display()));
            }
        }
        (found, complete)
    }
}

/// What `pattern` stands for if `overlay` were written.
fn with_overlay(paths: glob::Paths, pattern: &str, overlay: &Overlay) -> Vec<glob::GlobResult> {
    let mut paths: Vec<_> = paths.filter(|path| !path.as_ref().is_ok_and(|path| overlay.is_gone(path))).collect();
    let Ok(pattern) = glob::Pattern::new(pattern) else { return paths };
    let is_new = |file: &&Path| !file.exists() && pattern.matches_path_with(file, options());
    let new: Vec<_> = overlay.present().filter(is_new).map(|file| Ok(file.to_owned())).collect();
    paths.extend(new);
    paths
}

/// A file written at this moment begins with a dot until it is renamed, as do the internals of a mounted `ConfigMap`.
fn options() -> glob::MatchOptions {
    glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() }
}

fn is_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The same for every path of one file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
