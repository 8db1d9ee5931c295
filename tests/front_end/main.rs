//! The front end as callers, replicas and operators meet it: real sockets, real TLS, and replicas that misbehave.
//!
//! Each test starts a front end of its own on port 0, inside this process, and is named after what it proves. Nothing
//! sleeps: tests wait for what they expect to see, up to [`support::PATIENCE`]; only where time itself does something (`rest`)
//! it is let pass.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on ends so")]

mod admin;
mod bodies;
mod callers;
mod client_certificates;
mod cluster;
mod deadlines;
mod discovery;
mod drain;
mod errors;
mod framing;
mod headers;
mod health;
mod host;
mod keys;
mod kubernetes;
mod limits;
mod management;
mod members;
mod mirror;
mod plain_http;
mod proxy_protocol;
mod reload;
mod replicas;
mod rest;
mod routing;
mod scheduling;
mod seen;
mod spread;
mod sticky;
mod support;
mod tickets;
mod tls;
