//! One worker thread, from accepted connection to closed: listeners, TLS, HTTP. It shares nothing that could make it
//! wait for another thread.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ProtocolVersion;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::coop::unconstrained;
use tokio::task::spawn_local;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, interval, timeout};

use super::pulse::Asked;
use super::spread::{Arrival, Doors, Open, Part, Transport};
use super::{AccessOutput, delay};
use crate::cluster::Cluster;
use crate::connection::{self, Common, Date, Ticks};
use crate::listener::proxy_protocol::HeaderError;
use crate::listener::{self, proxy_protocol};
use crate::scoring::caller::Caller;
use crate::scoring::catalog::Catalog;
use crate::scoring::worker::Worker;
use crate::shutdown::{Drain, Phase};
use crate::telemetry::access::{AccessLog, FLUSH_INTERVAL};
use crate::telemetry::metrics::Metrics;
use crate::tls::{Buffers, Handshake, HandshakeError, Protocol, Socket, Terminator};

/// How often a thread without room looks whether `max_connections` was raised, or another thread's connection ended.
const LIMIT_INTERVAL: Duration = Duration::from_millis(100);

/// How long, while the process closes, a handshake may still take: one that is under way takes a fraction of that.
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

/// What a worker thread is given.
pub struct Setup {
    pub index: usize,
    pub asked: Asked,
    pub https: StdListener,
    pub http: Option<StdListener>,
    /// Where other front ends of the cluster hand requests over.
    pub members: Option<StdListener>,
    pub cluster: Option<Arc<Cluster>>,
    pub terminator: Terminator,
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub metrics: Arc<Metrics>,
    pub access: AccessOutput,
    pub phases: watch::Receiver<Phase>,
    pub spread: Part,
    /// Held for as long as the thread has anything to do.
    pub alive: mpsc::Sender<()>,
}

/// Serves until the process is closing and every connection has ended, or it is stopped.
pub fn run(runtime: LocalRuntime, setup: Setup) {
    let access = AccessLog::new(setup.access.writer.clone(), setup.access.text);
    let (catalog, metrics) = (Arc::clone(&setup.catalog), Arc::clone(&setup.metrics));
    let worker = Rc::new(Worker::new(setup.index, catalog, setup.cluster.clone(), metrics, access));
    runtime.block_on(serve(&worker, setup));
    // Cuts what is left, which writes it down; a name that is being looked up is not waited for.
    runtime.shutdown_background();
    worker.access.flush();
}

async fn serve(worker: &Rc<Worker>, setup: Setup) {
    let Setup { asked, https, http, members, terminator, mut phases, spread, alive: _alive, .. } = setup;
    let Part { open, doors, arrivals } = spread;
    let thread = Rc::new(Thread {
        common: Common {
            worker: Rc::clone(worker),
            drain: Drain::default(),
            ticks: Ticks::default(),
            date: Date::default(),
        },
        terminator,
        buffers: Rc::default(),
        open,
        open_to_members: Cell::new(0),
        closed_one: Notify::new(),
    });
    let pool = Rc::clone(&worker.pool);
    spawn_local(async move { pool.sweep().await });
    spawn_local(delay::sample(Rc::clone(worker)));
    spawn_local(flush_access_log(Rc::clone(worker)));
    spawn_local(asked.answer());
    let ticking = Rc::clone(&thread);
    spawn_local(async move { ticking.common.ticks.run().await });

    let mut accepting = Vec::new();
    let listeners = [(Some(https), Transport::Tls), (http, Transport::Plain), (members, Transport::Member)];
    for (listener, transport) in listeners {
        // Only a file descriptor that is none could fail here, and these were just bound.
        if let Some(Ok(listener)) = listener.map(TcpListener::from_std) {
            accepting.push(spawn_local(accept_all(Rc::clone(&thread), listener, transport, doors.clone())));
        }
    }

    drop(doors);
    let taking = spawn_local(take_all(Rc::clone(&thread), arrivals));

    let reached = async |phases: &mut watch::Receiver<Phase>, phase| {
        // The sender only goes away with the whole front end.
        let _ = phases.wait_for(|now| *now >= phase).await;
    };
    reached(&mut phases, Phase::Draining).await;
    worker.draining.set(true);
    reached(&mut phases, Phase::Closing).await;
    thread.common.drain.close();
    for accepting in accepting {
        let _ = accepting.await;
    }
    let ended = async {
        // Until no thread accepts any more.
        let _ = taking.await;
        thread.all_closed().await;
    };
    tokio::select! {
        () = ended => {}
        () = reached(&mut phases, Phase::Stopped) => worker.cutting.set(true),
    }
}

async fn flush_access_log(worker: Rc<Worker>) {
    let mut ticks = interval(FLUSH_INTERVAL);
    loop {
        ticks.tick().await;
        worker.access.flush();
    }
}

/// What the connections of one thread share.
struct Thread {
    common: Common,
    terminator: Terminator,
    buffers: Rc<Buffers>,
    open: Open,
    /// Connections of other front ends, which do not take the place of callers: each stands for one that has been let in.
    open_to_members: Cell<usize>,
    closed_one: Notify,
}

/// Takes connections until the front end closes.
async fn accept_all(thread: Rc<Thread>, listener: TcpListener, transport: Transport, doors: Doors) {
    let metrics = thread.common.worker.thread_metrics();
    let mut closing = pin!(thread.common.drain.closed());
    loop {
        // At the limit callers wait in the kernel's queue, where they cost nothing.
        let accept = async {
            thread.room(transport).await;
            listener::accept(&listener, &metrics.accept_errors).await
        };
        let (tcp, peer) = tokio::select! {
            biased;
            // Without tokio's budget, which would make a full queue look empty.
            accepted = unconstrained(accept) => accepted,
            // Only when nobody is left in the queue: closing the socket would reset them.
            () = closing.as_mut() => return,
        };
        // Other front ends open as many to every thread.
        if matches!(transport, Transport::Member) {
            thread.open_to_members.set(thread.open_to_members.get() + 1);
            thread.take(tcp, peer, transport);
        } else if let Some(tcp) = doors.settle(&thread.open, thread.share(), tcp, peer, transport) {
            thread.take(tcp, peer, transport);
        }
    }
}

/// Takes the connections that other threads accepted for this one, until none accepts any more.
async fn take_all(thread: Rc<Thread>, mut arrivals: Receiver<Arrival>) {
    while let Some(Arrival { tcp, peer, transport }) = arrivals.recv().await {
        match TcpStream::from_std(tcp) {
            Ok(tcp) => thread.take(tcp, peer, transport),
            Err(error) => {
                tracing::warn!(%error, "cannot serve a connection");
                thread.common.worker.thread_metrics().accept_errors.other.increment();
                thread.open.leave();
            }
        }
    }
}

/// A connection that counts.
struct Counted {
    thread: Rc<Thread>,
    transport: Transport,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { thread, transport } = self;
        if matches!(transport, Transport::Member) {
            thread.open_to_members.set(thread.open_to_members.get() - 1);
        } else {
            thread.open.leave();
            thread.common.worker.thread_metrics().connections_closed.increment();
        }
        thread.closed_one.notify_waiters();
    }
}

impl Thread {
    /// Serves a connection that is counted already.
    fn take(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr, transport: Transport) {
        if !matches!(transport, Transport::Member) {
            self.common.worker.thread_metrics().connections_accepted.increment();
        }
        let counted = Counted { thread: Rc::clone(self), transport };
        spawn_local(async move { counted.thread.serve(tcp, peer, transport).await });
    }

    async fn room(&self, transport: Transport) {
        if self.has_room(transport) {
            return;
        }
        self.common.worker.thread_metrics().connections_at_limit.increment();
        while !self.has_room(transport) {
            // Or the limit was raised, or there is room on another thread, which nobody tells.
            let _ = timeout(LIMIT_INTERVAL, self.closed_one.notified()).await;
        }
    }

    /// Whether a thread has a connection left of its share; other front ends have as many again.
    fn has_room(&self, transport: Transport) -> bool {
        match transport {
            Transport::Plain | Transport::Tls => self.open.has_room(self.share()),
            Transport::Member => self.open_to_members.get() < self.share(),
        }
    }

    /// Connections that each thread may have.
    fn share(&self) -> usize {
        let all = self.common.worker.catalog().limits.max_connections;
        all.div_ceil(self.common.worker.metrics.threads.len())
    }

    async fn all_closed(&self) {
        while self.open.here() + self.open_to_members.get() > 0 {
            self.closed_one.notified().await;
        }
    }

    async fn serve(&self, mut tcp: TcpStream, mut peer: SocketAddr, transport: Transport) {
        let catalog = self.common.worker.catalog();
        let limits = catalog.limits.clone();
        if !matches!(transport, Transport::Member) && catalog.is_balancer(peer.ip()) {
            // In a box, so that nothing of it stays with the connection.
            let header = Box::pin(self.in_time(limits.tls_handshake_timeout, proxy_protocol::read(&mut tcp))).await;
            self.count_header(header.as_ref());
            let Ok(Ok(from)) = header else { return };
            peer = from.unwrap_or(peer);
        }
        drop(catalog);
        match transport {
            Transport::Plain => {
                let caller = Rc::new(Caller::plain(peer));
                connection::serve(tcp, Protocol::Http1, caller, &self.common, &limits).await;
            }
            Transport::Member => {
                let caller = Rc::new(Caller::member(peer));
                connection::serve(tcp, Protocol::Http1, caller, &self.common, &limits).await;
            }
            Transport::Tls => {
                let began = Instant::now();
                let socket = Socket::new(tcp, Rc::clone(&self.buffers));
                // In a box, so that nothing of it stays with the connection.
                let handshake = self.in_time(limits.tls_handshake_timeout, self.terminator.accept(socket));
                let handshake = Box::pin(handshake).await;
                self.count(
                    handshake.as_ref().map(|handshake| handshake.as_ref().map(|(_, handshake)| handshake)),
                    began,
                );
                let Ok(Ok((stream, handshake))) = handshake else { return };
                let protocol = handshake.protocol;
                let caller = Rc::new(Caller::over_tls(peer, handshake));
                connection::serve(stream, protocol, caller, &self.common, &limits).await;
            }
        }
    }

    /// A step before the first request, which may take until `limit`, and a little once the process closes.
    async fn in_time<T>(&self, limit: Duration, step: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut step = pin!(timeout(limit, step));
        tokio::select! {
            biased;
            done = step.as_mut() => done,
            () = self.common.drain.closed() => timeout(LAST_HANDSHAKE, step).await.flatten(),
        }
    }

    fn count_header<T>(&self, header: Result<&Result<T, HeaderError>, &Elapsed>) {
        let counts = &self.common.worker.thread_metrics().proxy_headers;
        let count = match header {
            Ok(Ok(_)) => &counts.taken,
            // A balancer that only looks whether somebody listens.
            Ok(Err(HeaderError::Io(_))) => &counts.closed,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection of a balancer is refused");
                &counts.refused
            }
            Err(_) => &counts.timeout,
        };
        count.increment();
    }

    fn count<T>(&self, handshake: Result<Result<&Handshake, &HandshakeError>, T>, began: Instant) {
        let metrics = self.common.worker.thread_metrics();
        let counts = &metrics.handshakes;
        let count = match handshake {
            Ok(Ok(handshake)) => {
                metrics.handshake_duration.observe(began.elapsed());
                match (handshake.version, handshake.resumed) {
                    (ProtocolVersion::TLSv1_3, true) => &counts.tls13_resumed,
                    (ProtocolVersion::TLSv1_3, false) => &counts.tls13_full,
                    (_, true) => &counts.tls12_resumed,
                    (_, false) => &counts.tls12_full,
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                match error {
                    HandshakeError::UnknownName(_) => &counts.unknown_name,
                    HandshakeError::NoName => &counts.no_name,
                    HandshakeError::NoCertificates => &counts.no_certificates,
                    HandshakeError::CallerCertificate(_) => &counts.caller_certificate,
                    HandshakeError::Protocol(_) => &counts.protocol,
                    HandshakeError::Io(_) => &counts.io,
                }
            }
            Err(_) => &counts.timeout,
        };
        count.increment();
    }
}
