//! From the text of two files to a certificate that can be served, with everything there is to say about it.

use std::path::Path;
use std::time::SystemTime;

use super::certificate::{Certificate, CertificateError};
use super::facts::Facts;
use super::finding::{Finding, Part, Severity};
use super::pem;

/// What the two files are called in the commands of remedies.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    pub chain: &'a Path,
    pub key: &'a Path,
}

/// What came of a pair.
#[derive(Debug)]
pub struct Examined {
    /// There if it can be served at all: chain and key can be read and belong together, and the CNAME is covered. A
    /// finding that is an error may still advise against it, such as an expired one.
    pub certificate: Option<Certificate>,
    /// The errors first.
    pub findings: Vec<Finding>,
}

impl Examined {
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads the chain and the key, and checks them against each other, against `cname` (exact, or `*.` and a name) where
/// one is given, and against the time.
pub fn examine(chain: &[u8], key: &[u8], files: Files<'_>, cname: Option<&str>, now: SystemTime) -> Examined {
    let mut findings = Vec::new();
    let mut error = |part, message: String| findings.push(Finding::new(Severity::Error, part, message));
    let chain = pem::certificates(chain).map_err(|problem| error(Part::Chain, problem.message(files.chain)));
    let key = pem::private_key(key).map_err(|problem| error(Part::Key, problem.message(files.key)));
    let (Ok(chain), Ok(key)) = (chain, key) else { return Examined { certificate: None, findings } };

    let facts = chain.first().map(Facts::read);
    let certificate = match facts {
        Some(Ok(facts)) => Certificate::new(chain, &key, facts),
        Some(Err(problem)) => Err(CertificateError::Unreadable(problem)),
        None => Err(CertificateError::Unreadable(String::new())),
    };
    let certificate = match certificate {
        Ok(certificate) => certificate,
        Err(problem) => {
            let part = if matches!(problem, CertificateError::Unreadable(_)) { Part::Chain } else { Part::Key };
            error(part, problem.to_string());
            return Examined { certificate: None, findings };
        }
    };
    if let Some(cname) = cname
        && !certificate.covers_cname(cname)
    {
        error(
            Part::Chain,
            format!(
                "the certificate is for {}, not for {cname}; the name must be in its subjectAltName",
                certificate.names().join(", ")
            ),
        );
        return Examined { certificate: None, findings };
    }
    if certificate.not_after() < now {
        error(Part::Chain, format!("expired on {}", humantime::format_rfc3339_seconds(certificate.not_after())));
    } else if certificate.not_before() > now {
        error(
            Part::Chain,
            format!("is not valid before {}", humantime::format_rfc3339_seconds(certificate.not_before())),
        );
    }
    Examined { certificate: Some(certificate), findings }
}
