//! What a look at the files came to, and how things stand since: for the log, the admin API and metrics. It decides
//! nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize, Serializer};

use super::held::{Files, Outcome};
use super::material::Pair;
use super::{Environment, caller_files};
use crate::config::{Diagnostic, Severity};
use crate::tls::{Certificate, Identity};

/// What one look came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub config: ConfigReport,
    pub certificates: Vec<CertificateReport>,
    /// Client authorities, ticket keys, the admin token.
    pub others: Vec<FileReport>,
    /// Settings whose new value holds after a restart only.
    pub waits_for_restart: Vec<String>,
}

impl Report {
    /// The outcomes are those of the environment's pairs and other materials, in order; `all` of them, or those only
    /// that are no longer what they were.
    pub(super) fn new(
        environment: &Environment,
        config: Outcome,
        pairs: &[Outcome],
        others: &[Outcome],
        all: bool,
    ) -> Self {
        let files = environment.configuration.files();
        let pairs = environment.pairs.iter().zip(pairs).filter(|(_, outcome)| all || **outcome != Outcome::Unchanged);
        let others = environment.others().zip(others).filter(|(_, outcome)| all || **outcome != Outcome::Unchanged);
        Self {
            config: ConfigReport { result: config.into(), errors: errors(files) },
            certificates: pairs.map(|(pair, outcome)| CertificateReport::new(pair, *outcome)).collect(),
            others: others.map(|(material, outcome)| FileReport::new(material.files(), *outcome)).collect(),
            // Which those are is known to whoever started with others.
            waits_for_restart: Vec::new(),
        }
    }

    /// Whether there is anything new to serve.
    pub fn is_any_taken(&self) -> bool {
        self.results().any(|result| result == Taking::Taken)
    }

    /// Whether everything the files hold is what is served.
    pub fn is_all_taken(&self) -> bool {
        self.results().all(|result| result != Taking::Refused)
    }

    fn results(&self) -> impl Iterator<Item = Taking> {
        let certificates = self.certificates.iter().map(|certificate| certificate.result);
        let others = self.others.iter().map(|other| other.result);
        std::iter::once(self.config.result).chain(certificates).chain(others)
    }
}

/// What became of the files' content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taking {
    Unchanged,
    Taken,
    Refused,
}

impl From<Outcome> for Taking {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Unchanged => Self::Unchanged,
            Outcome::Taken => Self::Taken,
            Outcome::Refused => Self::Refused,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigReport {
    pub result: Taking,
    /// As `scorefront check` says them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateReport {
    pub cname: String,
    pub cert_pem: String,
    pub key_pem: String,
    pub result: Taking,
    /// Of what was served before what was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_serial: Option<String>,
    /// Of what is served now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Why what the files hold is not served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl CertificateReport {
    fn new(Pair { cname, held, replaced, .. }: &Pair, outcome: Outcome) -> Self {
        let replaced = replaced.as_deref().filter(|_| outcome == Outcome::Taken);
        Self {
            cname: cname.name.to_string(),
            cert_pem: cname.cert_pem.display().to_string(),
            key_pem: cname.key_pem.display().to_string(),
            result: outcome.into(),
            replaced_serial: replaced.map(str::to_owned),
            serial: held.value().map(|certificate| certificate.serial().to_owned()),
            not_after: held.value().map(|certificate| rfc3339(certificate.not_after()).to_string()),
            errors: errors(&held.files),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileReport {
    pub files: Vec<String>,
    pub result: Taking,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl FileReport {
    fn new(files: &Files, outcome: Outcome) -> Self {
        Self { files: paths(files.paths()), result: outcome.into(), errors: errors(files) }
    }
}

/// How things stand.
#[derive(Debug)]
pub struct Status {
    pub config: ConfigStatus,
    pub certificates: Vec<CertificateStatus>,
    pub others: Vec<FileStatus>,
}

impl Status {
    /// Whether everything the files hold is what is served.
    pub fn is_all_good(&self) -> bool {
        self.config.last_reload_ok
            && self.certificates.iter().all(|certificate| certificate.last_reload_ok)
            && self.others.iter().all(|other| other.last_reload_ok)
    }

    pub(super) fn of(environment: &Environment) -> Self {
        let files = environment.configuration.files();
        let callers = environment.callers.iter().map(|callers| (caller_files(&callers.cname), &callers.held.files));
        let callers: HashMap<_, _> = callers.collect();
        let certificates = environment.pairs.iter().map(|pair| {
            let identity = environment.identities.get(&pair.cname.name);
            CertificateStatus::new(pair, callers.get(&caller_files(&pair.cname)).copied(), identity)
        });
        let others = environment.others().map(|material| FileStatus {
            files: paths(material.files().paths()),
            generation: material.files().generation(),
            last_reload_ok: material.files().trouble().is_none(),
            errors: errors(material.files()),
        });
        Self {
            config: ConfigStatus {
                last_reload_ok: files.trouble().is_none(),
                errors: errors(files),
                generation: files.generation(),
                taken_at: files.taken_at(),
            },
            certificates: certificates.collect(),
            others: others.collect(),
        }
    }
}

#[derive(Debug)]
pub struct ConfigStatus {
    pub last_reload_ok: bool,
    /// Why what the files hold is not what runs; empty if it is.
    pub errors: Vec<String>,
    /// How often a configuration was taken.
    pub generation: u64,
    pub taken_at: SystemTime,
}

/// One `[[cname]]` table.
#[derive(Debug, Serialize)]
pub struct CertificateStatus {
    pub cname: String,
    pub cert_pem: String,
    pub key_pem: String,
    pub client_certificates: bool,
    /// Absent while none could be taken.
    #[serde(flatten)]
    pub served: Option<Served>,
    /// How often a pair was taken from these files.
    pub generation: u64,
    pub last_reload_ok: bool,
    /// Why what the files hold is not served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    #[serde(rename = "handshakes", serialize_with = "handshakes")]
    pub identity: Option<Arc<Identity>>,
}

impl CertificateStatus {
    /// What tells it apart from all others.
    pub fn labels(&self) -> [(&'static str, &str); 2] {
        [("cname", &self.cname), ("cert_pem", &self.cert_pem)]
    }

    fn new(Pair { cname, held, .. }: &Pair, callers: Option<&Files>, identity: Option<&Arc<Identity>>) -> Self {
        let all_files = || std::iter::once(&held.files).chain(callers);
        // Without the authorities of its callers a name is not served at all.
        let served = held.value().filter(|_| identity.is_some());
        Self {
            cname: cname.name.to_string(),
            cert_pem: cname.cert_pem.display().to_string(),
            key_pem: cname.key_pem.display().to_string(),
            client_certificates: cname.client_ca_pem.is_some(),
            served: served.map(|certificate| Served::new(certificate, held.files.taken_at())),
            generation: held.files.generation(),
            last_reload_ok: all_files().all(|files| files.trouble().is_none()),
            errors: all_files().flat_map(errors).collect(),
            identity: identity.map(Arc::clone),
        }
    }
}

/// The certificate that callers get.
#[derive(Debug, Serialize)]
pub struct Served {
    pub names: Vec<String>,
    pub serial: String,
    pub fingerprint_sha256: String,
    #[serde(serialize_with = "time")]
    pub not_before: SystemTime,
    #[serde(serialize_with = "time")]
    pub not_after: SystemTime,
    #[serde(serialize_with = "time")]
    pub loaded_at: SystemTime,
}

impl Served {
    fn new(certificate: &Certificate, loaded_at: SystemTime) -> Self {
        Self {
            names: certificate.names().iter().map(ToString::to_string).collect(),
            serial: certificate.serial().to_owned(),
            fingerprint_sha256: certificate.fingerprint(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            loaded_at,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct FileStatus {
    pub files: Vec<String>,
    pub generation: u64,
    pub last_reload_ok: bool,
    pub errors: Vec<String>,
}

fn paths(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

/// Why what the files hold is not what is held, as `scorefront check` says it.
fn errors(files: &Files) -> Vec<String> {
    let Some(found) = files.trouble().map(|trouble| &trouble.diagnostics) else { return Vec::new() };
    // Without any error it is a warning that keeps it waiting.
    let is_reason = |one: &&Diagnostic| one.severity == Severity::Error || !found.has_errors();
    found.iter().filter(is_reason).map(ToString::to_string).collect()
}

/// To the second, in UTC.
fn rfc3339(time: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(time)
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn handshakes<S: Serializer>(identity: &Option<Arc<Identity>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(identity.as_ref().map_or(0, |identity| identity.handshakes()))
}
