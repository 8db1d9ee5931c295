//! `scorefront service run realtime`: a scoring call as a caller makes it, to see that everything on the way works.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::address::Place;
use super::call::{Answer, Call};
use super::quantity::{duration, positive_millis};
use super::target::Target;
use crate::admin::model::Keys;
use crate::cli::admin::{Admin, Client};
use crate::cli::output;

/// The front end says itself that time is over, a little earlier.
const GRACE: Duration = Duration::from_secs(2);

/// As much of an error as anybody reads.
const MAX_ERROR: usize = 64 * 1024;

pub const EXAMPLES: &str = "\
Examples:
  scorefront service run realtime -n iris -d '{\"data\": [[5.1, 3.5, 1.4, 0.2]]}'
  scorefront service run realtime -n iris -d @request.json --cacert ca.pem --deployment green";

/// Calls a real-time service through the front end, and prints the answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// What is scored: the text itself, or @FILE; @- is standard input
    #[arg(short, long)]
    data: String,
    /// The certificate of the authority that signed the cluster's, if this machine does not trust it
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The file that holds the key; by default the service's own is asked for
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The deployment that is to answer
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = timeout)]
    timeout: Duration,
    #[command(flatten)]
    admin: Admin,
}

fn timeout(text: &str) -> Result<Duration, String> {
    positive_millis(text).and_then(|_| duration(text))
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let data = arguments.data()?;
    let client = arguments.admin.client()?;
    let service = arguments.target.get(&client)?;
    let place = Place::of(&service.scoring_uri, &client)?;
    let call = arguments.call(&client, data)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let called = runtime.block_on(call.send(&place, arguments.cacert.as_deref(), print));
    let status = called.with_context(|| service.scoring_uri.clone())?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn data(&self) -> anyhow::Result<Bytes> {
        match self.data.strip_prefix('@') {
            None => Ok(self.data.clone().into()),
            Some("-") => {
                let mut data = Vec::new();
                std::io::stdin().read_to_end(&mut data).context("standard input")?;
                Ok(data.into())
            }
            Some(file) => Ok(fs::read(file).with_context(|| file.to_owned())?.into()),
        }
    }

    fn call(&self, client: &Client, data: Bytes) -> anyhow::Result<Call> {
        let mut call = Call::new(Method::POST, data, self.timeout + GRACE)
            .with("content-type", "application/json")?
            .with("user-agent", concat!("scorefront/", env!("CARGO_PKG_VERSION")))?
            .with("x-request-timeout-ms", &self.timeout.as_millis().to_string())?;
        if let Some(deployment) = &self.deployment {
            call = call.with("azureml-model-deployment", deployment)?;
        }
        match self.key(client)? {
            Some(key) => call.with_key(key.trim()),
            None => Ok(call),
        }
    }

    fn key(&self, client: &Client) -> anyhow::Result<Option<String>> {
        if let Some(file) = &self.key {
            return Ok(Some(fs::read_to_string(file).with_context(|| format!("key file {}", file.display()))?));
        }
        let keys: Keys = client.get(self.target.path("/keys"))?;
        Ok(keys.primary_key.or(keys.secondary_key))
    }
}

/// Writes what comes as it comes; what is no success goes to standard error.
async fn print(mut answer: Answer) -> anyhow::Result<StatusCode> {
    let status = answer.response.status();
    if !status.is_success() {
        let body = answer.body(MAX_ERROR).await?;
        output::err(&format!("error: {status}: {}", String::from_utf8_lossy(&body).trim_end()));
        if status == StatusCode::UNAUTHORIZED {
            output::err("--key FILE names a file with a key that the service knows");
        }
        return Ok(status);
    }
    let mut last = None;
    while let Some(part) = answer.next().await? {
        last = part.last().copied().or(last);
        output::bytes(&part);
    }
    if output::is_watched() && last.is_some_and(|last| last != b'\n') {
        output::out("\n");
    }
    Ok(status)
}
