//! `scorefront explain`: what a call would meet on its way, and why, without making it.
//!
//! What becomes of it is decided by the code that decides in a front end that serves ([`crate::tls::identify`],
//! [`crate::scoring::explain`]), over the same files. Here it is only asked, and told.

mod call;
mod replicas;
mod report;
mod way;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use self::call::Call;
use self::way::Way;
use super::output::{self, Format};
use super::{Configuration, WrongUsage};
use crate::environment;

/// Where the configuration is if nothing is said: here, or where the package has it.
const PLACES: [&str; 2] = ["scorefront.toml", "/etc/scorefront/scorefront.toml"];

/// Follows a call to URL through the configuration, step by step, and says what it would get and why; nothing is called
///
/// Exit status: 0 if it would reach a service, 1 if it would be refused, 2 for wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront explain https://scoring.example.com/api/v1/service/iris/score --env my-cluster
  scorefront explain https://localhost:8443/api/v1/service/iris/ -H 'azureml-model-deployment: green' -o json")]
pub(super) struct Arguments {
    /// What is called, as a caller has it
    url: String,
    /// The configuration file; by default scorefront.toml in this directory, else /etc/scorefront/scorefront.toml
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    config: Option<PathBuf>,
    /// An environment: a directory that holds scorefront.toml, services/ and certs/
    #[arg(long, value_name = "DIR")]
    env: Option<PathBuf>,
    /// The method; by default POST for …/score, else GET
    #[arg(short = 'X', long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    /// A field of the request, such as 'Host: scoring.example.com'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The file that holds the caller's key; by default the caller is one who has a right key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The address that the call comes from, where services tell callers apart by it
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// What is printed: text for people, json for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "expected a method such as POST or GET".to_owned())
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let call = Call::of(&arguments)?;
    let file = arguments.file()?;
    let environment = match environment::open(&file) {
        Ok((environment, _)) => environment,
        Err(diagnostics) => {
            output::err(diagnostics.to_string().trim_end());
            return Err(anyhow!("{} cannot be served, so nothing can be called", file.display()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(Way::of(&environment, call).walk());
    // A name server that does not answer is not waited for.
    runtime.shutdown_background();
    match arguments.output {
        Format::Json => output::json(&report)?,
        Format::Text => output::out(&report.to_text()),
    }
    Ok(if report.reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn file(&self) -> anyhow::Result<PathBuf> {
        if self.config.is_some() || self.env.is_some() {
            return Ok(Configuration { config: self.config.clone(), env: self.env.clone() }.file());
        }
        let found = PLACES.into_iter().map(Path::new).find(|place| place.exists());
        let found = found.map(Path::to_owned);
        found.ok_or_else(|| WrongUsage::new("--config FILE or --env DIR says where the configuration is").into())
    }

    /// The fields of the request that were given.
    ///
    /// # Errors
    ///
    /// One of them is none. It is not shown, for it may hold a key; nor would clap be told not to.
    fn fields(&self) -> anyhow::Result<HeaderMap> {
        let mut fields = HeaderMap::new();
        for text in &self.headers {
            let wrong = |what: &str| WrongUsage::new(format!("--header: {what}"));
            let (name, value) = text.split_once(':').ok_or_else(|| wrong("expected NAME: VALUE"))?;
            let name: HeaderName = name.trim().parse().map_err(|_| wrong("what is before the colon is no name"))?;
            let value =
                value.trim().parse().map_err(|_| wrong(&format!("{name}: the value holds what no field can")))?;
            fields.append(name, value);
        }
        Ok(fields)
    }

    /// The caller's key.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is none. Nothing of it is in the message, nor of what may be a key in the place of a file.
    fn key(&self) -> anyhow::Result<Option<HeaderValue>> {
        let Some(file) = &self.key else { return Ok(None) };
        let text = std::fs::read_to_string(file).context("the file that --key names")?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| anyhow!("the file that --key names: holds what no key does"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
