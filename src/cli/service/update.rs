//! `scorefront service update realtime`: what is named changes, everything else stays. Deployments are changed in what they
//! are now, so that of two who change them at once one is told.

use std::process::ExitCode;

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::deployment::Change;
use super::quantity::share;
use super::settings::{self, FIELDS, Settings, Source, TARGET_FIELDS};
use super::show;
use super::target::Target;
use super::wait::Waiting;
use crate::admin::model::Service;
use crate::cli::WrongUsage;
use crate::cli::admin::{Admin, Ask, Client};
use crate::cli::output::Format;

pub const EXAMPLES: &str = "\
Examples:
  scorefront service update realtime -n iris --scoring-timeout 5s --unset max-queue
  A new version beside the one there is, then calls for it, then only it:
    scorefront service update realtime -n iris --deployment name=green,replica=http://10.1.0.22:5001
    scorefront service update realtime -n iris --traffic default=90,green=10
    scorefront service update realtime -n iris --traffic green=100 --remove-deployment default";

/// The fields that say which replicas there are.
const SOURCES: [&str; 3] = ["replicas", "dns", "kubernetes"];

/// Changes a real-time service; what is not named stays as it is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    source: Source,
    /// The deployments' shares of the calls, such as blue=50,green=50; they add up to 100
    #[arg(long, value_name = "DEPLOYMENT=PERCENT", num_args = 1.., value_delimiter = ',', value_parser = share)]
    traffic: Vec<(String, u64)>,
    /// Takes a deployment away
    #[arg(long, value_name = "DEPLOYMENT")]
    remove_deployment: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// Has a setting have its default again, by the name of its flag
    #[arg(long, value_name = "FLAG-NAME", num_args = 1.., value_delimiter = ',',
          value_parser = clap::builder::PossibleValuesParser::new(FIELDS.map(|(flag, _)| flag)))]
    unset: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    output: Format,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut patch = arguments.patch()?;
    let client = arguments.admin.client()?;
    let etag = arguments.change_deployments(&client, &mut patch)?;
    let mut ask = Ask::new(Method::PUT, arguments.target.path("")).with(&patch)?;
    if let Some(etag) = etag {
        ask = ask.if_match(&etag)?;
    }
    let answer = client.ask(ask)?;
    if answer.status == StatusCode::PRECONDITION_FAILED {
        bail!("{} was changed by somebody else at the same time; look at it and try again", arguments.target);
    }
    let service: Service = answer.accepted()?.json()?;
    let service = arguments.waiting.wait(&client, service);
    show::tell(&service, false, arguments.output)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// What the flags say, but for deployments, as a merge patch (RFC 7396).
    fn patch(&self) -> anyhow::Result<Map<String, Value>> {
        let mut patch = settings::fields(&settings::of(&self.source, &self.settings))?;
        for (flag, field) in FIELDS.iter().filter(|(flag, _)| self.unset.iter().any(|unset| unset == flag)) {
            if patch.insert((*field).to_owned(), Value::Null).is_some() {
                Err(WrongUsage::new(format!("--{flag} is set and unset at once")))?;
            }
        }
        patch.retain(|field, value| field != "deployments" || value.is_null());
        // Replicas are listed or looked up, not both.
        if SOURCES.iter().any(|source| patch.get(*source).is_some_and(|value| !value.is_null())) {
            for other in SOURCES {
                patch.entry(other).or_insert(Value::Null);
            }
        }
        // A namespace that is not written is the front end's own, and not the one that was written before.
        if let Some(kubernetes) = patch.get_mut("kubernetes").and_then(Value::as_object_mut) {
            kubernetes.entry("namespace").or_insert(Value::Null);
        }
        if patch.is_empty() && self.deployments().is_none() {
            Err(WrongUsage::new("nothing to change: name a setting, such as --scoring-timeout 5s"))?;
        }
        Ok(patch)
    }

    fn deployments(&self) -> Change<'_> {
        Change { set: &self.source.deployment, removed: &self.remove_deployment, traffic: &self.traffic }
    }

    /// Adds the deployments as they will be, if any of them change, and says of which service that is true.
    fn change_deployments(&self, client: &Client, patch: &mut Map<String, Value>) -> anyhow::Result<Option<String>> {
        let change = self.deployments();
        if change.is_none() {
            return Ok(None);
        }
        let answer = self.target.ask(client)?;
        let before: Service = answer.json()?;
        let deployments = change.of(&before.settings).with_context(|| before.name.clone())?;
        patch.insert("deployments".to_owned(), serde_json::to_value(deployments)?);
        if before.settings.deployments.is_none() {
            // What stood there stands in the first deployment now.
            for field in TARGET_FIELDS {
                patch.entry(field).or_insert(Value::Null);
            }
        }
        Ok(answer.header("etag").map(str::to_owned))
    }
}
