//! What the files beside the configuration are for, and what makes them good enough: certificates and keys, the
//! authorities of callers, the secrets of tickets, the admin token. Each is judged by its content alone, and what is
//! found is said with the place in the configuration that names the file.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::file;
use super::held::{Attention, Circumstances, Content, Files, Held, Offer, Outcome};
use crate::cluster::secret::Secrets;
use crate::config::{self, AdminTls, Cname, Diagnostics, FilePath};
use crate::tls::client_authority::{self, ClientAuthority};
use crate::tls::pem::{self, PemError};
use crate::tls::tickets::Secret;
use crate::tls::{Certificate, Finding, Part, Settings, Severity, pair};

/// A chain that got shorter is more often one that is still being written than one meant so.
const SHRINKING: Duration = Duration::from_secs(5);

/// The admin API's bearer token.
pub type Token = Zeroizing<Vec<u8>>;

/// Something held of files that the configuration names.
pub trait Material {
    fn files(&self) -> &Files;

    fn files_mut(&mut self) -> &mut Files;

    /// Looks whether the files hold something new, and holds it if it is good.
    fn look(&mut self, attention: Attention, settings: &Settings, remarks: &mut Diagnostics) -> Outcome;
}

/// What `self.held` is a part of everywhere.
macro_rules! files_of_held {
    () => {
        fn files(&self) -> &Files {
            &self.held.files
        }

        fn files_mut(&mut self) -> &mut Files {
            &mut self.held.files
        }
    };
}

/// A `[[cname]]` table's certificate and key.
#[derive(Debug)]
pub struct Pair {
    pub cname: Cname,
    pub held: Held<Arc<Certificate>>,
    /// The serial number of the certificate before the one that is held.
    pub replaced: Option<Box<str>>,
}

impl Pair {
    pub fn new(cname: Cname, held: Held<Arc<Certificate>>) -> Self {
        Self { cname, held, replaced: None }
    }
}

impl Material for Pair {
    files_of_held!();

    fn look(&mut self, attention: Attention, _: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let (cname, now) = (&self.cname, SystemTime::now());
        let is_valid = |served: &Arc<Certificate>| served.not_before() <= now && now < served.not_after();
        let before = self.held.value().map(Arc::clone);
        let outcome = self.held.look(
            attention,
            remarks,
            |contents, circumstances, found| {
                let name = Some(cname.name.as_str());
                judge_pair([&cname.cert_pem, &cname.key_pem], name, contents, circumstances, found)
            },
            is_valid,
        );
        if outcome == Outcome::Taken {
            self.replaced = before.map(|before| before.serial().into());
        }
        outcome
    }
}

fn judge_pair(
    [cert_pem, key_pem]: [&FilePath; 2],
    name: Option<&str>,
    contents: &[Content],
    circumstances: &Circumstances<'_, Arc<Certificate>>,
    found: &mut Diagnostics,
) -> Offer<Arc<Certificate>> {
    let [chain, key] = contents else { return Offer::Nothing };
    let chain = said(chain, "cert_pem", cert_pem, found);
    let key = said(key, "key_pem", key_pem, found);
    warn_if_others_can_read("key_pem", key_pem, found);
    let (chain, key) = match (chain, key) {
        (Some(chain), Some(key)) => (chain, key),
        // One of the two cannot be read at all; the other may be wrong as well.
        (chain, key) => {
            if let Some(Err(problem)) = chain.map(pem::certificates) {
                let problem = problem.message(Part::Chain, &cert_pem.path);
                found.error(cert_pem.at.clone(), format!("cert_pem {}: {problem}", cert_pem.display()));
            }
            if let Some(Err(problem)) = key.map(pem::private_key) {
                let problem = problem.message(Part::Key, &key_pem.path);
                found.error(key_pem.at.clone(), format!("key_pem {}: {problem}", key_pem.display()));
            }
            return Offer::Nothing;
        }
    };

    let files = pair::Files { chain: &cert_pem.path, key: &key_pem.path };
    let examined = pair::examine(chain, key, files, name, circumstances.now);
    let has_errors = examined.has_errors();
    for finding in &examined.findings {
        match finding.part {
            Part::Chain => report(finding, "cert_pem", cert_pem, found),
            Part::Key => report(finding, "key_pem", key_pem, found),
        }
    }
    let Some(certificate) = examined.certificate else { return Offer::Nothing };
    let shrank = circumstances.held.is_some_and(|held| certificate.is_shorter_than(held));
    if shrank && circumstances.unchanged_for < SHRINKING {
        let message = format!("cert_pem {}: the chain is shorter than the one before", cert_pem.display());
        let remedy = format!("waiting {} s for the rest of the file", SHRINKING.as_secs());
        found.warning_with(cert_pem.at.clone(), message, remedy);
        return Offer::Later;
    }
    if has_errors { Offer::LastResort(Arc::new(certificate)) } else { Offer::Take(Arc::new(certificate)) }
}

/// The authorities of callers, and what they revoked; shared by all `[[cname]]` tables that name the same files.
#[derive(Debug)]
pub struct Callers {
    /// The first of those tables.
    pub cname: Cname,
    pub held: Held<ClientAuthority>,
}

impl Material for Callers {
    files_of_held!();

    fn look(&mut self, attention: Attention, settings: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let cname = &self.cname;
        self.held.look(
            attention,
            remarks,
            |contents, _, found| {
                let Some(ca_pem) = &cname.client_ca_pem else { return Offer::Nothing };
                judge_callers(ca_pem, cname.client_crl_pem.as_ref(), contents, settings, found)
            },
            |_| true,
        )
    }
}

fn judge_callers(
    ca_pem: &FilePath,
    crl_pem: Option<&FilePath>,
    contents: &[Content],
    settings: &Settings,
    found: &mut Diagnostics,
) -> Offer<ClientAuthority> {
    let Some(authorities) = contents.first() else { return Offer::Nothing };
    let wanted = "name the PEM file with the certificates of the authorities that issue callers' certificates";
    let authorities = pem_in(authorities, "client_ca_pem", ca_pem, wanted, pem::certificates, found);
    let revoked = match (crl_pem, contents.get(1)) {
        (Some(crl_pem), Some(revoked)) => {
            let wanted = "name the PEM file with the authorities' revocation lists";
            pem_in(revoked, "client_crl_pem", crl_pem, wanted, pem::revocation_lists, found)
        }
        _ => Some(Vec::new()),
    };
    let (Some(authorities), Some(revoked)) = (authorities, revoked) else { return Offer::Nothing };
    if let (Some(crl_pem), Some(since)) = (crl_pem, client_authority::overdue(&revoked, SystemTime::now())) {
        let message = format!("client_crl_pem {}: a list should have been replaced by {since}", crl_pem.display());
        found.warning_with(crl_pem.at.clone(), message, "have the authority's current one put in its place");
    }
    match ClientAuthority::new(Arc::clone(settings.provider()), authorities, revoked) {
        Ok(authority) => Offer::Take(authority),
        Err(problem) => {
            found.error(ca_pem.at.clone(), format!("client_ca_pem {}: {problem}", ca_pem.display()));
            Offer::Nothing
        }
    }
}

/// The secrets that session tickets are sealed with.
#[derive(Debug)]
pub struct Tickets {
    pub file: FilePath,
    pub held: Held<Vec<Secret>>,
}

impl Material for Tickets {
    files_of_held!();

    fn look(&mut self, attention: Attention, _: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let file = &self.file;
        self.held.look(
            attention,
            remarks,
            |contents, circumstances, found| {
                judge_secrets(("ticket_keys", file), contents, circumstances, found, |text| {
                    let remedy =
                        format!("write one secret a line into it: openssl rand -base64 48 > {}", file.display());
                    Secret::parse(text).map_err(|problem| (problem.to_string(), remedy))
                })
            },
            |_| true,
        )
    }
}

/// The certificate and key of the admin listener.
#[derive(Debug)]
pub struct AdminPair {
    pub tls: AdminTls,
    pub held: Held<Arc<Certificate>>,
}

impl Material for AdminPair {
    files_of_held!();

    fn look(&mut self, attention: Attention, _: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let (AdminTls { cert_pem, key_pem, .. }, now) = (&self.tls, SystemTime::now());
        // What operators call it is between them and their certificate.
        self.held.look(
            attention,
            remarks,
            |contents, circumstances, found| judge_pair([cert_pem, key_pem], None, contents, circumstances, found),
            |served| served.not_before() <= now && now < served.not_after(),
        )
    }
}

/// The authorities of operators' certificates.
#[derive(Debug)]
pub struct AdminCallers {
    pub file: FilePath,
    pub held: Held<ClientAuthority>,
}

impl Material for AdminCallers {
    files_of_held!();

    fn look(&mut self, attention: Attention, settings: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let file = &self.file;
        self.held.look(
            attention,
            remarks,
            |contents, _, found| judge_callers(file, None, contents, settings, found),
            |_| true,
        )
    }
}

/// The token that the admin API asks for.
#[derive(Debug)]
pub struct AdminToken {
    pub file: FilePath,
    pub held: Held<Token>,
}

impl Material for AdminToken {
    files_of_held!();

    fn look(&mut self, attention: Attention, _: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let file = &self.file;
        self.held.look(
            attention,
            remarks,
            |contents, circumstances, found| {
                judge_secrets(("token_file", file), contents, circumstances, found, |text| {
                    let token = text.trim_ascii();
                    if token.len() >= config::MIN_TOKEN {
                        return Ok(Zeroizing::new(token.to_vec()));
                    }
                    let remedy = format!("write a secret of at least {} characters into it", config::MIN_TOKEN);
                    Err(("is too short".to_owned(), remedy))
                })
            },
            |_| true,
        )
    }
}

/// The secrets that the front ends of the cluster know each other by.
#[derive(Debug)]
pub struct ClusterSecrets {
    pub file: FilePath,
    pub held: Held<Secrets>,
}

impl Material for ClusterSecrets {
    files_of_held!();

    fn look(&mut self, attention: Attention, _: &Settings, remarks: &mut Diagnostics) -> Outcome {
        let file = &self.file;
        self.held.look(
            attention,
            remarks,
            |contents, circumstances, found| {
                judge_secrets(("secret_file", file), contents, circumstances, found, |text| {
                    let remedy = format!(
                        "write one secret a line into it, the same for all front ends: openssl rand -base64 48 > {}",
                        file.display(),
                    );
                    Secrets::parse(text).map_err(|problem| (problem.to_string(), remedy))
                })
            },
            |_| true,
        )
    }
}

/// A file of nothing but secrets. `read` finds them in its text, or the problem, and what to do about it.
fn judge_secrets<T>(
    (key, file): (&str, &FilePath),
    contents: &[Content],
    circumstances: &Circumstances<'_, T>,
    found: &mut Diagnostics,
    read: impl FnOnce(&[u8]) -> Result<T, (String, String)>,
) -> Offer<T> {
    let Some(text) = contents.first().and_then(|content| said(content, key, file, found)) else {
        return Offer::Nothing;
    };
    if circumstances.may_be_unfinished(contents) {
        return wait_for_end(key, file, found);
    }
    warn_if_others_can_read(key, file, found);
    match read(text) {
        Ok(secrets) => Offer::Take(secrets),
        Err((problem, remedy)) => {
            found.error_with(file.at.clone(), format!("{key} {}: {problem}", file.display()), remedy);
            Offer::Nothing
        }
    }
}

/// Half of a secret is one too, that nobody knows.
fn wait_for_end<T>(key: &str, file: &FilePath, found: &mut Diagnostics) -> Offer<T> {
    let message = format!("{key} {}: ends in the middle of a line", file.display());
    found.warning_with(file.at.clone(), message, "waiting 2 s for the rest of it");
    Offer::Later
}

/// What `read` finds in the content, or the reason why nothing said.
fn pem_in<T>(
    content: &Content,
    key: &str,
    file: &FilePath,
    wanted: &str,
    read: impl FnOnce(&[u8]) -> Result<T, PemError>,
    found: &mut Diagnostics,
) -> Option<T> {
    let content = said(content, key, file, found)?;
    let problem = match read(content) {
        Ok(value) => return Some(value),
        Err(problem) => problem,
    };
    found.error_with(file.at.clone(), format!("{key} {}: {problem}", file.display()), wanted);
    None
}

/// The content, or the reason why there is none said.
fn said<'a>(content: &'a Content, key: &str, file: &FilePath, diagnostics: &mut Diagnostics) -> Option<&'a [u8]> {
    match content {
        Ok(bytes) => Some(bytes),
        Err(problem) => {
            diagnostics.error(file.at.clone(), format!("{key} {}: {problem}", file.display()));
            None
        }
    }
}

fn report(finding: &Finding, key: &str, file: &FilePath, diagnostics: &mut Diagnostics) {
    let message = format!("{key} {}: {}", file.display(), finding.message);
    match (finding.severity, &finding.remedy) {
        (Severity::Error, Some(remedy)) => diagnostics.error_with(file.at.clone(), message, remedy),
        (Severity::Error, None) => diagnostics.error(file.at.clone(), message),
        (Severity::Warning, Some(remedy)) => diagnostics.warning_with(file.at.clone(), message, remedy),
        (Severity::Warning, None) => diagnostics.warning(file.at.clone(), message),
        (Severity::Note, _) => {}
    }
}

fn warn_if_others_can_read(key: &str, file: &FilePath, diagnostics: &mut Diagnostics) {
    if file::is_readable_by_all(&file.path) {
        let path = file.display();
        let message = format!("{key} {path}: every user of this machine can read it, and it is a secret");
        diagnostics.warning_with(file.at.clone(), message, format!("chmod o= {path}"));
    }
}
