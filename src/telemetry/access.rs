//! The access log: one line a request, text on a terminal and JSON otherwise, on standard output. Each thread fills a
//! buffer of its own and hands it on when it is full or a moment old; see [`super::writer`].

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::writer::LineWriter;
use crate::digits::{push_decimal, push_millis};

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
    clock: Clock,
}

/// What is said of one request; docs/operations.md explains each field.
pub struct Line<'a> {
    pub time: SystemTime,
    pub id: &'a str,
    pub client_id: Option<&'a str>,
    pub peer: &'a str,
    pub host: Option<&'a str>,
    pub protocol: Option<&'static str>,
    pub tls: Option<&'static str>,
    /// The subject of the certificate that the caller showed.
    pub client_certificate: Option<&'a str>,
    pub method: Option<&'a str>,
    /// Without the query, which may hold anything.
    pub path: Option<&'a str>,
    pub service: Option<&'a str>,
    /// The name of the key that the caller has; never the key.
    pub key: Option<&'a str>,
    pub deployment: Option<&'a str>,
    pub replica: Option<&'a str>,
    /// The front end that it was handed over to.
    pub handed_to: Option<SocketAddr>,
    /// The front end that handed it over.
    pub handed_by: Option<SocketAddr>,
    /// Absent when the caller left before there was one.
    pub status: Option<u16>,
    /// The code of an answer of our own.
    pub code: Option<&'static str>,
    pub end: &'static str,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub queue: Duration,
    pub connect: Duration,
    pub model: Option<Duration>,
    pub total: Duration,
}

impl AccessLog {
    pub fn new(output: Option<LineWriter>, text: bool) -> Self {
        Self { output, text, buffer: RefCell::default(), clock: Clock::default() }
    }

    pub fn is_on(&self) -> bool {
        self.output.is_some()
    }

    pub fn write(&self, line: &Line<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        if self.text {
            // Writing to memory does not fail.
            let _ = line.write_text(&mut buffer);
        } else {
            line.write_json(&self.clock, &mut buffer);
        }
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
    pub fn new(id: &'a str, peer: &'a str) -> Self {
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
            queue: Duration::ZERO,
            connect: Duration::ZERO,
            model: None,
            total: Duration::ZERO,
        }
    }

    /// By hand: a serializer took a tenth of a small request's own time.
    fn write_json(&self, clock: &Clock, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.push(self.time, out);
        out.extend_from_slice(b"\",\"id\":\"");
        // Hexadecimal digits and hyphens.
        out.extend_from_slice(self.id.as_bytes());
        out.push(b'"');
        push_text(out, "client_id", self.client_id);
        push_text(out, "peer", Some(self.peer));
        push_text(out, "host", self.host);
        push_text(out, "protocol", self.protocol);
        push_text(out, "tls", self.tls);
        push_text(out, "client_certificate", self.client_certificate);
        push_text(out, "method", self.method);
        push_text(out, "path", self.path);
        push_text(out, "service", self.service);
        push_text(out, "key", self.key);
        push_text(out, "deployment", self.deployment);
        push_text(out, "replica", self.replica);
        for (name, member) in [("handed_to", self.handed_to), ("handed_by", self.handed_by)] {
            if let Some(member) = member {
                push_text(out, name, Some(&member.to_string()));
            }
        }
        if let Some(status) = self.status {
            push_number(out, "status", status.into());
        }
        push_text(out, "code", self.code);
        push_text(out, "end", Some(self.end));
        push_number(out, "request_bytes", self.request_bytes);
        push_number(out, "response_bytes", self.response_bytes);
        push_duration(out, "queue_ms", Some(self.queue));
        push_duration(out, "connect_ms", Some(self.connect));
        push_duration(out, "model_ms", self.model);
        push_duration(out, "total_ms", Some(self.total));
        out.extend_from_slice(b"}\n");
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
        let [queue, connect, total] = [self.queue, self.connect, self.total].map(millis);
        let model = self.model.map(millis).unwrap_or_default();
        writeln!(
            out,
            " in={} out={} queue={queue} connect={connect} model={model} total={total} {} id={}",
            self.request_bytes, self.response_bytes, self.end, self.id,
        )
    }
}

/// The text of the current second, which many lines share.
#[derive(Default)]
struct Clock {
    second: Cell<Option<u64>>,
    /// `2026-11-26T21:30:00`
    text: Cell<[u8; Self::LENGTH]>,
}

impl Clock {
    const LENGTH: usize = "2026-11-26T21:30:00".len();

    /// Appends a time by RFC 3339, to the millisecond.
    fn push(&self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second.get() != Some(since.as_secs()) {
            let text = humantime::format_rfc3339_seconds(time).to_string();
            let mut start = [b'0'; Self::LENGTH];
            start.iter_mut().zip(text.bytes()).for_each(|(digit, byte)| *digit = byte);
            self.text.set(start);
            self.second.set(Some(since.as_secs()));
        }
        out.extend_from_slice(&self.text.get());
        let millis = since.subsec_millis();
        let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn push_text(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    let Some(text) = text else { return };
    push_name(out, name);
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    // Looks at every byte, so that the compiler can look at many at once.
    if text.bytes().filter(is_special).count() > 0 {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(out, text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn push_number(out: &mut Vec<u8>, name: &str, number: u64) {
    push_name(out, name);
    push_decimal(out, number);
}

fn push_duration(out: &mut Vec<u8>, name: &str, duration: Option<Duration>) {
    if let Some(duration) = duration {
        push_name(out, name);
        push_millis(out, duration);
    }
}

/// Milliseconds with three decimals.
#[expect(clippy::cast_precision_loss, reason = "two million years of microseconds are exact")]
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_it_holds() {
        let clock = Clock::default();
        for (seconds, expected) in [(0, "1970-01-01T00:00:00.007Z"), (1_795_728_600, "2026-11-26T21:30:00.007Z")] {
            let line = Line {
                time: UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7),
                path: Some("/a\"b\\c\u{1}\u{e9}"),
                status: Some(200),
                model: Some(Duration::from_micros(12_345)),
                ..Line::new("0-1", "127.0.0.1:1")
            };
            let mut out = Vec::new();
            line.write_json(&clock, &mut out);
            let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(read["time"], expected);
            assert_eq!(read["path"], "/a\"b\\c\u{1}\u{e9}");
            assert_eq!(
                (&read["status"], &read["model_ms"], &read["queue_ms"]),
                (&200.into(), &12.345.into(), &0.0.into())
            );
            assert_eq!(read.get("code"), None);
            assert!(out.ends_with(b"}\n"));
        }
    }
}
