//! The command line. Exit codes: 0 done, 1 it failed or is invalid, 2 wrong usage.

mod admin;
mod cert;
mod check;
mod completions;
mod demo;
mod drain;
mod env;
mod explain;
mod health;
mod man;
mod output;
mod reload;
mod serve;
mod service;
mod top;
mod trust;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  scorefront demo
  scorefront env create -c -g my-rg -n my-cluster --cert-cname scoring.example.com --cert-pem cert.pem --key-pem key.pem
  scorefront serve --env my-cluster
  scorefront service create realtime --env my-cluster -n iris --replica http://10.1.0.11:5001";

/// The real-time scoring front end of a model-serving cluster: ends TLS for its CNAMEs and carries
/// scoring calls (/api/v1/service/NAME/score) to model containers.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scores a small real model over HTTPS on this machine, with nothing to set up
    Demo(demo::Arguments),
    /// Runs the front end
    ///
    /// SIGTERM and SIGINT stop it in good order: not ready at once, connections taken for `drain_grace`, calls finished within
    /// `drain_timeout`; a second one stops it at once. SIGHUP has it read every file. Exit status: 0 after a stop in which nothing
    /// was cut, 1 if it could not start, had to cut something or was told twice, 2 for wrong usage.
    Serve(serve::Arguments),
    /// Opens and checks everything the configuration names, and says all that is wrong
    ///
    /// Exit status: 0 if there is no error (with --strict: no warning either), 1 if there is, 2 for wrong usage.
    Check(check::Arguments),
    Explain(explain::Arguments),
    /// Has a running front end read its files now, and says what it took
    ///
    /// Exit status: 0 if everything that the files hold is served, 1 if something was not taken, 2 for wrong usage.
    Reload(reload::Arguments),
    Drain(drain::Arguments),
    Top(top::Arguments),
    /// Asks whether a running front end is to be sent calls: exit status 0 or 1
    Health(health::Arguments),
    /// Looks into certificates and keys of every form, and puts them where they are served from
    Cert(cert::Arguments),
    /// Makes, shows, changes and removes environments: the files of one cluster
    Env(env::Arguments),
    /// Makes, shows, changes, removes and calls the services of a running front end
    Service(Box<service::Arguments>),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Which configuration a command is about.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Configuration {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An environment: a directory that holds scorefront.toml, services/ and certs/
    #[arg(long, value_name = "DIR")]
    env: Option<PathBuf>,
}

impl Configuration {
    fn file(&self) -> PathBuf {
        match (&self.config, &self.env) {
            (Some(file), _) => file.clone(),
            (None, Some(directory)) => directory.join("scorefront.toml"),
            // clap asks for one of the two.
            (None, None) => PathBuf::from("scorefront.toml"),
        }
    }
}

/// The exit code of wrong usage; clap's own.
const USAGE: u8 = 2;

/// Arguments that do not go together, where clap cannot tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

impl WrongUsage {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Runs the command this process was started with.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::Drain(arguments) => drain::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Cert(arguments) => cert::run(arguments),
        Command::Env(arguments) => env::run(arguments),
        Command::Service(arguments) => service::run(*arguments),
        Command::Completions(arguments) => Ok(completions::run(arguments)),
        Command::Man(arguments) => man::run(arguments),
    };
    outcome.unwrap_or_else(|error| {
        output::err(&format!("error: {error:#}"));
        if error.is::<WrongUsage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn each(command: &clap::Command, look: &mut impl FnMut(&clap::Command)) {
        look(command);
        command.get_subcommands().for_each(|command| each(command, look));
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for_and_has_examples_of_itself() {
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        each(&command, &mut |command| {
            let name = command.get_bin_name().unwrap_or_default();
            assert!(command.get_about().is_some(), "{name} does not say what it is for");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.starts_with("Examples:\n"), "{name} has no examples");
            assert!(examples.contains(&format!("  {name}")), "{name} has examples of something else: {examples}");
        });
    }
}
