//! Whom the command line trusts when it calls a service or a front end's admin address: the authorities of this machine, or
//! those of a file; and who it says it is itself.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use crate::tls::facts::Facts;

/// Where systems keep the authorities they trust.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// TLS as it is spoken to a front end.
///
/// # Errors
///
/// There is no certificate to trust.
pub fn config(cacert: Option<&Path>) -> anyhow::Result<ClientConfig> {
    Ok(verifying(cacert)?.with_no_client_auth())
}

/// The same for somebody who shows the certificate in the file `cert`, whose key is in the file `key`.
///
/// # Errors
///
/// There is no certificate to trust, or none to show.
pub fn config_as(cacert: Option<&Path>, cert: &Path, key: &Path) -> anyhow::Result<ClientConfig> {
    let own = PrivateKeyDer::from_pem_file(key);
    let own = own.map_err(|_| anyhow!("{}: holds no private key as PEM that is not locked", key.display()))?;
    let config = verifying(cacert)?.with_client_auth_cert(read(cert)?, own);
    config.with_context(|| format!("{} and {}", cert.display(), key.display()))
}

fn verifying(cacert: Option<&Path>) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let verifier = Verifier::new(trusted(cacert)?, cacert.is_some())?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config)
}

fn trusted(cacert: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let system = || SYSTEM.iter().map(PathBuf::from).find(|file| file.is_file());
    let Some(file) = cacert.map(Path::to_owned).or_else(system) else {
        bail!("this machine has no file of authorities; --cacert FILE names the one that signed the certificate");
    };
    read(&file)
}

fn read(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = file.display();
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.with_context(|| format!("{name}: cannot be read as PEM"))?;
    if certificates.is_empty() {
        bail!("{name}: holds no certificate as PEM");
    }
    Ok(certificates)
}

/// Verifies as every client does; and takes a certificate that was named itself, as one that signed itself can be, which
/// has to be of the name and of this time all the same.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(trusted: Vec<CertificateDer<'static>>, are_named: bool) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .context("no certificate of an authority that can be used")?;
        Ok(Self { chains, named: if are_named { trusted } else { Vec::new() } })
    }

    fn verify_named(
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let facts = Facts::read(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        if now > facts.not_after {
            return Err(CertificateError::Expired.into());
        }
        if now < facts.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
}

/// Whether the certificate is that of an authority, as one that signed itself often is: then it is trusted if it is named.
/// The type of this error is not handed on.
fn is_authority(error: &OtherError) -> bool {
    format!("{error:?}").contains("CaUsedAsEndEntity")
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.named.contains(end_entity) {
            return Self::verify_named(end_entity, server_name, now);
        }
        let verified = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) if is_authority(&other) => {
                CertificateError::UnknownIssuer.into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
