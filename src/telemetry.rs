//! What operators see of the running front end: counters and histograms, the access log, and log events.
//!
//! Everything the request path writes to lives on its own thread, in plain cells, and is summed or written by
//! somebody else: nothing here makes a request wait.

pub mod access;
pub mod busy;
pub mod cell;
pub mod log;
pub mod metrics;
pub mod writer;
