//! A replica that answers every request with the same bytes. It never waits: it does what can be done each time it is asked to.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

const BUFFER: usize = 256 * 1024;

pub struct Replica {
    listener: TcpListener,
    connections: Vec<Connection>,
    answer: Vec<u8>,
    closes: bool,
    buffer: Vec<u8>,
}

struct Connection {
    tcp: TcpStream,
    /// A head, as far as it has come.
    head: Vec<u8>,
    /// What is missing of a body.
    body: usize,
    /// What is left to send of an answer.
    unsent: usize,
}

impl Replica {
    /// Answers with a body of so many bytes, and keeps its connections or closes each after its answer.
    pub fn start(body: usize, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let close = if closes { "connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nserver: gunicorn\r\ndate: Thu, 26 Nov 2026 10:00:00 GMT\r\n\
             content-type: application/json\r\n{close}content-length: {body}\r\n\r\n"
        );
        let answer = [head.into_bytes(), vec![b'1'; body]].concat();
        Self { listener, connections: Vec::new(), answer, closes, buffer: vec![0; BUFFER] }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Takes, reads and answers whatever there is.
    pub fn act(&mut self) {
        while let Ok((tcp, _)) = self.listener.accept() {
            tcp.set_nonblocking(true).expect("a socket");
            tcp.set_nodelay(true).expect("a socket");
            self.connections.push(Connection { tcp, head: Vec::new(), body: 0, unsent: 0 });
        }
        let (buffer, answer, closes) = (&mut self.buffer, &self.answer, self.closes);
        self.connections.retain_mut(|connection| connection.act(buffer, answer, closes));
    }
}

impl Connection {
    /// False when it has ended.
    fn act(&mut self, buffer: &mut [u8], answer: &[u8], closes: bool) -> bool {
        loop {
            while self.unsent > 0 {
                match self.tcp.write(&answer[answer.len() - self.unsent..]) {
                    Ok(written) => self.unsent -= written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) => panic!("the front end reads: {error}"),
                }
                if self.unsent == 0 && closes {
                    return false;
                }
            }
            match self.tcp.read(buffer) {
                Ok(0) => return false,
                Ok(read) => self.take(&buffer[..read], answer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => panic!("the front end writes: {error}"),
            }
        }
    }

    /// Follows a request to its end, behind which nothing comes before it is answered.
    fn take(&mut self, bytes: &[u8], answer: &[u8]) {
        if self.body > 0 {
            self.body = self.body.checked_sub(bytes.len()).expect("no more than a body");
        } else {
            self.head.extend(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            let head = str::from_utf8(&self.head[..end]).expect("ASCII").to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let came = self.head.len() - (end + 4);
            self.body = length.parse::<usize>().expect("a number").checked_sub(came).expect("one request");
            self.head.clear();
        }
        if self.body == 0 {
            self.unsent = answer.len();
        }
    }
}
