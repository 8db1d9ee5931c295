//! The files that are the state: configuration and certificates, opened and checked together. What comes out can be
//! served; what cannot is said with its place and its remedy.

pub mod write;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::config::{self, Cname, Config, Diagnostics};
use crate::tls::{Certificate, CertificateTable, Identity, Part, Severity, pair};

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
    let mut by_name: BTreeMap<&str, Vec<Arc<Certificate>>> = BTreeMap::new();
    for cname in &config.cnames {
        if let Some(certificate) = certificate(cname, diagnostics) {
            by_name.entry(cname.name.as_str()).or_default().push(Arc::new(certificate));
        }
    }
    let mut table = CertificateTable::default();
    for (name, certificates) in by_name {
        let identity = Arc::new(Identity::new(name, certificates));
        if config.tls.default_cname.as_ref().is_some_and(|default| default.as_str() == name) {
            table.set_default(Arc::clone(&identity));
        }
        table.insert(identity);
    }
    table
}

/// Opens and checks one pair; says everything that is wrong with it.
fn certificate(cname: &Cname, diagnostics: &mut Diagnostics) -> Option<Certificate> {
    let chain = read(&cname.cert_pem).map_err(|problem| {
        diagnostics.error(cname.cert_pem_at.clone(), format!("cert_pem {}: {problem}", cname.cert_pem.display()));
    });
    let key = read(&cname.key_pem).map_err(|problem| {
        diagnostics.error(cname.key_pem_at.clone(), format!("key_pem {}: {problem}", cname.key_pem.display()));
    });
    warn_if_others_can_read(cname, diagnostics);
    let files = pair::Files { chain: &cname.cert_pem, key: &cname.key_pem };
    let examined = pair::examine(&chain.ok()?, &key.ok()?, files, Some(cname.name.as_str()), SystemTime::now());
    for finding in examined.findings {
        let (key, file, at) = match finding.part {
            Part::Chain => ("cert_pem", &cname.cert_pem, &cname.cert_pem_at),
            Part::Key => ("key_pem", &cname.key_pem, &cname.key_pem_at),
        };
        let message = format!("{key} {}: {finding}", file.display());
        match finding.severity {
            Severity::Error => diagnostics.error(at.clone(), message),
            Severity::Warning => diagnostics.warning(at.clone(), message),
            Severity::Note => {}
        }
    }
    examined.certificate
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
