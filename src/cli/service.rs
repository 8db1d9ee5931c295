//! `scorefront service`: makes, shows, changes, removes and calls the services of a running front end. Words and flags are
//! those of `az ml service … realtime`; what they mean for the files is decided by the front end.

mod address;
mod call;
mod create;
mod delete;
mod deployment;
mod keys;
mod list;
mod place;
mod quantity;
mod run;
mod settings;
mod show;
mod swagger;
mod target;
mod update;
mod usage;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  scorefront service create realtime -n iris --replica http://10.1.0.11:5001
  scorefront service show realtime -n iris
  scorefront service usage realtime -n iris";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a service
    #[command(after_help = create::EXAMPLES)]
    Create(Of<create::Arguments>),
    /// Shows a service
    #[command(after_help = show::EXAMPLES)]
    Show(Of<show::Arguments>),
    /// Lists the services
    #[command(after_help = list::EXAMPLES)]
    List(Of<list::Arguments>),
    /// Changes a service
    #[command(after_help = update::EXAMPLES)]
    Update(Of<update::Arguments>),
    /// Takes a service away
    #[command(after_help = delete::EXAMPLES)]
    Delete(Of<delete::Arguments>),
    /// Shows a service's keys, or makes one anew
    #[command(after_help = keys::EXAMPLES)]
    Keys(Of<keys::Arguments>),
    /// Shows how a service is called
    #[command(after_help = usage::EXAMPLES)]
    Usage(Of<usage::Arguments>),
    /// Calls a service
    #[command(after_help = run::EXAMPLES)]
    Run(Of<run::Arguments>),
}

/// The word for the kind of service, which the original has: there were others than real-time ones.
#[derive(Debug, clap::Args)]
struct Of<T: clap::Args> {
    #[command(subcommand)]
    kind: Kind<T>,
}

#[derive(Debug, Subcommand)]
enum Kind<T: clap::Args> {
    Realtime(T),
}

impl<T: clap::Args> Of<T> {
    fn arguments(self) -> T {
        let Kind::Realtime(arguments) = self.kind;
        arguments
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Create(of) => create::run(of.arguments()),
        Command::Show(of) => show::run(of.arguments()),
        Command::List(of) => list::run(of.arguments()),
        Command::Update(of) => update::run(of.arguments()),
        Command::Delete(of) => delete::run(of.arguments()),
        Command::Keys(of) => keys::run(of.arguments()),
        Command::Usage(of) => usage::run(of.arguments()),
        Command::Run(of) => run::run(of.arguments()),
    }
}
