//! What `tail.py`, `faults.py` and `cluster.py` drive: single-slot replicas, and an open load on them whose work is the same whoever carries it.
//!
//! ```text
//! scorefront-tail replica [--count 8 | --listen IP:PORT …] [--control IP:PORT] [--log FILE] [--keep-alive]
//!                         [--abandoned-runs-on]
//! scorefront-tail load    --port P [--port P …] --ca FILE --path /… [--header 'Name: value'] [schedule] [load]
//! scorefront-tail ideal   [--count 8] [schedule]
//!
//! schedule: --seed 1 --rate 360 --mean-us 20000 --warmup 2 --seconds 20
//! load:     --deadline-ms 0 --prewarm 64 --patience-ms 30000 [--record FILE]
//! ```
//!
//! One thread each, and plain HTTP/1.1 by hand over tokio: it shares two CPUs with what it measures. Every command prints
//! one line of JSON; `replica` prints its ports, and then answers `GET /stats`, `GET /reset` and `GET /mode/…` on its control port.

mod alarm;
mod ideal;
mod load;
mod options;
mod replica;
mod schedule;
mod summary;

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
            eprintln!("scorefront-tail {command}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, mut options: Options) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    match command {
        "replica" => tasks.block_on(&runtime, replica::run(&mut options)),
        "load" => tasks.block_on(&runtime, load::run(&mut options)),
        "ideal" => ideal::run(&mut options),
        _ => Err("one of: replica, load, ideal".into()),
    }
}
