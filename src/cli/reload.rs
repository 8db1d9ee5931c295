//! `scorefront reload`: has a running front end read its files, and says what it took.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context, bail};
use http::{Method, StatusCode};

use super::admin::Admin;
use crate::environment::report::{Report, Taking};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// What is printed: text for people, json for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime.block_on(client.ask(Method::POST, "/v1/reload"))?;
    if !matches!(status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    let said = match arguments.output {
        Format::Json => String::from_utf8_lossy(&body).into_owned(),
        Format::Text => text(&serde_json::from_slice(&body).context("not the answer of a front end")?)?,
    };
    // Whoever reads may stop when they have seen enough (`| head`); the exit code says the rest.
    let _ = io::stdout().write_all(said.as_bytes());
    Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    Ok(said)
}
