//! The front end, and an operator that changes its configuration all the time.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::options::Options;
use crate::tally::Tally;
use crate::target::{KEYS, MAX_QUEUE_WAIT, NAME, SCORING_TIMEOUT, Target};
use crate::{CONTAINERS, Failure, caller};

/// The front end; it ends when this is dropped.
pub struct Front {
    process: Child,
    files: TempDir,
    target: Target,
    admin: SocketAddr,
    replicas: Vec<u16>,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the operator has decided.
#[derive(Clone)]
struct Decided {
    /// Which containers are in use. The first three are for one version of service `one`, the next for another version of it
    /// that takes turns with the first, the next two for its third, the rest for service `two`.
    used: [bool; CONTAINERS],
    is_azure: bool,
    /// The name of the third version.
    third: u64,
    has_two: bool,
    max_queue: u32,
    priorities: [usize; 3],
    max_body: u32,
    health_interval: &'static str,
}

const BLUE: [usize; 2] = [0, 1];
const AZURE: [usize; 1] = [2];
const THIRD: [usize; 2] = [3, 4];
const TWO: [usize; 3] = [5, 6, 7];

impl Decided {
    fn at_first() -> Self {
        Self {
            used: [true; CONTAINERS],
            is_azure: false,
            third: 0,
            has_two: true,
            max_queue: 100,
            priorities: [0, 2, 1],
            max_body: 1_000_000,
            health_interval: "200ms",
        }
    }

    fn change(&mut self, random: &mut Rng, in_place: bool) {
        match random.u8(0..10) {
            0..4 => {
                let groups: [&[usize]; 4] = [&BLUE, &AZURE, &THIRD, &TWO];
                let group = groups[random.usize(0..groups.len())];
                let one = group[random.usize(0..group.len())];
                self.used[one] = !self.used[one];
                if group.iter().all(|one| !self.used[*one]) {
                    self.used[one] = true;
                }
            }
            4 => self.is_azure = !self.is_azure,
            5 if in_place => self.third += 1,
            5 | 6 => self.has_two = !self.has_two,
            7 => self.max_queue = [0, 5, 20, 50, 100, 200][random.usize(0..6)],
            // Who makes most of the requests never goes before the others, who would wait for ever.
            8 => (self.priorities[0], self.priorities[2]) = (random.usize(0..3), random.usize(0..3)),
            _ => self.max_body = random.u32(900_000..1_000_000),
        }
    }

    fn toml(&self, options: &Options, front: &Target, admin: SocketAddr, ports: &[u16]) -> String {
        let replicas = |group: &[usize]| {
            let used = group.iter().filter(|one| self.used[**one]);
            format!("{:?}", used.map(|one| format!("http://127.0.0.1:{}", ports[*one])).collect::<Vec<_>>())
        };
        let mut toml = format!(
            "[frontend]\nhttps = '{}'\nhttp = '{}'\nthreads = 2\n[tls]\nstatus = 'Disabled'\n[admin]\nlisten = '{admin}'\n\
             [log]\nlevel = 'error'\naccess = false\n[reload]\nwatch = false\npoll_interval = '1h'\n\
             [defaults]\nscoring_timeout = '{}ms'\nmax_queue_wait = '{}ms'\nmax_queue = {}\nmax_body = {}\n\
             max_concurrent_requests_per_replica = {}\nhealth_interval = '{}'\n\
             [[cname]]\nname = '{NAME}'\ncert_pem = 'cert.pem'\nkey_pem = 'key.pem'\n",
            front.https,
            front.http,
            SCORING_TIMEOUT.as_millis(),
            MAX_QUEUE_WAIT.as_millis(),
            self.max_queue,
            self.max_body,
            options.limit,
            self.health_interval,
        );
        let (first, first_replicas) =
            if self.is_azure { ("azure", replicas(&AZURE)) } else { ("blue", replicas(&BLUE)) };
        let third = format!("third-{}", self.third);
        toml.push_str("[[service]]\nname = 'one'\n");
        for ((name, _, hash), priority) in KEYS.iter().zip(self.priorities) {
            let priority = KEYS[priority].0;
            let _ = writeln!(toml, "[[service.key]]\nname = '{name}'\nsha256 = '{hash}'\npriority = '{priority}'");
        }
        for (name, replicas) in [(first, first_replicas), (&third, replicas(&THIRD))] {
            let _ = writeln!(toml, "[[service.deployment]]\nname = '{name}'\ntraffic = 50\nreplicas = {replicas}");
        }
        if self.has_two {
            let _ = writeln!(toml, "[[service]]\nname = 'two'\nauth = false\nreplicas = {}", replicas(&TWO));
        }
        toml
    }
}

impl Front {
    pub fn start(options: &Options, replicas: &[u16]) -> Result<Self, Failure> {
        let files = tempfile::tempdir()?;
        let root = certificate(files.path())?;
        // Free now, which is all that can be had.
        let held = (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<Vec<_>>>()?;
        let addresses = held.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        drop(held);
        let target = Target { http: addresses[0], https: addresses[1], root };
        let config = files.path().join("scorefront.toml");
        std::fs::write(&config, Decided::at_first().toml(options, &target, addresses[2], replicas))?;
        let mut command = Command::new(&options.binary);
        command.arg("serve").arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let process =
            command.spawn().map_err(|error| format!("{} does not start: {error}", options.binary.display()))?;
        let mut front = Self { process, files, target, admin: addresses[2], replicas: replicas.to_vec() };
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(front.admin).is_err() {
            if front.process.try_wait()?.is_some() || Instant::now() > until {
                return Err("the front end does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(front)
    }

    pub fn target(&self) -> Target {
        self.target.clone()
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    async fn admin(&self, head: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(format!("{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn apply(&self, options: &Options, decided: &Decided) -> Result<(), Failure> {
        let toml = decided.toml(options, &self.target, self.admin, &self.replicas);
        let (fresh, file) = (self.files.path().join(".new"), self.files.path().join("scorefront.toml"));
        std::fs::write(&fresh, &toml)?;
        std::fs::rename(fresh, file)?;
        let answer = self.admin("POST /v1/reload").await?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{answer}\n{toml}").into()) }
    }

    /// Changes the configuration until this is dropped.
    pub async fn operate(&self, options: &Options, tally: Arc<Tally>) -> Failure {
        let mut random = Rng::with_seed(options.seed);
        let mut decided = Decided::at_first();
        loop {
            sleep(Duration::from_millis(random.u64(5..120))).await;
            decided.change(&mut random, options.in_place);
            if let Err(failure) = self.apply(options, &decided).await {
                return failure;
            }
            tally.count("configurations");
        }
    }

    /// Checks that nothing is left of all that when nobody asks for anything, and that every container is of use.
    pub async fn at_rest(&self, options: &Options, tally: &Tally) -> Result<(), Failure> {
        for is_azure in [true, false] {
            let decided = Decided { is_azure, health_interval: "0s", ..Decided::at_first() };
            self.apply(options, &decided).await?;
            let until = Instant::now() + Duration::from_secs(5);
            loop {
                let metrics = self.admin("GET /metrics").await?;
                let busy = metrics.lines().filter(|line| {
                    let is_gauge = line.starts_with("scorefront_replica_requests_in_flight{")
                        || line.starts_with("scorefront_requests_in_flight{")
                        || line.starts_with("scorefront_queue_length{");
                    is_gauge && !line.ends_with(" 0")
                });
                let busy: Vec<_> = busy.collect();
                if busy.is_empty() {
                    break;
                }
                if Instant::now() > until {
                    tally.violation("not at rest", || busy.join("\n"));
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            // Each at once with no queue to speak of: a permit that is lost shows.
            for service in ["one", "two"] {
                for _ in 0..50 {
                    let status = caller::ask(&self.target, service).await?;
                    if status != 200 {
                        tally.violation("refused at rest", || format!("service {service}: {status}"));
                    }
                }
            }
        }
        // What is killed with a request in hand is the only reason for a 502, and has one at most.
        let (broken, killed) = (tally.counted("502 ReplicaClosed"), tally.counted("containers killed"));
        if broken > killed {
            tally.violation("more broken answers than containers killed", || format!("{broken} and {killed}"));
        }
        Ok(())
    }
}

/// A certificate for [`NAME`] in cert.pem and key.pem; whom to trust for it.
fn certificate(files: &Path) -> Result<CertificateDer<'static>, Failure> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &authority)?;
    std::fs::write(files.join("cert.pem"), certificate.pem())?;
    std::fs::write(files.join("key.pem"), key.serialize_pem())?;
    Ok(authority.der().clone())
}
