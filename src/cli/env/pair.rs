//! A certificate and its key as they were handed over: read, examined as `check` would, and what there is to say of them
//! said. Where they go is not for here.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::cli::cert::{read, say};
use crate::cli::output;
use crate::config::CnamePattern;
use crate::tls::{Part, pair};

/// The two files of a pair.
pub struct Files {
    pub cert_pem: PathBuf,
    pub key_pem: PathBuf,
}

/// What is in them, which is PEM text and fit to be served.
pub struct Pair {
    pub chain: Vec<u8>,
    pub key: Zeroizing<Vec<u8>>,
}

impl Files {
    /// Those of the arguments; `None` if neither was given.
    ///
    /// # Errors
    ///
    /// One of them is missing, in the words of the original.
    pub fn of(cert_pem: Option<&Path>, key_pem: Option<&Path>) -> Result<Option<Self>, &'static str> {
        match (cert_pem, key_pem) {
            (None, None) => Ok(None),
            (Some(_), None) => Err("Certificate key file must be provided if certificate is provided."),
            (None, Some(_)) => Err("Certificate file must be provided if certificate key file is provided."),
            (Some(cert_pem), Some(key_pem)) => {
                Ok(Some(Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() }))
            }
        }
    }

    /// Reads both and says what is wrong with them; `None` if they must not be served for `cname`.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn examine(&self, cname: Option<&CnamePattern>) -> anyhow::Result<Option<Pair>> {
        let (chain, key) = (read(&self.cert_pem)?, read(&self.key_pem)?);
        let files = pair::Files { chain: &self.cert_pem, key: &self.key_pem };
        let examined = pair::examine(&chain, &key, files, cname.map(CnamePattern::as_str), SystemTime::now());
        for finding in &examined.findings {
            let file = match finding.part {
                Part::Chain => &self.cert_pem,
                Part::Key => &self.key_pem,
            };
            output::err(&say::finding(&file.display().to_string(), finding));
        }
        let is_fit = !examined.has_errors() && examined.certificate.is_some();
        Ok(is_fit.then(|| Pair { chain: chain.to_vec(), key }))
    }
}
