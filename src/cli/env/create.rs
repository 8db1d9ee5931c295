//! `scorefront env create`: a complete environment, with everything that will be served already checked, and what to do
//! next.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::anyhow;
use serde::Serialize;
use zeroize::Zeroizing;

use super::pair::{Files, Pair};
use crate::admin::model::{ClusterType, SslStatus};
use crate::cli::WrongUsage;
use crate::cli::cert::cname;
use crate::cli::output::{self, Format};
use crate::config::{self, AdminListen, CnamePattern, EnvironmentName, defaults};
use crate::environment;
use crate::environment::create::{NewEnvironment, NewPair};
use crate::tls::finding::quoted;

/// The port of plain HTTP, beside that of https.
const HTTP_PORT: u16 = 8080;

/// Bytes of a token that nobody guesses.
const TOKEN_LENGTH: usize = 24;

const EXAMPLES: &str = "\
Examples:
  A cluster with TLS:
    scorefront env create -c -g my-rg -n my-cluster --cert-cname scoring.example.com --cert-pem cert.pem --key-pem key.pem
  A cluster that gets its certificate later, by scorefront env set:
    scorefront env create -c -g my-rg -n my-cluster
  For development, on this machine and without keys:
    scorefront env create -n dev";

/// Makes a new environment: a directory with everything that one cluster's front end needs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A cluster that others can reach; without it, one for development on this machine alone
    #[arg(short = 'c', long, requires = "resource_group")]
    cluster: bool,
    /// The resource group it belongs to
    #[arg(short = 'g', long, value_name = "GROUP", value_parser = name)]
    resource_group: Option<EnvironmentName>,
    /// Its name
    #[arg(short, long, value_parser = name)]
    name: EnvironmentName,
    /// The DNS name that scoring calls will use
    #[arg(long, value_name = "CNAME", value_parser = cname)]
    cert_cname: Option<CnamePattern>,
    /// The certificate with its whole chain, as PEM
    #[arg(long, value_name = "FILE")]
    cert_pem: Option<PathBuf>,
    /// The certificate's key without a password, as PEM
    #[arg(long, value_name = "FILE")]
    key_pem: Option<PathBuf>,
    /// The directory to make; by default its name, here
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where https is listened on; by default port 8443, with -c of every address, else of this machine alone
    #[arg(long, value_name = "ADDRESS:PORT")]
    https: Option<SocketAddr>,
    /// Where http is listened on; by default port 8080, with -c of every address, else of this machine alone
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// Where it is managed: ADDRESS:PORT or unix:PATH; by default port 8900 of this machine alone
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = admin_listen)]
    admin_listen: Option<AdminListen>,
    /// The address that callers reach it by, if it is not one of this machine
    #[arg(long, value_name = "IP")]
    public_ip_address: Option<IpAddr>,
    /// The port that callers reach https by, if it is not the one listened on
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    public_https_port: Option<u16>,
    /// The port that callers reach http by, if it is not the one listened on
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    public_http_port: Option<u16>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// For whom the outcome is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What was made, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    name: &'a str,
    resource_group: Option<&'a str>,
    cluster_type: ClusterType,
    directory: &'a Path,
    ssl_status: SslStatus,
    cname: Option<&'a str>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let files = arguments.files()?;
    arguments.check_local()?;
    let pair = match &files {
        None => None,
        Some((cname, files)) => {
            let Some(Pair { chain, key }) = files.examine(Some(cname))? else {
                output::err("error: nothing was made");
                return Ok(ExitCode::FAILURE);
            };
            Some(NewPair { cname: cname.clone(), chain, key })
        }
    };
    let directory = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(arguments.name.as_str()));
    let new = arguments.environment(pair)?;
    new.create(&directory, check)?;
    match arguments.output {
        Format::Json => output::json(&Made::of(&new, &directory))?,
        Format::Text => output::out(&told(&new, &directory)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a front end would say of it.
fn check(made: &Path) -> Result<(), String> {
    environment::open(&made.join("scorefront.toml")).map(drop).map_err(|found| {
        // The place where it is made is nobody's business.
        found.to_string().replace(&format!("{}/", made.display()), "")
    })
}

fn name(text: &str) -> Result<EnvironmentName, String> {
    text.parse().map_err(|problem: config::diagnostic::Problem| problem.to_string())
}

fn admin_listen(text: &str) -> Result<AdminListen, String> {
    const EXPECTED: &str = "expected an IP address and port such as 127.0.0.1:8900, or unix: and an absolute path";
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(AdminListen::Unix(path.into())),
        _ => text.parse().map(AdminListen::Tcp).map_err(|_| EXPECTED.to_owned()),
    }
}

impl Arguments {
    /// The certificate's files and the name it is for; all three, or none.
    fn files(&self) -> Result<Option<(CnamePattern, Files)>, WrongUsage> {
        let files = Files::of(self.cert_pem.as_deref(), self.key_pem.as_deref()).map_err(WrongUsage::new)?;
        match (files, &self.cert_cname) {
            (None, None) => Ok(None),
            (Some(files), Some(cname)) => Ok(Some((cname.clone(), files))),
            (Some(_), None) => Err(WrongUsage::new("Certificate CNAME must be provided if certificate is provided.")),
            (None, Some(_)) => Err(WrongUsage::new(
                "Certificate and certificate key file must be provided if certificate CNAME is provided: \
                 --cert-pem FILE --key-pem FILE",
            )),
        }
    }

    /// Without `-c` nobody else is to reach it.
    fn check_local(&self) -> Result<(), WrongUsage> {
        if self.cluster {
            return Ok(());
        }
        if self.cert_pem.is_some() {
            return Err(WrongUsage::new("a certificate is for a cluster: add -c -g GROUP"));
        }
        let outside = [self.https, self.http].into_iter().flatten().find(|listen| !listen.ip().is_loopback());
        match outside {
            None => Ok(()),
            Some(listen) => Err(WrongUsage::new(format!(
                "without -c it is for this machine alone, which {listen} is not: write 127.0.0.1:{}, or add -c -g GROUP",
                listen.port()
            ))),
        }
    }

    fn environment(&self, pair: Option<NewPair>) -> anyhow::Result<NewEnvironment> {
        let every = if self.cluster { defaults::HTTPS.ip() } else { Ipv4Addr::LOCALHOST.into() };
        let admin_listen = self.admin_listen.clone().unwrap_or(defaults::ADMIN_LISTEN);
        let is_open = matches!(&admin_listen, AdminListen::Tcp(address) if !address.ip().is_loopback());
        Ok(NewEnvironment {
            name: self.name.to_string(),
            resource_group: self.resource_group.as_ref().map(ToString::to_string),
            description: self.description.clone(),
            is_local: !self.cluster,
            created_on: SystemTime::now(),
            https: self.https.unwrap_or_else(|| (every, defaults::HTTPS.port()).into()),
            http: self.http.unwrap_or_else(|| (every, HTTP_PORT).into()),
            public_ip_address: self.public_ip_address,
            public_https_port: self.public_https_port,
            public_http_port: self.public_http_port,
            admin_listen,
            admin_token: is_open.then(token).transpose()?,
            pair,
        })
    }
}

/// What whoever asks from elsewhere has to know.
fn token() -> anyhow::Result<Zeroizing<String>> {
    const { assert!(TOKEN_LENGTH * 2 >= config::MIN_TOKEN) };
    let mut bytes = Zeroizing::new([0; TOKEN_LENGTH]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| anyhow!("no random numbers can be drawn"))?;
    Ok(bytes.iter().fold(Zeroizing::default(), |mut text: Zeroizing<String>, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

impl<'a> Made<'a> {
    fn of(new: &'a NewEnvironment, directory: &'a Path) -> Self {
        Self {
            name: &new.name,
            resource_group: new.resource_group.as_deref(),
            cluster_type: if new.is_local { ClusterType::Local } else { ClusterType::Acs },
            directory,
            ssl_status: if new.pair.is_some() { SslStatus::Enabled } else { SslStatus::Disabled },
            cname: new.pair.as_ref().map(|pair| pair.cname.as_str()),
        }
    }
}

/// What was made, and what to do next.
fn told(new: &NewEnvironment, directory: &Path) -> String {
    let env = quoted(directory);
    let mut text = String::new();
    let tls = match (&new.pair, new.is_local) {
        (Some(pair), _) => format!("Enabled for {}", pair.cname),
        (None, true) => "Disabled, and no keys: for development on this machine".to_owned(),
        (None, false) => format!(
            "Disabled; to enable it: scorefront env set --env {env} --ssl-status Enabled --ssl-cname CNAME \
             --ssl-cert-pem FILE --ssl-key-pem FILE"
        ),
    };
    output::row(&mut text, "made", &format!("{} in {}", new.name, directory.display()));
    output::row(&mut text, "TLS", &tls);
    if new.admin_token.is_some() {
        output::row(
            &mut text,
            "token",
            &format!("{} guards {}", directory.join("admin.token").display(), new.admin_listen),
        );
    }
    text.push_str("\nNext:\n");
    let mut step = |command: &str| text.extend(["  ", command, "\n"]);
    step(&format!("scorefront serve --env {env}"));
    if let Some(pair) = &new.pair {
        step(&format!("scorefront env show --env {env}      # publicIpAddress is its address"));
        step(&format!("{}      # the DNS record to create", record(&pair.cname, new.public_ip_address)));
    }
    step(&format!("scorefront service create realtime --env {env} -n NAME --replica http://HOST:PORT"));
    text
}

fn record(cname: &CnamePattern, address: Option<IpAddr>) -> String {
    match address {
        Some(address @ IpAddr::V6(_)) => format!("{cname}. 300 IN AAAA {address}"),
        Some(address) => format!("{cname}. 300 IN A {address}"),
        None => format!("{cname}. 300 IN A <publicIpAddress>"),
    }
}
