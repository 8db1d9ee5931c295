//! Copies of requests to a deployment whose answers nobody gets, so that it can be compared with the one that is live.
//!
//! A copy takes what is left over: it has a permit of the mirrored deployment or is not begun, and is tried once. What
//! becomes of it is [`copy`](super::copy)'s part.

use std::rc::Rc;

use http::HeaderMap;
use http_body::Body;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::catalog::{Mirror, ServiceRef};
use super::copy::Pair;
use super::exchange::Exchange;
use super::forward::{Asked, write_head};
use super::headers::AZUREML_MODEL_DEPLOYMENT;
use super::judge::route::{Resource, Route};
use super::judge::target;
use super::worker::Worker;
use crate::upstream::Request;

/// Copies under way on one thread. With [`MAX_UNREAD`](super::copy::MAX_UNREAD) it bounds the memory that they take.
const MAX_COPIES: usize = 64;

/// Begins a copy of a request that has a permit, if its service has some copied and this is to be one of them. The copy
/// ends at `deadline`.
pub fn begin(exchange: &Rc<Exchange>, asked: &mut Asked, deadline: Instant) {
    if let Some(service) = exchange.service()
        && let Some(mirror) = service.mirror
        && fastrand::u8(..100) < mirror.percent
        && may_be_copied(&asked.headers)
    {
        copy(exchange, service, mirror, asked, deadline);
    }
}

/// Whether a request with these fields is one of those that may be: who names a deployment wants that one, and no other.
pub fn may_be_copied(headers: &HeaderMap) -> bool {
    !headers.contains_key(AZUREML_MODEL_DEPLOYMENT)
}

fn copy(exchange: &Exchange, service: &ServiceRef, mirror: Mirror, asked: &mut Asked, deadline: Instant) {
    let Ok(Route { resource: resource @ Resource::Score(_), .. }) = Route::parse(exchange.uri.path()) else { return };
    let Some(deployment) = service.deployments().get(mirror.deployment) else { return };
    let Ok(target) = target(resource, &exchange.uri, deployment) else { return };
    let now = Instant::now();
    let place = Place::take(&exchange.worker);
    let Some((place, permit)) = place.and_then(|place| Some((place, deployment.replicas.try_take(now)?))) else {
        exchange.worker.part(&deployment.metrics).mirroring.busy.increment();
        return;
    };

    let pair = Pair::new(Rc::clone(&exchange.worker), service.clone(), mirror.deployment);
    let body = pair.body(asked.body.size_hint().exact());
    let mut request = Request::new(exchange.method(), &target, body);
    let left = deadline.saturating_duration_since(now);
    write_head(exchange, service, &asked.headers, permit.slot().endpoint(), left, &mut request);

    asked.body.copy_to(pair.tee());
    let _ = exchange.mirrored.set(pair.original());
    spawn_local(async move {
        let _place = place;
        pair.run(request, permit, deadline).await;
    });
}

/// A place among the copies of a thread.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let under_way = &worker.copies;
        if under_way.get() >= MAX_COPIES {
            return None;
        }
        under_way.set(under_way.get() + 1);
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let under_way = &self.0.copies;
        under_way.set(under_way.get().saturating_sub(1));
    }
}
