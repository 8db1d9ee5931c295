//! `/v1/drain`: the stop that SIGTERM asks for, asked for by somebody who is elsewhere, and how far it is. It only says so:
//! the steps are those of [`crate::shutdown`], and whoever runs the front end takes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::ToSchema;

use super::Admin;
use super::answer::json;
use crate::shutdown::{DrainTimes, Phase};

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
    /// Calls that were cut, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_cut: Option<u64>,
}

/// Where on that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    Running,
    /// Not ready; connections are still taken, for `drain_grace`.
    Draining,
    /// No connection is taken; calls in flight are finished, for `drain_timeout` at most.
    Closing,
    /// No call is left. Whoever goes on asking is told so before the process ends.
    Ended,
}

/// Whoever asked so recently asks again, from however far away; and how long the process waits for that at most.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// When somebody last asked how far it is: who follows a stop is to learn how it ended.
#[derive(Debug, Default)]
pub struct LastAsked(Mutex<Option<Instant>>);

impl LastAsked {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns when whoever followed the stop has had time to ask again; at once if nobody did.
    pub(super) async fn told(&self) {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|asked| asked.elapsed() < LAST_WORDS) {
            sleep(LAST_WORDS).await;
        }
    }
}

/// How far it is on its way out
#[utoipa::path(get, path = "/v1/drain", operation_id = "show_drain", responses((status = 200, body = Drain)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Response {
    admin.last_asked.note();
    json(StatusCode::OK, &state(&admin))
}

/// Stops it in good order, as SIGTERM does
///
/// It is not ready when this is answered. After `drain_grace` no more connections are taken, and calls in flight are
/// finished within `drain_timeout`; then the process ends. Asked again, it goes on as it is. Times that are configured
/// anew meanwhile do not change it.
#[utoipa::path(post, path = "/v1/drain", operation_id = "drain", responses(
    (status = 202, body = Drain),
))]
pub(super) async fn begin(State(admin): State<Arc<Admin>>) -> Response {
    admin.drain_times.get_or_init(|| DrainTimes::of(&admin.config.load()));
    Phase::Draining.reach(&admin.phase);
    admin.last_asked.note();
    json(StatusCode::ACCEPTED, &state(&admin))
}

fn state(admin: &Admin) -> Drain {
    let metrics = &admin.metrics;
    let deployments = metrics.deployments();
    let routed: u64 = deployments.into_iter().map(|(_, _, deployment)| deployment.in_flight()).sum();
    let times = admin.drain_times.get().copied().unwrap_or_else(|| DrainTimes::of(&admin.config.load()));
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let open = metrics.threads.iter().map(|thread| {
        let closed = thread.connections_closed.get();
        thread.connections_accepted.get().saturating_sub(closed)
    });
    let phase = match *admin.phase.borrow() {
        Phase::Running => DrainPhase::Running,
        Phase::Draining => DrainPhase::Draining,
        Phase::Closing | Phase::Stopped => DrainPhase::Closing,
        Phase::Ended => DrainPhase::Ended,
    };
    Drain {
        phase,
        requests_in_flight: routed + metrics.unrouted.in_flight(),
        connections_open: open.sum(),
        drain_grace_ms: millis(times.grace),
        drain_timeout_ms: millis(times.timeout),
        requests_cut: (phase == DrainPhase::Ended).then(|| metrics.requests_cut()),
    }
}
