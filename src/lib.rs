//! scorefront: the real-time scoring front end of a model-serving cluster.
//!
//! A request's way through the rooms:
//!
//! ```text
//! listener ─ tls ─ connection ─ scoring ─ scheduling ─ upstream ─ container
//! ```
//!
//! [`listener`] accepts, [`tls`] ends TLS by the certificate of the CNAME asked for, [`connection`] speaks HTTP and
//! bounds every wait on the caller, [`scoring`] decides what a request means, [`scheduling`] which replica answers it
//! and when, [`upstream`] carries it there. A
//! room knows those that lie further down the way, and of those before it at most a small type they hand on, such as
//! what a handshake settled.
//!
//! Beside the way: [`config`] and [`environment`] read the files that are the state, [`health`] looks at replicas,
//! [`discovery`] asks which there are, [`telemetry`] is what operators see, [`admin`] answers them, [`front_end`] starts
//! and stops it all, [`cli`] is the command line, [`demo`] a whole cluster in one process. ARCHITECTURE.md says why it is
//! cut this way.

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod demo;
mod digits;
pub mod discovery;
pub mod environment;
pub mod front_end;
pub mod health;
pub mod listener;
mod outgoing;
pub mod reload;
pub mod scheduling;
pub mod scoring;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod upstream;
