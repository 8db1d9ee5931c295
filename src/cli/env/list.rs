//! `scorefront env list`: the environments below a directory, by their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::found::{self, Found};
use super::show;
use crate::cli::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  scorefront env list
  scorefront env list --dir /etc/scorefront -o json";

/// Lists the environments in a directory and directly below it, running or not
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The directory
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for directory in candidates(&arguments.dir)? {
        match Found::read(&directory) {
            Ok(environment) => found.push(environment),
            // One that nobody can read hides none of the others.
            Err(error) => output::err(&format!("warning: {error:#}")),
        }
    }
    match arguments.output {
        Format::Json => output::json(&found)?,
        Format::Text => output::out(&text(&found)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory itself and those in it, as far as they look like environments.
fn candidates(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let below = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        // One that is being made, or removed.
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        (!is_hidden).then(|| if directory == Path::new(".") { entry.file_name().into() } else { entry.path() })
    });
    let mut below: Vec<PathBuf> = below.filter(|path| found::is_one(path)).collect();
    below.sort_unstable();
    let own = found::is_one(directory).then(|| directory.to_owned());
    Ok(own.into_iter().chain(below).collect())
}

fn text(found: &[Found]) -> String {
    let lines: Vec<_> = found
        .iter()
        .map(|one| {
            [
                one.name.clone(),
                one.resource_group.clone().unwrap_or_else(|| "-".to_owned()),
                show::cluster_type(one.cluster_type).to_owned(),
                show::status(one.ssl_status).to_owned(),
                if one.cnames.is_empty() { "-".to_owned() } else { one.cnames.join(",") },
                one.directory.display().to_string(),
            ]
        })
        .collect();
    output::table(["NAME", "GROUP", "TYPE", "TLS", "CNAMES", "DIRECTORY"], &lines)
}
