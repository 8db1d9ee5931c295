//! Requests that wait for a permit, bound to no replica until one is free.
//!
//! A service has one [`Queue`]: a bound for all that wait. Those for one deployment stand in a [`Lane`] of it, in the order
//! of their rank and, within a rank, of their coming. Whoever gives a permit back, brings a replica, or comes to wait has
//! the lane served; there is no thread or task that does.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll};

use super::permits::Permits;
use super::sync::{Arc, AtomicUsize, Mutex, fence, oneshot};

/// How many ranks there are.
pub const RANKS: usize = 4;

/// Who goes before whom: less goes first. There are four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It had its turn, and came back because the replica could not be reached.
    Again,
    High,
    Normal,
    Low,
}

/// The bound on the waiting requests of one service.
#[derive(Debug)]
pub struct Queue {
    length: AtomicUsize,
    max: AtomicUsize,
}

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { length: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// Requests that wait now.
    pub fn length(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Who waits already goes on waiting.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// One that had its turn has been let in before.
    fn enter(&self, rank: Rank) -> bool {
        let max = if rank == Rank::Again { usize::MAX } else { self.max.load(Relaxed) };
        self.length.fetch_update(Relaxed, Relaxed, |length| (length < max).then_some(length + 1)).is_ok()
    }

    fn leave(&self, how_many: usize) {
        self.length.fetch_sub(how_many, Relaxed);
    }
}

/// Something that runs requests, as many at once as it has permits.
pub trait Slot: Sized {
    fn permits(&self) -> &Permits;

    /// Where requests wait for it.
    fn lane(&self) -> &Lane<Self>;
}

/// The right to have one request run by `S`. Dropped, it goes to the first that waits.
#[derive(Debug)]
pub struct Permit<S: Slot>(Arc<S>);

impl<S: Slot> Permit<S> {
    /// One permit of `slot`, whether or not others wait.
    pub fn take(slot: &Arc<S>) -> Option<Self> {
        slot.permits().try_take().then(|| Self(Arc::clone(slot)))
    }

    pub fn slot(&self) -> &Arc<S> {
        &self.0
    }
}

impl<S: Slot> Drop for Permit<S> {
    fn drop(&mut self) {
        let (permits, lane) = (self.0.permits(), self.0.lane());
        permits.give_back();
        if !lane.is_empty() && permits.is_open() {
            lane.serve(|| Self::take(&self.0));
        }
    }
}

/// Why a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// As many wait as may.
    Away,
    /// There is nothing to wait for any more: the deployment is gone.
    Elsewhere,
}

/// Those who wait for one deployment.
#[derive(Debug)]
pub struct Lane<S: Slot> {
    queue: Arc<Queue>,
    /// By rank, as seen without the lock.
    waiting: [AtomicUsize; RANKS],
    line: Mutex<Line<S>>,
}

#[derive(Debug)]
struct Line<S: Slot> {
    waiters: BTreeMap<Place, oneshot::Sender<Permit<S>>>,
    next_ticket: u64,
    closed: bool,
}

/// Where in the line: by rank, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: Rank,
    ticket: u64,
}

impl<S: Slot> Lane<S> {
    pub fn new(queue: Arc<Queue>) -> Self {
        let line = Line { waiters: BTreeMap::new(), next_ticket: 0, closed: false };
        Self { queue, waiting: std::array::from_fn(|_| AtomicUsize::new(0)), line: Mutex::new(line) }
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.load(Relaxed) == 0)
    }

    /// Requests that wait now.
    pub fn length(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.load(Relaxed)).sum()
    }

    /// Requests that wait now and would be served before one of `rank` that came.
    pub fn ahead_of(&self, rank: Rank) -> usize {
        self.waiting.iter().take(rank as usize + 1).map(|waiting| waiting.load(Relaxed)).sum()
    }

    /// Lines up. `take` takes a permit of anything in this lane that has one and is open.
    ///
    /// # Errors
    ///
    /// The queue is full, or the lane closed.
    pub fn join(self: &Arc<Self>, rank: Rank, take: impl FnMut() -> Option<Permit<S>>) -> Result<Waiting<S>, Turned> {
        let (caller, called) = oneshot::channel();
        let place = self.change(|line| {
            if line.closed {
                return Err(Turned::Elsewhere);
            }
            if !self.queue.enter(rank) {
                return Err(Turned::Away);
            }
            let place = Place { rank, ticket: line.next_ticket };
            line.next_ticket += 1;
            line.waiters.insert(place, caller);
            self.count(place, 1);
            Ok(place)
        })?;
        let waiting = Waiting { lane: Arc::clone(self), place, called };
        self.serve(take);
        Ok(waiting)
    }

    /// Hands out what `take` takes to those who wait, in order, until one of the two runs out.
    pub fn serve(&self, mut take: impl FnMut() -> Option<Permit<S>>) {
        // See `Permits::give_back`.
        fence(SeqCst);
        let mut permit = None;
        loop {
            let first = self.change(|line| {
                let (place, _) = line.waiters.first_key_value()?;
                let place = *place;
                permit = permit.take().or_else(&mut take);
                permit.as_ref()?;
                self.count(place, -1);
                line.waiters.remove(&place)
            });
            let (Some(first), Some(given)) = (first, permit.take()) else { break };
            // Outside the lock, because it may wake another thread. One that has just gone is passed over.
            permit = first.send(given).err();
        }
        // What nobody took is dropped here, outside the lock, which looks at the line once more.
    }

    /// Sends everybody away, and everybody that comes, until it is opened again.
    pub fn set_closed(&self, closed: bool) {
        self.change(|line| line.closed = closed);
        if closed {
            self.send_away();
        }
    }

    /// Sends everybody away who waits now.
    pub fn send_away(&self) {
        let waiters = self.change(|line| {
            for place in line.waiters.keys() {
                self.count(*place, -1);
            }
            std::mem::take(&mut line.waiters)
        });
        // Outside the lock, because it wakes them.
        drop(waiters);
    }

    fn leave(&self, place: Place) {
        self.change(|line| {
            if line.waiters.remove(&place).is_some() {
                self.count(place, -1);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Line<S>) -> T) -> T {
        // A panic in here would be one of the map's: what it holds then is still who waits.
        change(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Called with the line locked, so that the counts are those of the line.
    fn count(&self, place: Place, by: isize) {
        if let Some(waiting) = self.waiting.get(place.rank as usize) {
            waiting.store(waiting.load(Relaxed).saturating_add_signed(by), Relaxed);
        }
        if by < 0 {
            self.queue.leave(1);
        }
    }
}

/// A request's place in the line: ready with a permit, or with [`Turned::Elsewhere`]. Dropped, it leaves at once.
#[derive(Debug)]
pub struct Waiting<S: Slot> {
    lane: Arc<Lane<S>>,
    place: Place,
    called: oneshot::Receiver<Permit<S>>,
}

impl<S: Slot> Future for Waiting<S> {
    type Output = Result<Permit<S>, Turned>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.called).poll(cx).map_err(|_| Turned::Elsewhere)
    }
}

impl<S: Slot> Drop for Waiting<S> {
    fn drop(&mut self) {
        // A permit that had been called out for it is dropped with `called`, and goes to the next.
        self.lane.leave(self.place);
    }
}
