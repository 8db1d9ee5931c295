//! An environment that `scorefront env create` made, and the commands that are run on it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Environment, Lines, Process, SCOREFRONT, free_port};

/// A name that never leads anywhere (RFC 6761, section 6.4).
pub const NOWHERE: &str = "scoring.invalid";

/// A directory with `ca.pem` and `certs/scoring.invalid/{cert,key}.pem` to make environments from, and one of them in
/// `my-cluster`.
pub struct Cluster {
    pub files: Environment,
    admin: u16,
    front_end: Option<Process>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    pub exit: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { exit: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.exit, Some(0), "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.succeeded();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }

    /// It failed with this code, and said this.
    #[track_caller]
    pub fn failed(self, exit: i32, text: &str) {
        assert!(self.exit == Some(exit) && self.err.contains(text), "not exit {exit} with {text:?}: {self:?}");
    }
}

impl Cluster {
    /// Only the files to make an environment from.
    pub fn none() -> Self {
        Self { files: Environment::with_names(&[NOWHERE]), admin: free_port(), front_end: None }
    }

    /// With TLS, made and served.
    pub fn serving() -> Self {
        let mut cluster = Self::none();
        cluster.create(&Self::with_pair()).succeeded();
        cluster.serve();
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.file(name)
    }

    /// The certificate as arguments of `env create`.
    pub fn with_pair() -> Vec<String> {
        let file = |name: &str| format!("certs/{NOWHERE}/{name}");
        let words = ["--cert-cname", NOWHERE, "--cert-pem", &file("cert.pem"), "--key-pem", &file("key.pem")];
        words.map(str::to_owned).to_vec()
    }

    /// `scorefront env create -c` of `my-cluster`, on ports of its own.
    pub fn create(&self, more: &[String]) -> Said {
        let admin = format!("127.0.0.1:{}", self.admin);
        let mut words = vec!["env", "create", "-c", "-g", "my-rg", "-n", "my-cluster"];
        let usual = [("--admin-listen", admin.as_str()), ("--https", "127.0.0.1:0"), ("--http", "127.0.0.1:0")];
        for (flag, address) in usual.into_iter().filter(|(flag, _)| more.iter().all(|word| word != flag)) {
            words.extend([flag, address]);
        }
        words.extend(more.iter().map(String::as_str));
        self.run(&words)
    }

    /// `scorefront serve --env my-cluster`, once it serves.
    pub fn serve(&mut self) {
        let mut command = self.command(&["serve", "--env", "my-cluster"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command);
        let events = Lines::of(process.pipes().stderr.take().expect("a pipe"));
        events.wait_for("\"serving\"");
        self.front_end = Some(process);
    }

    pub fn stop(&mut self) {
        self.front_end = None;
    }

    /// `scorefront WORDS` in the directory of the files.
    pub fn run(&self, words: &[&str]) -> Said {
        Said::of(&self.command(words).stdin(Stdio::null()).output().expect("run"))
    }

    /// `scorefront service VERB realtime --env my-cluster WORDS`, the words apart by blanks.
    pub fn service(&self, verb: &str, words: &str) -> Said {
        let fixed = ["service", verb, "realtime", "--env", "my-cluster"];
        self.run(&fixed.into_iter().chain(words.split_whitespace()).collect::<Vec<_>>())
    }

    /// `scorefront env VERB --env my-cluster WORDS`.
    pub fn env(&self, verb: &str, words: &str) -> Said {
        let fixed = ["env", verb, "--env", "my-cluster"];
        self.run(&fixed.into_iter().chain(words.split_whitespace()).collect::<Vec<_>>())
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(SCOREFRONT);
        command.args(words).current_dir(self.files.path());
        command.env_remove("SCOREFRONT_ADMIN").env_remove("SCOREFRONT_ADMIN_TOKEN_FILE");
        command
    }

    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }
}
