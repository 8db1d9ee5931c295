//! The access log: one line a request, text on a terminal and JSON otherwise, on standard output. Each thread fills a
//! buffer of its own and hands it on when it is full or a moment old; see [`super::writer`].

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::writer::LineWriter;
use crate::digits::{push_decimal, push_millis};

/// How the field of a name begins, up to its value.
macro_rules! start {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

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
        push_text(out, start!("client_id"), self.client_id);
        push_word(out, start!("peer"), Some(self.peer));
        push_text(out, start!("host"), self.host);
        push_word(out, start!("protocol"), self.protocol);
        push_word(out, start!("tls"), self.tls);
        push_text(out, start!("client_certificate"), self.client_certificate);
        push_word(out, start!("method"), self.method);
        push_text(out, start!("path"), self.path);
        push_word(out, start!("service"), self.service);
        push_text(out, start!("key"), self.key);
        push_text(out, start!("deployment"), self.deployment);
        push_text(out, start!("replica"), self.replica);
        for (start, member) in [(start!("handed_to"), self.handed_to), (start!("handed_by"), self.handed_by)] {
            if let Some(member) = member {
                push_word(out, start, Some(&member.to_string()));
            }
        }
        if let Some(status) = self.status {
            push_number(out, start!("status"), status.into());
        }
        push_word(out, start!("code"), self.code);
        push_word(out, start!("end"), Some(self.end));
        push_number(out, start!("request_bytes"), self.request_bytes);
        push_number(out, start!("response_bytes"), self.response_bytes);
        push_duration(out, start!("queue_ms"), Some(self.queue));
        push_duration(out, start!("connect_ms"), Some(self.connect));
        push_duration(out, start!("model_ms"), self.model);
        push_duration(out, start!("total_ms"), Some(self.total));
        out.extend_from_slice(b"}\n");
    }

    fn write_text(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let time = humantime::format_rfc3339_millis(self.time);
        write!(out, "{time} {} {} {} ", self.peer, self.method.unwrap_or("-"), self.path.unwrap_or("-"))?;
        match self.status {
            Some(status) => write!(out, "{status}")?,
            None => write!(out, "-")?,
        }
        for word in [self.code, self.service, self.deployment, self.replica].into_iter().flatten() {
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

/// Text that holds nothing JSON would have written otherwise, by what it is.
fn push_word(out: &mut Vec<u8>, start: &[u8], word: Option<&str>) {
    let Some(word) = word else { return };
    debug_assert!(is_plain(word.as_bytes()), "{word}");
    out.extend_from_slice(start);
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

/// Any text.
fn push_text(out: &mut Vec<u8>, start: &[u8], text: Option<&str>) {
    let Some(text) = text else { return };
    if is_plain(text.as_bytes()) {
        return push_word(out, start, Some(text));
    }
    out.extend_from_slice(start);
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn push_number(out: &mut Vec<u8>, start: &[u8], number: u64) {
    out.extend_from_slice(start);
    push_decimal(out, number);
}

fn push_duration(out: &mut Vec<u8>, start: &[u8], duration: Option<Duration>) {
    if let Some(duration) = duration {
        out.extend_from_slice(start);
        push_millis(out, duration);
    }
}

/// Whether JSON has every byte as it is: no control character, quotation mark or backslash.
fn is_plain(text: &[u8]) -> bool {
    let (eights, rest) = text.as_chunks();
    let rest = rest.iter().fold(EACH * u64::from(b' '), |word, byte| word << 8 | u64::from(*byte));
    !eights.iter().map(|bytes| u64::from_ne_bytes(*bytes)).chain([rest]).any(holds_special)
}

/// One in each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Whether one of eight bytes is special: subtracting borrows from the highest bit of the first byte that is smaller.
fn holds_special(word: u64) -> bool {
    let below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word & (EACH << 7);
    let equal = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    below(word, b' ') | equal(b'"') | equal(b'\\') != 0
}

/// Milliseconds with three decimals.
#[expect(clippy::cast_precision_loss, reason = "two million years of microseconds are exact")]
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_plain_is_what_json_leaves_alone(text in "[ -~\\x00-\\x1f\u{7f}-\u{ff}]{0,20}|[a-z]{0,9}[\\x00-\u{7f}]?[a-z]{0,9}") {
            let written = serde_json::to_string(&text).expect("JSON");
            prop_assert_eq!(is_plain(text.as_bytes()), written.len() == text.len() + 2);
        }
    }

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
