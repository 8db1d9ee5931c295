//! Ends TLS: the caller's bytes come in, a decrypted stream and what is known of the handshake go out.
//!
//! This room knows certificates and nothing of HTTP, services, configuration files or metrics: it is given a
//! [`CertificateTable`] and gives back streams and [`HandshakeError`]s that others count and log.

mod certificate;
pub mod chain;
pub mod facts;
pub mod finding;
pub mod foreign;
mod names;
pub mod pair;
pub mod pem;
mod remedy;
mod strength;
mod table;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use certificate::Certificate;
pub use finding::{Finding, Part, Severity};
pub use table::{CertificateTable, Identity};

/// What callers may agree on after the handshake, most wanted first. `http/1.0` is what `curl --http1.0` offers.
const ALPN: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// Tickets sent after a TLS 1.3 handshake. Ours are stateless and may be used again, so one is enough, and each more
/// costs an encryption and some 200 bytes on every handshake.
const TLS13_TICKETS: usize = 1;

/// A fatal `unrecognized_name` alert as a plaintext record: the answer to a name no certificate is held for
/// (RFC 6066 section 3; codes in RFC 8446 section 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The certificates of the process, swapped whole when they change.
pub type SharedTable = Arc<ArcSwap<CertificateTable>>;

/// Ends TLS on accepted connections. Clones share one configuration and one ticket key for the life of the process,
/// so that a change of certificates loses no session.
#[derive(Clone)]
pub struct Terminator {
    config: Arc<ServerConfig>,
    table: SharedTable,
}

/// The protocol agreed on by ALPN (RFC 7301); HTTP/1 for callers that offered none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What a finished handshake settled.
pub struct Handshake {
    /// The name asked for; absent when the caller sent none.
    pub server_name: Option<Box<str>>,
    /// Who we are on this connection.
    pub identity: Arc<Identity>,
    pub protocol: Protocol,
    pub version: ProtocolVersion,
    pub resumed: bool,
}

/// Why no connection came of it. Nothing here is our fault; the caller got an alert where the protocol has one.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no certificate is loaded")]
    NoCertificates,
    #[error("no certificate for the name {0:?}")]
    UnknownName(Box<str>),
    #[error("the caller named no server (SNI) and there is no default_cname")]
    NoName,
    #[error("{0}")]
    Protocol(rustls::Error),
    #[error("connection lost: {0}")]
    Io(io::Error),
}

impl Terminator {
    /// Prepares TLS with the protocol versions from `oldest` on.
    ///
    /// # Errors
    ///
    /// The cryptographic library failed to make a ticket key.
    pub fn new(table: SharedTable, oldest: ProtocolVersion) -> Result<Self, rustls::Error> {
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        const ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];
        let versions = if oldest == ProtocolVersion::TLSv1_3 { ONLY_1_3 } else { BOTH };

        // rustls' own suites are ECDHE with AEAD only; with `prefer-post-quantum` its first group is X25519MLKEM768.
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(&table))));
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = TLS13_TICKETS;
        // Tickets carry all there is to resume; a cache beside them would be a lock that all threads share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), table })
    }

    /// Carries out the handshake. Bound it in time: it waits for the caller.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]; the connection is of no more use.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(TlsStream<TcpStream>, Handshake), HandshakeError> {
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.map_err(HandshakeError::from_io)?;

        let hello = start.client_hello();
        let table = self.table.load();
        let Some(identity) = table.find(hello.server_name()).cloned() else {
            let error = match hello.server_name() {
                _ if table.is_empty() => HandshakeError::NoCertificates,
                Some(name) => HandshakeError::UnknownName(name.into()),
                None => HandshakeError::NoName,
            };
            // rustls would say access_denied; browsers and libraries explain unrecognized_name better.
            let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = start.io.shutdown().await;
            return Err(error);
        };
        let server_name = hello.server_name().map(Box::from);
        drop(table);

        let stream = start.into_stream(Arc::clone(&self.config)).await.map_err(HandshakeError::from_io)?;
        let (_, session) = stream.get_ref();
        let handshake = Handshake {
            server_name,
            identity,
            protocol: match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
            version: session.protocol_version().unwrap_or(ProtocolVersion::TLSv1_2),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((stream, handshake))
    }
}

impl HandshakeError {
    /// tokio-rustls hands rustls' errors on inside `io::Error`.
    fn from_io(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Protocol(error),
            Err(error) => Self::Io(error),
        }
    }
}

/// Answers rustls out of the table that is current at that instant.
#[derive(Debug)]
struct Resolver(SharedTable);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.load();
        table.find(hello.server_name())?.key_for(&hello).cloned()
    }
}
