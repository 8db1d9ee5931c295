//! Looks at the health resources of a deployment's replicas, from the control thread.
//!
//! When each is to be looked at, and what follows from what is found, is for [`crate::scheduling`] to say. A look never
//! stands in the way of a request: it is not begun while a replica is busy, and broken off when a request waits.

use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::scheduling::{Health, Replica, Replicas};
use crate::upstream::{ProbeError, probe};

/// Looks under way at a time, of all deployments together: each has a connection.
pub const AT_ONCE: usize = 256;

/// Looks at `path` of each replica when it is due and one of `places` is free, for ever. An answer may take up to
/// `patience`.
pub async fn watch(replicas: Arc<Replicas>, path: Uri, patience: Duration, places: Rc<Semaphore>) -> Infallible {
    let mut looks = JoinSet::new();
    replicas.forget_health();
    loop {
        let room = AT_ONCE - looks.len();
        let due = async {
            match replicas.next_look() {
                Some(next) if room > 0 => sleep_until(next).await,
                _ => pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = replicas.looks_changed() => continue,
            Some(_) = looks.join_next() => continue,
        }
        for replica in replicas.due(Instant::now(), room) {
            looks.spawn_local(look(Arc::clone(&replicas), replica, path.clone(), patience, Rc::clone(&places)));
        }
    }
}

/// Looks once at the resource `path` of those replicas in use that are not known to be healthy, all at once, and at a few at
/// most.
pub async fn look_at_unknown(replicas: Arc<Replicas>, path: Uri, patience: Duration) {
    const AT_MOST: usize = 8;
    let places = Rc::new(Semaphore::new(AT_MOST));
    let views = replicas.views().into_iter();
    let unknown = views.filter(|view| view.out.is_none() && !view.healthy);
    let mut looks = JoinSet::new();
    for view in unknown.take(AT_MOST) {
        looks.spawn_local(look(Arc::clone(&replicas), view.replica, path.clone(), patience, Rc::clone(&places)));
    }
    while looks.join_next().await.is_some() {}
}

async fn look(replicas: Arc<Replicas>, replica: Arc<Replica>, path: Uri, patience: Duration, places: Rc<Semaphore>) {
    // Never closed.
    let _place = places.acquire().await;
    let found = replicas.unless_wanted(&replica, probe(replica.endpoint(), path, patience)).await;
    let found = found.and_then(|found| match found {
        Ok(status) => Some(Health::Answered(status)),
        Err(ProbeError::Connect(cause)) if cause.is_our_own() => None,
        Err(ProbeError::Connect(cause)) => Some(Health::Unreachable(cause.to_string())),
        Err(ProbeError::Closed) => Some(Health::Closed),
        Err(ProbeError::Silent) => Some(Health::Silent),
    });
    replicas.looked(&replica, found);
}
