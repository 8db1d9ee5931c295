//! What came of everything, and what should not have.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Violations of a kind that are told in full.
const TOLD: u64 = 10;

/// How many of the longest answers are told.
const LONGEST: usize = 5;

#[derive(Debug, Default)]
pub struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, u64>,
    violations: BTreeMap<&'static str, u64>,
    longest: Vec<(Duration, String)>,
}

impl Tally {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn count(&self, what: &str) {
        self.change(|state| match state.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => _ = state.counts.insert(what.to_owned(), 1),
        });
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.change(|state| state.counts.get(what).copied().unwrap_or(0))
    }

    /// An answer took this long, more or less, without what the machine had no time for.
    pub fn took(&self, time: Duration, detail: impl FnOnce() -> String) {
        self.change(|state| {
            if state.longest.len() < LONGEST || state.longest.last().is_some_and(|(least, _)| *least < time) {
                state.longest.push((time, detail()));
                state.longest.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
                state.longest.truncate(LONGEST);
            }
        });
    }

    /// Something that must never be.
    pub fn violation(&self, kind: &'static str, detail: impl FnOnce() -> String) {
        let so_far = self.change(|state| {
            let count = state.violations.entry(kind).or_default();
            *count += 1;
            *count
        });
        if so_far <= TOLD {
            eprintln!("VIOLATION {kind}: {}", detail());
        }
    }

    /// Prints it all; whether nothing was violated.
    pub fn report(&self) -> bool {
        self.change(|state| {
            for (what, count) in &state.counts {
                println!("{count:>9} {what}");
            }
            for (time, detail) in &state.longest {
                println!("{:>6.0} ms: {detail}", time.as_secs_f64() * 1e3);
            }
            for (kind, count) in &state.violations {
                println!("{count:>9} VIOLATIONS: {kind}");
            }
            if state.violations.is_empty() {
                println!("nothing was violated");
            }
            state.violations.is_empty()
        })
    }
}
