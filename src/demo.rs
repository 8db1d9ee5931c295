//! A whole cluster on one machine, for a first look and for tests: a certificate authority, a certificate for
//! `localhost`, two replicas of a real small model, and the environment that puts the front end before them.
//!
//! Everything it makes is in one temporary directory; nothing else in the program imports this room but the command
//! line.

pub mod iris;
pub mod replica;
mod swagger;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// The name the demo is called by; every machine resolves it to itself.
pub const CNAME: &str = "localhost";

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot write the demo's files: {0}")]
    Io(#[from] io::Error),
    #[error("cannot make the demo's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot draw a random key")]
    Random,
}

/// The demo's files; they go when this is dropped.
#[derive(Debug)]
pub struct DemoEnvironment {
    directory: TempDir,
    /// The bearer key of the service `iris`.
    pub key: String,
}

impl DemoEnvironment {
    /// Writes an environment for a front end at `https`, with a service `iris` on `replicas`.
    ///
    /// # Errors
    ///
    /// See [`DemoError`].
    pub fn create(https: SocketAddr, replicas: &[SocketAddr]) -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new().prefix("scorefront-demo-").tempdir()?;
        let key = random_key()?;
        let environment = Self { directory, key };
        environment.write_certificates()?;
        environment.write_configuration(https, replicas)?;
        Ok(environment)
    }

    /// The certificate of the demo's own authority, for `curl --cacert`.
    pub fn ca_pem(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("scorefront.toml")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write_certificates(&self) -> Result<(), DemoError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "scorefront demo CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let mut params = CertificateParams::new([CNAME.to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, CNAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &ca)?;

        let directory = self.path().join("certs").join(CNAME);
        fs::create_dir_all(&directory)?;
        fs::write(self.ca_pem(), ca.pem())?;
        fs::write(directory.join("cert.pem"), leaf.pem() + &ca.pem())?;
        write_secret(&directory.join("key.pem"), &key.serialize_pem())?;
        Ok(())
    }

    fn write_configuration(&self, https: SocketAddr, replicas: &[SocketAddr]) -> io::Result<()> {
        let main = format!(
            "include = [\"services/*.toml\"]\n\n[frontend]\nhttps = \"{https}\"\n\
             # No balancer has to notice that it stops.\ndrain_grace = \"0s\"\n\n[[cname]]\nname = \"{CNAME}\"\n\
             cert_pem = \"certs/{CNAME}/cert.pem\"\nkey_pem = \"certs/{CNAME}/key.pem\"\n\n[admin]\n\
             listen = \"127.0.0.1:0\"\n"
        );
        fs::write(self.config(), main)?;
        let replicas: Vec<_> = replicas.iter().map(|replica| format!("\"http://{replica}\"")).collect();
        let service = format!(
            "[[service]]\nname = \"iris\"\nprimary_key_sha256 = \"{}\"\nreplicas = [{}]\n\
             # The model takes microseconds: a load generator is served rather than told to come again.\n\
             max_queue = 10000\nmax_queue_wait = \"10s\"\n",
            sha256_hex(&self.key),
            replicas.join(", ")
        );
        let services = self.path().join("services");
        fs::create_dir(&services)?;
        fs::write(services.join("iris.toml"), service)
    }
}

/// Readable by this user only, from the first instant.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn random_key() -> Result<String, DemoError> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DemoError::Random)?;
    Ok(hex(&bytes))
}

fn sha256_hex(key: &str) -> String {
    hex(digest(&SHA256, key.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
