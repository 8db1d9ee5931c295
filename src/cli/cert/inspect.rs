//! `scorefront cert inspect`: what is in a file, behind a CNAME or served at an address, and what is wrong with it.

mod endpoint;
mod report;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::ValueEnum;

use self::endpoint::{Client, Endpoint, Served};
use self::report::{Item, Report};
use super::file::read;
use super::password::Passwords;
use super::{import, key, say, unpack};
use crate::config::{self, CnamePattern, Config, Diagnostics};
use crate::tls::pair::{self, Files};
use crate::tls::{Finding, Part, Severity};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront cert inspect pair.pfx
  scorefront cert inspect cert.pem --key key.pem --cname scoring.example.com
  scorefront cert inspect scoring.example.com:443")]
pub(super) struct Arguments {
    /// A file of any form, host:port or an https URL, or a CNAME of the configuration
    target: String,
    /// The private key that should belong to the certificate in the file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name that the certificate should be good for
    #[arg(long, value_name = "NAME", value_parser = import::cname)]
    cname: Option<CnamePattern>,
    /// The name to ask host:port for, if it is not host
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// A file whose first line is the password of what is locked
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Takes warnings for errors
    #[arg(long)]
    strict: bool,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The configuration file that has the CNAME
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    config: Option<PathBuf>,
    /// The environment that has the CNAME
    #[arg(long, value_name = "DIR", default_value = ".")]
    env: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let target = arguments.target.as_str();
    let (kind, items) = if Path::new(target).exists() {
        ("file", vec![file(Path::new(target), &arguments, now)?])
    } else if let Ok(endpoint) = target.parse::<Endpoint>() {
        ("endpoint", served(&endpoint, &arguments, now).with_context(|| endpoint.to_string())?)
    } else {
        ("cname", configured(target, &arguments, now)?)
    };
    let report = Report::new(target, kind, items, arguments.strict);
    let said = match arguments.output {
        Output::Text => text::write(&report),
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    say::out(&said);
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is in a file, and in the one of its key.
fn file(file: &Path, arguments: &Arguments, now: SystemTime) -> anyhow::Result<Item> {
    let passwords = Passwords::from_file(arguments.password_file.as_deref())?;
    let mut contents = unpack::unpack(file, &passwords)?;
    let key_file = arguments.key.as_deref().filter(|key_file| *key_file != file);
    if let Some(key_file) = key_file {
        contents.keys = unpack::unpack(key_file, &passwords)?.keys;
        if contents.keys.is_empty() {
            bail!("{}: holds no private key", key_file.display());
        }
    }
    if contents.certificates.is_empty() && contents.keys.is_empty() {
        bail!("{}: {}", file.display(), contents.nothing());
    }
    let files = Files { chain: file, key: key_file.unwrap_or(file) };
    let cname = arguments.cname.as_ref().map(CnamePattern::as_str);
    let mut item = Item::new(file.display().to_string(), now);
    item.form = Some(contents.form);
    item.subjects = [files.chain, files.key].map(|file| file.display().to_string());
    item.show_certificates(&contents.certificates)?;
    for key in &contents.keys {
        let public = key::public(key).with_context(|| files.key.display().to_string())?;
        item.show_key(&public);
    }
    let chain = key::chain_to_pem(&contents.certificates)?;
    item.findings = match contents.keys.as_slice() {
        _ if contents.certificates.is_empty() => Vec::new(),
        [] => pair::examine_chain(chain.as_bytes(), file, cname, now).findings,
        [key] => {
            let key = key::to_pem(key)?;
            pair::examine(chain.as_bytes(), key.as_bytes(), files, cname, now).findings
        }
        several => {
            let mut findings = pair::examine_chain(chain.as_bytes(), file, cname, now).findings;
            let message = format!("holds {} private keys; a pair has one", several.len());
            findings.push(Finding::new(Severity::Error, Part::Key, message));
            findings
        }
    };
    Ok(item)
}

/// What the configuration has for a CNAME: two pairs where there is RSA beside ECDSA.
fn configured(name: &str, arguments: &Arguments, now: SystemTime) -> anyhow::Result<Vec<Item>> {
    let file = arguments.config.clone().unwrap_or_else(|| arguments.env.join("scorefront.toml"));
    if name.contains('/') || name.parse::<CnamePattern>().is_err() {
        bail!("{name}: there is no such file; nor is it a CNAME or host:port");
    }
    // What else is wrong with the configuration is for `check` to say.
    let (Some(config), _) = config::load_partly(&file, &mut Diagnostics::default()) else {
        bail!(
            "{name}: there is no such file, and no {} that could be read to look it up as a CNAME; say where it is with \
             --env DIR or --config FILE",
            file.display()
        );
    };
    let tables = tables(&config, name);
    if tables.is_empty() {
        let names: Vec<_> = config.cnames.iter().map(|table| table.name.as_str()).collect();
        bail!(
            "{name}: neither a file, nor host:port, nor a CNAME of {}, which has: {}",
            file.display(),
            names.join(", ")
        );
    }
    tables.into_iter().map(|table| table_pair(table, now)).collect()
}

/// The tables of the name, or else of the wildcard it falls under.
fn tables<'a>(config: &'a Config, name: &str) -> Vec<&'a config::Cname> {
    let having =
        |fits: &dyn Fn(&CnamePattern) -> bool| config.cnames.iter().filter(|table| fits(&table.name)).collect();
    let exact: Vec<_> = having(&|pattern| pattern.as_str().eq_ignore_ascii_case(name.trim_end_matches('.')));
    if exact.is_empty() { having(&|pattern| pattern.matches(name)) } else { exact }
}

fn table_pair(table: &config::Cname, now: SystemTime) -> anyhow::Result<Item> {
    let files = Files { chain: &table.cert_pem.path, key: &table.key_pem.path };
    let mut item = Item::new(format!("{} at {}", table.name, table.at), now);
    item.subjects = [files.chain, files.key].map(|file| file.display().to_string());
    item.files = item.subjects.to_vec();
    // What cannot be read is among the findings.
    let (chain, key) = (read(files.chain), read(files.key));
    for (problem, part) in [(chain.as_ref().err(), Part::Chain), (key.as_ref().err(), Part::Key)] {
        item.findings.extend(problem.map(|problem| Finding::new(Severity::Error, part, format!("{problem:#}"))));
    }
    let (Ok(chain), Ok(key_pem)) = (chain, key) else { return Ok(item) };
    if let Ok(contents) = unpack::unpack(files.chain, &Passwords::none()) {
        item.show_certificates(&contents.certificates)?;
    }
    if let Ok(contents) = unpack::unpack(files.key, &Passwords::none()) {
        contents.keys.iter().filter_map(|key| key::public(key).ok()).for_each(|public| item.show_key(&public));
    }
    let pattern = table.name.as_str();
    item.findings = pair::examine(&chain, &key_pem, files, Some(pattern), now).findings;
    Ok(item)
}

/// What two kinds of client are served: one item if it is the same.
fn served(endpoint: &Endpoint, arguments: &Arguments, now: SystemTime) -> anyhow::Result<Vec<Item>> {
    let asked = arguments.sni.as_deref().unwrap_or(&endpoint.host);
    let cname = arguments.cname.as_ref().map_or(asked, CnamePattern::as_str).to_ascii_lowercase();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (modern, only_rsa) = runtime.block_on(async {
        let modern = endpoint::ask(endpoint, asked, Client::EcdsaAndRsa).await;
        let only_rsa = if modern.is_ok() { Some(endpoint::ask(endpoint, asked, Client::RsaOnly).await) } else { None };
        (modern, only_rsa)
    });
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    let modern = modern?;
    let show = |served: &Served, client: Client| {
        let mut item = Item::new(endpoint.to_string(), now);
        item.connection = Some(report::Connection::of(served, asked, client));
        item.show_certificates(&served.certificates)?;
        let chain = key::chain_to_pem(&served.certificates)?;
        let findings = pair::examine_chain(chain.as_bytes(), Path::new(""), Some(&cname), now).findings;
        // Notes and remedies are about files, which are not at hand here.
        let findings = findings.into_iter().filter(|finding| finding.severity > Severity::Note);
        item.findings = findings.map(|finding| Finding { remedy: None, ..finding }).collect();
        Ok::<_, anyhow::Error>(item)
    };
    let mut first = show(&modern, Client::EcdsaAndRsa)?;
    match only_rsa {
        Some(Ok(other)) if other.certificates != modern.certificates => Ok(vec![first, show(&other, Client::RsaOnly)?]),
        Some(Err(problem)) => {
            let message = format!("a client that can verify only RSA signatures is refused: {problem:#}");
            first.findings.push(Finding::new(Severity::Note, Part::Chain, message));
            Ok(vec![first])
        }
        _ => Ok(vec![first]),
    }
}
