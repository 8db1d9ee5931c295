//! `scorefront demo`, as somebody tries it who has just built it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::{NamedTempFile, TempDir};

use crate::harness::{Lines, Process, SCOREFRONT, free_port, needs};

struct Demo {
    process: Process,
    output: Lines,
    temporary: TempDir,
}

impl Demo {
    fn start(port: u16) -> Self {
        // With a blank in its name, as some have.
        let temporary = tempfile::Builder::new().prefix("demo test ").tempdir().expect("a temporary directory");
        let mut command = Command::new(SCOREFRONT);
        command.args(["demo", "--port", &port.to_string()]).env("TMPDIR", temporary.path());
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let output = Lines::of(process.pipes().stdout.take().expect("a pipe"));
        output.wait_for("Ctrl-C stops everything");
        Self { process, output, temporary }
    }

    /// The command to paste, all its lines.
    fn curl_line(&self) -> String {
        self.output.wait_until("a curl line", |lines| {
            let begin = lines.iter().position(|line| line.trim_start().starts_with("curl "))?;
            let length = lines[begin..].iter().position(|line| !line.ends_with('\\'))?;
            Some(lines[begin..=begin + length].join("\n"))
        })
    }

    fn assert_scores_as_pasted(&self) {
        let pasted = self.curl_line();
        let ran = Command::new("sh").arg("-c").arg(&pasted).stdin(Stdio::null()).output().expect("sh");
        let (answer, complaint) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let flowers: serde_json::Value =
            serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{pasted}\n{answer}\n{complaint}"));
        let classes: Vec<_> = flowers.as_array().expect("three").iter().map(|flower| &flower["class"]).collect();
        assert_eq!(classes, ["setosa", "versicolor", "virginica"]);
    }

    fn assert_ctrl_c_stops_everything(&mut self) {
        self.process.signal(Signal::INT);
        assert_eq!(self.process.exit_within(Duration::from_secs(5)).code(), Some(0));
        let left: Vec<_> = fs::read_dir(self.temporary.path()).expect("read").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_curl_line_works_as_pasted_and_ctrl_c_leaves_nothing_behind() {
    needs!("curl");
    let port = free_port();
    let mut demo = Demo::start(port);
    assert!(demo.curl_line().contains(&format!("https://localhost:{port}/api/v1/service/iris/score")));
    demo.assert_scores_as_pasted();
    demo.output.wait_for("POST /api/v1/service/iris/score 200");
    demo.assert_ctrl_c_stops_everything();
}

#[test]
fn a_load_generator_is_served_and_not_told_to_come_again() {
    needs!("curl", "h2load");
    let port = free_port();
    let mut demo = Demo::start(port);
    let line = demo.curl_line();
    let (_, rest) = line.split_once("Authorization: ").expect("a key");
    let (key, _) = rest.split_once('\'').expect("its end");
    let mut body = NamedTempFile::new().expect("a file");
    body.write_all(br#"{"data": [[5.1, 3.5, 1.4, 0.2]]}"#).expect("written");
    // More at once than wait by default.
    let ran = Command::new("h2load")
        .args(["-n2000", "-c8", "-m32", "-H", &format!("Authorization: {key}"), "-d"])
        .arg(body.path())
        .arg(format!("https://localhost:{port}/api/v1/service/iris/score"))
        .output()
        .expect("h2load");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("2000 2xx"), "{said}");
    demo.assert_ctrl_c_stops_everything();
}

#[test]
fn a_taken_port_is_left_to_its_owner() {
    needs!("curl");
    let owner = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let taken = owner.local_addr().expect("address").port();
    let mut demo = Demo::start(taken);
    assert!(!demo.curl_line().contains(&format!(":{taken}/")), "{}", demo.curl_line());
    demo.assert_scores_as_pasted();
    demo.assert_ctrl_c_stops_everything();
}

#[test]
fn ctrl_c_does_not_wait_for_those_who_hold_a_connection() {
    let port = free_port();
    let mut demo = Demo::start(port);
    let _held = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect");
    demo.assert_ctrl_c_stops_everything();
}
