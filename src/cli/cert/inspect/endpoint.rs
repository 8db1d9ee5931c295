//! Asks a TLS server which chain it serves.
//!
//! The verifier in this file accepts every certificate, since the point is to look at the bad ones too. It checks the
//! handshake's signature, so what is shown belongs to a key that the server holds; who the server is, it does not know.
//! It is private to this file, and a connection made with it carries nothing: it is closed after the handshake.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long connecting and the handshake may take together.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A place where TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

/// Which signatures the client says it can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Client {
    /// All that are in use today.
    EcdsaAndRsa,
    /// As some old libraries.
    RsaOnly,
}

/// What a handshake settled.
pub(super) struct Served {
    pub certificates: Vec<CertificateDer<'static>>,
    /// `TLS 1.3`.
    pub version: String,
    pub cipher_suite: String,
    /// The key exchange.
    pub group: String,
    pub alpn: Option<String>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaAndRsa => "ECDSA and RSA",
            Self::RsaOnly => "RSA only",
        })
    }
}

impl FromStr for Endpoint {
    type Err = ();

    /// Takes `host:port`, `[address]:port` and `https://host[:port]/…`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (authority, default) = match text.strip_prefix("https://") {
            Some(rest) => (rest.split(['/', '?', '#']).next().unwrap_or_default(), Some(443)),
            None => (text, None),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(drop)?)),
            _ => (authority, default),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = host.parse::<IpAddr>().is_ok() || !host.contains([':', '/', '@', ' ']);
        match port {
            Some(port) if !host.is_empty() && is_host => Ok(Self { host: host.to_owned(), port }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Connects, and asks for `name`.
pub(super) async fn ask(endpoint: &Endpoint, name: &str, client: Client) -> anyhow::Result<Served> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| anyhow!("{name:?} is no name to ask for"))?;
    let handshake = async {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.context("cannot be reached")?;
        let connector = TlsConnector::from(Arc::new(config(client)?));
        connector.connect(name, tcp).await.map_err(explain)
    };
    let Ok(stream) = timeout(TIMEOUT, handshake).await else { bail!("no answer within {} s", TIMEOUT.as_secs()) };
    let stream = stream?;
    let (_, session) = stream.get_ref();
    Ok(Served::of(session))
}

impl Served {
    fn of(session: &ClientConnection) -> Self {
        let certificates = session.peer_certificates().unwrap_or_default();
        let suite = session.negotiated_cipher_suite();
        let group = session.negotiated_key_exchange_group();
        Self {
            certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
                other => format!("{other:?}"),
            },
            cipher_suite: suite.map_or(String::new(), |suite| iana_name(&format!("{:?}", suite.suite()))),
            group: group.map_or(String::new(), |group| format!("{:?}", group.name())),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

/// rustls writes the suites of TLS 1.3 as `TLS13_…`; the registry does not.
fn iana_name(name: &str) -> String {
    name.replacen("TLS13_", "TLS_", 1)
}

/// What a failed handshake means to an operator.
fn explain(error: std::io::Error) -> anyhow::Error {
    use rustls::Error;

    match error.downcast::<Error>() {
        Ok(Error::InvalidMessage(_)) => anyhow!("what answers does not speak TLS; is it the plain HTTP port?"),
        Ok(Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
            anyhow!("has no certificate for this name (alert unrecognized_name); ask for another one with --sni NAME")
        }
        Ok(Error::AlertReceived(AlertDescription::HandshakeFailure)) => {
            anyhow!("has no version, cipher or certificate in common with this client (alert handshake_failure)")
        }
        Ok(error) => anyhow!("the TLS handshake failed: {error}"),
        Err(error) => anyhow!("the connection was lost in the TLS handshake: {error}"),
    }
}

fn config(client: Client) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = AcceptAnything { provider: Arc::clone(&provider), client };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts every certificate. Not to be used for a connection that carries anything.
#[derive(Debug)]
struct AcceptAnything {
    provider: Arc<CryptoProvider>,
    client: Client,
}

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if self.client == Client::RsaOnly {
            schemes.retain(|scheme| format!("{scheme:?}").starts_with("RSA_"));
        }
        schemes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port_or_an_https_url() {
        for (text, expected) in [
            ("a.example:8443", "a.example:8443"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:443", "[::1]:443"),
            ("https://a.example", "a.example:443"),
            ("https://a.example:8443/api/v1?x#y", "a.example:8443"),
            ("https://[::1]/", "[::1]:443"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|()| panic!("{text}"));
            assert_eq!(endpoint.to_string(), expected);
        }
        for text in
            ["", "a.example", ":443", "a.example:", "a.example:99999", "::1", "a b:1", "a/b:1", "https://", "u@a:1"]
        {
            assert_eq!(text.parse::<Endpoint>(), Err(()), "{text}");
        }
    }
}
