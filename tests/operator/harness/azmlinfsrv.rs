//! azureml-inference-server-http, the model server of Azure Machine Learning, with a `score.py` of the test's.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tempfile::TempDir;

use super::{Lines, Process, eventually, skip, try_http_get};

const PACKAGE: &str = "azureml-inference-server-http==1.5.1";

/// A running model server; it and its workers are killed when this is dropped.
pub struct Azmlinfsrv {
    pub address: SocketAddr,
    directory: TempDir,
    settings: Vec<(&'static str, &'static str)>,
    process: Process,
    log: Lines,
}

impl Azmlinfsrv {
    /// Starts it with the body of `run(data)`; `None` without Python.
    pub fn run(body: &str) -> Option<Self> {
        Self::start(&format!("def run(data):\n    {}", body.replace('\n', "\n    ")), &[])
    }

    /// Starts it with a whole script and environment variables.
    pub fn start(script: &str, settings: &[(&'static str, &'static str)]) -> Option<Self> {
        let program = install()?.join("bin/azmlinfsrv");
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("score.py"), format!("def init(): pass\n\n{script}")).expect("write");
        let address = (Ipv4Addr::LOCALHOST, free_port()).into();
        let (process, log) = spawn(&program, &directory, address, settings);
        Some(Self { address, directory, settings: settings.to_vec(), process, log })
    }

    /// `kill -9` of the server and its workers.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        let program = install().expect("it ran before").join("bin/azmlinfsrv");
        (self.process, self.log) = spawn(&program, &self.directory, self.address, &self.settings);
    }
}

fn spawn(program: &Path, directory: &TempDir, address: SocketAddr, settings: &[(&str, &str)]) -> (Process, Lines) {
    let mut command = Command::new(program);
    command.args(["--entry_script", "score.py", "--port", &address.port().to_string()]).current_dir(directory.path());
    command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::start_group(&mut command);
    let log = Lines::of(process.pipes().stderr.take().expect("a pipe"));
    eventually("the model server", || {
        assert!(process.status().is_none(), "the model server ended:\n{}", log.wait_for_end().join("\n"));
        try_http_get(address, "/").is_ok_and(|(status, _)| status == 200).then_some(())
    });
    (process, log)
}

/// A port that no port 0 ever becomes, so that nobody takes it while the server starts or is away.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(u16::try_from(process::id() % u32::from(COUNT)).unwrap_or_default()));
    eventually("a free port", || {
        let port = FIRST + next.fetch_add(1, Relaxed) % COUNT;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|_| port)
    })
}

/// The virtual environment that holds the server: made once for all runs of all tests in this target directory.
fn install() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        if !super::has("python3") {
            return None;
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
        let directory = target.join("azmlinfsrv-venv");
        let lock = File::create(target.join("azmlinfsrv-venv.lock")).expect("a lock file");
        lock.lock().expect("lock");
        // Written last, so that what was broken off is made anew.
        let installed = directory.join(PACKAGE);
        if !installed.exists() {
            let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
            let made = succeeds(Command::new(python).args(["-m", "venv", "--clear"]).arg(&directory))
                && succeeds(Command::new(directory.join("bin/pip")).args(["install", "-q", PACKAGE]));
            if !made {
                skip(&format!("{PACKAGE} cannot be installed"));
                return None;
            }
            File::create(installed).expect("a marker");
        }
        Some(directory)
    });
    installed.as_deref()
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}
