//! `--name value` and `--name`, read by hand: the only caller is a driver.

use std::str::FromStr;

use crate::Failure;

pub struct Options(Vec<String>);

impl Options {
    pub fn new(arguments: impl Iterator<Item = String>) -> Self {
        Self(arguments.collect())
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|argument| argument == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|argument| argument == name)?;
        (at + 1 < self.0.len()).then(|| self.0.drain(at..=at + 1).nth(1))?
    }

    pub fn required(&mut self, name: &str) -> Result<String, Failure> {
        self.text(name).ok_or_else(|| format!("{name} is needed").into())
    }

    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, Failure> {
        match self.text(name) {
            Some(text) => text.parse().map_err(|_| format!("{name}: not {text}").into()),
            None => Ok(default),
        }
    }

    /// What nobody asked for is a mistake.
    pub fn end(&self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("not understood: {}", self.0.join(" ")).into()) }
    }
}
