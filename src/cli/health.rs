//! `scorefront health`: whether a running front end is to be sent calls, for those who can only ask by running a program,
//! as the health check of a container does.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;

use super::admin::{Admin, Ask};
use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront health
  scorefront health --env my-cluster --live --timeout 500ms")]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// Whether it runs at all (/livez), in place of whether it is to be sent calls (/readyz)
    #[arg(long)]
    live: bool,
    /// How long the answer is waited for
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let answer = arguments.admin.client()?.ask_within(arguments.timeout, Ask::get(path))?;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        // It says why.
        output::bytes(&answer.body);
        return Ok(ExitCode::FAILURE);
    }
    output::bytes(&answer.accepted()?.body);
    Ok(ExitCode::SUCCESS)
}
