//! Handshakes: which certificate for which name, which versions and protocols, and how a refusal looks.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, NamedGroup,
    ProtocolVersion, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Algorithm, CNAME, Environment, Front, Replica, SCORE, Wire, client_config, client_config_for, roots, within,
};

/// The DNS names of the certificate served.
fn names(stream: &TlsStream<TcpStream>) -> Vec<String> {
    let leaf = &stream.get_ref().1.peer_certificates().expect("certificates")[0];
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).expect("a certificate");
    let names = leaf.subject_alternative_name().expect("one extension").expect("names");
    names.value.general_names.iter().map(ToString::to_string).collect()
}

/// The alert a handshake was refused with.
fn alert(handshake: io::Result<TlsStream<TcpStream>>) -> AlertDescription {
    match handshake.expect_err("refused").downcast::<Error>() {
        Ok(Error::AlertReceived(alert)) => alert,
        other => panic!("no alert: {other:?}"),
    }
}

async fn handshake(front: &Front, name: &str) -> io::Result<TlsStream<TcpStream>> {
    front.tls(client_config(&[]), name).await
}

#[tokio::test]
async fn each_cname_is_served_its_own_certificate_on_one_port() {
    let front = Environment::new().cname("a.example.com").cname("b.example.com").start();
    for name in ["a.example.com", "b.example.com", "B.Example.COM"] {
        let stream = handshake(&front, name).await.expect("a handshake");
        assert_eq!(names(&stream), [format!("DNSName({})", name.to_lowercase())]);
    }
}

#[tokio::test]
async fn a_wildcard_serves_every_name_one_label_below_it_and_an_exact_name_goes_first() {
    let front = Environment::new().cname("*.models.example.com").cname("own.models.example.com").start();
    let wildcard = handshake(&front, "any.models.example.com").await.expect("a handshake");
    assert_eq!(names(&wildcard), ["DNSName(*.models.example.com)"]);
    let own = handshake(&front, "own.models.example.com").await.expect("a handshake");
    assert_eq!(names(&own), ["DNSName(own.models.example.com)"]);
    for other in ["a.b.models.example.com", "models.example.com"] {
        assert_eq!(alert(handshake(&front, other).await), AlertDescription::UnrecognisedName, "{other}");
    }
}

#[tokio::test]
async fn the_default_cname_serves_callers_that_name_none_or_an_unknown_one() {
    let front = Environment::new()
        .set("tls", "default_cname = 'a.example.com'")
        .certificate("a.example.com", &["a.example.com", "unknown.example.com", "127.0.0.1"], Algorithm::Ecdsa)
        .cname("b.example.com")
        .start();
    for name in ["127.0.0.1", "unknown.example.com"] {
        let stream = handshake(&front, name).await.expect("a handshake");
        assert_eq!(names(&stream)[0], "DNSName(a.example.com)", "{name}");
    }
}

/// What comes back for a `ClientHello`, byte for byte.
async fn answer_to_hello(front: &Front, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut session = ClientConnection::new(Arc::new(client_config(&[])), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory");
    answer_to(front, &hello).await
}

async fn answer_to(front: &Front, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(front.https()).await.expect("a connection");
    tcp.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    within(tcp.read_to_end(&mut answer)).await.expect("a clean end");
    answer
}

#[tokio::test]
async fn a_name_without_certificate_gets_a_fatal_unrecognized_name_alert_and_nothing_else() {
    let front = Environment::new().cname(CNAME).start();
    // A name nobody holds, and none at all: addresses are no server names.
    for name in ["other.example.com", "127.0.0.1"] {
        assert_eq!(answer_to_hello(&front, name).await, [21, 3, 3, 0, 2, 2, 112], "{name}");
        assert_eq!(alert(handshake(&front, name).await), AlertDescription::UnrecognisedName);
    }
    front.until_metric("tls_handshakes_total{version=\"\",outcome=\"unknown_name\"}", 2).await;
    front.until_metric("tls_handshakes_total{version=\"\",outcome=\"no_name\"}", 2).await;
}

#[tokio::test]
async fn without_any_certificate_every_handshake_is_refused() {
    let front = Environment::new().start();
    assert_eq!(alert(handshake(&front, CNAME).await), AlertDescription::UnrecognisedName);
    front.until_metric("tls_handshakes_total{version=\"\",outcome=\"no_certificates\"}", 1).await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_answered_with_an_alert() {
    let front = Environment::new().cname(CNAME).start();
    let answer = answer_to(&front, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_both_spoken() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let stream = front.tls(client_config_for(&[version], &[]), CNAME).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        let mut wire = Wire::new(stream);
        wire.post("Content-Length: 2\r\n", "ab").await;
        assert_eq!(wire.reply().await.text(), "ab");
    }
}

#[tokio::test]
async fn min_version_1_3_refuses_1_2() {
    let front = Environment::new().set("tls", "min_version = '1.3'").cname(CNAME).start();
    let old = front.tls(client_config_for(&[&TLS12], &[]), CNAME).await;
    assert_eq!(alert(old), AlertDescription::ProtocolVersion);
    assert!(handshake(&front, CNAME).await.is_ok());
}

#[tokio::test]
async fn sessions_are_resumed_on_any_thread_in_both_versions() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).threads(2).start();
    for version in [&TLS12, &TLS13] {
        let mut config = client_config_for(&[version], &[]);
        config.resumption = Resumption::in_memory_sessions(8);
        let mut kinds = Vec::new();
        for _ in 0..5 {
            let stream = front.tls(config.clone(), CNAME).await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind().expect("a finished handshake"));
            // Tickets of 1.3 come after the handshake, before the first answer.
            let mut wire = Wire::new(stream);
            wire.post("Content-Length: 2\r\n", "ab").await;
            assert_eq!(wire.reply().await.status, 200);
        }
        let (first, later) = kinds.split_first().expect("five");
        assert_ne!(*first, HandshakeKind::Resumed);
        assert_eq!(later, [HandshakeKind::Resumed; 4], "{version:?}");
    }
}

#[tokio::test]
async fn alpn_chooses_http_2_before_1_1_and_1_1_for_those_that_say_nothing() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = front.tls(client_config(offered), CNAME).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        if agreed != Some("h2") {
            let reply = Wire::new(stream).ask(format!("GET {SCORE} HTTP/1.0\r\nHost: {CNAME}\r\n\r\n")).await;
            assert_eq!(reply.status, 200, "{offered:?}");
        }
    }
}

#[tokio::test]
async fn a_protocol_nobody_speaks_here_is_refused_in_the_handshake() {
    let front = Environment::new().cname(CNAME).start();
    let refused = front.tls(client_config(&["smtp"]), CNAME).await;
    assert_eq!(alert(refused), AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn the_first_key_exchange_is_post_quantum() {
    let front = Environment::new().cname(CNAME).start();
    let stream = handshake(&front, CNAME).await.expect("a handshake");
    let group = stream.get_ref().1.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn rsa_beside_ecdsa_serves_those_that_cannot_verify_ecdsa() {
    let front = Environment::new()
        .certificate(CNAME, &[CNAME, "rsa.example.com"], Algorithm::Rsa)
        .certificate(CNAME, &[CNAME, "ecdsa.example.com"], Algorithm::Ecdsa)
        .start();
    for version in [&TLS12, &TLS13] {
        let both = front.tls(client_config_for(&[version], &[]), CNAME).await.expect("a handshake");
        assert_eq!(names(&both)[1], "DNSName(ecdsa.example.com)", "the cheaper one");

        let mut config = client_config_for(&[version], &[]);
        let verifier = RsaOnly::new(&config);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        let rsa = front.tls(config, CNAME).await.expect("a handshake");
        assert_eq!(names(&rsa)[1], "DNSName(rsa.example.com)");
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_get_on_is_ended() {
    let front = Environment::new().set("limits", "tls_handshake_timeout = '200ms'").cname(CNAME).start();
    // Nothing at all, and the beginning of a record.
    for bytes in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut tcp = TcpStream::connect(front.https()).await.expect("a connection");
        tcp.write_all(bytes).await.expect("sent");
        let mut rest = Vec::new();
        // Reset or closed; what counts is that it ends.
        let _ = within(tcp.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    front.until_metric("tls_handshakes_total{version=\"\",outcome=\"timeout\"}", 2).await;
}

/// A caller that knows no signatures in the handshake but RSA's.
#[derive(Debug)]
struct RsaOnly(Arc<WebPkiServerVerifier>);

impl RsaOnly {
    fn new(config: &ClientConfig) -> Self {
        let provider = Arc::clone(config.crypto_provider());
        Self(WebPkiServerVerifier::builder_with_provider(roots(), provider).build().expect("a verifier"))
    }
}

impl ServerCertVerifier for RsaOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
    }
}
