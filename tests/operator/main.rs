//! The program as operators run it: the binary, real clients (curl, openssl, h2load) before it and a real model server
//! (azureml-inference-server-http) behind it.
//!
//! What a machine lacks, its tests say loudly and pass; under `CI=true` they fail. Debian has the clients in `curl`,
//! `openssl` and `nghttp2-client`; the model server is installed by pip into the target directory, once. Every port
//! is a free one, every file is temporary, and what a test starts ends with it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends where something is not as it has to be")]

mod harness;

mod cert;
mod check;
mod clients;
mod demo;
mod drain;
mod env;
mod explain;
mod health;
mod idling;
mod kubernetes;
mod reload;
mod replica;
mod serve;
mod service;
mod service_manager;
mod top;
