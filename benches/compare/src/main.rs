//! What `compare.py` drives: a replica that answers what it is asked for, and loads that check every byte of the answers.
//!
//! ```text
//! scorefront-compare replica    [--close]
//! scorefront-compare calls      [caller] [--connections 64] [--count 1000] [--spread]
//!                               [--up BYTES | --down BYTES | --events N --interval-ms 5]
//! scorefront-compare handshakes [caller] [--connections 8] [--count 1000] [--resumed]
//! scorefront-compare open       [caller] [--connections 64] [--rate 2000] [--seconds 10] [--seed 1]
//! scorefront-compare idle       [caller] [--connections 1000]
//!
//! caller: --port P --ca FILE --key KEY [--names 1]
//! ```
//!
//! One thread each. `replica` prints its port. A load prints `ready` when its connections are open and waits for a line on
//! its standard input, so that its driver can read counters before and after the work and nothing else; then it works,
//! prints one line of JSON, and ends when its input does. With any error it says what went wrong and ends with status 1.

#[path = "../../tail/src/alarm.rs"]
mod alarm;
mod bodies;
mod caller;
mod calls;
mod gate;
mod handshakes;
mod idle;
mod open;
#[path = "../../tail/src/options.rs"]
mod options;
mod random;
mod replica;
#[path = "../../tail/src/summary.rs"]
mod summary;
mod tls;

use std::process::ExitCode;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::options::Options;

pub type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    match run(&command, Options::new(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("scorefront-compare {command}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, mut options: Options) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    match command {
        "replica" => tasks.block_on(&runtime, replica::run(&mut options)),
        "calls" => tasks.block_on(&runtime, calls::run(&mut options)),
        "handshakes" => tasks.block_on(&runtime, handshakes::run(&mut options)),
        "open" => tasks.block_on(&runtime, open::run(&mut options)),
        "idle" => tasks.block_on(&runtime, idle::run(&mut options)),
        _ => Err("one of: replica, calls, handshakes, open, idle".into()),
    }
}
