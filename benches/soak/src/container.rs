//! Containers that can do one thing at a time, as a gunicorn with one sync worker, and tell when they are asked for two.
//!
//! A request whose connection the front end has closed is over for it, whatever the container still does: so when
//! another one comes, the container looks whether those before it are still wanted.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinSet, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use crate::tally::Tally;
use crate::{CONTAINERS, Failure};

/// How long a connection may be open without a request on it: what a busy machine takes to get on, and far less than a
/// connection would be kept for.
const IDLE: Duration = Duration::from_millis(200);

struct Container {
    number: usize,
    tally: Arc<Tally>,
    random: RefCell<Rng>,
    next: Cell<u64>,
    active: RefCell<Vec<Active>>,
}

/// A request that is being answered.
struct Active {
    id: u64,
    line: String,
    stream: Rc<TcpStream>,
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Ports for all containers, and what holds them until [`run`] listens there.
pub fn bind() -> Result<(Vec<u16>, Vec<std::net::TcpListener>), Failure> {
    let listeners = (0..CONTAINERS).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<_>>()?;
    Ok((ports, listeners))
}

/// Runs the containers, and kills and restarts them until it is over; then they go on as they are.
pub async fn run(
    listeners: Vec<std::net::TcpListener>,
    seed: u64,
    tally: Arc<Tally>,
    is_over: Arc<AtomicBool>,
) -> Result<(), io::Error> {
    let mut lives = JoinSet::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let address = listener.local_addr()?;
        drop(listener);
        let container = Rc::new(Container {
            number,
            tally: Arc::clone(&tally),
            random: RefCell::new(Rng::with_seed(seed ^ (number as u64) << 32)),
            next: Cell::new(0),
            active: RefCell::default(),
        });
        let is_over = Arc::clone(&is_over);
        lives.spawn_local(async move {
            let ended = container.live(address, &is_over).await;
            container.tally.violation("the bench itself", || format!("container {number} ended: {ended:?}"));
        });
    }
    lives.join_all().await;
    Ok(())
}

impl Container {
    /// Lives, dies, and lives again.
    async fn live(self: &Rc<Self>, address: SocketAddr, is_over: &AtomicBool) -> io::Result<()> {
        loop {
            let listener = listen(address)?;
            let life = Duration::from_millis(self.random.borrow_mut().u64(500..6_000));
            let mut connections = JoinSet::new();
            let accept = async {
                loop {
                    tokio::select! {
                        Ok((stream, _)) = listener.accept() => {
                            connections.spawn_local(Rc::clone(self).serve(stream));
                        }
                        Some(_) = connections.join_next() => {}
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                () = async {
                    sleep(life).await;
                    while is_over.load(Relaxed) {
                        sleep(Duration::from_secs(1)).await;
                    }
                } => {}
            }
            // Everything it has is closed; what was sent and not read makes a reset of it.
            if self.random.borrow_mut().bool() {
                for active in self.active.borrow().iter() {
                    let _ = SockRef::from(&*active.stream).set_linger(Some(Duration::ZERO));
                }
            }
            drop(listener);
            connections.abort_all();
            while connections.join_next().await.is_some() {}
            self.active.borrow_mut().clear();
            self.tally.count("containers killed");
            let pause = self.random.borrow_mut().u64(1..150);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let stream = Rc::new(stream);
        let _ = stream.set_nodelay(true);
        // Ends with an error when the front end has gone, which it may at any time.
        let _ = self.answer(&stream).await;
    }

    async fn answer(self: &Rc<Self>, stream: &Rc<TcpStream>) -> io::Result<()> {
        let mut received = Vec::with_capacity(1024);
        let head = loop {
            if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match timeout(IDLE, read(stream, &mut received)).await {
                Ok(read) => read?,
                Err(_) if is_gone(stream) => return Ok(()),
                Err(_) => {
                    let number = self.number;
                    self.tally.violation("a connection held idle", || {
                        format!("container {number}: {} bytes in {} ms", received.len(), IDLE.as_millis())
                    });
                    return Ok(());
                }
            }
        };
        let text = String::from_utf8_lossy(&received[..head]).into_owned();
        let id = self.begin(&text, stream);
        let done = self.work(stream, received, head, &text).await;
        self.active.borrow_mut().retain(|active| active.id != id);
        let body = done?;
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        write(stream, &[head.as_bytes(), &body].concat()).await?;
        if self.random.borrow_mut().bool() {
            // It said that it closes, so the front end need not wait for it, and is not to keep the connection.
            let closed = timeout(IDLE, async { while read(stream, &mut Vec::new()).await.is_ok() {} }).await;
            if closed.is_err() {
                let number = self.number;
                self.tally.violation("a connection held after its answer", || format!("container {number}"));
            }
        }
        Ok(())
    }

    /// Reads the rest of the body and takes its time: the answer.
    async fn work(&self, stream: &TcpStream, mut received: Vec<u8>, head: usize, text: &str) -> io::Result<Vec<u8>> {
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head + length.unwrap_or(0);
        while received.len() < end {
            read(stream, &mut received).await?;
        }
        let micros = self.random.borrow_mut().u64(0..2_000);
        if micros < 1_000 {
            // A timer would make at least a millisecond of it.
            yield_now().await;
        } else {
            sleep(Duration::from_micros(micros - 500)).await;
        }
        Ok(received.split_off(head))
    }

    /// Notes that a request is here, and complains if another one is.
    fn begin(self: &Rc<Self>, text: &str, stream: &Rc<TcpStream>) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        let line = text.lines().next().unwrap_or_default().to_owned();
        let mut active = self.active.borrow_mut();
        active.retain(|other| !is_gone(&other.stream));
        if let Some(other) = active.first() {
            let (container, other_line, older) = (Rc::clone(self), other.line.clone(), Rc::clone(&other.stream));
            let newer = line.clone();
            let others = active.len();
            spawn_local(async move {
                // Only to tell what it was: the kernel may deliver a close late.
                sleep(Duration::from_millis(1)).await;
                let was_late = is_gone(&older);
                container.tally.violation("two requests at once", || {
                    let number = container.number;
                    format!("container {number} has {others}, {other_line}, and gets {newer}; closed soon: {was_late}")
                });
            });
        }
        active.push(Active { id, line, stream: Rc::clone(stream) });
        id
    }
}

/// Whether the other side has closed or reset the connection, whatever it sent before.
fn is_gone(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok_and(|events| events > 0)
}

async fn read(mut stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let _ = &mut stream;
    loop {
        stream.readable().await?;
        match stream.try_read_buf(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
