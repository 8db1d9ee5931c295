//! `scorefront service create realtime`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::settings::{self, Settings, Source};
use super::show::{self, Shown};
use super::target;
use super::wait::Waiting;
use crate::admin::model::{Service, ServiceCreateRequest};
use crate::cli::admin::{Admin, Ask};
use crate::cli::output::{self, Format, row};
use crate::config::ServiceName;

pub const EXAMPLES: &str = "\
Examples:
  scorefront service create realtime -n iris --replica http://10.1.0.11:5001 --replica http://10.1.0.12:5001
  scorefront service create realtime -n churn --dns churn.models.svc:5001 --protocol mlflow --scoring-timeout 5s
  scorefront service create realtime -n bikes --kubernetes models/bikes:5001
  scorefront service create realtime -n price --deployment name=blue,traffic=90,replica=http://10.1.0.21:5001 \\
    --deployment name=green,traffic=10,replica=http://10.1.0.22:5001";

/// Makes a real-time service: the address that models are called by, before containers that run already
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_group("source", |group| group.required(true)))]
pub(super) struct Arguments {
    /// Its name: 3 to 32 of a-z, 0-9, "-" and "."
    #[arg(short, long, value_parser = target::name)]
    name: ServiceName,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let wanted = ServiceCreateRequest {
        name: arguments.name.to_string(),
        settings: settings::of(&arguments.source, &arguments.settings),
    };
    let answer = client.ask(Ask::post("/v1/services").with(&wanted)?)?;
    if answer.code().as_deref() == Some("ServiceAlreadyExists") {
        let (name, admin) = (&arguments.name, arguments.admin.words());
        bail!("there is a service {name} already; change it: scorefront service update realtime -n {name}{admin}");
    }
    let service: Service = answer.accepted()?.json()?;
    let service = arguments.waiting.wait(&client, service);
    match arguments.output {
        Format::Json => output::json(&Shown::of(&service))?,
        Format::Text => output::out(&text(&service, &arguments.admin.words())),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(service: &Service, admin: &str) -> String {
    let mut text = String::new();
    row(&mut text, "id", &service.id);
    row(&mut text, "state", show::state(service.state));
    row(&mut text, "scoringUri", &service.scoring_uri);
    let name = &service.name;
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nNext:\n  scorefront service keys realtime -n {name}{admin}      # its keys");
    let _ = writeln!(text, "  scorefront service usage realtime -n {name}{admin}     # how it is called");
    text
}
