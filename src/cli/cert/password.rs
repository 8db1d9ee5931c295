//! The password of a locked file: the empty one, the one in `--password-file`, or what is typed on the terminal. It is
//! never an argument, which every user of the machine could read, and never part of a message.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use zeroize::Zeroizing;

use super::file::read;
use super::say;

/// How often a person may try.
const ATTEMPTS: usize = 3;

/// Why something that is locked stays so.
pub(super) enum Refusal {
    WrongPassword,
    /// Something that others can open. What it is, to be said behind the file's name.
    Unsupported(&'static str),
    /// Something that nobody can open.
    Broken(String),
}

/// Where passwords come from.
pub(super) struct Passwords {
    source: Source,
}

enum Source {
    Nowhere,
    File(PathBuf, Zeroizing<String>),
    Terminal,
}

impl Passwords {
    /// Reads the first line of `file`, if one is given.
    pub fn from_file(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else { return Ok(Self { source: Source::Terminal }) };
        let bytes = read(path)?;
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = first.strip_suffix(b"\r").unwrap_or(first);
        let first =
            std::str::from_utf8(first).ok().with_context(|| format!("{}: is not UTF-8 text", path.display()))?;
        Ok(Self { source: Source::File(path.to_owned(), Zeroizing::new(first.to_owned())) })
    }

    /// Nobody is asked: what is locked stays so, unless its password is the empty one.
    pub fn none() -> Self {
        Self { source: Source::Nowhere }
    }

    /// Opens what is locked in `file`; `mend` is the command that opens it where we cannot.
    pub fn open<T>(&self, file: &Path, mend: &str, unlock: impl Fn(&str) -> Result<T, Refusal>) -> anyhow::Result<T> {
        let attempt = |password: &str| match unlock(password) {
            Ok(opened) => Ok(Some(opened)),
            Err(Refusal::WrongPassword) => Ok(None),
            Err(Refusal::Unsupported(what)) => bail!("is {what}; convert it: {mend}"),
            Err(Refusal::Broken(problem)) => bail!(problem),
        };
        if let Some(opened) = attempt("")? {
            return Ok(opened);
        }
        match &self.source {
            Source::Nowhere => bail!("is locked with a password"),
            Source::File(from, password) => attempt(password)?
                .with_context(|| format!("the password on the first line of {} does not open it", from.display())),
            Source::Terminal => ask(file, attempt),
        }
    }
}

fn ask<T>(file: &Path, attempt: impl Fn(&str) -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    if !io::stdin().is_terminal() {
        bail!("is locked with a password, and there is no terminal to ask on; give --password-file FILE");
    }
    for _ in 0..ATTEMPTS {
        let prompt = format!("Password of {}: ", file.display());
        let typed = Zeroizing::new(rpassword::prompt_password(prompt).context("cannot ask for the password")?);
        if let Some(opened) = attempt(&typed)? {
            return Ok(opened);
        }
        say::err("This is not the password.");
    }
    bail!("stays locked after {ATTEMPTS} wrong passwords")
}
