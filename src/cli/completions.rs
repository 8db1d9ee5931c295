//! `scorefront completions`: what a shell needs to complete its commands.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::output;

/// Prints what a shell needs to complete scorefront's commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront completions bash > /etc/bash_completion.d/scorefront
  scorefront completions zsh > ~/.zfunc/_scorefront
  scorefront completions fish > ~/.config/fish/completions/scorefront.fish")]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    if arguments.shell == Shell::Fish {
        command = within_two_levels(command);
    }
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output::bytes(&script);
    ExitCode::SUCCESS
}

/// The same commands with the arguments of those below the second level at the second: the script for fish has none below.
fn within_two_levels(command: Command) -> Command {
    let lifted = |command: Command| {
        let below: Vec<_> = command.get_subcommands().flat_map(Command::get_arguments).cloned().collect();
        command.args(below)
    };
    command.mut_subcommands(move |first| first.mut_subcommands(lifted))
}
