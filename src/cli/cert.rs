//! `scorefront cert`: looks into certificates and keys of every form, and turns them into the PEM pair that is served.

mod file;
mod import;
mod inspect;
mod key;
mod password;
pub(super) mod say;
mod unpack;

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use self::file::read;
pub(super) use self::import::cname;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront cert inspect scoring.example.com:443
  scorefront cert import pair.pfx --env my-cluster")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts a certificate and its key, of whatever form, into an environment as the PEM pair that is served
    Import(import::Arguments),
    /// Shows what is in a file, behind a CNAME or served at host:port, and what is wrong with it
    Inspect(inspect::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Import(arguments) => import::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
    }
}
