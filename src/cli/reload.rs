//! `scorefront reload`: has a running front end read its files, and says what it took.

use std::fmt::Write as _;
use std::process::ExitCode;

use http::StatusCode;

use super::admin::{Admin, Ask};
use super::output::{self, Format};
use crate::environment::report::{Report, Taking};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront reload --env my-cluster
  scorefront reload --admin http://127.0.0.1:8900 -o json")]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// What is printed: text for people, json for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let answer = arguments.admin.client()?.ask(Ask::post("/v1/reload"))?;
    let is_told = matches!(answer.status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY);
    let answer = if is_told { answer } else { answer.accepted()? };
    match arguments.output {
        Format::Json => output::bytes(&answer.body),
        Format::Text => output::out(&text(&answer.json()?)?),
    }
    Ok(if answer.status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> Result<String, std::fmt::Error> {
    let mut said = String::new();
    let mut line = |what: &str, result: Taking, errors: &[String]| {
        let result = match result {
            Taking::Taken => "taken",
            Taking::Unchanged => "unchanged",
            Taking::Refused => "NOT TAKEN",
        };
        writeln!(said, "{what}: {result}")?;
        errors.iter().try_for_each(|error| writeln!(said, "  {error}"))
    };
    let configuration = match report.config.result {
        Taking::Refused => "configuration (the one before goes on)",
        Taking::Taken | Taking::Unchanged => "configuration",
    };
    line(configuration, report.config.result, &report.config.errors)?;
    for certificate in &report.certificates {
        let serial = match (&certificate.replaced_serial, &certificate.serial) {
            (Some(old), Some(new)) => format!(" (serial {old} to {new})"),
            (None, Some(serial)) if certificate.result == Taking::Refused => format!(" (serial {serial} goes on)"),
            (None, Some(serial)) => format!(" (serial {serial})"),
            (_, None) => " (none is served)".to_owned(),
        };
        line(&format!("{}{serial}", certificate.cname), certificate.result, &certificate.errors)?;
    }
    for other in &report.others {
        line(&other.files.join(", "), other.result, &other.errors)?;
    }
    if !report.waits_for_restart.is_empty() {
        writeln!(said, "holds after a restart only: {}", report.waits_for_restart.join(", "))?;
    }
    Ok(said)
}
