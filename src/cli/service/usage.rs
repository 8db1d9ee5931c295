//! `scorefront service usage realtime`: how a service is called, in lines that work as pasted.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::address::Place;
use super::call::{Call, UnknownIssuer, reach};
use super::target::Target;
use super::trust;
use crate::admin::model::{Keys, Service};
use crate::cli::admin::{Admin, Client};
use crate::cli::output::{self, Format};
use crate::tls::finding::quoted;

/// How long the service may take to say what it is called with.
const SWAGGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a name server may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// More than any description of a model has.
const MAX_SWAGGER: usize = 16 * 1024 * 1024;

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
        let place = runtime.block_on(reach(Place::of(&self.service.swagger_uri, &self.client)?));
        let (swagger, is_trusted) = self.swagger(&runtime, &place)?;
        let data = data(&swagger, &mut notes);
        let cacert = self.cacert(place.is_tls, is_trusted, &mut notes);
        let headers = headers(self.key(swagger.is_ok(), &mut notes));
        let resolve = runtime.block_on(resolve(&place));
        // A name server that does not answer is not waited for.
        runtime.shutdown_background();
        Ok(Usage {
            scoring_uri: self.service.scoring_uri.clone(),
            swagger_uri: self.service.swagger_uri.clone(),
            sample_cli: self.cli(&data, cacert.as_deref()),
            sample_curl: self.curl(&headers, &data, &[cacert, resolve]),
            headers,
            notes,
        })
    }

    /// The key that calls have to have, or its place; none, if the service answered without one.
    fn key(&self, is_answered: bool, notes: &mut Vec<String>) -> Option<&str> {
        let is_open = self.service.settings.auth_enabled == Some(false) || is_answered;
        if self.key.is_some() || is_open {
            return self.key.as_deref();
        }
        notes.push(format!(
            "KEY is a key of the service, if it asks for one; only a hash is kept; a new one: \
             scorefront service keys realtime -n {} --regen --key Primary{}",
            self.service.name,
            self.arguments.admin.words()
        ));
        Some("KEY")
    }

    /// What the model says of itself, and whether the certificate was trusted on the way there.
    fn swagger(&self, runtime: &Runtime, place: &Place) -> anyhow::Result<(anyhow::Result<Value>, bool)> {
        let tls = match trust::config(self.arguments.cacert.as_deref()) {
            Ok(tls) => Arc::new(tls),
            Err(error) if self.arguments.cacert.is_some() => return Err(error),
            Err(error) => return Ok((Err(error), false)),
        };
        let mut call = Call::new(Method::GET, Bytes::new(), SWAGGER_TIMEOUT);
        if let Some(key) = &self.key {
            call = call.with_key(key)?;
        }
        let asked = runtime.block_on(call.send(place, &tls, async |mut answer| {
            let status = answer.response.status();
            match status {
                StatusCode::OK => Ok(serde_json::from_slice(&answer.body(MAX_SWAGGER).await?)?),
                StatusCode::NOT_FOUND => bail!("it has no swagger.json"),
                status => bail!("swagger.json: {status}"),
            }
        }));
        let is_trusted = !asked.as_ref().is_err_and(anyhow::Error::is::<UnknownIssuer>);
        Ok((asked, is_trusted))
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
fn data(swagger: &anyhow::Result<Value>, notes: &mut Vec<String>) -> String {
    if let Some(sample) = swagger.as_ref().ok().and_then(sample) {
        return quoted(Path::new(&sample));
    }
    let why = swagger.as_ref().err().map(|why| format!("; the service does not say what that is: {why:#}"));
    notes.push(format!("request.json holds what is to be scored{}", why.unwrap_or_default()));
    "@request.json".to_owned()
}

/// What the model gives as an example of its input; `data` on the command line would take an `@` for a file.
fn sample(swagger: &Value) -> Option<String> {
    let example = swagger.pointer("/definitions/ServiceInput/example")?;
    (!example.is_null() && !example.is_string()).then(|| example.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_what_the_model_says() {
        let swagger = serde_json::json!({"definitions": {"ServiceInput": {"example": {"data": [[1.5]]}}}});
        assert_eq!(sample(&swagger).as_deref(), Some(r#"{"data":[[1.5]]}"#));
        assert_eq!(sample(&serde_json::json!({"definitions": {"ServiceInput": {}}})), None);
        assert_eq!(sample(&serde_json::json!({"definitions": {"ServiceInput": {"example": "@/etc/passwd"}}})), None);
    }
}
