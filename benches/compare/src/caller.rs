//! HTTP/1.1 over a kept TLS connection by hand: sends a call, reads its answer, and checks every byte of it.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Failure;
use crate::bodies::{ANSWER, Body, CALL};
use crate::options::Options;
use crate::tls::{self, Tickets};

/// For one call, or one handshake.
const PATIENCE: Duration = Duration::from_secs(60);
/// The space for one read: a thousand idle connections are small, large answers come in few reads.
const SMALL: usize = 4096;
const LARGE: usize = 256 * 1024;

/// Where to call, and as whom.
pub struct Caller {
    port: u16,
    ca: String,
    key: String,
    names: usize,
    tls: TlsConnector,
}

/// What is asked of the replica.
#[derive(Clone)]
pub struct Call {
    sends: Body,
    fields: String,
    expects: Body,
    /// Events come with time between them: no proxy may hold them back.
    least_spread: Duration,
}

impl Call {
    pub fn small() -> Self {
        let (sends, expects) = (Body::whole(CALL), Body::whole(ANSWER));
        Self { sends, fields: String::new(), expects, least_spread: Duration::ZERO }
    }

    pub fn from(options: &mut Options) -> Result<Self, Failure> {
        let mut call = Self::small();
        let (up, down, events) = (options.or("--up", 0)?, options.or("--down", 0)?, options.or("--events", 0)?);
        let interval: u64 = options.or("--interval-ms", 5)?;
        if up > 0 {
            call.sends = Body::noise(up);
            "x-noise: 1\r\n".clone_into(&mut call.fields);
            call.expects = Body::whole(b"right");
        } else if down > 0 {
            call.fields = format!("x-down: {down}\r\n");
            call.expects = Body::noise(down);
        } else if events > 0 {
            call.fields = format!("x-events: {events}\r\nx-interval-ms: {interval}\r\n");
            call.expects = Body::events(events);
            call.least_spread = Duration::from_millis(interval * (events as u64 - 1) / 2);
        }
        Ok(call)
    }
}

impl Caller {
    pub fn from(options: &mut Options) -> Result<Self, Failure> {
        let (port, names) = (options.or("--port", 8443)?, options.or("--names", 1)?);
        let (ca, key) = (options.required("--ca")?, options.required("--key")?);
        let tls = TlsConnector::from(Arc::new(tls::config(&ca, None)?));
        Ok(Self { port, ca, key, names, tls })
    }

    /// The same caller with tickets of its own.
    pub fn connector(&self, tickets: &Arc<Tickets>) -> Result<TlsConnector, Failure> {
        Ok(TlsConnector::from(Arc::new(tls::config(&self.ca, Some(Arc::clone(tickets)))?)))
    }

    /// The nth of the names that are called; neighbours are far apart.
    pub fn name(&self, number: usize) -> String {
        match self.names {
            1 => "localhost".to_owned(),
            names => format!("n{}.bench.example", number.wrapping_mul(7919) % names),
        }
    }

    pub async fn handshake(&self, tls: &TlsConnector, number: usize) -> Result<TlsStream<TcpStream>, Failure> {
        let connecting = async {
            let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(self.name(number)).map_err(io::Error::other)?;
            tls.connect(name, tcp).await
        };
        let connected = timeout(PATIENCE, connecting).await.map_err(|_| "a handshake took too long")?;
        Ok(connected.map_err(|error| format!("handshake: {error}"))?)
    }

    pub async fn connect(&self, number: usize) -> Result<Connection, Failure> {
        Ok(self.on(self.handshake(&self.tls, number).await?, number))
    }

    /// A connection whose handshake is over.
    pub fn on(&self, stream: TlsStream<TcpStream>, number: usize) -> Connection {
        Connection { stream, name: self.name(number), buffer: Vec::new(), used: 0, is_large: false }
    }

    /// Opens connections, one after the other.
    pub async fn connect_all(&self, count: usize) -> Result<Vec<Connection>, Failure> {
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            connections.push(self.connect(number).await?);
        }
        Ok(connections)
    }

    /// One call of a service, which is the nth of as many as there are names.
    pub async fn call(&self, connection: &mut Connection, number: usize, call: &Call) -> Result<(), Failure> {
        let service = match self.names {
            1 => "iris".to_owned(),
            names => format!("svc{}", number.wrapping_mul(104_729) % names),
        };
        let mut head = String::with_capacity(512);
        let _ = write!(
            head,
            "POST /api/v1/service/{service}/score HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\n{}\r\n",
            connection.name, self.key, call.sends.length, call.fields
        );
        let exchange = connection.exchange(head.into_bytes(), call);
        timeout(PATIENCE, exchange).await.map_err(|_| "a call took too long")?
    }
}

pub struct Connection {
    stream: TlsStream<TcpStream>,
    name: String,
    /// What was read, of which so much was used up.
    buffer: Vec<u8>,
    used: usize,
    /// Whether its answers fill a small buffer.
    is_large: bool,
}

impl Connection {
    async fn exchange(&mut self, mut head: Vec<u8>, call: &Call) -> Result<(), Failure> {
        let mut sent = 0;
        if call.sends.length < 4096 {
            head.extend(call.sends.piece(0));
            sent = call.sends.length;
        }
        self.stream.write_all(&head).await?;
        while sent < call.sends.length {
            let piece = call.sends.piece(sent);
            self.stream.write_all(piece).await?;
            sent += piece.len();
        }
        self.stream.flush().await?;

        let (status, length) = self.read_head().await?;
        if status != 200 {
            return Err(format!("answered with {status}").into());
        }
        let began = Instant::now();
        let read = match length {
            Some(length) => self.read_exactly(length, 0, &call.expects).await?,
            None => self.read_chunks(&call.expects).await?,
        };
        if read != call.expects.length {
            return Err(format!("an answer of {read} bytes in place of {}", call.expects.length).into());
        }
        if began.elapsed() < call.least_spread {
            return Err(format!("events were held back: all came within {:?}", began.elapsed()).into());
        }
        Ok(())
    }

    /// Status, and length unless the body is in chunks.
    async fn read_head(&mut self) -> Result<(u16, Option<usize>), Failure> {
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = std::str::from_utf8(&unread[..end])?;
                let status = head.get(9..12).ok_or("an answer without a status")?.parse()?;
                let length = field(head, "content-length").map(str::parse).transpose()?;
                let is_chunked = field(head, "transfer-encoding").is_some_and(|coding| coding == "chunked");
                if length.is_none() != is_chunked {
                    return Err("an answer whose body has no clear end".into());
                }
                self.used += end + 4;
                return Ok((status, length));
            }
            self.fill().await?;
        }
    }

    async fn read_exactly(&mut self, length: usize, at: usize, expects: &Body) -> Result<usize, Failure> {
        let mut left = length;
        while left > 0 {
            if self.used == self.buffer.len() {
                self.fill().await?;
            }
            let here = left.min(self.buffer.len() - self.used);
            if !expects.has(at + length - left, &self.buffer[self.used..self.used + here]) {
                return Err("an answer with a wrong body".into());
            }
            self.used += here;
            left -= here;
        }
        Ok(length)
    }

    async fn read_chunks(&mut self, expects: &Body) -> Result<usize, Failure> {
        let mut at = 0;
        loop {
            let line = self.read_line().await?;
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            at += self.read_exactly(length, at, expects).await?;
            let rest = self.read_line().await?;
            if !rest.is_empty() {
                return Err("a chunk that does not end where it says, or trailers".into());
            }
            if length == 0 {
                return Ok(at);
            }
        }
    }

    async fn read_line(&mut self) -> Result<String, Failure> {
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(end) = unread.windows(2).position(|bytes| bytes == b"\r\n") {
                let line = std::str::from_utf8(&unread[..end])?.to_owned();
                self.used += end + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(if self.is_large { LARGE } else { SMALL });
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("a connection was closed before the whole answer".into());
        }
        self.is_large |= self.buffer.len() == self.buffer.capacity();
        Ok(())
    }
}

/// The value of a field in a head, by its name in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
