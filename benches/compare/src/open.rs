//! An open load: calls arrive as a Poisson process, whatever is still under way, and their time counts from when they were due.
//!
//! A call takes the connection that has been idle longest. Should all be busy it waits for one, on its own account.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Failure;
use crate::alarm::Alarm;
use crate::caller::{Call, Caller, Connection};
use crate::gate::{Gate, say};
use crate::options::Options;
use crate::random::Random;
use crate::summary::{distribution, object};

/// Calls in the first moment are made and not counted as latencies.
const WARM_UP: Duration = Duration::from_millis(500);

struct Load {
    caller: Caller,
    call: Call,
    idle: RefCell<VecDeque<Connection>>,
    free: Semaphore,
}

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let caller = Caller::from(options)?;
    let connections: usize = options.or("--connections", 64)?;
    let rate: f64 = options.or("--rate", 2000.0)?;
    let seconds: f64 = options.or("--seconds", 10.0)?;
    let mut random = Random(options.or("--seed", 1)?);
    options.end()?;

    let mut dues = Vec::new();
    let mut due = random.exponential() / rate;
    while due < WARM_UP.as_secs_f64() + seconds {
        dues.push(Duration::from_secs_f64(due));
        due += random.exponential() / rate;
    }
    let opened = caller.connect_all(connections).await?;
    let load = Rc::new(Load {
        caller,
        call: Call::small(),
        idle: RefCell::new(opened.into()),
        free: Semaphore::new(connections),
    });
    let mut gate = Gate::open().await?;

    let (mut alarm, mut under_way, began) = (Alarm::new()?, JoinSet::new(), Instant::now());
    let (mut latencies, mut lags) = (Vec::new(), Vec::new());
    let mut note = |due: Duration, figures: Result<(Duration, Duration), String>| -> Result<(), Failure> {
        let (lag, latency) = figures?;
        if due >= WARM_UP {
            lags.push(lag);
            latencies.push(latency);
        }
        Ok(())
    };
    for (number, due) in dues.iter().copied().enumerate() {
        alarm.until(began + due).await?;
        let load = Rc::clone(&load);
        under_way.spawn_local(async move { (due, load.call(number, began + due).await) });
        while let Some(done) = under_way.try_join_next() {
            let (due, figures) = done?;
            note(due, figures)?;
        }
    }
    while let Some(done) = under_way.join_next().await {
        let (due, figures) = done?;
        note(due, figures)?;
    }
    say(&object([
        ("done", dues.len().to_string()),
        ("seconds", began.elapsed().as_secs_f64().to_string()),
        ("latency", distribution(latencies)),
        ("lag", distribution(lags)),
    ]))?;
    Ok(gate.wait().await?)
}

impl Load {
    /// How late this program was, and how long the call took since it was due.
    async fn call(&self, number: usize, due: Instant) -> Result<(Duration, Duration), String> {
        let lag = due.elapsed();
        let _permit = self.free.acquire().await.map_err(|error| error.to_string())?;
        let connection = self.idle.borrow_mut().pop_front();
        let mut connection = connection.ok_or("a connection is missing")?;
        let called = self.caller.call(&mut connection, number, &self.call).await;
        called.map_err(|failure| failure.to_string())?;
        self.idle.borrow_mut().push_back(connection);
        Ok((lag, due.elapsed()))
    }
}
