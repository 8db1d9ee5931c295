//! `scorefront env delete`: removes an environment that nobody serves, after asking.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::found::Found;
use crate::admin::model::Environment;
use crate::cli::admin::Admin;
use crate::cli::output;
use crate::tls::finding::quoted;

const EXAMPLES: &str = "\
Examples:
  scorefront env delete -n my-cluster
  scorefront env delete -g my-rg -n my-cluster --dir /etc/scorefront/my-cluster -y";

/// Removes an environment that is not running, with its certificates and keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The resource group it should be of
    #[arg(short = 'g', long, value_name = "GROUP")]
    resource_group: Option<String>,
    /// Its name
    #[arg(short, long)]
    name: String,
    /// Its directory; by default its name, here
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Asks nothing
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(&arguments.name));
    if !directory.is_dir() {
        bail!("{}: there is no such directory; --dir names the environment's", directory.display());
    }
    let found = Found::read(&directory)?;
    arguments.check(&found)?;
    check_stopped(&directory, &found)?;
    if !arguments.yes && !confirmed(&directory)? {
        output::err("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    remove(&directory)?;
    output::out(&format!("removed {} ({})\n", found.name, directory.display()));
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// # Errors
    ///
    /// It is another one.
    fn check(&self, found: &Found) -> anyhow::Result<()> {
        let group = found.resource_group.as_deref().unwrap_or_default();
        let is_group = self.resource_group.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(group));
        if found.name == self.name && is_group {
            return Ok(());
        }
        let group = found.resource_group.as_ref().map(|group| format!(" of resource group {group}"));
        let group = group.unwrap_or_default();
        bail!("{} holds the environment {}{group}, and not the one asked for", found.directory.display(), found.name);
    }
}

/// # Errors
///
/// A front end answers where this environment's would, and is not known to be another environment's.
fn check_stopped(directory: &Path, found: &Found) -> anyhow::Result<()> {
    let client = Admin::of_environment(directory.to_owned()).client()?;
    if !client.is_answering() {
        return Ok(());
    }
    let is_other = client
        .get::<Environment>("/v1/env")
        .is_ok_and(|served| served.name != found.name || served.resource_group != found.resource_group);
    if !is_other {
        bail!("a front end answers at {}: stop it first", client.address());
    }
    Ok(())
}

fn confirmed(directory: &Path) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("{}: -y says that it is to be removed, with its certificates and keys", directory.display());
    }
    let mut terminal = io::stderr();
    write!(terminal, "Remove {} with its services, certificates and keys? [y/N] ", directory.display())?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Out of its place at once, and then from the disk: nobody finds half of one.
fn remove(directory: &Path) -> anyhow::Result<()> {
    let place = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let Some(above) = place.parent() else { bail!("{}: cannot be removed", directory.display()) };
    let aside = tempfile::Builder::new().prefix(".removed-").tempdir_in(above);
    let aside = aside.with_context(|| format!("{}: cannot be removed", directory.display()))?;
    fs::rename(&place, aside.path()).with_context(|| format!("{}: cannot be removed", directory.display()))?;
    let left = aside.keep();
    fs::remove_dir_all(&left).with_context(|| format!("not all of it is gone: rm -r {}", quoted(&left)))
}
