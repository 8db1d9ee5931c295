//! One caller's connection: HTTP on a stream that TLS has already ended, and every wait on the caller bounded.
//!
//! HTTP/1.1 is spoken by hand (`http1`), HTTP/2 by hyper (`http2`). Either is polled by `drive`, with one timer, which is
//! set anew only when it rings. What a request means is the business of [`crate::scoring`].

mod activity;
mod drive;
mod http1;
mod http2;
mod ticks;

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::http1::Date;
pub use self::ticks::Ticks;

use self::activity::{Activity, Overdue};
use crate::config::Limits;
use crate::scoring::caller::Caller;
use crate::scoring::worker::Worker;
use crate::shutdown::Drain;
use crate::tls::Protocol;

/// Bytes of a request's head, before HPACK's compression for HTTP/2.
const MAX_HEAD: u32 = 64 * 1024;

/// The same of a request that another front end hands over: what it lets in, and what it adds.
const MEMBERS_HEAD: usize = 96 * 1024;

/// Bytes of a body in memory on one side of a connection, and what is read at most at once. More is no faster, and
/// memory that was large once stays with the process.
const MAX_BUFFER: usize = 128 * 1024;

/// Streams a caller may have open on one connection.
const MAX_STREAMS: u32 = 250;

/// How long a last answer to somebody who sent no readable request may take to write.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the connections of a thread have in common.
pub struct Common {
    pub worker: Rc<Worker>,
    pub drain: Drain,
    pub ticks: Ticks,
    pub date: Date,
}

/// Serves a connection until it ends; never fails, since nobody would be there to tell.
pub async fn serve<S>(stream: S, protocol: Protocol, caller: Rc<Caller>, common: &Common, limits: &Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let activity = Rc::new(Activity::new(caller, limits));
    let overdue = match protocol {
        Protocol::Http1 => http1::serve(stream, &activity, common).await,
        Protocol::Http2 => Box::pin(http2::serve(stream, &activity, common)).await,
    };
    let timeouts = &common.worker.thread_metrics().timeouts;
    match overdue {
        None => {}
        Some(Overdue::Head) => timeouts.header.increment(),
        Some(Overdue::Idle) => timeouts.idle.increment(),
        Some(Overdue::Stalled) => timeouts.stalled.increment(),
    }
}
