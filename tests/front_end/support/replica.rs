//! A stub container that does what its script says, and writes down what it saw.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::interval;

/// What a replica does after it has read the head of a request. At a script's end it reads the next one.
#[derive(Clone, Debug)]
pub enum Step {
    ReadBody,
    /// What it does about a GET, which a health check is, in place of all that follows.
    Health(Vec<Self>),
    Send(Vec<u8>),
    /// Reads the body and answers with it.
    Echo,
    /// Waits, reading nothing.
    Stall(Gate),
    /// Waits, and notices when the other side closes.
    Wait(Gate),
    /// Waits for the other side to close.
    Hang,
    /// Sends this many chunks of 64 KiB.
    Flood(usize),
    /// The same, and reads the body meanwhile.
    FloodAndRead(usize),
    /// Sends the same bytes this many times, with a pause before each.
    Drip(Vec<u8>, usize, Duration),
    Close,
}

/// Holds a replica back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("the gate is held here");
    }
}

/// `200 OK` with a body of known length.
pub fn ok(body: &str) -> Step {
    Step::Send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// The head of a chunked answer.
pub fn chunked() -> Step {
    Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec())
}

/// One chunk of it; the last is empty.
pub fn chunk(data: &str) -> Step {
    Step::Send(format!("{:x}\r\n{data}\r\n", data.len()).into_bytes())
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
    /// Counted from 1.
    pub connection: usize,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().expect("a request line")
    }

    /// `(name, value)` of every field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": "))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next()?.1;
        assert!(values.next().is_none(), "{name} is there twice: {}", self.head);
        Some(value)
    }
}

/// What a replica saw so far.
#[derive(Debug, Default)]
pub struct State {
    pub requests: Vec<Seen>,
    pub connections: usize,
    /// Connections open now.
    pub open: usize,
    pub sent: usize,
    pub received: usize,
    /// Reads in which something came.
    pub reads: usize,
    /// Requests whose last step has not begun, and the most there were of them at once.
    pub running: usize,
    pub most_running: usize,
}

pub struct Replica {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    /// Holds the port of one that refuses or is full.
    sockets: Vec<Socket>,
}

impl Replica {
    /// One that follows the same script for every request.
    pub fn start(script: impl Into<Vec<Step>>) -> Self {
        Self::in_turn([script])
    }

    pub fn echo() -> Self {
        Self::start([Step::Echo])
    }

    /// One that answers every request with these bytes.
    pub fn answering(answer: &str) -> Self {
        Self::start([Step::ReadBody, Step::Send(answer.as_bytes().to_vec())])
    }

    /// One script for each request, the last for all that follow.
    pub fn in_turn(scripts: impl IntoIterator<Item = impl Into<Vec<Step>>>) -> Self {
        Self::on(bound(), scripts.into_iter().map(Into::into).collect())
    }

    fn on(socket: Socket, scripts: Arc<[Vec<Step>]>) -> Self {
        socket.listen(1024).expect("listening");
        let address = address(&socket);
        let listener = TcpListener::from_std(socket.into()).expect("a listener");
        let state = Arc::new(watch::Sender::new(State::default()));
        tokio::spawn(accept(listener, scripts, Arc::clone(&state)));
        Self { address, state, sockets: Vec::new() }
    }

    /// One that refused until now, and follows a script from here on.
    pub fn opened(mut self, script: impl Into<Vec<Step>>) -> Self {
        Self::on(self.sockets.pop().expect("one that refuses"), Arc::new([script.into()]))
    }

    /// A port nobody listens on, and nobody else can take.
    pub fn refusing() -> Self {
        let socket = bound();
        Self { address: address(&socket), state: Arc::default(), sockets: vec![socket] }
    }

    /// One that takes no connection any more, since the queue of those it has not accepted is full: whoever connects
    /// waits.
    pub fn full() -> Self {
        let socket = bound();
        socket.listen(0).expect("listening");
        let address = address(&socket);
        let mut sockets = vec![socket];
        for _ in 0..4 {
            let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            waiting.set_nonblocking(true).expect("a socket");
            // Over the loopback those who have room are connected at once; the rest wait like all who come later.
            let _ = waiting.connect(&address.into());
            sockets.push(waiting);
        }
        Self { address, state: Arc::default(), sockets }
    }

    /// Waits until what it saw is as expected.
    pub async fn until(&self, holds: impl FnMut(&State) -> bool) {
        let mut changes = self.state.subscribe();
        let waited = tokio::time::timeout(super::PATIENCE, changes.wait_for(holds)).await.is_ok();
        assert!(waited, "the replica never saw it: {:?}", *self.state.borrow());
    }

    /// Waits until this many requests have come.
    pub async fn saw(&self, requests: usize) {
        self.until(|state| state.requests.len() >= requests).await;
    }

    /// Waits until no connection is open.
    pub async fn is_free(&self) {
        self.until(|state| state.open == 0).await;
    }

    pub fn state(&self) -> watch::Ref<'_, State> {
        // Only the sender is kept, and it reads as well as any receiver.
        self.state.borrow()
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// The only request it saw.
    #[track_caller]
    pub fn only_request(&self) -> Seen {
        let [request] = <[_; 1]>::try_from(self.requests()).expect("one request");
        request
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("an address").as_socket().expect("an address")
}

/// 64 KiB.
fn large_chunk() -> Vec<u8> {
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10000, b'x');
    chunk.extend_from_slice(b"\r\n");
    chunk
}

async fn accept(listener: TcpListener, scripts: Arc<[Vec<Step>]>, state: Arc<watch::Sender<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket");
        state.send_modify(|state| {
            state.connections += 1;
            state.open += 1;
        });
        let number = state.borrow().connections;
        let connection = Connection {
            stream,
            buffer: Vec::new(),
            number,
            request: 0,
            scripts: Arc::clone(&scripts),
            state: Arc::clone(&state),
        };
        tokio::spawn(async move { connection.serve().await });
    }
}

/// A request that counts as running.
struct Running(Arc<watch::Sender<State>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.running -= 1);
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    number: usize,
    /// The place of the current request among all.
    request: usize,
    scripts: Arc<[Vec<Step>]>,
    state: Arc<watch::Sender<State>>,
}

impl Connection {
    /// Ends with an error when the other side is gone.
    async fn serve(mut self) {
        let _ = self.serve_all().await;
        let Self { stream, state, .. } = self;
        drop(stream);
        state.send_modify(|state| state.open -= 1);
    }

    async fn serve_all(&mut self) -> io::Result<()> {
        loop {
            let head = self.until(b"\r\n\r\n").await?;
            let head = String::from_utf8(head).expect("UTF-8");
            self.state.send_modify(|state| {
                self.request = state.requests.len();
                state.requests.push(Seen { head, connection: self.number, ..Seen::default() });
                state.running += 1;
                state.most_running = state.most_running.max(state.running);
            });
            let running = Running(Arc::clone(&self.state));
            let script = self.scripts.get(self.request).or(self.scripts.last()).expect("a script").clone();
            let script = self.steps(script);
            let mut running = Some(running);
            let last = script.len().saturating_sub(1);
            for (index, step) in script.into_iter().enumerate() {
                if index == last {
                    running = None;
                }
                if matches!(step, Step::Close) {
                    return Ok(());
                }
                self.follow(step).await?;
            }
            drop(running);
        }
    }

    /// What the script says for the current request.
    fn steps(&self, script: Vec<Step>) -> Vec<Step> {
        let is_get = self.state.borrow().requests[self.request].line().starts_with("GET ");
        match script.iter().position(|step| matches!(step, Step::Health(_))) {
            Some(at) if is_get => match &script[at] {
                Step::Health(steps) => steps.clone(),
                _ => script,
            },
            _ => script,
        }
    }

    async fn follow(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::ReadBody => self.read_body().await?,
            Step::Send(bytes) => self.send(&bytes).await?,
            Step::Echo => {
                self.read_body().await?;
                let body = self.state.borrow().requests[self.request].body.clone();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                self.send(&[head.into_bytes(), body].concat()).await?;
            }
            Step::Stall(gate) => gate.opened().await,
            Step::Wait(gate) => tokio::select! {
                () = gate.opened() => {}
                gone = self.gone() => return Err(gone),
            },
            Step::Hang => return Err(self.gone().await),
            Step::Flood(chunks) => {
                for _ in 0..chunks {
                    self.send(&large_chunk()).await?;
                }
            }
            Step::FloodAndRead(chunks) => self.flood_and_read(chunks).await?,
            Step::Drip(bytes, times, pause) => {
                let mut ticks = interval(pause);
                for _ in 0..times {
                    ticks.tick().await;
                    self.send(&bytes).await?;
                }
            }
            Step::Close | Step::Health(_) => {}
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.state.send_modify(|state| state.sent += bytes.len());
        Ok(())
    }

    /// The body has to be of known length.
    async fn flood_and_read(&mut self, chunks: usize) -> io::Result<()> {
        let length = self.state.borrow().requests[self.request].field("content-length").map(str::to_owned);
        let mut left = length.and_then(|length| length.parse().ok()).unwrap_or(0_usize);
        left -= self.buffer.split_off(0).len();
        let (mut reads, mut writes) = self.stream.split();
        let flood = async {
            for _ in 0..chunks {
                writes.write_all(&large_chunk()).await?;
                self.state.send_modify(|state| state.sent += large_chunk().len());
            }
            Ok(())
        };
        let read = async {
            let mut space = vec![0; 0x10000];
            while left > 0 {
                let read = reads.read(&mut space).await?;
                left = if read == 0 { return Err(io::ErrorKind::UnexpectedEof.into()) } else { left - read };
            }
            Ok::<_, io::Error>(())
        };
        tokio::try_join!(flood, read)?;
        self.state.send_modify(|state| state.requests[self.request].whole = true);
        Ok(())
    }

    async fn read_body(&mut self) -> io::Result<()> {
        let (length, chunked) = {
            let state = self.state.borrow();
            let seen = &state.requests[self.request];
            (
                seen.field("content-length").map(|n| n.parse().expect("a length")),
                seen.field("transfer-encoding").is_some(),
            )
        };
        if let Some(length) = length {
            let body = self.take(length).await?;
            self.note(&body);
        } else if chunked {
            self.read_chunks().await?;
        }
        self.state.send_modify(|state| state.requests[self.request].whole = true);
        Ok(())
    }

    async fn read_chunks(&mut self) -> io::Result<()> {
        loop {
            let size = String::from_utf8(self.until(b"\r\n").await?).expect("UTF-8");
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
            let data = self.take(size).await?;
            self.note(&data);
            let end = self.until(b"\r\n").await?;
            assert_eq!(end, b"\r\n", "no trailers");
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn note(&self, body: &[u8]) {
        self.state.send_modify(|state| state.requests[self.request].body.extend_from_slice(body));
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len()).await;
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(0x10000);
        let n = self.stream.read_buf(&mut self.buffer).await?;
        self.state.send_modify(|state| {
            state.received += n;
            state.reads += 1;
        });
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Reads on until the other side is gone.
    async fn gone(&mut self) -> io::Error {
        loop {
            if let Err(gone) = self.fill().await {
                return gone;
            }
        }
    }
}
