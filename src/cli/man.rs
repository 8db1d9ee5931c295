//! `scorefront man`: manual pages, one for each command, from the same definition as the help.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::output;

/// Prints the manual page, or writes those of all commands to a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront man | man -l -
  scorefront man --out /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// The directory to write the pages of all commands to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut command = super::Arguments::command().disable_help_subcommand(true);
    command.build();
    match arguments.out {
        None => output::bytes(&page(&command)?),
        Some(directory) => {
            fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
            let count = store(&command, &directory)?;
            output::out(&format!("{count} pages in {}\n", directory.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and those of what is below it; how many they are.
fn store(command: &Command, directory: &Path) -> anyhow::Result<usize> {
    let file = directory.join(Man::new(command.clone()).get_filename());
    fs::write(&file, page(command)?).with_context(|| file.display().to_string())?;
    let below = command.get_subcommands().map(|command| store(command, directory));
    Ok(1 + below.sum::<anyhow::Result<usize>>()?)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(examples) = command.get_after_help() {
        write_examples(&mut page, &examples.to_string())?;
    }
    Ok(page)
}

/// As they stand, line by line; a page's text flows otherwise.
fn write_examples(page: &mut Vec<u8>, examples: &str) -> io::Result<()> {
    writeln!(page, ".SH EXAMPLES\n.nf")?;
    for line in examples.lines().skip_while(|line| line.starts_with("Examples:")) {
        // A backslash is written as one, a minus stays one, and no line begins with a command.
        writeln!(page, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?;
    }
    writeln!(page, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = super::super::Arguments::command().disable_help_subcommand(true);
        command.build();
        let count = store(&command, directory.path()).expect("pages");
        assert_eq!(count, fs::read_dir(directory.path()).expect("read").count());
        let page = fs::read_to_string(directory.path().join("scorefront-service-create-realtime.1")).expect("a page");
        assert!(page.contains(".SH EXAMPLES\n.nf\n\\&  scorefront service create realtime \\-n iris"), "{page}");
    }
}
