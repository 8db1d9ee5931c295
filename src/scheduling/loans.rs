//! Permits that are kept only until a request needs them, so that a health check never stands in the way of one.
//!
//! What is lent counts as taken for who looks for a free permit, and as free for who finds none: a request need neither
//! wait for the borrower to hear of it nor be allowed to wait at all.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use super::queue::{Permit, Slot};
use super::sync::{Arc, AtomicUsize, Mutex, oneshot};

/// The permits lent of the slots of one lane.
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
    permit: Permit<S>,
    /// Never called: that it is dropped tells the borrower.
    _borrower: oneshot::Sender<Infallible>,
}

impl<S: Slot> Loans<S> {
    pub fn new() -> Self {
        let book = Book { entries: Vec::new(), next_number: 0 };
        Self { count: AtomicUsize::new(0), book: Mutex::new(book) }
    }

    /// Lends `permit`, unless somebody waits for it: then the loan is over already.
    pub fn lend(&self, permit: Permit<S>) -> Loan<'_, S> {
        let slot = Arc::clone(permit.slot());
        let (borrower, recalled) = oneshot::channel();
        let number = self.change(|book| {
            let number = book.next_number;
            book.next_number += 1;
            book.entries.push(Entry { number, permit, _borrower: borrower });
            number
        });
        let loan = Loan { loans: self, number, recalled };
        // Who came to wait after the permit was taken, and looked before it was in the book, found neither.
        slot.lane().serve(|| self.recall(|lent| Arc::ptr_eq(lent, &slot) && slot.permits().is_open()));
        loan
    }

    /// A permit that is lent of a slot that `is_wanted`.
    pub fn recall(&self, is_wanted: impl Fn(&Arc<S>) -> bool) -> Option<Permit<S>> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let recalled = self.change(|book| {
            let index = book.entries.iter().position(|entry| is_wanted(entry.permit.slot()))?;
            Some(book.entries.swap_remove(index))
        });
        recalled.map(|entry| entry.permit)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book<S>) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut book);
        self.count.store(book.entries.len(), Relaxed);
        result
    }
}

/// A permit that is lent: ready when it was recalled. Dropped, it is given back.
#[derive(Debug)]
pub struct Loan<'a, S: Slot> {
    loans: &'a Loans<S>,
    number: u64,
    recalled: oneshot::Receiver<Infallible>,
}

impl<S: Slot> Future for Loan<'_, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.recalled).poll(cx).map(drop)
    }
}

impl<S: Slot> Drop for Loan<'_, S> {
    fn drop(&mut self) {
        let entry = self.loans.change(|book| {
            let index = book.entries.iter().position(|entry| entry.number == self.number)?;
            Some(book.entries.swap_remove(index))
        });
        // Outside the lock, because it may go to who waits.
        drop(entry);
    }
}
