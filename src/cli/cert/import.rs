//! `scorefront cert import`: from files as authorities and Windows hand them out to the pair that is served. Nothing is
//! written unless a front end would take it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::password::Passwords;
use super::unpack::{Key, unpack};
use super::{key, say};
use crate::config::{self, CnamePattern, Diagnostics};
use crate::environment::write::{PairFiles, store_pair};
use crate::tls::facts::{Facts, date};
use crate::tls::finding::quoted;
use crate::tls::{Part, chain, pair};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront cert import pair.pfx --env my-cluster --password-file password
  scorefront cert import leaf.cer issuer.cer --key key.der --cname scoring.example.com --env my-cluster")]
pub(super) struct Arguments {
    /// PEM, DER, PKCS#12 (.pfx, .p12) or PKCS#7 (.p7b) files which together hold one key and its chain, in any order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file of the private key, if it is not among the others
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name it is to be served for; if left out, the only one in the certificate
    #[arg(long, value_name = "NAME", value_parser = cname)]
    cname: Option<CnamePattern>,
    /// The environment: the directory of scorefront.toml and certs/
    #[arg(long, value_name = "DIR", default_value = ".")]
    env: PathBuf,
    /// A file whose first line is the password of what is locked
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(in crate::cli) fn cname(text: &str) -> Result<CnamePattern, String> {
    text.parse::<CnamePattern>().map_err(|problem| problem.to_string())
}

/// What the files hold, each with the file it was found in.
struct Found {
    certificates: Vec<(CertificateDer<'static>, PathBuf)>,
    key: Key,
    key_file: PathBuf,
}

/// What is to be written.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key_pem: Zeroizing<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.env.is_dir() {
        bail!(
            "{0}: there is no such directory; make it: mkdir -p {1}",
            arguments.env.display(),
            quoted(&arguments.env)
        );
    }
    let found = find(&arguments)?;
    let now = SystemTime::now();
    let (certificates, leaf) = in_order(&found)?;
    let cname = match arguments.cname {
        Some(cname) => cname,
        None => only_name(&leaf)?,
    };
    let Some(pair) = check(&found, &certificates, &cname, now)? else {
        say::err("error: nothing was written");
        return Ok(ExitCode::FAILURE);
    };
    let files = PairFiles::of(&arguments.env, &cname);
    let before = present(&files);
    store_pair(&files, key::chain_to_pem(&pair.chain)?.as_bytes(), pair.key_pem.as_bytes())?;
    let mut text = written(&files, &pair, &leaf, before.as_ref(), now);
    text.push_str(&next_step(&arguments.env, &cname, &files));
    say::out(&text);
    Ok(ExitCode::SUCCESS)
}

/// The certificate that is about to be replaced, if one can be made out.
fn present(files: &PairFiles) -> Option<Facts> {
    let old = unpack(&files.cert_pem, &Passwords::none()).ok()?;
    Facts::read(old.certificates.first()?).ok()
}

/// Opens every file; certificates and keys that are there twice count once.
fn find(arguments: &Arguments) -> anyhow::Result<Found> {
    let passwords = Passwords::from_file(arguments.password_file.as_deref())?;
    let key_file = arguments.key.iter().filter(|file| !arguments.files.contains(file));
    let mut certificates: Vec<(CertificateDer<'static>, PathBuf)> = Vec::new();
    let mut keys: Vec<(Vec<u8>, Key, PathBuf)> = Vec::new();
    for file in arguments.files.iter().chain(key_file) {
        let contents = unpack(file, &passwords)?;
        if contents.certificates.is_empty() && contents.keys.is_empty() {
            bail!("{}: {}", file.display(), contents.nothing());
        }
        for certificate in contents.certificates {
            if certificates.iter().all(|(other, _)| *other != certificate) {
                certificates.push((certificate, file.clone()));
            }
        }
        for key in contents.keys {
            let public = key::public(&key).with_context(|| file.display().to_string())?;
            if keys.iter().all(|(other, ..)| *other != public) {
                keys.push((public, key, file.clone()));
            }
        }
    }
    if certificates.is_empty() {
        bail!("there is no certificate in what was given; name its file too");
    }
    match (keys.len(), keys.pop()) {
        (1, Some((_, key, key_file))) => Ok(Found { certificates, key, key_file }),
        (_, None) => bail!("there is no private key in what was given; name its file with --key FILE"),
        (_, Some(last)) => {
            keys.push(last);
            let told = keys.iter().map(|(public, _, file)| format!("{} in {}", key::kind(public), file.display()));
            let told = told.collect::<Vec<_>>().join(", ");
            bail!("there are {} different private keys in what was given, and a pair has one: {told}", keys.len())
        }
    }
}

/// The certificates of what was found, leaf first and then up, whatever order they came in; and the leaf's facts.
fn in_order(found: &Found) -> anyhow::Result<(Vec<CertificateDer<'static>>, Facts)> {
    let mut certificates: Vec<_> = found.certificates.iter().map(|(certificate, _)| certificate.clone()).collect();
    let public = key::public(&found.key)?;
    let ordered = chain::order(certificates.clone(), Some(&public)).map_err(|problem| anyhow!("{problem}"))?;
    // What is no part of the chain stays, behind it: the check says so.
    let place = |certificate: &CertificateDer<'_>| ordered.certificates.iter().position(|one| one == certificate);
    certificates.sort_by_key(|certificate| place(certificate).unwrap_or(usize::MAX));
    let leaf = ordered.facts.into_iter().next().context("there is no certificate in what was given")?;
    Ok((certificates, leaf))
}

fn only_name(leaf: &Facts) -> anyhow::Result<CnamePattern> {
    match leaf.names.as_slice() {
        [name] => name.parse::<CnamePattern>().map_err(|problem| anyhow!("{problem}; give --cname NAME")),
        [] => bail!("the certificate has no DNS name; say which one it is to be served for: --cname NAME"),
        several => bail!(
            "the certificate has several names; say which one it is to be served for with --cname: {}",
            several.join(", ")
        ),
    }
}

/// Checks what is to be written as `scorefront check` would, and says what it finds. `None`: it must not be written.
fn check(
    found: &Found,
    certificates: &[CertificateDer<'_>],
    cname: &CnamePattern,
    now: SystemTime,
) -> anyhow::Result<Option<Pair>> {
    let (chain_pem, key_pem) = (key::chain_to_pem(certificates)?, key::to_pem(&found.key)?);
    let leaf_file = found.certificates.iter().find(|(one, _)| certificates.first() == Some(one)).map(|(_, file)| file);
    let leaf_file = leaf_file.unwrap_or(&found.key_file);
    let files = pair::Files { chain: leaf_file, key: &found.key_file };
    let examined = pair::examine(chain_pem.as_bytes(), key_pem.as_bytes(), files, Some(cname.as_str()), now);
    for finding in &examined.findings {
        let file = match finding.part {
            Part::Chain => leaf_file,
            Part::Key => &found.key_file,
        };
        say::err(&say::finding(&file.display().to_string(), finding));
    }
    let fit = if examined.has_errors() { None } else { examined.certificate };
    Ok(fit.map(|certificate| Pair { chain: certificate.certified().cert.clone(), key_pem }))
}

/// What was written, and what it took the place of.
fn written(files: &PairFiles, pair: &Pair, leaf: &Facts, before: Option<&Facts>, now: SystemTime) -> String {
    let mut text = String::new();
    let certificates = match pair.chain.len() {
        1 => "1 certificate".to_owned(),
        several => format!("{several} certificates"),
    };
    say::row(&mut text, "wrote", &format!("{} ({certificates})", files.cert_pem.display()));
    say::row(&mut text, "", &format!("{} ({})", files.key_pem.display(), leaf.key));
    say::row(&mut text, "names", &say::names(leaf).join(", "));
    say::row(&mut text, "serial", &leaf.serial);
    say::row(&mut text, "expires", &say::expiry(leaf, now));
    if let Some(before) = before {
        say::row(
            &mut text,
            "instead of",
            &format!("serial {} ({}), which ends {}", before.serial, before.key, date(before.not_after)),
        );
    }
    text
}

/// What is left to do: the table to add, or nothing.
fn next_step(environment: &Path, cname: &CnamePattern, files: &PairFiles) -> String {
    let file = environment.join("scorefront.toml");
    let name = file.display();
    let relative = |path: &Path| path.strip_prefix(environment).unwrap_or(path).display().to_string();
    let table = format!(
        "[[cname]]\nname     = \"{cname}\"\ncert_pem = \"{}\"\nkey_pem  = \"{}\"\n",
        relative(&files.cert_pem),
        relative(&files.key_pem)
    );
    // Whatever else is wrong with it is for `check` to say.
    let (Some(config), _) = config::load_partly(&file, &mut Diagnostics::default()) else {
        return format!("\nThere is no {name} that could be read; it needs this table:\n\n{table}");
    };
    let is_same = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    };
    let mut of_name = config.cnames.iter().filter(|table| table.name == *cname);
    if of_name
        .clone()
        .any(|table| is_same(&table.cert_pem.path, &files.cert_pem) && is_same(&table.key_pem.path, &files.key_pem))
    {
        return format!("\n{name} names these files: a running front end picks them up by itself.\n");
    }
    match of_name.next() {
        Some(other) => {
            let at = &other.at;
            format!(
                "\n{cname} has other files at {at}; change them, or add a second pair of another kind of key:\n\n{table}"
            )
        }
        None => format!("\nTo serve it, add this to {name}:\n\n{table}"),
    }
}
