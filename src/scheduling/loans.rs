//! Permits that are kept only until a request needs them, so that a health check never takes the place of one.
//!
//! What is lent is asked for by whoever finds no free permit and joins the line; its borrower ends what it does and then
//! gives the permit back, which goes to the head of the line. So a replica never sees a health check and a request at once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll};

use super::queue::{Permit, Slot};
use super::sync::{Arc, AtomicUsize, Mutex, fence, oneshot};

/// The permits lent of the slots of one lane, but for those that were asked for already.
#[derive(Debug)]
pub struct Loans<S: Slot> {
    /// How many there are, as seen without the lock.
    count: AtomicUsize,
    book: Mutex<Book<S>>,
}

#[derive(Debug)]
struct Book<S: Slot> {
    entries: Vec<Entry<S>>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry<S: Slot> {
    number: u64,
    slot: Arc<S>,
    /// Never called: that it is dropped tells the borrower.
    _borrower: oneshot::Sender<Infallible>,
}

impl<S: Slot> Loans<S> {
    pub fn new() -> Self {
        let book = Book { entries: Vec::new(), next_number: 0 };
        Self { count: AtomicUsize::new(0), book: Mutex::new(book) }
    }

    /// Whether nothing is lent that could be asked for.
    pub fn is_none(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Lends `permit`. If somebody waits for it, it is asked for at once.
    pub fn lend(&self, permit: Permit<S>) -> Loan<'_, S> {
        let slot = permit.slot();
        let (borrower, recalled) = oneshot::channel();
        let number = self.change(|book| {
            let number = book.next_number;
            book.next_number += 1;
            book.entries.push(Entry { number, slot: Arc::clone(slot), _borrower: borrower });
            number
        });
        // Who joins the line makes itself seen first and looks for what is lent afterwards, with the same fence between:
        // so one of the two sees the other.
        fence(SeqCst);
        if slot.permits().is_open() && !slot.lane().is_empty() {
            self.recall(|lent| Arc::ptr_eq(lent, slot));
        }
        Loan { loans: self, number, recalled, _permit: permit }
    }

    /// Asks for a permit that is lent of a slot that `is_wanted`: whether there is one. It is on its way then.
    pub fn recall(&self, is_wanted: impl Fn(&Arc<S>) -> bool) -> bool {
        if self.is_none() {
            return false;
        }
        let entry = self.change(|book| {
            let index = book.entries.iter().position(|entry| is_wanted(&entry.slot))?;
            Some(book.entries.swap_remove(index))
        });
        // Outside the lock, because it wakes the borrower.
        entry.is_some()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book<S>) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut book);
        self.count.store(book.entries.len(), Relaxed);
        result
    }
}

/// A permit that is lent: ready when it is asked for. Dropped, it is given back.
#[derive(Debug)]
pub struct Loan<'a, S: Slot> {
    loans: &'a Loans<S>,
    number: u64,
    recalled: oneshot::Receiver<Infallible>,
    _permit: Permit<S>,
}

impl<S: Slot> Future for Loan<'_, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.recalled).poll(cx).map(drop)
    }
}

impl<S: Slot> Drop for Loan<'_, S> {
    fn drop(&mut self) {
        self.loans.change(|book| book.entries.retain(|entry| entry.number != self.number));
        // The permit is given back after this.
    }
}
