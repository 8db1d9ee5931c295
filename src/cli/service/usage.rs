//! `scorefront service usage realtime`: how a service is called, in lines that work as pasted.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address::Place;
use super::call::reach;
use super::swagger;
use super::target::Target;
use crate::admin::model::{Keys, Service};
use crate::cli::admin::{Admin, Client};
use crate::cli::output::{self, Format};
use crate::tls::finding::quoted;

/// How long a name server may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

pub const EXAMPLES: &str = "\
Examples:
  scorefront service usage realtime -n iris
  scorefront service usage realtime -n iris --cacert ca.pem";

/// Shows how a real-time service is called: its URIs, the fields a call needs, and a curl line that works as pasted
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The certificate of the authority that signed the cluster's, if this machine does not trust it
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// How it is called.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    scoring_uri: String,
    /// Names and values.
    headers: Vec<String>,
    swagger_uri: String,
    sample_cli: String,
    sample_curl: String,
    /// What the lines still lack.
    notes: Vec<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.admin.client()?;
    let service = arguments.target.get(&client)?;
    let keys: Keys = client.get(arguments.target.path("/keys"))?;
    let usage =
        Look { arguments: &arguments, client, service, key: keys.primary_key.or(keys.secondary_key) }.usage()?;
    match arguments.output {
        Format::Json => output::json(&usage)?,
        Format::Text => output::out(&text(&usage)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of the service.
struct Look<'a> {
    arguments: &'a Arguments,
    client: Client,
    service: Service,
    key: Option<String>,
}

impl Look<'_> {
    fn usage(&self) -> anyhow::Result<Usage> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut notes = Vec::new();
        let cacert = self.arguments.cacert.as_deref();
        let place = runtime.block_on(reach(Place::of(&self.service.swagger_uri, &self.client)?));
        let seen = runtime.block_on(swagger::ask(&place, cacert, self.key.as_deref()))?;
        let resolve = runtime.block_on(resolve(&place));
        // A name server that does not answer is not waited for.
        runtime.shutdown_background();
        let data = data(&seen.document, &mut notes);
        let cacert = self.cacert(place.is_tls, seen.is_trusted, &mut notes);
        let headers = headers(self.key(seen.is_let_in, &mut notes));
        Ok(Usage {
            scoring_uri: self.service.scoring_uri.clone(),
            swagger_uri: self.service.swagger_uri.clone(),
            sample_cli: self.cli(&data, cacert.as_deref()),
            sample_curl: self.curl(&headers, &data, &[cacert, resolve]),
            headers,
            notes,
        })
    }

    /// The key that calls have to have, or its place; none, if the service lets them in without one.
    fn key(&self, is_let_in: bool, notes: &mut Vec<String>) -> Option<&str> {
        let is_open = self.service.settings.auth_enabled == Some(false) || is_let_in;
        if self.key.is_some() || is_open {
            return self.key.as_deref();
        }
        notes.push(format!(
            "KEY is a key of the service, of which only a hash is kept; a new one: \
             scorefront service keys realtime -n {} --regen --key Primary{}",
            self.service.name,
            self.arguments.admin.words()
        ));
        Some("KEY")
    }

    /// The argument that names whom to trust, where there is need of one.
    fn cacert(&self, is_tls: bool, is_trusted: bool, notes: &mut Vec<String>) -> Option<String> {
        if !is_tls {
            return None;
        }
        if let Some(file) = &self.arguments.cacert {
            return Some(format!("--cacert {}", quoted(file)));
        }
        if is_trusted {
            return None;
        }
        notes.push("ca.pem is the certificate of the authority that signed the cluster's".to_owned());
        Some("--cacert ca.pem".to_owned())
    }

    fn cli(&self, sample: &str, cacert: Option<&str>) -> String {
        let cacert = cacert.map(|argument| format!(" {argument}")).unwrap_or_default();
        let (name, admin) = (&self.service.name, self.arguments.admin.words());
        format!("scorefront service run realtime -n {name}{admin}{cacert} -d {sample}")
    }

    fn curl(&self, headers: &[String], sample: &str, arguments: &[Option<String>]) -> String {
        let mut curl = "curl".to_owned();
        for argument in arguments.iter().flatten() {
            let _ = write!(curl, " {argument}");
        }
        for header in headers {
            let _ = write!(curl, " -H {}", quoted(Path::new(header)));
        }
        let _ = write!(curl, " --data-binary {sample} {}", quoted(Path::new(&self.service.scoring_uri)));
        curl
    }
}

fn headers(key: Option<&str>) -> Vec<String> {
    let key = key.map(|key| format!("Authorization: Bearer {key}"));
    std::iter::once("Content-Type: application/json".to_owned()).chain(key).collect()
}

/// What is sent, as an argument; `notes` say what it lacks.
fn data(document: &anyhow::Result<Value>, notes: &mut Vec<String>) -> String {
    if let Some(sample) = document.as_ref().ok().and_then(swagger::sample) {
        return quoted(Path::new(&sample));
    }
    let why = document.as_ref().err().map(|why| format!("; the service does not say what that is: {why:#}"));
    notes.push(format!("request.json holds what is to be scored{}", why.unwrap_or_default()));
    "@request.json".to_owned()
}

/// The argument that leads curl to the front end, where the name leads nowhere yet.
async fn resolve(place: &Place) -> Option<String> {
    if place.host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let found = timeout(LOOKUP_TIMEOUT, lookup_host((place.host.as_str(), place.port))).await;
    if found.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some())) {
        return None;
    }
    let address = match place.addresses.first()?.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    Some(format!("--resolve {}:{}:{address}", place.host, place.port))
}

fn text(usage: &Usage) -> String {
    let mut text = format!("Scoring URL:\n    {}\n\nHeaders:\n", usage.scoring_uri);
    for header in &usage.headers {
        let _ = writeln!(text, "    {header}");
    }
    let _ = writeln!(text, "\nSwagger URL:\n    {}", usage.swagger_uri);
    let _ = writeln!(text, "\nSample CLI command:\n    {}", usage.sample_cli);
    let _ = writeln!(text, "\nSample CURL call:\n    {}", usage.sample_curl);
    for note in &usage.notes {
        let _ = writeln!(text, "\nNote: {note}.");
    }
    text
}
