//! The counting of permits, the queue and the loans of the front end, run by a model checker through every order in which
//! threads can meet: the files themselves, with [`sync`] in place of the types that threads share.
//!
//! Run: `cargo test --release --manifest-path model/Cargo.toml --locked`
//!
//! What is bounded: there are two or three threads, of which each takes a few steps; and in the largest scenarios, those
//! that give [`tests::check`] a number, how often threads are interrupted where they could have gone on. Within that, every
//! order of steps and every value that the memory model lets a thread read is tried. loom takes a SeqCst access for no more
//! than AcqRel, but knows SeqCst fences, which are what the code under test relies on.
#![cfg(test)]
#![allow(dead_code, reason = "what the front end uses, and no test here, is no less used")]

#[path = "../../src/scheduling/loans.rs"]
mod loans;
#[path = "../../src/scheduling/permits.rs"]
mod permits;
#[path = "../../src/scheduling/queue.rs"]
mod queue;
mod sync;
mod tests;
