//! Who we are under one CNAME, and whom we talk to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};

use super::Certificate;
use super::client_authority::ClientAuthority;
use super::tickets::{TicketKeys, Ticketer};

/// What callers may agree on after the handshake, most wanted first. `http/1.0` is what `curl --http1.0` offers.
const ALPN: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// Tickets sent after a TLS 1.3 handshake. Ours are stateless and may be used again, so one is enough, and each more
/// costs an encryption and some 200 bytes on every handshake.
const TLS13_TICKETS: usize = 1;

/// What all identities have in common. The ticket keys stay the same for the life of the process.
#[derive(Clone, Debug)]
pub struct Settings {
    provider: Arc<CryptoProvider>,
    oldest: ProtocolVersion,
    tickets: Arc<TicketKeys>,
}

impl Settings {
    /// TLS from the version `oldest` on, either 1.2 or 1.3.
    pub fn new(oldest: ProtocolVersion, tickets: Arc<TicketKeys>) -> Self {
        // rustls' own suites are ECDHE with AEAD only; with `prefer-post-quantum` its first group is X25519MLKEM768.
        Self { provider: Arc::new(aws_lc_rs::default_provider()), oldest, tickets }
    }

    /// The same with another oldest version.
    pub fn with_oldest(&self, oldest: ProtocolVersion) -> Self {
        Self { oldest, ..self.clone() }
    }

    pub fn oldest(&self) -> ProtocolVersion {
        self.oldest
    }

    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        const ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];
        if self.oldest == ProtocolVersion::TLSv1_3 { ONLY_1_3 } else { BOTH }
    }
}

/// What is served for one CNAME.
#[derive(Debug)]
pub struct Identity {
    cname: Box<str>,
    certificates: Arc<[Arc<Certificate>]>,
    asks_for_certificate: bool,
    config: Arc<ServerConfig>,
    /// Shared with the identities before it, whose last handshakes may still be under way.
    handshakes: Arc<AtomicU64>,
}

impl Identity {
    /// Serves `certificates` for `cname`, an exact name or `*.` and a name; lower case, without a trailing dot. With
    /// an authority, to callers only that show a certificate of it.
    ///
    /// # Errors
    ///
    /// The cryptographic library lacks what the protocol versions need.
    pub fn new(
        cname: &str,
        mut certificates: Vec<Arc<Certificate>>,
        callers: Option<&ClientAuthority>,
        settings: &Settings,
    ) -> Result<Self, rustls::Error> {
        // The cheapest for us first.
        certificates.sort_by_key(|certificate| certificate.is_rsa());
        let certificates: Arc<[_]> = certificates.into();
        let config = server_config(cname, Arc::clone(&certificates), callers, settings)?;
        Ok(Self {
            cname: cname.into(),
            certificates,
            asks_for_certificate: callers.is_some(),
            config: Arc::new(config),
            handshakes: Arc::default(),
        })
    }

    /// Goes on counting with `before`, which this one takes the place of.
    pub fn continuing(self, before: &Self) -> Self {
        Self { handshakes: Arc::clone(&before.handshakes), ..self }
    }

    /// The name it is configured under.
    pub fn cname(&self) -> &str {
        &self.cname
    }

    /// The cheapest for us first.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Whether callers have to show a certificate.
    pub fn asks_for_certificate(&self) -> bool {
        self.asks_for_certificate
    }

    /// Whether every certificate proves that we are `host`: a lower-case DNS name without trailing dot, or an address.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates.iter().all(|certificate| certificate.covers(host))
    }

    /// Handshakes that were finished under this name.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }

    /// The same for a server that speaks nothing but HTTP/1.1.
    pub fn config_for_http1(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    pub(super) fn count_handshake(&self) {
        self.handshakes.fetch_add(1, Relaxed);
    }
}

fn server_config(
    cname: &str,
    certificates: Arc<[Arc<Certificate>]>,
    callers: Option<&ClientAuthority>,
    settings: &Settings,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&settings.provider))
        .with_protocol_versions(settings.versions())?;
    let builder = match callers {
        Some(callers) => builder.with_client_cert_verifier(callers.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(certificates)));
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // Tickets carry all there is to resume; a cache beside them would be a lock that all threads share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A session is resumed without asking for the caller's certificate again, so that one that was revoked since would
    // still be let in: who has to show one does so every time, and holds no ticket that could be used elsewhere.
    if callers.is_none() {
        config.ticketer = Arc::new(Ticketer::new(Arc::clone(&settings.tickets), cname));
        config.send_tls13_tickets = TLS13_TICKETS;
    }
    Ok(config)
}

/// Answers rustls out of the identity that was found for the name.
#[derive(Debug)]
struct Resolver(Arc<[Arc<Certificate>]>);

impl ResolvesServerCert for Resolver {
    /// The first whose signature the caller says it can verify. Where there is none, any: rustls then says so by
    /// itself (`handshake_failure`), while without a certificate it would deny the access.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut keys = self.0.iter().map(|certificate| certificate.certified());
        let fitting = keys.find(|certified| certified.key.choose_scheme(hello.signature_schemes()).is_some());
        fitting.or(self.0.first().map(|certificate| certificate.certified())).cloned()
    }
}
