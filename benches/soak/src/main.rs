//! A million requests on single-slot containers: never two at once with one of them, no permit lost, nobody forgotten.
//!
//! ```text
//! scorefront-soak [--binary target/release/scorefront] [--requests 50000] [--seed 1] [--limit 1] [--grace-ms 100]
//!                 [--in-place]
//! ```
//!
//! Starts the front end with two threads, eight containers that fail the run if they ever see two requests at once or
//! a connection held idle, callers over HTTP/1.1 and HTTP/2, plain and TLS, that hang up at every point of a request, and
//! an operator that changes the configuration all the time. Containers are killed and started again meanwhile. All of it
//! is drawn from the seed; what the threads make of it is not. Everything found wrong is told, and makes the run fail.
//!
//! `--limit 2` has the front end give each container two at a time: a run that must fail. `--in-place` also renames a
//! deployment that keeps its containers.

mod caller;
mod container;
mod front;
mod lag;
mod options;
mod tally;
mod target;

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::front::Front;
use crate::lag::Lag;
use crate::options::Options;
use crate::tally::Tally;

pub type Failure = Box<dyn std::error::Error>;

/// How many containers there are.
pub const CONTAINERS: usize = 8;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("scorefront-soak: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Failure> {
    let options = Options::parse(std::env::args().skip(1))?;
    let tally = Arc::new(Tally::default());
    let is_over = Arc::new(AtomicBool::new(false));
    let (ports, listeners) = container::bind()?;
    let containers = {
        let (tally, is_over, seed) = (Arc::clone(&tally), Arc::clone(&is_over), options.seed);
        thread::spawn(move || block_on(container::run(listeners, seed, tally, is_over)))
    };
    let front = Front::start(&options, &ports)?;
    let began = Instant::now();
    block_on(async {
        let (target, lag) = (front.target(), Rc::new(Lag::default()));
        let operator = front.operate(&options, Arc::clone(&tally));
        tokio::select! {
            () = caller::run(&options, target, Arc::clone(&tally), &lag) => {}
            failure = operator => return Err(failure),
            () = lag.measure(front.process()) => {}
        }
        Ok(())
    })??;
    let took = began.elapsed();
    is_over.store(true, Relaxed);
    // Containers that were being started again are back after this.
    thread::sleep(Duration::from_millis(300));
    block_on(front.at_rest(&options, &tally))??;
    drop(front);
    // The containers' thread goes on until the process ends.
    drop(containers);
    let rate = options.requests * 1000 / u64::try_from(took.as_millis())?.max(1);
    println!("{} requests in {:.1} s, {rate} a second, seed {}", options.requests, took.as_secs_f64(), options.seed);
    Ok(tally.report())
}

fn block_on<F: Future>(future: F) -> Result<F::Output, std::io::Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}
