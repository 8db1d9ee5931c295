//! Ends TLS: the caller's bytes come in, a decrypted stream and what is known of the handshake go out.
//!
//! This room knows certificates and nothing of HTTP, services, configuration files or metrics: it is given a
//! [`CertificateTable`] and gives back streams and [`HandshakeError`]s that others count and log.

mod certificate;
pub mod chain;
pub mod client_authority;
mod distinguished_name;
pub mod facts;
pub mod finding;
pub mod foreign;
mod identity;
mod names;
pub mod pair;
pub mod pem;
mod remedy;
mod socket;
mod stream;
mod strength;
mod table;
pub mod tickets;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use self::socket::Polled;
pub use certificate::Certificate;
pub use distinguished_name::distinguished_name;
pub use finding::{Finding, Part, Severity};
pub use identity::{Identity, Settings};
pub use socket::{Buffers, Socket};
pub use stream::Stream;
pub use table::{CertificateTable, FoundBy, NameTable};

/// A fatal `unrecognized_name` alert as a plaintext record: the answer to a name no certificate is held for
/// (RFC 6066 section 3; codes in RFC 8446 section 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The certificates of the process, swapped whole when they change.
pub type SharedTable = Arc<ArcSwap<CertificateTable>>;

/// Ends TLS on accepted connections, with what the table holds at that instant.
#[derive(Clone)]
pub struct Terminator {
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
    /// The caller's own certificate, which was verified; there if the identity asks for one.
    pub caller: Option<CertificateDer<'static>>,
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
    #[error("the caller's certificate: {0}")]
    CallerCertificate(rustls::Error),
    #[error("{0}")]
    Protocol(rustls::Error),
    #[error("connection lost: {0}")]
    Io(io::Error),
}

/// Who we are to a caller that asks for `server_name`, and why.
///
/// # Errors
///
/// There is no certificate to show; the caller is sent the alert `unrecognized_name`.
pub fn identify<'a>(
    table: &'a CertificateTable,
    server_name: Option<&str>,
) -> Result<(FoundBy, &'a Arc<Identity>), HandshakeError> {
    table.find_by(server_name).ok_or_else(|| match server_name {
        _ if table.is_empty() => HandshakeError::NoCertificates,
        Some(name) => HandshakeError::UnknownName(name.into()),
        None => HandshakeError::NoName,
    })
}

impl Terminator {
    pub fn new(table: SharedTable) -> Self {
        Self { table }
    }

    /// Carries out the handshake. Bound it in time: it waits for the caller.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]; the connection is of no more use.
    pub async fn accept(&self, socket: Socket) -> Result<(Stream, Handshake), HandshakeError> {
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(HandshakeError::from_io)?;

        let hello = start.client_hello();
        let found = identify(&self.table.load(), hello.server_name()).map(|(_, identity)| Arc::clone(identity));
        let server_name = hello.server_name().map(Box::from);
        let identity = match found {
            Ok(identity) => identity,
            Err(error) => {
                // rustls would say access_denied; browsers and libraries explain unrecognized_name better.
                let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
                let _ = start.io.shutdown().await;
                return Err(error);
            }
        };

        let StartHandshake { accepted, io: mut socket, .. } = start;
        let session = match accepted.into_connection(identity.config()) {
            Ok(session) => session,
            Err((error, mut alert)) => {
                poll_fn(|cx| poll_say(&mut alert, &mut socket, cx)).await;
                return Err(HandshakeError::from_rustls(error));
            }
        };
        let mut stream = Stream::new(socket, session);
        poll_fn(|cx| stream.poll_handshake(cx)).await.map_err(HandshakeError::from_io)?;
        identity.count_handshake();
        let session = stream.session();
        let handshake = Handshake {
            server_name,
            identity,
            protocol: match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
            version: session.protocol_version().unwrap_or(ProtocolVersion::TLSv1_2),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            caller: session.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned()),
        };
        Ok((stream, handshake))
    }
}

/// Ready when the alert is written, or cannot be.
fn poll_say(alert: &mut AcceptedAlert, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<()> {
    match alert.write_all(&mut Polled { socket, cx }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Ok(()) | Err(_) => Poll::Ready(()),
    }
}

impl HandshakeError {
    /// rustls' errors come inside `io::Error` where there can be others.
    fn from_io(error: io::Error) -> Self {
        error.downcast::<rustls::Error>().map_or_else(Self::Io, Self::from_rustls)
    }

    fn from_rustls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) => {
                Self::CallerCertificate(error)
            }
            _ => Self::Protocol(error),
        }
    }
}
