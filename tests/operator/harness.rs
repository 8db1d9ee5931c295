//! What the tests of the binary share. Nothing in here asserts anything about the program but that it starts.

mod azmlinfsrv;
mod client;
mod cluster;
mod environment;
mod iris;
#[path = "../front_end/support/kubernetes.rs"]
#[allow(dead_code, reason = "the tests of the library have all of it")]
pub mod kubernetes;
#[path = "../front_end/support/name_server.rs"]
mod name_server;
mod process;
mod stub;

use std::env;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use azmlinfsrv::{Azmlinfsrv, free_port};
pub use client::{Answer, H2load, h2load, http_get, openssl, try_http_get};
pub use cluster::{Cluster, NOWHERE, Said};
pub use environment::{CNAME, Environment, FrontEnd, OTHER_CNAME, metric_in, write_secret};
pub use iris::Iris;
pub use name_server::NameServer;
pub use process::{Lines, Process};
pub use stub::Stub;

/// The program under test.
pub const SCOREFRONT: &str = env!("CARGO_BIN_EXE_scorefront");

/// How long anything may take that has to happen. Far more than it needs, since other work may have the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the test unless the machine has all these programs.
macro_rules! needs {
    ($($program:literal),+) => {
        $(if !crate::harness::has($program) {
            return;
        })+
    };
}
pub(crate) use needs;

/// Whether a program is there; said loudly if not.
pub fn has(program: &str) -> bool {
    let version = if program == "openssl" { "version" } else { "--version" };
    let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success()) || skip(&format!("there is no {program} on this machine"))
}

/// Always false. A skipped test must not look like a passed one where nobody watches.
pub fn skip(why: &str) -> bool {
    assert!(env::var("CI").as_deref() != Ok("true"), "under CI nothing is skipped, but {why}");
    let test = thread::current().name().unwrap_or_default().to_owned();
    // Not by a macro: the test harness would swallow it.
    let _ = writeln!(io::stderr(), "\n!!! SKIPPED {test}: {why}\n");
    false
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
