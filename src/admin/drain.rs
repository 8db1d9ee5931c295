//! `/v1/drain`: the stop that SIGTERM asks for, asked for by somebody who is elsewhere, and how far it is. It only says so:
//! the steps are those of [`crate::shutdown`], and whoever runs the front end takes them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::answer::json;
use crate::shutdown::Phase;

/// How far a front end is on its way out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub struct Drain {
    pub phase: DrainPhase,
    /// Calls that are being answered now, those of other front ends included.
    pub requests_in_flight: u64,
    /// Callers' connections, with calls or without.
    pub connections_open: u64,
    /// How long connections are still taken after a drain was asked for.
    pub drain_grace_ms: u64,
    /// How long calls may take after that, before they are cut.
    pub drain_timeout_ms: u64,
}

/// Where on that way. When it is over nobody answers any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    Running,
    /// Not ready; connections are still taken, for `drain_grace`.
    Draining,
    /// No connection is taken; calls in flight are finished, for `drain_timeout` at most.
    Closing,
}

/// How far it is on its way out
#[utoipa::path(get, path = "/v1/drain", operation_id = "show_drain", responses((status = 200, body = Drain)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &state(&admin))
}

/// Stops it in good order, as SIGTERM does
///
/// It is not ready when this is answered. After `drain_grace` no more connections are taken, and calls in flight are
/// finished within `drain_timeout`; then the process ends. Asked again, it goes on as it is.
#[utoipa::path(post, path = "/v1/drain", operation_id = "drain", responses(
    (status = 202, body = Drain),
))]
pub(super) async fn begin(State(admin): State<Arc<Admin>>) -> Response {
    Phase::Draining.reach(&admin.phase);
    json(StatusCode::ACCEPTED, &state(&admin))
}

fn state(admin: &Admin) -> Drain {
    let metrics = &admin.metrics;
    let deployments = metrics.deployments();
    let routed: u64 = deployments.into_iter().map(|(_, _, deployment)| deployment.in_flight()).sum();
    let frontend = &admin.config.load().frontend;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let open = metrics.threads.iter().map(|thread| {
        let closed = thread.connections_closed.get();
        thread.connections_accepted.get().saturating_sub(closed)
    });
    Drain {
        phase: match *admin.phase.borrow() {
            Phase::Running => DrainPhase::Running,
            Phase::Draining => DrainPhase::Draining,
            Phase::Closing | Phase::Stopped => DrainPhase::Closing,
        },
        requests_in_flight: routed + metrics.unrouted.in_flight(),
        connections_open: open.sum(),
        drain_grace_ms: millis(frontend.drain_grace),
        drain_timeout_ms: millis(frontend.drain_timeout),
    }
}
