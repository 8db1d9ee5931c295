//! From a request that may be answered to the head of an answer: a permit or a place in the queue, a replica, and once
//! another one if nothing of the request left this process.
//!
//! Who waits where, and which replica is next, is decided in [`crate::scheduling`]; this turns it into what a caller is told.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::Attempt;
use super::body::RequestBody;
use super::catalog::{Deployment, ServiceRef};
use super::error::Refusal;
use super::exchange::Exchange;
use super::forward::{Asked, write_head};
use super::handover::{self, HandedOver, Place};
use super::headers::is_for_caller;
use super::holder::Holder;
use super::incoming::Upload;
use super::judge::route::Route;
use super::judge::{deployment_for, target};
use super::mirror;
use crate::cluster::Cluster;
use crate::scheduling::{Forecast, Rank, Replica, ReplicaPermit, Turned};
use crate::telemetry::metrics::Overload;
use crate::upstream::{self, AnswerBody, AnswerError, CONNECT_TIMEOUT, ConnectError, Failure, Fields, Request};

/// What a caller is told to wait if nothing is known.
const A_MOMENT: Duration = Duration::from_secs(1);

/// How long a health check may take to give back a permit that is asked for; it takes a fraction of a millisecond.
const LOAN: Duration = Duration::from_millis(100);

/// A wait that is expected to take so many times what it may take is not begun.
const OUT_OF_REACH: u32 = 4;

/// Has a request answered by a replica of the deployment noted in `exchange`. The deadline is the caller's to keep; it is
/// needed here to tell what is hopeless, and what its caller was promised to tell it so elsewhere.
pub async fn dispatch(
    exchange: &Rc<Exchange>,
    mut asked: Asked,
    (deadline, promised): (Instant, Duration),
) -> Result<Response<AnswerBody<RequestBody, Holder>>, Refusal> {
    if asked.body.is_small() {
        poll_fn(|cx| asked.body.poll_gather(cx)).await.map_err(|_| Refusal::broken_body())?;
    }
    let mut now = Instant::now();
    exchange.asked.set(Some(now));
    let mut permit = match deployment(exchange)?.replicas.try_take(now) {
        Some(permit) => permit,
        None => match Box::pin(look_elsewhere(exchange, asked, (deadline, promised))).await? {
            Found::Answer(answer) => return Ok(answer),
            Found::Permit(permit, back) => {
                (now, asked) = (Instant::now(), back);
                permit
            }
        },
    };
    mirror::begin(exchange, &mut asked, deadline);
    let Asked { mut headers, target, mut body } = asked;
    let mut is_retry = false;
    loop {
        let attempt = Attempt::begin(Rc::clone(exchange), permit, now);
        let left = deadline.saturating_duration_since(now);
        let mut request = Request::new(exchange.method(), &target, body);
        let endpoint = attempt.replica().endpoint();
        write_head(exchange, service(exchange)?, &headers, endpoint, left, &mut request);
        // Half of what is left if there is another replica, so that it has a chance too.
        let has_other = !is_retry && deployment(exchange)?.replicas.has_other(attempt.replica());
        let connect_timeout = if has_other { CONNECT_TIMEOUT.min(left / 2) } else { CONNECT_TIMEOUT };
        let mut fields = Fields { room: &mut headers, is_wanted: is_for_caller };
        let (pool, times) = (&exchange.worker.pool, &exchange.times);
        match upstream::send(pool, request, times, attempt, connect_timeout, &mut fields).await {
            Ok(answer) => return Ok(answer.map(|body| body.map_held(Holder::Replica))),
            Err(Failure::Sent { held: attempt, cause }) => return Err(broken(exchange, attempt, &cause)),
            Err(Failure::Unsent { body: unsent, held: attempt, cause }) => {
                body = unsent;
                let failed = unreachable(exchange, attempt, &cause)?;
                if is_retry {
                    return Err(Refusal::no_ready_replicas(&service(exchange)?.name));
                }
                permit = Box::pin(another(exchange, &failed, deadline)).await?;
                is_retry = true;
                now = Instant::now();
            }
        }
    }
}

fn service(exchange: &Exchange) -> Result<&ServiceRef, Refusal> {
    exchange.service().ok_or_else(Refusal::not_found)
}

fn deployment(exchange: &Exchange) -> Result<&Deployment, Refusal> {
    exchange.deployment().ok_or_else(Refusal::not_found)
}

/// What a request came to that found no permit.
enum Found {
    Permit(ReplicaPermit, Asked),
    /// Of another front end.
    Answer(Response<AnswerBody<RequestBody, Holder>>),
}

/// Waits for a permit, or has the front end answer that has the deployment; if that goes meanwhile, or is another front
/// end's, looks for what takes its place.
async fn look_elsewhere(exchange: &Exchange, mut asked: Asked, times: (Instant, Duration)) -> Result<Found, Refusal> {
    let cluster = exchange.worker.cluster.as_deref();
    let mut tried = Vec::new();
    let mut pause = handover::pause(exchange);
    loop {
        let plan = cluster.map(Cluster::plan);
        if let (Some(cluster), Some(plan)) = (cluster, &plan)
            && let Place::At(member) = handover::place(exchange, cluster, plan, &deployment(exchange)?.replicas, &tried)
        {
            if let Some(pause) = pause.take() {
                exchange.queued.set(exchange.queued.get() + pause);
                sleep(pause).await;
                continue;
            }
            let address = member.address;
            match handover::hand_over(exchange, cluster, asked, member, times).await? {
                HandedOver::Answered(answer) => return Ok(Found::Answer(answer)),
                HandedOver::Unsent(back) => asked = back,
            }
            tried.push(address);
            continue;
        }
        // Who joins a line that has just been sent away would stand there for nothing.
        let is_here = || match (cluster, &plan) {
            (Some(cluster), Some(plan)) => cluster.goes_by(plan),
            _ => true,
        };
        if let Some(permit) = wait(exchange, exchange.rank(), times.0, is_here).await? {
            return Ok(Found::Permit(permit, asked));
        }
        tried.clear();
        relocate(exchange, &mut asked)?;
        // Whatever changes under it, this thread goes on.
        yield_now().await;
        if let Some(permit) = deployment(exchange)?.replicas.try_take(Instant::now()) {
            return Ok(Found::Permit(permit, asked));
        }
    }
}

/// Waits for a permit, or refuses to. `None`: the deployment is gone, or is not `is_here` any more, which is asked once it
/// stands in the line.
async fn wait(
    exchange: &Exchange,
    rank: Rank,
    deadline: Instant,
    is_here: impl Fn() -> bool,
) -> Result<Option<ReplicaPermit>, Refusal> {
    let (service, replicas) = (service(exchange)?, &deployment(exchange)?.replicas);
    let now = Instant::now();
    let forecast = replicas.forecast(rank, now);
    let overloaded = |reason| {
        exchange.metrics().note_overload(reason);
        let wait = replicas.forecast(rank, Instant::now()).or(forecast).map_or(A_MOMENT, |forecast| forecast.wait);
        Refusal::overloaded(&service.name, wait)
    };
    let left = deadline.saturating_duration_since(now);
    if forecast.is_some_and(|forecast| is_hopeless(&forecast, left, service.max_queue_wait)) {
        return Err(overloaded(Overload::Hopeless));
    }
    let patience = if replicas.is_any_lent() { service.max_queue_wait.max(LOAN) } else { service.max_queue_wait };
    // Where a front end has several places to wait in, the time is for all of them.
    let before = if exchange.worker.cluster.is_some() { exchange.queued.get() } else { Duration::ZERO };
    let patience = patience.saturating_sub(before);
    let waiting = match replicas.join(rank, now) {
        Ok(waiting) => waiting,
        Err(Turned::Away) => return Err(overloaded(Overload::QueueFull)),
        Err(Turned::Elsewhere) => return Ok(None),
    };
    if !is_here() {
        return Ok(None);
    }
    exchange.waits_since.set(Some(now));
    let called = timeout_at(now + patience, waiting).await;
    exchange.waits_since.set(None);
    exchange.queued.set(exchange.queued.get() + now.elapsed());
    match called {
        Ok(Ok(permit)) => Ok(Some(permit)),
        Ok(Err(_)) => Ok(None),
        Err(_) if replicas.is_none() => Err(Refusal::no_ready_replicas(&service.name)),
        Err(_) => Err(overloaded(Overload::Waited)),
    }
}

/// Whether a request that came now would wait in vain, as far as can be told. Measurements err, so the first that wait, one
/// for each slot, always may, and `max_queue_wait`, which costs nobody anything but patience, has to be out of reach.
fn is_hopeless(forecast: &Forecast, left: Duration, max_queue_wait: Duration) -> bool {
    forecast.ahead >= forecast.slots
        && (forecast.wait > max_queue_wait.saturating_mul(OUT_OF_REACH)
            || forecast.wait.saturating_add(forecast.service) > left)
}

/// Finds the request another deployment of its service in the configuration as it is now.
fn relocate(exchange: &Exchange, asked: &mut Asked) -> Result<(), Refusal> {
    let before = service(exchange)?;
    let catalog = exchange.worker.catalog();
    let service = ServiceRef::named(&catalog, &before.name).ok_or_else(|| Refusal::service_not_found(&before.name))?;
    // Which it is was decided by the front end that handed it over, if one did.
    let handed = exchange.handed().and_then(|_| service.deployment_named(exchange.deployment()?.name.as_bytes()));
    let index = handed.map_or_else(|| deployment_for(&service, exchange, &asked.headers), Ok)?;
    let name = before.name.clone();
    let moved = exchange.move_to(service, index).ok_or_else(|| Refusal::no_ready_replicas(&name))?;
    asked.target = target(Route::parse(exchange.uri.path())?.resource, &exchange.uri, moved)?;
    Ok(())
}

/// A permit for the one retry that a request has, of another replica than `failed`.
async fn another(exchange: &Exchange, failed: &Arc<Replica>, deadline: Instant) -> Result<ReplicaPermit, Refusal> {
    let service = service(exchange)?;
    let deployment = deployment(exchange)?;
    let none = || Refusal::no_ready_replicas(&service.name);
    let now = Instant::now();
    if !deployment.replicas.has_other(failed) || !deployment.replicas.budget().spend(deployment.requests(), now) {
        return Err(none());
    }
    exchange.metrics().retries.increment();
    if let Some(permit) = deployment.replicas.try_take_other(failed, now) {
        return Ok(permit);
    }
    // What the failed one has is kept meanwhile, so that it is not called out for this request again.
    let mut kept = Vec::new();
    loop {
        let permit = wait(exchange, Rank::Again, deadline, || true).await?.ok_or_else(none)?;
        if permit.slot().id() != failed.id() {
            return Ok(permit);
        }
        kept.push(permit);
    }
}

/// Nothing of the request left this process.
fn unreachable(exchange: &Exchange, attempt: Attempt<Exchange>, cause: &ConnectError) -> Result<Arc<Replica>, Refusal> {
    let service = service(exchange)?;
    let replica = Arc::clone(attempt.replica());
    tracing::debug!(service = &*service.name, replica = %replica.endpoint().address(), %cause, "replica unreachable");
    exchange.metrics().unreachable.increment();
    attempt.fail_to_connect(cause);
    if cause.is_our_own() {
        exchange.metrics().note_overload(Overload::NoConnection);
        tracing::warn!(%cause, "this process can open no more connections");
        return Err(Refusal::overloaded(&service.name, A_MOMENT));
    }
    Ok(replica)
}

/// The replica may have seen the request, and there is no answer.
fn broken(exchange: &Exchange, attempt: Attempt<Exchange>, cause: &AnswerError) -> Refusal {
    match (exchange.upload.get(), exchange.service()) {
        (Upload::TooLarge, Some(service)) => {
            attempt.end();
            Refusal::body_too_large(service.max_body)
        }
        (Upload::Broken, _) => {
            attempt.end();
            Refusal::broken_body()
        }
        _ => {
            tracing::debug!(replica = %attempt.replica().endpoint().address(), %cause, "no answer");
            attempt.fail_to_answer(cause);
            Refusal::replica_closed()
        }
    }
}
