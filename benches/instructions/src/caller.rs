//! A caller over TLS, who gives the front end its turn whenever it would have to wait.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::stage::{CNAME, World};

pub struct Caller {
    tls: ClientConnection,
    tcp: TcpStream,
}

/// How callers do it: TLS 1.3 with AES-128-GCM and X25519, as in benches/compare.
pub fn config(world: &World, protocol: &[u8], resumes: bool) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(Arc::clone(&world.roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Arc::new(config)
}

impl Caller {
    /// Connects, up to the end of the handshake.
    pub fn connect(world: &mut World, config: &Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect(world.https).expect("the front end listens");
        tcp.set_nonblocking(true).expect("a socket");
        tcp.set_nodelay(true).expect("a socket");
        let name = CNAME.try_into().expect("a name");
        let mut caller = Self { tls: ClientConnection::new(Arc::clone(config), name).expect("a session"), tcp };
        caller.flush(world);
        while caller.tls.is_handshaking() {
            caller.fill(world);
            caller.flush(world);
        }
        caller
    }

    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Ends the connection, and waits for the front end to do so too.
    pub fn close(mut self, world: &mut World) {
        self.tls.send_close_notify();
        self.flush(world);
        while self.fill(world) {}
    }

    /// Sends `bytes`, in records as large as they may be.
    pub fn send(&mut self, world: &mut World, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.tls.writer().write(bytes).expect("a session takes it");
            bytes = &bytes[taken..];
            self.flush(world);
        }
    }

    /// What has come, which is at least a byte and at most what `buffer` holds.
    pub fn receive(&mut self, world: &mut World, buffer: &mut [u8]) -> usize {
        loop {
            match self.tls.reader().read(buffer) {
                Ok(0) => panic!("the front end closed the connection"),
                Ok(read) => return read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(self.fill(world), "an answer comes"),
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }

    fn flush(&mut self, world: &mut World) {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => world.turn(),
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }

    /// Reads what comes next; false at the connection's end.
    fn fill(&mut self, world: &mut World) -> bool {
        loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => return false,
                Ok(_) => {
                    self.tls.process_new_packets().expect("TLS");
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => world.turn(),
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }
}
