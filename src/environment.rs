//! The files that are the state: configuration and certificates, opened and checked together. What comes out can be
//! served; what cannot is said with its place and its remedy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::config::{self, Cname, Config, Diagnostics};
use crate::tls::certificate::CertificateError;
use crate::tls::{Certificate, CertificateTable, pem};

/// PEM files are a few kilobytes; what is larger is not one.
const MAX_PEM: u64 = 1024 * 1024;

/// One cluster's state, as it is in its files.
#[derive(Debug)]
pub struct Environment {
    pub config: Config,
    pub certificates: CertificateTable,
}

/// Opens everything that `path` leads to. Warnings come along.
///
/// # Errors
///
/// Everything that is wrong in any of the files.
pub fn open(path: &Path) -> Result<(Environment, Diagnostics), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let Some(config) = config::load_partly(path, &mut diagnostics) else { return Err(diagnostics) };
    // Also when the configuration has errors already: one run shows all there are.
    let certificates = certificates(&config, &mut diagnostics);
    check_token(&config.admin, &mut diagnostics);
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    Ok((Environment { config, certificates }, diagnostics))
}

/// The admin listener reads it when it starts, which is too late to be told.
fn check_token(admin: &config::Admin, diagnostics: &mut Diagnostics) {
    let (Some(file), Some(at)) = (&admin.token_file, &admin.token_file_at) else { return };
    let problem = match read(file) {
        Ok(token) if token.trim_ascii().len() >= config::MIN_TOKEN => return,
        Ok(_) => format!("is too short; write a secret of at least {} characters into it", config::MIN_TOKEN),
        Err(problem) => problem,
    };
    diagnostics.error(at.clone(), format!("token_file {}: {problem}", file.display()));
}

fn certificates(config: &Config, diagnostics: &mut Diagnostics) -> CertificateTable {
    let mut by_name: BTreeMap<&str, Certificate> = BTreeMap::new();
    for cname in &config.cnames {
        let Some(certificate) = certificate(cname, diagnostics) else { continue };
        match by_name.get_mut(cname.name.as_str()) {
            Some(first) => first.add_alternative(certificate),
            None => drop(by_name.insert(cname.name.as_str(), certificate)),
        }
    }
    let mut table = CertificateTable::default();
    for (name, certificate) in by_name {
        let certificate = Arc::new(certificate);
        if config.tls.default_cname.as_ref().is_some_and(|default| default.as_str() == name) {
            table.set_default(Arc::clone(&certificate));
        }
        table.insert(name, certificate);
    }
    table
}

/// Opens and checks one pair; says everything that is wrong with it.
fn certificate(cname: &Cname, diagnostics: &mut Diagnostics) -> Option<Certificate> {
    let chain = read(&cname.cert_pem)
        .and_then(|pem| pem::certificates(&pem).map_err(|problem| CertificateError::Chain(problem).to_string()))
        .map_err(|problem| {
            diagnostics.error(cname.cert_pem_at.clone(), format!("cert_pem {}: {problem}", cname.cert_pem.display()));
        });
    let key = read(&cname.key_pem)
        .and_then(|pem| pem::private_key(&pem).map_err(|problem| CertificateError::Key(problem).to_string()))
        .map_err(|problem| {
            diagnostics.error(cname.key_pem_at.clone(), format!("key_pem {}: {problem}", cname.key_pem.display()));
        });
    warn_if_others_can_read(cname, diagnostics);

    let certificate = match Certificate::from_parts(chain.ok()?, &key.ok()?) {
        Ok(certificate) => certificate,
        Err(problem) => {
            let (key, file, at) = match problem {
                CertificateError::Key(_) | CertificateError::UnusableKey(_) | CertificateError::Mismatch => {
                    ("key_pem", &cname.key_pem, &cname.key_pem_at)
                }
                _ => ("cert_pem", &cname.cert_pem, &cname.cert_pem_at),
            };
            diagnostics.error(at.clone(), format!("{key} {}: {problem}", file.display()));
            return None;
        }
    };
    if let Err(problem) = certificate.check_covers(cname.name.as_str()) {
        diagnostics.error(cname.cert_pem_at.clone(), format!("cert_pem {}: {problem}", cname.cert_pem.display()));
        return None;
    }
    warn_if_not_valid_now(cname, &certificate, diagnostics);
    Some(certificate)
}

fn warn_if_not_valid_now(cname: &Cname, certificate: &Certificate, diagnostics: &mut Diagnostics) {
    let now = SystemTime::now();
    let problem = if certificate.not_after() < now {
        format!("expired on {}; callers will refuse it", date(certificate.not_after()))
    } else if certificate.not_before() > now {
        format!("is not valid before {}; callers will refuse it", date(certificate.not_before()))
    } else {
        return;
    };
    diagnostics.warning(
        cname.cert_pem_at.clone(),
        format!("cert_pem {}: the certificate {problem}", cname.cert_pem.display()),
    );
}

#[cfg(unix)]
fn warn_if_others_can_read(cname: &Cname, diagnostics: &mut Diagnostics) {
    use std::os::unix::fs::PermissionsExt;

    let Ok(metadata) = fs::metadata(&cname.key_pem) else { return };
    if metadata.permissions().mode() & 0o007 != 0 {
        let file = cname.key_pem.display();
        diagnostics.warning(
            cname.key_pem_at.clone(),
            format!("key_pem {file}: every user of this machine can read the key; chmod o= {file}"),
        );
    }
}

/// A file's bytes, which may be a key's and are wiped when they are dropped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no such file; paths are relative to the file they are written in".to_owned(),
        _ => error.to_string(),
    })?;
    // Room for all of it at once: growing would leave copies behind.
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_PEM);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(MAX_PEM + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_PEM {
        return Err("is larger than any PEM file".to_owned());
    }
    Ok(bytes)
}

fn date(time: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(time)
}
