//! Sockets that callers connect to: one a thread and address, all on one port, so that the kernel spreads connections
//! over the threads.
//!
//! What is done with a connection is the business of whoever calls [`accept`].

pub mod proxy_protocol;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::telemetry::metrics::AcceptErrors;

/// Connections the kernel may hold until they are accepted; it takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// The wait after an accept that failed for want of something, doubled for each further one up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Binds `address` once for each of `threads`. Port 0 takes a free one, the same for all.
///
/// # Errors
///
/// The address cannot be bound: it is in use, not this machine's, or needs a right this process has not.
pub fn bind(address: SocketAddr, threads: usize) -> io::Result<(SocketAddr, Vec<StdListener>)> {
    // Without this, a second front end on the same port would share it in silence.
    StdListener::bind(address).map(drop)?;
    let first = bind_one(address)?;
    let bound = first.local_addr()?;
    let others = (1..threads).map(|_| bind_one(bound));
    let listeners = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
    Ok((bound, listeners))
}

/// What an operator can do about an address that cannot be bound, to stand after the error.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; see what listens there: ss -ltnp, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another port",
        io::ErrorKind::AddrNotAvailable => "; it is not an address of this machine, 0.0.0.0 takes all of them",
        _ => "",
    }
}

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Connections inherit it: an answer must not wait for an acknowledgement (Nagle).
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The next connection. Errors are counted and survived: those of one connection at once, those of the process after
/// a pause that grows as long as they last.
pub async fn accept(listener: &TcpListener, errors: &AcceptErrors) -> (TcpStream, SocketAddr) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR | Errno::PERM | Errno::PROTO) => {
                errors.aborted.increment();
                continue;
            }
            Some(Errno::MFILE | Errno::NFILE) => errors.descriptors.increment(),
            Some(Errno::NOBUFS | Errno::NOMEM) => errors.memory.increment(),
            _ => errors.other.increment(),
        }
        if pause == SHORTEST_PAUSE {
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
