//! Callers that hang up at every point of a request, and check every answer they wait for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::lag::Lag;
use crate::options::Options;
use crate::tally::Tally;
use crate::target::{KEYS, MAX_QUEUE_WAIT, NAME, SCORING_TIMEOUT, Target};

/// Connections of each kind. HTTP/2 has [`STREAMS`] on each.
const PLAIN: u64 = 28;
const TLS: u64 = 8;
const HTTP2: u64 = 1;
const STREAMS: u64 = 8;

/// A body that is there at once with its head.
const SMALL: usize = 1_000;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all callers share.
struct Callers {
    target: Target,
    http1: TlsConnector,
    http2: TlsConnector,
    tally: Arc<Tally>,
    left: Cell<u64>,
    grace: Duration,
    lag: Rc<Lag>,
}

/// A request, and what its caller does with it.
struct Plan {
    number: u64,
    service: &'static str,
    key: &'static str,
    deadline: Option<u64>,
    body: Vec<u8>,
    fate: Fate,
}

enum Fate {
    /// It waits for the answer.
    Wait,
    /// It hangs up so long after it sent it all.
    HangUp(Duration),
    /// It hangs up so long after it sent so much of the body.
    BreakOff(usize, Duration),
}

impl Callers {
    /// The next request; `None` when there were enough.
    fn plan(&self, random: &mut Rng) -> Option<Plan> {
        let number = self.left.get();
        self.left.set(number.checked_sub(1)?);
        let size = if random.u8(0..50) == 0 { random.usize(1_000..200_000) } else { random.usize(10..300) };
        let mut body = format!("{number} ").into_bytes();
        body.resize(body.len() + size, b'x');
        let pause = Duration::from_micros(random.u64(0..6_000));
        let fate = match random.u8(0..100) {
            0..4 => Fate::HangUp(pause),
            4..6 => Fate::BreakOff(random.usize(0..body.len()), pause),
            _ => Fate::Wait,
        };
        let key = match random.u8(0..10) {
            0 => KEYS[0].1,
            1..8 => KEYS[1].1,
            _ => KEYS[2].1,
        };
        Some(Plan {
            number,
            service: if random.u8(0..10) < 6 { "one" } else { "two" },
            key,
            deadline: (random.u8(0..10) == 0).then(|| random.u64(1..40)),
            body,
            fate,
        })
    }

    /// Judges an answer that was waited for.
    fn judge(&self, plan: &Plan, status: u16, body: &[u8], timing: &str, took: Duration) {
        let (number, service, deadline) = (plan.number, plan.service, plan.deadline);
        let limit = plan.deadline.map_or(SCORING_TIMEOUT, Duration::from_millis);
        let text = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let code = text().split("\"code\":\"").nth(1).and_then(|rest| Some(rest.split_once('"')?.0.to_owned()));
        let code = code.unwrap_or_default();
        let what = if status == 200 { "200".to_owned() } else { format!("{status} {code}") };
        self.tally.count(&what);
        let told =
            || format!("request {number} to {service}, deadline {deadline:?}, {what} after {took:?}: {}", text());
        let is_expected = match (status, &*code) {
            (200, _) => body == plan.body,
            (404, code) => code == "ServiceNotFound" && service == "two",
            (502 | 503, code) => matches!(code, "Overloaded" | "NoReadyReplicas" | "ReplicaClosed"),
            // A large body and little time.
            (408, "RequestTimeout") => plan.deadline.is_some() && plan.body.len() >= SMALL,
            (504, code) => code == "ScoringTimeout" && took + Duration::from_millis(1) >= limit,
            _ => false,
        };
        if !is_expected {
            self.tally.violation("an answer nobody expected", told);
        }
        // A machine that has no time for either side makes nobody forgotten.
        let late = self.lag.within(took);
        self.tally.took(took.saturating_sub(late), || {
            format!("{what} to {number} of {} bytes, in all {} ms; {timing}", plan.body.len(), took.as_millis())
        });
        if took > limit + self.grace + late {
            self.tally.violation("later than its deadline", told);
        } else if took >= MAX_QUEUE_WAIT + late && plan.deadline.is_none() {
            self.tally.violation("somebody waited as if forgotten", told);
        }
    }
}

/// Makes all requests.
pub async fn run(options: &Options, target: Target, tally: Arc<Tally>, lag: &Rc<Lag>) {
    let callers = Rc::new(Callers {
        http1: connector(&target, &[]),
        http2: connector(&target, &[b"h2"]),
        target,
        tally,
        left: Cell::new(options.requests),
        grace: options.grace,
        lag: Rc::clone(lag),
    });
    let mut all = JoinSet::new();
    let mut seeds = Rng::with_seed(options.seed.wrapping_add(1));
    for connection in 0..PLAIN + TLS {
        let (callers, random) = (Rc::clone(&callers), seeds.fork());
        all.spawn_local(async move { callers.http1(random, connection >= PLAIN).await });
    }
    for _ in 0..HTTP2 {
        let shared = Rc::new(RefCell::new(None));
        for _ in 0..STREAMS {
            let (callers, shared, random) = (Rc::clone(&callers), Rc::clone(&shared), seeds.fork());
            all.spawn_local(async move { callers.http2(random, &shared).await });
        }
    }
    all.join_all().await;
}

fn connector(target: &Target, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let _ = roots.add(target.root.clone());
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection, and whether closing it resets it is said here.
struct Wire {
    stream: Box<dyn Stream>,
    /// The same socket.
    socket: socket2::Socket,
    /// What was answered on it last.
    before: String,
}

async fn connect(address: std::net::SocketAddr, tls: Option<&TlsConnector>) -> io::Result<Wire> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp).try_clone()?;
    let stream: Box<dyn Stream> = match tls {
        Some(tls) => {
            let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
            Box::new(tls.connect(name, tcp).await?)
        }
        None => Box::new(tcp),
    };
    Ok(Wire { stream, socket, before: "nothing".to_owned() })
}

impl Callers {
    async fn http1(&self, mut random: Rng, is_tls: bool) {
        let address = if is_tls { self.target.https } else { self.target.http };
        let mut open = None;
        while let Some(plan) = self.plan(&mut random) {
            let mut wire = match open.take() {
                Some(wire) => wire,
                None => match connect(address, is_tls.then_some(&self.http1)).await {
                    Ok(wire) => wire,
                    Err(error) => {
                        self.tally.violation("no connection", || error.to_string());
                        continue;
                    }
                },
            };
            let began = Instant::now();
            match timeout(PATIENCE, exchange(&mut wire.stream, &plan)).await {
                Ok(Ok(Some(Answer { status, body, timing, closes }))) => {
                    self.judge(&plan, status, &body, &timing, began.elapsed());
                    if status != 200 {
                        // Others were told the same, and not all of them come back at once.
                        sleep(Duration::from_millis(random.u64(1..20))).await;
                    }
                    wire.before = format!("{status} to {} bytes", plan.body.len());
                    // What is refused before all of it was read ends the connection, and the answer does not say so.
                    let is_read = status == 200 || plan.body.len() < SMALL;
                    open = (is_read && !closes).then_some(wire);
                }
                Ok(Ok(None)) => {
                    self.tally.count("hung up");
                    if random.bool() {
                        let _ = wire.socket.set_linger(Some(Duration::ZERO));
                    }
                }
                Ok(Err(error)) => {
                    let (number, size, before) = (plan.number, plan.body.len(), &wire.before);
                    self.tally.violation("an answer broke off", || {
                        format!("request {number} of {size} bytes: {error}; before it on this connection: {before}")
                    });
                }
                Err(_) => {
                    let number = plan.number;
                    self.tally.violation("no answer at all", || format!("request {number}"));
                }
            }
        }
    }
}

/// An answer over HTTP/1.1.
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// Where the front end says the time went.
    timing: String,
    /// Whether the connection ends with it.
    closes: bool,
}

/// Sends a request over HTTP/1.1; no answer if the caller hung up.
async fn exchange(stream: &mut Box<dyn Stream>, plan: &Plan) -> io::Result<Option<Answer>> {
    let deadline = plan.deadline.map(|ms| format!("x-request-timeout-ms: {ms}\r\n")).unwrap_or_default();
    let mut message = format!(
        "POST /api/v1/service/{}/score?n={} HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {}\r\n{deadline}\
         Content-Length: {}\r\n\r\n",
        plan.service,
        plan.number,
        plan.key,
        plan.body.len()
    )
    .into_bytes();
    match plan.fate {
        Fate::BreakOff(at, pause) => {
            message.extend_from_slice(&plan.body[..at]);
            // It may be refused, and closed, before all of it is taken.
            let _ = timeout(pause, async {
                let _ = stream.write_all(&message).await;
                let _ = stream.flush().await;
            })
            .await;
            sleep(pause).await;
            Ok(None)
        }
        Fate::HangUp(pause) => {
            message.extend_from_slice(&plan.body);
            let _ = timeout(pause, async {
                let _ = stream.write_all(&message).await;
                let _ = stream.flush().await;
                sleep(pause).await;
            })
            .await;
            Ok(None)
        }
        Fate::Wait => {
            message.extend_from_slice(&plan.body);
            let (mut reader, mut writer) = tokio::io::split(stream);
            // What is refused may be answered before all of it is taken.
            let write = async {
                let written = writer.write_all(&message).await;
                if written.is_ok() { writer.flush().await } else { written }
            };
            let mut read = std::pin::pin!(read(&mut reader));
            tokio::select! {
                answer = &mut read => answer.map(|answer| Some(Answer { closes: true, ..answer })),
                _ = write => read.await.map(Some),
            }
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let mut received = Vec::with_capacity(1024);
    let head = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else { return Err(io::Error::other(text)) };
    while received.len() < head + length {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let closes = text.contains("\r\nconnection: close");
    let timing = text.lines().find_map(|line| line.strip_prefix("server-timing: ")).unwrap_or_default().to_owned();
    Ok(Answer { status, body: received.split_off(head), timing, closes })
}

/// One request of nobody's in particular: its status.
pub async fn ask(target: &Target, service: &'static str) -> io::Result<u16> {
    let plan = Plan { number: 0, service, key: KEYS[1].1, deadline: None, body: b"rest".to_vec(), fate: Fate::Wait };
    let mut wire = connect(target.http, None).await?;
    let answer = exchange(&mut wire.stream, &plan).await?;
    Ok(answer.map_or(0, |answer| answer.status))
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// As hyper wants it for tasks that stay on this thread.
#[derive(Clone)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

impl Callers {
    async fn http2(&self, mut random: Rng, shared: &RefCell<Option<Sender>>) {
        while let Some(plan) = self.plan(&mut random) {
            let sender = shared.borrow().clone().filter(|sender| !sender.is_closed());
            let mut sender = match sender {
                Some(sender) => sender,
                None => match self.connect_http2().await {
                    Ok(sender) => {
                        self.tally.count("connections of HTTP/2");
                        shared.borrow_mut().insert(sender).clone()
                    }
                    Err(error) => {
                        self.tally.violation("no connection", || error.to_string());
                        continue;
                    }
                },
            };
            let request = Request::post(uri(&plan)).header("authorization", format!("Bearer {}", plan.key));
            let request = match plan.deadline {
                Some(deadline) => request.header("x-request-timeout-ms", deadline),
                None => request,
            };
            let Ok(request) = request.body(Full::new(Bytes::from(plan.body.clone()))) else { continue };
            let began = Instant::now();
            let answer = Box::pin(async move {
                sender.ready().await?;
                let (head, body) = sender.send_request(request).await?.into_parts();
                hyper::Result::Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
            });
            let patience = match plan.fate {
                Fate::Wait => PATIENCE,
                Fate::HangUp(pause) | Fate::BreakOff(_, pause) => pause,
            };
            let number = plan.number;
            match (timeout(patience, answer).await, &plan.fate) {
                (Ok(Ok((status, body))), Fate::Wait) => {
                    self.judge(&plan, status, &body, "over HTTP/2", began.elapsed());
                    if status != 200 {
                        sleep(Duration::from_millis(random.u64(1..20))).await;
                    }
                }
                (Ok(Err(error)), Fate::Wait) => {
                    self.tally.violation("an answer broke off", || format!("request {number} over HTTP/2: {error:?}"));
                }
                (Err(_), Fate::Wait) => self.tally.violation("no answer at all", || format!("request {number}")),
                (_, Fate::HangUp(_) | Fate::BreakOff(..)) => self.tally.count("hung up"),
            }
        }
    }

    async fn connect_http2(&self) -> Result<Sender, Box<dyn std::error::Error>> {
        let wire = connect(self.target.https, Some(&self.http2)).await?;
        let (sender, connection) = http2::handshake(Here, TokioIo::new(wire.stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }
}

fn uri(plan: &Plan) -> Uri {
    let uri = format!("https://{NAME}/api/v1/service/{}/score?n={}", plan.service, plan.number);
    uri.parse().unwrap_or_default()
}
