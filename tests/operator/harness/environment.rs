//! A cluster's files, and the front end that serves them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Lines, Process, SCOREFRONT, client, http_get};

/// The names an environment has certificates for.
pub const CNAME: &str = "scoring.example.com";
pub const OTHER_CNAME: &str = "other.example.com";

/// A directory with `scorefront.toml`, `ca.pem` and `certs/<CNAME>/{cert,key}.pem`.
pub struct Environment {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    keys: BTreeMap<String, Value>,
    tables: String,
}

impl Environment {
    /// Two CNAMEs, no service, free ports of 127.0.0.1, JSON logs with access lines, and no grace time.
    pub fn new() -> Self {
        Self::with_names(&[CNAME, OTHER_CNAME])
    }

    /// The same with other CNAMEs.
    pub fn with_names(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "operator tests CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        fs::write(directory.path().join("ca.pem"), ca.pem()).expect("write");
        let mut environment = Self { directory, ca, keys: BTreeMap::new(), tables: String::new() };
        for (key, value) in [
            ("frontend.https", Value::from("127.0.0.1:0")),
            ("frontend.http", Value::from("127.0.0.1:0")),
            ("frontend.drain_grace", Value::from("0s")),
            ("admin.listen", Value::from("127.0.0.1:0")),
            ("log.format", Value::from("json")),
            ("log.access", Value::from(true)),
        ] {
            environment = environment.set(key, value);
        }
        for name in names {
            environment.write_pair(name, |_| {});
            environment = environment.table(&format!(
                "[[cname]]\nname = \"{name}\"\ncert_pem = \"certs/{name}/cert.pem\"\nkey_pem = \"certs/{name}/key.pem\""
            ));
        }
        environment
    }

    /// Sets one key; a string, number or boolean is written the same in TOML and in JSON.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    pub fn table(mut self, text: &str) -> Self {
        let _ = write!(self.tables, "\n{text}\n");
        self
    }

    /// A service that asks for no key.
    pub fn service(self, name: &str, replica: SocketAddr) -> Self {
        self.table(&format!("[[service]]\nname = \"{name}\"\nauth = false\nreplicas = [\"http://{replica}\"]"))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a certificate for `name`, altered as the test wants it, and its key.
    pub fn write_pair(&self, name: &str, alter: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
        params.distinguished_name.push(DnType::CommonName, name);
        alter(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("sign");
        let directory = self.file("certs").join(name);
        fs::create_dir_all(&directory).expect("create");
        fs::write(directory.join("cert.pem"), certificate.pem() + &self.ca.pem()).expect("write");
        write_secret(&directory.join("key.pem"), &key.serialize_pem());
    }

    /// Writes `scorefront.toml` and says where it is.
    pub fn config(&self) -> PathBuf {
        let mut text = String::new();
        for (key, value) in &self.keys {
            let _ = writeln!(text, "{key} = {value}");
        }
        let file = self.file("scorefront.toml");
        fs::write(&file, text + &self.tables).expect("write");
        file
    }

    /// Runs `scorefront COMMAND --config FILE ARGUMENTS` to its end.
    pub fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let mut scorefront = Command::new(SCOREFRONT);
        scorefront.arg(command).arg("--config").arg(self.config()).args(arguments).output().expect("run")
    }

    /// `scorefront serve`, once it serves.
    pub fn serve(self) -> FrontEnd {
        self.serve_as(Command::new(SCOREFRONT).arg("serve").stdout(Stdio::piped()))
    }

    /// The same by a command of the test's own, which is given `--config FILE`.
    pub fn serve_as(self, command: &mut Command) -> FrontEnd {
        let command = command.arg("--config").arg(self.config());
        let mut process = Process::start(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let events = Lines::of(process.pipes().stderr.take().expect("a pipe"));
        let access = process.pipes().stdout.take().map(Lines::of).unwrap_or_default();
        let serving: Value = serde_json::from_str(&events.wait_for("\"serving\"")).expect("a line of JSON");
        let address = |field: &str| {
            let text = serving[field].as_str().unwrap_or_else(|| panic!("no {field} in {serving}"));
            text.trim_start_matches("http://").parse().expect("an address")
        };
        FrontEnd {
            https: address("https"),
            http: address("http"),
            admin: address("admin"),
            access,
            events,
            process,
            environment: self,
        }
    }
}

pub fn write_secret(file: &Path, text: &str) {
    fs::write(file, text).expect("write");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// A front end that serves an [`Environment`].
pub struct FrontEnd {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    /// What it writes to standard output: a line a request.
    pub access: Lines,
    /// What it writes to standard error.
    pub events: Lines,
    pub process: Process,
    pub environment: Environment,
}

impl FrontEnd {
    pub fn uri(&self, path: &str) -> String {
        format!("https://{CNAME}:{}/api/v1/service/{path}", self.https.port())
    }

    /// `curl` as a caller of the CNAME runs it, with the CA's certificate and never with `-k`.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        client::curl(self, path, arguments, |_| {})
    }

    /// The same, with what `feed` writes on its standard input.
    pub fn curl_fed(
        &self,
        path: &str,
        arguments: &[&str],
        feed: impl FnOnce(std::process::ChildStdin) + Send,
    ) -> Answer {
        client::curl(self, path, arguments, feed)
    }

    /// One figure of `/metrics`, by name and labels as they stand there.
    pub fn metric(&self, name: &str) -> f64 {
        metric_in(&http_get(self.admin, "/metrics").1, name)
    }

    /// A line of `/proc/PID/status`, in bytes.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("read");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("kilobytes") * 1024
    }

    /// The CPU time it has used so far: `utime` and `stime` of `/proc/PID/stat`, in Linux's hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("read");
        // The name before it may hold spaces.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// How many sockets it has open. Unlike a metric, this is nothing the process has to work for; and unlike files, it
    /// opens none by itself.
    pub fn sockets(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("read").filter_map(Result::ok);
        let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// Sends a signal and waits for the answer to it in the log.
    pub fn stop(&self) {
        self.process.signal(rustix::process::Signal::TERM);
        self.events.wait_for("stopping");
    }
}

pub fn metric_in(metrics: &str, name: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().expect("a number")
}
