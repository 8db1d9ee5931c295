//! Replicas that run one request at a time, each on a port of its own.
//!
//! As a one-worker container looks from outside: connections are accepted at once (the kernel's backlog does so for a
//! gunicorn that is busy), requests run one after the other in the order in which they had arrived whole. A run takes the
//! time that the request's `x-service-us` asks for; without it the request is a probe, which takes its turn but no time,
//! and is not counted. The answer says `Connection: close`, and the replica then closes.
//!
//! A request whose peer closes is let go of at once, waiting or running: whoever sent it hears of nothing more. A real
//! worker would not notice and work on to the end; `--abandoned-runs-on` does so too.
//!
//! For `faults.py` it can be given addresses, writes down what became of each request (`--log`: a line of the time by
//! `CLOCK_MONOTONIC` in nanoseconds, an event, and the call's id), and falls ill when told to: `GET /mode/reset` on the control
//! port has it reset every connection once the request is there, `silent` never answer one, `unready` answer 503 to all of
//! them, `unhealthy` to probes only, `well` be as before. Probes fare like other requests.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::Failure;
use crate::alarm::Alarm;
use crate::options::Options;
use crate::summary::object;

/// A connection that has nothing to do for longer than this is held idle.
const IDLE: Duration = Duration::from_millis(50);
/// And for longer than this is closed.
const PATIENCE: Duration = Duration::from_secs(60);
const BODY: &str = "[{\"class\":\"setosa\",\"probability\":0.9816},{\"class\":\"versicolor\",\"probability\":0.8131}]";

struct Replica {
    /// Whoever holds it runs. Waiters get it in order.
    slot: Mutex<Alarm>,
    figures: RefCell<Figures>,
    keep_alive: bool,
    abandoned_runs_on: bool,
    manner: Rc<Manner>,
}

/// What all replicas of a process have in common.
struct Manner {
    mode: Cell<Mode>,
    log: Option<File>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well,
    Reset,
    Silent,
    Unready,
    Unhealthy,
}

impl Mode {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "well" => Self::Well,
            "reset" => Self::Reset,
            "silent" => Self::Silent,
            "unready" => Self::Unready,
            "unhealthy" => Self::Unhealthy,
            _ => return None,
        })
    }
}

impl Manner {
    /// At once, so that it is there whatever becomes of this process.
    fn note(&self, event: &str, request: &Request) {
        let Some(mut log) = self.log.as_ref() else { return };
        let now = clock_gettime(ClockId::Monotonic);
        let call = request.call.as_deref().unwrap_or("-");
        let what = if request.service.is_some() { "call" } else { "probe" };
        let line = format!("{} {what} {event} {call}\n", now.tv_sec * 1_000_000_000 + now.tv_nsec);
        // A log that cannot be written is found wanting by who reads it.
        let _ = log.write_all(line.as_bytes());
    }
}

#[derive(Default)]
struct Figures {
    /// Requests here now, waiting or running, and the most there were at any time.
    present: u64,
    most_present: u64,
    connections: u64,
    held_idle: u64,
    probes: u64,
    /// Runs that were begun, and the time that was asked for them.
    started: u64,
    asked: Duration,
    /// Those that ran to their end, what was asked for them, and how long they held the slot, answer included.
    served: u64,
    served_asked: Duration,
    served_held: Duration,
    /// How long all held the slot, also those given up.
    held: Duration,
    gone_waiting: u64,
    gone_running: u64,
    malformed: u64,
}

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let count: usize = options.or("--count", 8)?;
    let (keep_alive, abandoned_runs_on) = (options.flag("--keep-alive"), options.flag("--abandoned-runs-on"));
    let control: SocketAddr = options.or("--control", SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let log = options.text("--log").map(|file| File::options().create(true).append(true).open(file)).transpose()?;
    let mut addresses = Vec::new();
    while let Some(address) = options.text("--listen") {
        addresses.push(address.parse::<SocketAddr>().map_err(|_| format!("--listen: not {address}"))?);
    }
    if addresses.is_empty() {
        addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0)); count];
    }
    options.end()?;
    let manner = Rc::new(Manner { mode: Cell::new(Mode::Well), log });

    let (mut replicas, mut ports) = (Vec::new(), Vec::new());
    for address in addresses {
        let listener = TcpListener::bind(address).await?;
        ports.push(listener.local_addr()?.port().to_string());
        let (slot, figures) = (Mutex::new(Alarm::new()?), RefCell::default());
        let replica = Rc::new(Replica { slot, figures, keep_alive, abandoned_runs_on, manner: Rc::clone(&manner) });
        replicas.push(Rc::clone(&replica));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                replica.figures.borrow_mut().connections += 1;
                let replica = Rc::clone(&replica);
                // A connection that breaks is the peer's affair; what became of its request is in the figures.
                spawn_local(async move { replica.serve(stream).await });
            }
        });
    }
    let control = TcpListener::bind(control).await?;
    let ports = format!("[{}]", ports.join(","));
    println!("{}", object([("ports", ports), ("control", control.local_addr()?.port().to_string())]));
    loop {
        let (mut stream, _) = control.accept().await?;
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(1), control_answer(&mut stream, &replicas, &manner)).await {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

async fn control_answer(stream: &mut TcpStream, replicas: &[Rc<Replica>], manner: &Manner) -> io::Result<String> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await?;
    let text = figures_of(replicas);
    let path = request[..read].split(|byte| *byte == b' ').nth(1).and_then(|path| std::str::from_utf8(path).ok());
    if let Some(name) = path.and_then(|path| path.strip_prefix("/mode/")) {
        manner.mode.set(Mode::named(name).ok_or(io::ErrorKind::InvalidInput)?);
    }
    if request[..read].starts_with(b"GET /reset ") {
        for replica in replicas {
            let mut figures = replica.figures.borrow_mut();
            let present = figures.present;
            *figures = Figures { present, most_present: present, ..Figures::default() };
        }
    }
    let length = text.len();
    Ok(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    ))
}

fn figures_of(replicas: &[Rc<Replica>]) -> String {
    let sum = |figure: fn(&Figures) -> u64| {
        replicas.iter().map(|replica| figure(&replica.figures.borrow())).sum::<u64>().to_string()
    };
    let seconds = |figure: fn(&Figures) -> Duration| {
        let sum: Duration = replicas.iter().map(|replica| figure(&replica.figures.borrow())).sum();
        format!("{:.6}", sum.as_secs_f64())
    };
    let most: Vec<_> = replicas.iter().map(|replica| replica.figures.borrow().most_present.to_string()).collect();
    object([
        ("present", sum(|figures| figures.present)),
        ("at_once", format!("[{}]", most.join(","))),
        ("connections", sum(|figures| figures.connections)),
        ("held_idle", sum(|figures| figures.held_idle)),
        ("probes", sum(|figures| figures.probes)),
        ("started", sum(|figures| figures.started)),
        ("asked_seconds", seconds(|figures| figures.asked)),
        ("served", sum(|figures| figures.served)),
        ("served_asked_seconds", seconds(|figures| figures.served_asked)),
        ("served_held_seconds", seconds(|figures| figures.served_held)),
        ("held_seconds", seconds(|figures| figures.held)),
        ("gone_waiting", sum(|figures| figures.gone_waiting)),
        ("gone_running", sum(|figures| figures.gone_running)),
        ("malformed", sum(|figures| figures.malformed)),
    ])
}

/// What of a request matters here.
struct Request {
    service: Option<Duration>,
    /// Whose request it is.
    call: Option<String>,
}

impl Replica {
    async fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::with_capacity(2048);
        loop {
            let request = match self.read(&mut stream, &mut buffer).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(_) => {
                    self.figures.borrow_mut().malformed += 1;
                    return;
                }
            };
            let is_good = match self.manner.mode.get() {
                Mode::Reset => {
                    self.manner.note("reset", &request);
                    let _ = stream.set_zero_linger();
                    return;
                }
                Mode::Silent => {
                    self.manner.note("silent", &request);
                    let _ = timeout(PATIENCE, gone(&stream)).await;
                    return;
                }
                mode if mode == Mode::Unready || mode == Mode::Unhealthy && request.service.is_none() => {
                    self.manner.note("503", &request);
                    answer(&mut stream, "503 Service Unavailable", self.keep_alive).await.is_ok()
                }
                _ => self.score(&mut stream, &request).await,
            };
            if !is_good {
                return;
            }
            if !self.keep_alive {
                // Closed for writing first, so that a peer that keeps what it should close can be told.
                let _ = stream.shutdown().await;
                if timeout(IDLE, gone(&stream)).await.is_err() {
                    self.figures.borrow_mut().held_idle += 1;
                }
                return;
            }
        }
    }

    /// One request, head and body; nothing if the connection ended between two.
    async fn read(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
        let began = Instant::now();
        let (mut idle, mut whole) = (false, None);
        loop {
            if whole.is_none()
                && let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")
            {
                let head = &buffer[..end];
                if field(head, "transfer-encoding").is_some() {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                let length = field(head, "content-length").map_or(Ok(0), str::parse::<usize>);
                let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
                let service = field(head, "x-service-us").and_then(|text| text.parse().ok());
                let call = field(head, "x-ms-client-request-id").map(str::to_owned);
                whole = Some((end + 4 + length, Request { service: service.map(Duration::from_micros), call }));
            }
            if let Some((end, request)) = whole.take_if(|(end, _)| *end <= buffer.len()) {
                buffer.drain(..end);
                return Ok(Some(request));
            }
            let patience = if buffer.is_empty() && !idle { IDLE } else { PATIENCE };
            match timeout(patience, stream.read_buf(buffer)).await {
                // Some proxies end a connection that they do not need any more by resetting it.
                Ok(Ok(0) | Err(_)) if buffer.is_empty() => return Ok(None),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => drop(read?),
                Err(_) if began.elapsed() < PATIENCE => {
                    self.figures.borrow_mut().held_idle += 1;
                    idle = true;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Whether the connection is still good.
    async fn score(&self, stream: &mut TcpStream, request: &Request) -> bool {
        let Some(service) = request.service else {
            self.figures.borrow_mut().probes += 1;
            let _turn = self.slot.lock().await;
            self.manner.note("answered", request);
            return answer(stream, "200 OK", self.keep_alive).await.is_ok();
        };
        self.manner.note("came", request);
        {
            let mut figures = self.figures.borrow_mut();
            figures.present += 1;
            figures.most_present = figures.most_present.max(figures.present);
        }
        let alarm = tokio::select! {
            biased;
            () = gone(stream) => None,
            alarm = self.slot.lock() => Some(alarm),
        };
        let Some(mut alarm) = alarm else {
            let mut figures = self.figures.borrow_mut();
            figures.present -= 1;
            figures.gone_waiting += 1;
            self.manner.note("gone", request);
            return false;
        };
        let began = Instant::now();
        {
            let mut figures = self.figures.borrow_mut();
            figures.started += 1;
            figures.asked += service;
        }
        let whole = tokio::select! {
            biased;
            _ = alarm.until(began + service) => true,
            () = gone(stream) => false,
        };
        // Before the answer: whoever has it may send the next.
        self.figures.borrow_mut().present -= 1;
        if !whole && self.abandoned_runs_on {
            let _ = alarm.until(began + service).await;
        }
        self.manner.note(if whole { "answered" } else { "gone" }, request);
        let good = whole && answer(stream, "200 OK", self.keep_alive).await.is_ok();
        let held = began.elapsed();
        let mut figures = self.figures.borrow_mut();
        figures.held += held;
        if whole {
            figures.served += 1;
            figures.served_asked += service;
            figures.served_held += held;
        } else {
            figures.gone_running += 1;
        }
        good
    }
}

async fn answer(stream: &mut TcpStream, status: &str, keep_alive: bool) -> io::Result<()> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let length = BODY.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{BODY}"
    );
    stream.write_all(text.as_bytes()).await
}

/// Returns when the peer has closed. What it sends meanwhile is thrown away: no proxy pipelines to a replica.
async fn gone(stream: &TcpStream) {
    let mut bytes = [0; 256];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut bytes) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// The value of a field in a head, by its name in any case.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
