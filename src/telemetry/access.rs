//! The access log: one line a request, text on a terminal and JSON otherwise, on standard output. Each thread fills a
//! buffer of its own and hands it on when it is full or a moment old; see [`super::writer`].

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::writer::LineWriter;

/// A buffer is handed on when it has grown to this many bytes.
const BATCH: usize = 32 * 1024;

/// How long a finished line may wait for company.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// One thread's end of the access log.
pub struct AccessLog {
    /// Absent when the operator wants no access log.
    output: Option<LineWriter>,
    text: bool,
    buffer: RefCell<Vec<u8>>,
}

/// What is said of one request; docs/operations.md explains each field.
#[derive(Serialize)]
pub struct Line<'a> {
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    pub id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'a str>,
    pub peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    /// The subject of the certificate that the caller showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// Without the query, which may hold anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    /// The name of the key that the caller has; never the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<&'a str>,
    /// The front end that it was handed over to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handed_to: Option<SocketAddr>,
    /// The front end that handed it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handed_by: Option<SocketAddr>,
    /// Absent when the caller left before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of an answer of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    pub end: &'static str,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub queue_ms: f64,
    pub connect_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_ms: Option<f64>,
    pub total_ms: f64,
}

impl AccessLog {
    pub fn new(output: Option<LineWriter>, text: bool) -> Self {
        Self { output, text, buffer: RefCell::default() }
    }

    pub fn is_on(&self) -> bool {
        self.output.is_some()
    }

    pub fn write(&self, line: &Line<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        // Writing to memory does not fail, and every field can be written.
        let _ = if self.text { line.write_text(&mut buffer) } else { line.write_json(&mut buffer) };
        let full = buffer.len() >= BATCH;
        drop(buffer);
        if full {
            self.flush();
        }
    }

    /// Hands on what there is.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if let Some(output) = &self.output
            && !buffer.is_empty()
        {
            let capacity = buffer.len();
            output.send(std::mem::replace(&mut *buffer, Vec::with_capacity(capacity)));
        }
    }
}

impl<'a> Line<'a> {
    /// A line of which nothing is known yet but who called, and now.
    pub fn new(id: &'a str, peer: SocketAddr) -> Self {
        Self {
            time: SystemTime::now(),
            id,
            client_id: None,
            peer,
            host: None,
            protocol: None,
            tls: None,
            client_certificate: None,
            method: None,
            path: None,
            service: None,
            key: None,
            deployment: None,
            replica: None,
            handed_to: None,
            handed_by: None,
            status: None,
            code: None,
            end: "complete",
            request_bytes: 0,
            response_bytes: 0,
            queue_ms: 0.0,
            connect_ms: 0.0,
            model_ms: None,
            total_ms: 0.0,
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.push(b'\n');
        Ok(())
    }

    fn write_text(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let time = humantime::format_rfc3339_millis(self.time);
        write!(out, "{time} {} {} {} ", self.peer, self.method.unwrap_or("-"), self.path.unwrap_or("-"))?;
        match self.status {
            Some(status) => write!(out, "{status}")?,
            None => write!(out, "-")?,
        }
        for word in [self.code, self.deployment, self.replica].into_iter().flatten() {
            write!(out, " {word}")?;
        }
        for (word, member) in [("handed_to", self.handed_to), ("handed_by", self.handed_by)] {
            if let Some(member) = member {
                write!(out, " {word}={member}")?;
            }
        }
        let model = self.model_ms.unwrap_or_default();
        writeln!(
            out,
            " in={} out={} queue={} connect={} model={model} total={} {} id={}",
            self.request_bytes, self.response_bytes, self.queue_ms, self.connect_ms, self.total_ms, self.end, self.id,
        )
    }
}

/// Milliseconds with three decimals.
#[expect(clippy::cast_precision_loss, reason = "two million years of microseconds are exact")]
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
