//! The same schedule through one queue in order of arrival, in which handing on costs nothing: what a proxy that does not
//! know beforehand how long a call will take can come close to.

use std::time::Duration;

use crate::Failure;
use crate::options::Options;
use crate::schedule::Schedule;
use crate::summary::{distribution, object};

pub fn run(options: &mut Options) -> Result<(), Failure> {
    let count: usize = options.or("--count", 8)?;
    let schedule = Schedule::from(options)?;
    options.end()?;

    let mut free = vec![Duration::ZERO; count.max(1)];
    let (mut latencies, mut work) = (Vec::new(), Duration::ZERO);
    for call in &schedule.calls {
        let first = free.iter_mut().min().ok_or("no replicas")?;
        let waits = first.saturating_sub(call.due);
        *first = call.due + waits + call.service;
        if call.counts {
            latencies.push(waits + call.service);
            work += call.service;
        }
    }
    let load = work.as_secs_f64() / (count as f64 * schedule.seconds);
    println!("{}", object([("load", format!("{load:.4}")), ("answered", distribution(latencies))]));
    Ok(())
}
