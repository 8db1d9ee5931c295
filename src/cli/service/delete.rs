//! `scorefront service delete realtime`.

use std::process::ExitCode;

use anyhow::bail;
use http::{Method, StatusCode};

use super::target::Target;
use crate::cli::admin::{Admin, Ask};
use crate::cli::output;

pub const EXAMPLES: &str = "\
Examples:
  scorefront service delete realtime -n iris
  scorefront service delete realtime -i iris.my-cluster.my-rg";

/// Takes a real-time service away, with its keys; calls in flight are answered
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let service = arguments.target.get(&client)?;
    let answer = client.accepted(Ask::new(Method::DELETE, arguments.target.path("")))?;
    if answer.status == StatusCode::NO_CONTENT {
        bail!("No such service: {}.", arguments.target);
    }
    output::out(&format!("deleted {}\n", service.name));
    Ok(ExitCode::SUCCESS)
}
