//! `scorefront service show realtime`: what the original showed, in its order; with `-v` everything.

use std::process::ExitCode;

use serde::Serialize;

use super::settings;
use super::target::Target;
use crate::admin::model::{Service, State};
use crate::cli::admin::Admin;
use crate::cli::output::{self, Format, row};

pub const EXAMPLES: &str = "\
Examples:
  scorefront service show realtime -n iris
  scorefront service show realtime -i iris.my-cluster.my-rg -v";

/// Shows a real-time service; its scoring URI has the https and the CNAME of the cluster's certificate
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Shows everything that is known of it
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    output: Format,
}

/// What is shown of a service unless more is asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    state: State,
    created_at: &'a str,
    updated_at: &'a str,
    scoring_uri: &'a str,
}

impl<'a> Shown<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        Self {
            id: &service.id,
            name: &service.name,
            state: service.state,
            created_at: &service.created_at,
            updated_at: &service.updated_at,
            scoring_uri: &service.scoring_uri,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let service = arguments.target.get(&arguments.admin.client()?)?;
    tell(&service, arguments.verbose, arguments.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what there is to say of a service.
pub(super) fn tell(service: &Service, is_verbose: bool, format: Format) -> anyhow::Result<()> {
    match (format, is_verbose) {
        (Format::Json, true) => output::json(service),
        (Format::Json, false) => output::json(&Shown::of(service)),
        (Format::Text, _) => {
            output::out(&text(service, is_verbose)?);
            Ok(())
        }
    }
}

fn text(service: &Service, is_verbose: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    row(&mut text, "id", &service.id);
    row(&mut text, "name", &service.name);
    row(&mut text, "state", state(service.state));
    if let Some(error) = &service.error {
        row(&mut text, "", &error.message);
    }
    row(&mut text, "createdAt", &service.created_at);
    row(&mut text, "updatedAt", &service.updated_at);
    row(&mut text, "scoringUri", &service.scoring_uri);
    if is_verbose {
        row(&mut text, "swaggerUri", &service.swagger_uri);
        row(&mut text, "replicas", &format!("{} of {} ready", service.ready_replicas, service.total_replicas));
        let line = |(field, value): (String, serde_json::Value)| {
            [field, value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
        };
        let settings: Vec<_> = settings::fields(&service.settings)?.into_iter().map(line).collect();
        text.push('\n');
        text.push_str(&output::table(["SETTING", "VALUE"], &settings));
    }
    Ok(text)
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Creating => "Creating",
        State::Updating => "Updating",
        State::Succeeded => "Succeeded",
        State::Failed => "Failed",
    }
}
