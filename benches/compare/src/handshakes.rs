//! Handshakes and nothing else: each connection is opened, closed by the caller at once, and is over when the server has
//! closed it too, with which its side of the handshake is over.
//!
//! `--resumed` collects as many tickets before, on connections that make a call: not every server sends one without. That every
//! handshake was of the kind asked for is checked.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::HandshakeKind;

use crate::Failure;
use crate::caller::{Call, Caller};
use crate::gate::{Gate, say};
use crate::options::Options;
use crate::summary::object;
use crate::tls::Tickets;

/// For the end.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let caller = Rc::new(Caller::from(options)?);
    let connections: usize = options.or("--connections", 8)?;
    let count: usize = options.or("--count", 1000)?;
    let expected = if options.flag("--resumed") { HandshakeKind::Resumed } else { HandshakeKind::Full };
    options.end()?;

    let tickets = Arc::new(Tickets::default());
    let tls = caller.connector(&tickets)?;
    if expected == HandshakeKind::Resumed {
        let call = Call::small();
        for number in 0..count {
            let mut connection = caller.on(caller.handshake(&tls, number).await?, number);
            caller.call(&mut connection, number, &call).await?;
            if tickets.count() >= count {
                break;
            }
        }
        tickets.use_them();
    }
    let mut gate = Gate::open().await?;
    let began = Instant::now();
    let (mut tasks, next) = (JoinSet::new(), Rc::new(Cell::new(0)));
    for _ in 0..connections {
        let (caller, tls, next) = (Rc::clone(&caller), tls.clone(), Rc::clone(&next));
        let work = async move {
            while next.get() < count {
                let number = next.replace(next.get() + 1);
                handshake(&caller, &tls, number, expected).await?;
            }
            Ok::<_, Failure>(())
        };
        tasks.spawn_local(async move { work.await.map_err(|failure| failure.to_string()) });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    say(&object([("done", count.to_string()), ("seconds", began.elapsed().as_secs_f64().to_string())]))?;
    Ok(gate.wait().await?)
}

async fn handshake(caller: &Caller, tls: &TlsConnector, number: usize, expected: HandshakeKind) -> Result<(), Failure> {
    let mut stream = caller.handshake(tls, number).await?;
    let kind = stream.get_ref().1.handshake_kind();
    if kind != Some(expected) {
        return Err(format!("a handshake was {kind:?}, not {expected:?}").into());
    }
    stream.shutdown().await?;
    let mut byte = [0];
    let end = timeout(PATIENCE, stream.read(&mut byte)).await;
    match end.map_err(|_| "a connection was not closed")? {
        Ok(1..) => Err("bytes that nobody asked for".into()),
        // With or without an alert, or with a reset: it is over.
        Ok(0) | Err(_) => Ok(()),
    }
}
