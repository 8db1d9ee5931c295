//! An open load: calls go out when they are due, however many are under way, and their time counts from then on.
//!
//! HTTP/1.1 over TLS, on connections that are kept. A call takes the connection that has been idle longest (so that all of
//! them are used, and with them all threads of a proxy) or, if none is idle, opens one: it never waits for another call.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::Failure;
use crate::alarm::Alarm;
use crate::options::Options;
use crate::replica::field;
use crate::schedule::{Call, Schedule};
use crate::summary::{distribution, object};

const BODY: &str = "{\"data\": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.7, 3.1, 5.6, 2.4]]}";
/// More than this at one time is no load any more, but a runaway.
const MAX_CONNECTIONS: usize = 4000;

struct Caller {
    /// Those of several proxies are called in turn.
    ports: Vec<u16>,
    tls: TlsConnector,
    /// The request up to what is different in each: the value of its `x-service-us`, or its own id and that field.
    head: String,
    /// Whether each call has an id of its own.
    names_calls: bool,
    /// By the place of the port.
    idle: Vec<RefCell<VecDeque<TlsStream<TcpStream>>>>,
    open: Cell<usize>,
    opened: Cell<usize>,
    outcomes: RefCell<Vec<Outcome>>,
    patience: Duration,
}

struct Outcome {
    number: usize,
    due: Instant,
    /// When its turn came: later than due only if this program, or the machine, is.
    begun: Instant,
    sent: Instant,
    done: Instant,
    /// A status, or what went wrong.
    result: Result<u16, &'static str>,
}

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let schedule = Schedule::from(options)?;
    let deadline: u64 = options.or("--deadline-ms", 0)?;
    let prewarm: usize = options.or("--prewarm", 64)?;
    let record = options.text("--record");
    let caller = Rc::new(Caller::from(options, record.is_some())?);
    options.end()?;

    caller.prewarm(prewarm).await?;
    // Proxies and the machine come to rest after so many handshakes.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut alarm = Alarm::new()?;
    let mut under_way = JoinSet::new();
    let began = Instant::now();
    let clock = clock_gettime(ClockId::Monotonic);
    for (number, call) in schedule.calls.iter().enumerate() {
        alarm.until(began + call.due).await?;
        let (caller, call) = (Rc::clone(&caller), *call);
        under_way.spawn_local(async move { caller.call(number, began + call.due, call).await });
        while under_way.try_join_next().is_some() {}
    }
    // Bounded: each call has its patience.
    while under_way.join_next().await.is_some() {}

    let opened = caller.opened.get() - prewarm;
    let outcomes = caller.outcomes.take();
    if let Some(file) = record {
        let began_at = clock.tv_sec * 1_000_000_000 + clock.tv_nsec;
        fs::write(file, recorded(&outcomes, began, began_at))?;
    }
    println!("{}", summary(&outcomes, &schedule, Duration::from_millis(deadline), opened));
    Ok(())
}

/// A line a call: its number, when it was due, sent and done by `CLOCK_MONOTONIC` in nanoseconds, and its status or what went
/// wrong.
fn recorded(outcomes: &[Outcome], began: Instant, began_at: i64) -> String {
    let at = |time: Instant| began_at + time.saturating_duration_since(began).as_nanos() as i64;
    let mut text = String::new();
    for Outcome { number, due, sent, done, result, .. } in outcomes {
        let result = result.map_or_else(str::to_owned, |status| status.to_string());
        let _ = writeln!(text, "{number} {} {} {} {result}", at(*due), at(*sent), at(*done));
    }
    text
}

impl Caller {
    fn from(options: &mut Options, names_calls: bool) -> Result<Self, Failure> {
        let mut ports = Vec::new();
        while let Some(port) = options.text("--port") {
            ports.push(port.parse().map_err(|_| format!("--port: not {port}"))?);
        }
        if ports.is_empty() {
            ports.push(8443);
        }
        let path = options.required("--path")?;
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            BODY.len()
        );
        while let Some(header) = options.text("--header") {
            head.extend([&header, "\r\n"]);
        }
        if !names_calls {
            head += "x-service-us: ";
        }

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(options.required("--ca")?)?)?;
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            idle: ports.iter().map(|_| RefCell::default()).collect(),
            ports,
            tls: TlsConnector::from(Arc::new(tls)),
            head,
            names_calls,
            open: Cell::new(0),
            opened: Cell::new(0),
            outcomes: RefCell::default(),
            patience: Duration::from_millis(options.or("--patience-ms", 30_000)?),
        })
    }

    /// Opens connections before the load, a few at a time.
    async fn prewarm(self: &Rc<Self>, count: usize) -> Result<(), Failure> {
        for opened in (0..count).step_by(8) {
            let batch: Vec<_> = (opened..count.min(opened + 8))
                .map(|number| {
                    let caller = Rc::clone(self);
                    let at = number % self.ports.len();
                    (at, spawn_local(async move { timeout(caller.patience, caller.connect(caller.ports[at])).await }))
                })
                .collect();
            for (at, connection) in batch {
                let connection = connection.await??.map_err(|error| format!("port {}: {error}", self.ports[at]))?;
                self.idle[at].borrow_mut().push_back(connection);
            }
        }
        Ok(())
    }

    async fn connect(&self, port: u16) -> Result<TlsStream<TcpStream>, &'static str> {
        if self.open.get() >= MAX_CONNECTIONS {
            return Err("too many connections");
        }
        self.open.set(self.open.get() + 1);
        self.opened.set(self.opened.get() + 1);
        let connecting = async {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|_| "connect")?;
            tcp.set_nodelay(true).map_err(|_| "connect")?;
            let name = ServerName::try_from("localhost").map_err(|_| "name")?;
            self.tls.connect(name, tcp).await.map_err(|_| "handshake")
        };
        connecting.await.inspect_err(|_| self.open.set(self.open.get() - 1))
    }

    async fn call(&self, number: usize, due: Instant, call: Call) {
        let begun = Instant::now();
        let mut sent = begun;
        let result = timeout(self.patience, self.exchange(number, call, &mut sent)).await.unwrap_or_else(|_| {
            // Its connection was dropped with it.
            self.open.set(self.open.get() - 1);
            Err("patience")
        });
        if call.counts {
            self.outcomes.borrow_mut().push(Outcome { number, due, begun, sent, done: Instant::now(), result });
        }
    }

    async fn exchange(&self, number: usize, call: Call, sent: &mut Instant) -> Result<u16, &'static str> {
        let own = if self.names_calls {
            format!("x-ms-client-request-id: call-{number}\r\nx-service-us: ")
        } else {
            String::new()
        };
        let request = format!("{}{own}{}\r\n\r\n{BODY}", self.head, call.service.as_micros());
        let at = number % self.ports.len();
        let idle = self.idle[at].borrow_mut().pop_front();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect(self.ports[at]).await?,
        };
        *sent = Instant::now();
        let outcome = exchange_on(&mut connection, request.as_bytes()).await;
        match outcome {
            Ok((_, true)) => self.idle[at].borrow_mut().push_back(connection),
            Ok((_, false)) | Err(_) => self.open.set(self.open.get() - 1),
        }
        outcome.map(|(status, _)| status)
    }
}

/// The status, and whether the connection is kept.
async fn exchange_on(connection: &mut TlsStream<TcpStream>, request: &[u8]) -> Result<(u16, bool), &'static str> {
    connection.write_all(request).await.map_err(|_| "write")?;
    connection.flush().await.map_err(|_| "write")?;
    let mut answer = Vec::with_capacity(1024);
    let head = loop {
        if connection.read_buf(&mut answer).await.map_err(|_| "read")? == 0 {
            return Err(if answer.is_empty() { "closed before an answer" } else { "closed within a head" });
        }
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
    };
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let status = status.ok_or("no status")?;
    let kept = !field(&answer[..head], "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length: usize =
        field(&answer[..head], "content-length").and_then(|text| text.parse().ok()).ok_or("no length")?;
    while answer.len() < head + 4 + length {
        if connection.read_buf(&mut answer).await.map_err(|_| "read")? == 0 {
            return Err("closed within a body");
        }
    }
    Ok((status, kept))
}

fn summary(outcomes: &[Outcome], schedule: &Schedule, deadline: Duration, opened: usize) -> String {
    let (mut answered, mut refused, mut lag) = (Vec::new(), BTreeMap::<u16, Vec<Duration>>::new(), Vec::new());
    let mut errors = BTreeMap::<&str, usize>::new();
    for outcome in outcomes {
        lag.push(outcome.begun - outcome.due);
        match outcome.result {
            Ok(200..300) => answered.push(outcome.done - outcome.due),
            Ok(status) => refused.entry(status).or_default().push(outcome.done - outcome.sent),
            Err(error) => *errors.entry(error).or_default() += 1,
        }
    }
    let in_time = answered.iter().filter(|time| deadline.is_zero() || **time <= deadline).count();
    object([
        ("calls", outcomes.len().to_string()),
        ("seconds", schedule.seconds.to_string()),
        ("answered", distribution(answered)),
        ("in_time", in_time.to_string()),
        ("refused", distribution(refused.values().flatten().copied().collect())),
        ("refused_by_status", object(refused.into_iter().map(|(status, times)| (status, distribution(times))))),
        ("errors", object(errors)),
        ("lag", distribution(lag)),
        ("opened", opened.to_string()),
    ])
}
