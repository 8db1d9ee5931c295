//! Cases for callgrind, which count.py runs one at a time: `scorefront-instructions CASE` does what is to be counted, and
//! without a name it lists what there is, with how often each is done.

#![allow(clippy::expect_used, clippy::panic, reason = "a case that does not go as it should is not to be counted")]

mod caller;
mod calls;
mod counting;
mod parts;
mod replica;
mod stage;
mod turns;
mod whole;

use std::process::ExitCode;

/// Name, what is done, and how often.
type Case = (&'static str, fn(usize), usize);

const CASES: [Case; 14] = [
    ("http1", whole::http1, 400),
    ("http1-closing", whole::closing, 200),
    ("http2", whole::http2, 800),
    ("handshake-full", whole::full_handshake, 40),
    ("handshake-resumed", whole::resumed_handshake, 40),
    ("up-1m", whole::up, 20),
    ("down-1m", whole::down, 20),
    ("route", parts::route, 1_000),
    ("certificate-exact", parts::certificate_exact, 1_000),
    ("certificate-wildcard", parts::certificate_wildcard, 1_000),
    ("headers", parts::header_rules, 1_000),
    ("permit", parts::permit, 1_000),
    ("queue", parts::queue, 1_000),
    ("access-line", parts::access_line, 1_000),
];

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        for (name, _, times) in CASES {
            println!("{name} {times}");
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, run, times)) = CASES.iter().find(|(name, _, _)| *name == wanted) else {
        eprintln!("there is no case {wanted}");
        return ExitCode::from(2);
    };
    run(*times);
    ExitCode::SUCCESS
}
