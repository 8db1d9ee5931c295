//! Which worker thread serves a connection. The kernel gives new connections to threads by a hash of their addresses, which
//! is even for many and not for few: of two connections of HTTP/2, both are on one thread half of the time, and stay
//! there. So a thread that has more connections than another hands the next one over before anything is read from it. After that
//! a connection never moves.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Connections that may be on their way to a thread. While more are, each thread keeps what it accepts.
const ON_THE_WAY: usize = 256;

/// A thread hands connections over while it has more than another by this part of them: with few connections each counts,
/// with many it is not worth a wake-up.
const TOLERANCE: usize = 8;

/// What a connection speaks, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transport {
    Plain,
    Tls,
    /// Another front end's.
    Member,
}

/// How many connections each thread has, those on their way to it included.
#[derive(Debug)]
pub struct Open {
    index: usize,
    threads: Arc<[AtomicUsize]>,
}

/// The ways to all threads. A thread's arrivals end when nobody has these any more.
#[derive(Clone, Debug)]
pub struct Doors(Arc<[Sender<Arrival>]>);

/// A connection that another thread accepted, and counted.
#[derive(Debug)]
pub struct Arrival {
    pub(super) tcp: StdStream,
    pub(super) peer: SocketAddr,
    pub(super) transport: Transport,
}

/// One thread's part.
#[derive(Debug)]
pub struct Part {
    pub(super) open: Open,
    pub(super) doors: Doors,
    pub(super) arrivals: Receiver<Arrival>,
}

/// The parts of so many threads.
pub fn parts(threads: usize) -> Vec<Part> {
    let counts: Arc<[AtomicUsize]> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
    let (doors, arrivals): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel(ON_THE_WAY)).unzip();
    let doors = Doors(doors.into());
    let part = |(index, arrivals)| {
        let open = Open { index, threads: Arc::clone(&counts) };
        Part { open, doors: doors.clone(), arrivals }
    };
    arrivals.into_iter().enumerate().map(part).collect()
}

impl Open {
    /// How many this thread has.
    pub(super) fn here(&self) -> usize {
        self.of(self.index)
    }

    /// Whether any thread has less than its share.
    pub(super) fn has_room(&self, share: usize) -> bool {
        self.of(self.least()) < share
    }

    /// Counts one less of this thread's.
    pub(super) fn leave(&self) {
        self.count_off(self.index);
    }

    fn of(&self, thread: usize) -> usize {
        self.threads.get(thread).map_or(0, |open| open.load(Relaxed))
    }

    fn least(&self) -> usize {
        (0..self.threads.len()).min_by_key(|thread| self.of(*thread)).unwrap_or(self.index)
    }

    /// Who serves the next connection, where this thread's own share is so many.
    fn choose(&self, share: usize) -> usize {
        let least = self.least();
        let (here, fewest) = (self.here(), self.of(least));
        if here > fewest + fewest / TOLERANCE || here >= share { least } else { self.index }
    }

    fn count(&self, thread: usize) {
        if let Some(open) = self.threads.get(thread) {
            open.fetch_add(1, Relaxed);
        }
    }

    fn count_off(&self, thread: usize) {
        if let Some(open) = self.threads.get(thread) {
            open.fetch_sub(1, Relaxed);
        }
    }
}

impl Doors {
    /// Counts a connection that was just accepted, and gives it back if it is for this thread.
    pub(super) fn settle(
        &self,
        open: &Open,
        share: usize,
        tcp: TcpStream,
        peer: SocketAddr,
        transport: Transport,
    ) -> Option<TcpStream> {
        let chosen = open.choose(share);
        // Room first: what cannot be sent would have to be taken apart for nothing.
        let door = self.0.get(chosen).filter(|_| chosen != open.index).and_then(|door| door.try_reserve().ok());
        let Some(door) = door else {
            open.count(open.index);
            return Some(tcp);
        };
        // Fails only for what is no socket.
        if let Ok(tcp) = tcp.into_std() {
            open.count(chosen);
            door.send(Arrival { tcp, peer, transport });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 1_000;

    /// Who serves each of `accepted`, given by the thread that accepts it.
    fn served_by(parts: &[Part], accepted: &[usize]) -> Vec<usize> {
        let serve = |by: &usize| {
            let open = &parts[*by].open;
            let chosen = open.choose(SHARE);
            open.count(chosen);
            chosen
        };
        accepted.iter().map(serve).collect()
    }

    #[test]
    fn of_few_connections_no_thread_has_two_more_than_another() {
        assert_eq!(served_by(&parts(2), &[0, 0, 0, 0, 0]), [0, 1, 0, 1, 0]);
        assert_eq!(served_by(&parts(4), &[2, 2, 2, 2, 2]), [2, 0, 1, 3, 2]);
    }

    #[test]
    fn what_is_even_enough_stays_where_it_is() {
        let parts = parts(2);
        served_by(&parts, &(0..200).map(|n| n % 2).collect::<Vec<_>>());
        // Up to an eighth more.
        assert_eq!(served_by(&parts, &[1; 13]), [1; 13]);
        assert_eq!(served_by(&parts, &[1]), [0]);
    }

    #[test]
    fn nothing_is_kept_beyond_a_thread_s_share_while_another_has_room() {
        let parts = parts(2);
        served_by(&parts, &(0..200).map(|n| n % 2).collect::<Vec<_>>());
        parts[1].open.leave();
        assert_eq!(parts[0].open.choose(101), 0);
        assert_eq!(parts[0].open.choose(100), 1);
    }

    #[test]
    fn there_is_room_as_long_as_one_thread_has_some() {
        let parts = parts(2);
        served_by(&parts, &[0, 0, 0]);
        assert!(parts[0].open.has_room(2));
        served_by(&parts, &[0]);
        assert!(!parts[0].open.has_room(2));
        parts[1].open.leave();
        assert!(parts[0].open.has_room(2));
        assert_eq!(served_by(&parts, &[0]), [1]);
    }
}
