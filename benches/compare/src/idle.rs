//! Connections that made one call each and then do nothing.
//!
//! When the driver has looked at the memory, each makes another call: they all have to be open still.

use std::time::Instant;

use crate::Failure;
use crate::caller::{Call, Caller};
use crate::gate::{Gate, say};
use crate::options::Options;
use crate::summary::object;

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let caller = Caller::from(options)?;
    let count: usize = options.or("--connections", 1000)?;
    options.end()?;

    let call = Call::small();
    let mut gate = Gate::open().await?;
    let (began, mut connections) = (Instant::now(), Vec::with_capacity(count));
    for number in 0..count {
        let mut connection = caller.connect(number).await?;
        caller.call(&mut connection, number, &call).await?;
        connections.push(connection);
    }
    say(&object([("done", count.to_string()), ("seconds", began.elapsed().as_secs_f64().to_string())]))?;
    gate.wait().await?;
    for (number, connection) in connections.iter_mut().enumerate() {
        caller.call(connection, number, &call).await?;
    }
    say(&object([("done", count.to_string())]))?;
    Ok(gate.wait().await?)
}
