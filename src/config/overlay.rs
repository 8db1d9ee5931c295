//! Texts in the place of what files hold: for judging a change before it is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What files would hold, by their paths as the configuration's own are built. Every other file holds what it holds.
#[derive(Clone, Debug, Default)]
pub struct Overlay(BTreeMap<PathBuf, Option<String>>);

impl Overlay {
    /// As if `file` held `text`, or were not there.
    pub fn set(&mut self, file: PathBuf, text: Option<String>) {
        self.0.insert(file, text);
    }

    /// What is to be taken for the content of `file`; the inner `None`: it is to be gone.
    pub fn get(&self, file: &Path) -> Option<Option<&str>> {
        self.0.get(file).map(Option::as_deref)
    }

    /// The files that are to be there, whether or not they are.
    pub(super) fn present(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter(|(_, text)| text.is_some()).map(|(file, _)| file.as_path())
    }

    pub(super) fn is_gone(&self, file: &Path) -> bool {
        self.get(file) == Some(None)
    }
}
