//! Callers: curl, h2load, openssl, and the least HTTP that reads an admin page.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;

use serde_json::Value;

use super::environment::{CNAME, FrontEnd, OTHER_CNAME};
use super::{PATIENCE, Process};

/// What curl got, and how it fared.
#[derive(Debug)]
pub struct Answer {
    pub exit: Option<i32>,
    /// 0 if there was no answer.
    pub status: u64,
    /// As curl writes it: `1.0`, `1.1` or `2`.
    pub version: String,
    headers: HashMap<String, Vec<String>>,
    pub body: String,
    /// Seconds to the first byte of the answer, and to its end.
    pub first_byte: f64,
    pub total: f64,
    pub downloaded: u64,
    pub complaint: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|values| values.first()).map(String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// `error.code` and `error.message` of an answer of the front end's own.
    #[track_caller]
    pub fn assert_refused(&self, status: u64, code: &str, message: &str) {
        assert_eq!((self.exit, self.status), (Some(0), status), "{self:?}");
        let error = &self.json()["error"];
        assert_eq!((&error["code"], &error["message"]), (&Value::from(code), &Value::from(message)));
    }
}

pub(super) fn curl(
    front_end: &FrontEnd,
    path: &str,
    arguments: &[&str],
    feed: impl FnOnce(ChildStdin) + Send,
) -> Answer {
    const REPORT: &str = "%{stderr}\n#{\"info\":%{json},\"headers\":%{header_json}}";

    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "--max-time", "60", "-w", REPORT]);
    command.arg("--cacert").arg(front_end.environment.file("ca.pem"));
    for name in [CNAME, OTHER_CNAME] {
        let port = front_end.https.port();
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
    }
    command.args(arguments);
    // A whole URI, or the part of one that says which service.
    command.arg(if path.contains("://") { path.to_owned() } else { front_end.uri(path) });
    let mut curl = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let child = curl.pipes();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (body, complaint) = thread::scope(|scope| {
        let complaint = scope.spawn(|| read_all(stderr));
        scope.spawn(|| feed(stdin.expect("a pipe")));
        (read_all(stdout), complaint.join().expect("curl's standard error"))
    });
    let exit = curl.exit_code();
    let (complaint, report) = complaint.split_once("\n#{").unwrap_or((&complaint, "}"));
    let report: Value = serde_json::from_str(&format!("{{{report}")).unwrap_or_default();
    let info = &report["info"];
    Answer {
        exit,
        status: info["http_code"].as_u64().unwrap_or_default(),
        version: info["http_version"].as_str().unwrap_or_default().to_owned(),
        headers: serde_json::from_value(report["headers"].clone()).unwrap_or_default(),
        body,
        first_byte: info["time_starttransfer"].as_f64().unwrap_or_default(),
        total: info["time_total"].as_f64().unwrap_or_default(),
        downloaded: info["size_download"].as_u64().unwrap_or_default(),
        complaint: complaint.to_owned(),
    }
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    pipe.expect("a pipe").read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What h2load says at its end.
#[derive(Debug)]
pub struct H2load {
    /// Calls sent over a connection that was there.
    pub started: usize,
    pub failed: usize,
    /// Answers with a status of 200 to 299.
    pub ok: usize,
    pub output: String,
}

/// Runs h2load against a service's score path.
pub fn h2load(front_end: &FrontEnd, service: &str, arguments: &[&str]) -> H2load {
    let body = front_end.environment.file("body.json");
    std::fs::write(&body, "{\"data\": [1, 2, 3]}").expect("write");
    let mut command = Command::new("h2load");
    command.arg(format!("--connect-to={}", front_end.https)).arg("-d").arg(&body);
    command.args(["-H", "content-type: application/json"]).args(arguments);
    command.arg(front_end.uri(&format!("{service}/score")));
    let mut h2load = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()));
    let output = read_all(h2load.pipes().stdout.take());
    let number = |line: &str, word: &str| {
        let line = output.lines().find(|text| text.starts_with(line));
        let part = line.and_then(|line| line.split([',', ':']).find_map(|part| part.strip_suffix(word)));
        part.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no {word} in {output}"))
    };
    H2load {
        started: number("requests:", " started"),
        failed: number("requests:", " failed"),
        ok: number("status codes:", " 2xx"),
        output: output.clone(),
    }
}

/// `openssl ARGUMENTS` with `input` on its standard input; everything it says.
pub fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut openssl = Process::start(&mut command);
    let child = openssl.pipes();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // It may end without having read anything.
    let _ = stdin.expect("a pipe").write_all(input.as_bytes());
    let said = thread::scope(|scope| {
        let complaint = scope.spawn(|| read_all(stderr));
        read_all(stdout) + &complaint.join().expect("openssl's standard error")
    });
    openssl.exit_within(PATIENCE);
    said
}

/// The status and body of a plain HTTP page.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    try_http_get(address, path).unwrap_or_else(|error| panic!("GET http://{address}{path}: {error}"))
}

pub fn try_http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer))
}
