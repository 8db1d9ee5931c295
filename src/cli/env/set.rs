//! `scorefront env set`: what `Set-AzureRmMlOpCluster` did, to a running front end: TLS on or off, another certificate,
//! another description.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use http::{Method, StatusCode};

use super::pair::{Files, Pair};
use super::{Expected, show};
use crate::admin::model::{Environment, EnvironmentPatch, GlobalServiceConfigurationPatch, SslPatch, SslStatus};
use crate::cli::WrongUsage;
use crate::cli::admin::{Admin, Ask, Client};
use crate::cli::cert::cname;
use crate::cli::output::{self, Format};
use crate::config::CnamePattern;

const PATH: &str = "/v1/env";

const EXAMPLES: &str = "\
Examples:
  The first certificate of a cluster that was made without:
    scorefront env set --env my-cluster --ssl-status Enabled --ssl-cname scoring.example.com \\
      --ssl-cert-pem cert.pem --ssl-key-pem key.pem
  A renewed one:
    scorefront env set --env my-cluster --ssl-cert-pem cert.pem --ssl-key-pem key.pem
  Only if nobody changed anything since env show:
    scorefront env set --env my-cluster --description 'for tests' --if-match ETAG";

/// Changes a running environment: its certificate, whether TLS is enabled, its description
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    expected: Expected,
    /// Whether scoring calls have to use TLS
    #[arg(long, value_enum, value_name = "STATUS", ignore_case = true)]
    ssl_status: Option<Status>,
    /// The certificate with its whole chain, as PEM
    #[arg(long, value_name = "FILE")]
    ssl_cert_pem: Option<PathBuf>,
    /// The certificate's key without a password, as PEM
    #[arg(long, value_name = "FILE")]
    ssl_key_pem: Option<PathBuf>,
    /// The DNS name that scoring calls use; by default the one it has
    #[arg(long, value_name = "CNAME", value_parser = cname)]
    ssl_cname: Option<CnamePattern>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Changes it only if it is still what env show said, by its globalServiceConfiguration.etag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    #[command(flatten)]
    admin: Admin,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    #[value(name = "Enabled")]
    Enabled,
    #[value(name = "Disabled")]
    Disabled,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let files = Files::of(arguments.ssl_cert_pem.as_deref(), arguments.ssl_key_pem.as_deref());
    let files = files.map_err(WrongUsage::new)?;
    arguments.check_something_changes()?;
    let client = arguments.admin.client()?;
    let served = arguments.served(&client, files.is_some())?;
    let pair = match &files {
        None => None,
        Some(files) => {
            let cname = arguments.ssl_cname.clone().or_else(|| served.as_ref().and_then(served_cname));
            let Some(pair) = files.examine(cname.as_ref())? else {
                output::err("error: nothing was changed");
                return Ok(ExitCode::FAILURE);
            };
            Some(pair)
        }
    };
    let mut ask = Ask::new(Method::PATCH, PATH).with(&arguments.patch(pair)?)?;
    if let Some(etag) = &arguments.if_match {
        ask = ask.if_match(etag)?;
    }
    let answer = client.ask(ask)?;
    if let (StatusCode::PRECONDITION_FAILED, Some(etag)) = (answer.status, &arguments.if_match) {
        bail!("it is no longer what {etag} stands for; scorefront env show says what it is now, and its etag");
    }
    let environment: Environment = answer.accepted()?.json()?;
    show::tell(&environment, arguments.output)?;
    Ok(ExitCode::SUCCESS)
}

/// The name that a certificate without one is for; of several the front end takes none.
fn served_cname(served: &Environment) -> Option<CnamePattern> {
    match served.global_service_configuration.ssl.cnames.as_slice() {
        [only] => only.parse().ok(),
        _ => None,
    }
}

impl Arguments {
    fn check_something_changes(&self) -> Result<(), WrongUsage> {
        let changes = self.ssl_status.is_some()
            || self.ssl_cert_pem.is_some()
            || self.ssl_cname.is_some()
            || self.description.is_some();
        match changes {
            true => Ok(()),
            false => Err(WrongUsage::new(
                "nothing to change: give --ssl-status, --ssl-cert-pem with --ssl-key-pem, --ssl-cname or --description",
            )),
        }
    }

    /// What is there now, where that matters: it has to be the one that is meant, and may name the CNAME.
    fn served(&self, client: &Client, has_pair: bool) -> anyhow::Result<Option<Environment>> {
        let lacks_cname = has_pair && self.ssl_cname.is_none();
        if !(self.expected.is_told() || lacks_cname) {
            return Ok(None);
        }
        let environment = client.get(PATH)?;
        self.expected.check(&environment, client)?;
        Ok(Some(environment))
    }

    fn patch(&self, pair: Option<Pair>) -> anyhow::Result<EnvironmentPatch> {
        let mut ssl = SslPatch {
            status: self.ssl_status.map(|status| match status {
                Status::Enabled => SslStatus::Enabled,
                Status::Disabled => SslStatus::Disabled,
            }),
            cname: self.ssl_cname.as_ref().map(|cname| cname.as_str().to_owned()),
            ..SslPatch::default()
        };
        if let Some(Pair { chain, key }) = pair {
            ssl.cert = Some(String::from_utf8(chain).context("the certificate's file is not UTF-8 text")?);
            ssl.key = Some(String::from_utf8(key.to_vec()).context("the key's file is not UTF-8 text")?);
        }
        let has_ssl = ssl.status.is_some() || ssl.cname.is_some() || ssl.cert.is_some();
        Ok(EnvironmentPatch {
            description: self.description.clone(),
            global_service_configuration: has_ssl
                .then_some(GlobalServiceConfigurationPatch { etag: None, ssl: Some(ssl) }),
        })
    }
}
