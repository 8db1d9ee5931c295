//! `scorefront env`: makes, shows, changes and removes environments, each one cluster's files. Words and flags are those
//! of `az ml env` and `Set-AzureRmMlOpCluster`.

mod create;
mod delete;
mod found;
mod list;
mod pair;
mod set;
mod show;

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use super::admin::Client;
use crate::admin::model::Environment;

const EXAMPLES: &str = "\
Examples:
  scorefront env create -c -g my-rg -n my-cluster --cert-cname scoring.example.com --cert-pem cert.pem --key-pem key.pem
  scorefront env show --env my-cluster
  scorefront env set --env my-cluster --ssl-cert-pem cert.pem --ssl-key-pem key.pem";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Arguments),
    Show(show::Arguments),
    List(list::Arguments),
    Set(set::Arguments),
    Delete(delete::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Create(arguments) => create::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Set(arguments) => set::run(arguments),
        Command::Delete(arguments) => delete::run(arguments),
    }
}

/// Which environment it should be, where a command is told.
#[derive(Debug, clap::Args)]
struct Expected {
    /// The resource group it should be of
    #[arg(short = 'g', long, value_name = "GROUP")]
    resource_group: Option<String>,
    /// The name it should have
    #[arg(short, long)]
    name: Option<String>,
}

impl Expected {
    fn is_told(&self) -> bool {
        self.resource_group.is_some() || self.name.is_some()
    }

    /// # Errors
    ///
    /// The front end serves another environment.
    fn check(&self, environment: &Environment, client: &Client) -> anyhow::Result<()> {
        let is_name = self.name.as_ref().is_none_or(|name| *name == environment.name);
        // Resource groups have no case.
        let served = environment.resource_group.as_deref().unwrap_or_default();
        let is_group = self.resource_group.as_ref().is_none_or(|group| group.eq_ignore_ascii_case(served));
        if is_name && is_group {
            return Ok(());
        }
        let group = environment.resource_group.as_ref().map(|group| format!(" of resource group {group}"));
        bail!(
            "{} serves the environment {}{}, and not the one asked for; --env DIR or --admin URL names another front end",
            client.address(),
            environment.name,
            group.unwrap_or_default()
        );
    }
}
