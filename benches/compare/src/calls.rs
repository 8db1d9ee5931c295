//! Calls on connections that are kept, as fast as answers come: each connection makes its next call when it has its answer.
//!
//! Where there are many names each connection has one, and calls one service; with `--spread` each call is of another one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::Failure;
use crate::caller::{Call, Caller};
use crate::gate::{Gate, say};
use crate::options::Options;
use crate::summary::object;

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let caller = Rc::new(Caller::from(options)?);
    let call = Rc::new(Call::from(options)?);
    let connections: usize = options.or("--connections", 64)?;
    let count: usize = options.or("--count", 1000)?;
    let is_spread = options.flag("--spread");
    options.end()?;

    let opened = caller.connect_all(connections).await?;
    let mut gate = Gate::open().await?;
    let began = Instant::now();
    let (mut workers, next) = (JoinSet::new(), Rc::new(Cell::new(0)));
    for (own, mut connection) in opened.into_iter().enumerate() {
        let (caller, call, next) = (Rc::clone(&caller), Rc::clone(&call), Rc::clone(&next));
        let work = async move {
            while next.get() < count {
                let number = next.replace(next.get() + 1);
                caller.call(&mut connection, if is_spread { number } else { own }, &call).await?;
            }
            Ok::<_, Failure>(connection)
        };
        workers.spawn_local(async move { work.await.map_err(|failure| failure.to_string()) });
    }
    // Connections stay open until the driver has read its counters.
    let mut kept = Vec::new();
    while let Some(connection) = workers.join_next().await {
        kept.push(connection??);
    }
    say(&object([("done", count.to_string()), ("seconds", began.elapsed().as_secs_f64().to_string())]))?;
    Ok(gate.wait().await?)
}
