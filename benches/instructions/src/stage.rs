//! One worker thread of the front end as [`scorefront::front_end`] starts it, everything switched on, from files like any
//! other; and a script beside it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use scorefront::front_end::worker::{self, Setup};
use scorefront::front_end::{AccessOutput, pulse, spread};
use scorefront::scoring::catalog::Catalog;
use scorefront::shutdown::Phase;
use scorefront::telemetry::metrics::Metrics;
use scorefront::telemetry::writer::LineWriter;
use scorefront::tls::Terminator;
use scorefront::{environment, listener};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::counting::counted;
use crate::replica::Replica;
use crate::turns::{Turns, turns};

pub const CNAME: &str = "scoring.example.com";
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

const CONFIGURATION: &str = r#"
[frontend]
https = "127.0.0.1:0"
[tls]
min_version = "1.3"
[admin]
listen = "127.0.0.1:0"
[defaults]
max_concurrent_requests_per_replica = 100
[[cname]]
name = "scoring.example.com"
cert_pem = "cert.pem"
key_pem = "key.pem"
[[service]]
name = "iris"
primary_key_sha256 = "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9"
"#;

/// Everybody but the front end, who have their turn when it has nothing to do.
pub struct World {
    turns: Turns,
    pub replica: Replica,
    /// Where the front end listens.
    pub https: SocketAddr,
    /// Who signed its certificate.
    pub roots: Arc<RootCertStore>,
}

impl World {
    /// Has the front end do what there is to do, and the replica what follows from that.
    pub fn turn(&mut self) {
        self.turns.give();
        self.replica.act();
    }
}

/// Runs the worker thread until `script` has ended.
pub fn play(replica: Replica, script: impl FnOnce(&mut World) + Send + 'static) {
    let directory = tempfile::tempdir().expect("a directory");
    let roots = write_files(directory.path(), &replica);
    let (environment, _) =
        environment::open(&directory.path().join("scorefront.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let config = Arc::clone(environment.config());
    let dropped = Arc::default();
    let writer = LineWriter::start("access", io::sink(), Arc::clone(&dropped)).expect("a thread");
    let metrics = Arc::new(Metrics::new(1, dropped));
    let (https, listeners) = listener::bind(config.frontend.https, 1).expect("a port");
    let (phase, phases) = watch::channel(Phase::Running);
    let (alive, _) = mpsc::channel(1);
    let (_pulse, asked) = pulse::pair();
    let setup = Setup {
        index: 0,
        asked,
        https: listeners.into_iter().next().expect("a listener"),
        http: None,
        members: None,
        cluster: None,
        terminator: Terminator::new(Arc::new(ArcSwap::from_pointee(environment.table()))),
        catalog: Arc::new(ArcSwap::from_pointee(Catalog::new(&config, https.port(), &metrics, None, None))),
        metrics,
        access: AccessOutput { writer: Some(writer), text: false },
        phases,
        spread: spread::parts(1).remove(0),
        alive,
    };
    let (turns, rest) = turns();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(rest)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let script = thread::spawn(move || {
        // Without it the worker ends, also if the script fails.
        let _phase = phase;
        turns.begin();
        let mut world = World { turns, replica, https, roots: Arc::new(roots) };
        script(&mut world);
    });
    let mut runs = Some((runtime, setup));
    counted(&mut || {
        if let Some((runtime, setup)) = runs.take() {
            worker::run(runtime, setup);
        }
    });
    script.join().expect("the script succeeds");
}

fn write_files(directory: &Path, replica: &Replica) -> RootCertStore {
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(vec![CNAME.to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("a file");
    write("cert.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
    write("scorefront.toml", &format!("{CONFIGURATION}replicas = [\"http://{}\"]\n", replica.address()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    roots
}
