//! What is true of a service now: whether a replica answers, and since when it is what it is.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::Admin;
use super::model::{Detail, State};
use crate::config::{self, Source};
use crate::health;
use crate::scheduling::{Failure, View};
use crate::scoring::catalog::{Catalog, Deployment, Service};

/// How long a service may take to find a replica before it has failed: as long as the original's containers had to start
/// (60 looks, one every 5 s).
const STARTING: Duration = Duration::from_secs(5 * 60);

/// A change this soon after the making is part of it: files have their times by the second.
const SAME_TIME: Duration = Duration::from_secs(2);

/// How long somebody who asks waits for looks at replicas that nobody has looked at.
const LOOKING: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Found {
    pub state: State,
    pub created_at: String,
    pub updated_at: String,
    /// Why it is not [`State::Succeeded`].
    pub error: Option<Detail>,
    pub ready: usize,
    pub total: usize,
}

pub(super) fn of(admin: &Admin, service: &config::Service) -> Found {
    let catalog = admin.catalog.load();
    let served = catalog.services().iter().find(|served| &*served.name == service.name.as_str());
    let deployments = served.map(Service::deployments).unwrap_or_default();
    let views: Vec<_> = deployments.iter().map(|deployment| (deployment, deployment.replicas.views())).collect();
    let all = || views.iter().flat_map(|(_, views)| views);
    // A share of the calls that nobody answers is no success.
    let lacking = views.iter().find(|(deployment, views)| deployment.takes_calls() && !views.iter().any(answers));

    let (created, updated) = times(service);
    let age = SystemTime::now().duration_since(updated).unwrap_or_default();
    let is_new = updated.duration_since(created).unwrap_or_default() <= SAME_TIME;
    let state = match lacking {
        None => State::Succeeded,
        // It is looked at as this is said.
        Some((_, views)) if age >= STARTING && !views.iter().any(is_unknown) => State::Failed,
        Some(_) if is_new => State::Creating,
        Some(_) => State::Updating,
    };
    Found {
        state,
        created_at: rfc3339(created),
        updated_at: rfc3339(updated),
        error: lacking.map(|(deployment, views)| reason(deployment, views)),
        ready: all().filter(|view| view.out.is_none() && !view.is_failing()).count(),
        total: all().count(),
    }
}

/// Has the replicas of the service `name` be looked at that nobody looks at by themselves, so that there is something to say
/// of them.
pub(super) async fn make_certain(admin: &Admin, name: &str) {
    let catalog = admin.catalog.load_full();
    let looks: Vec<_> = unseen(&catalog, name)
        .map(|deployment| {
            let path = Uri::try_from(&deployment.paths.health).unwrap_or_default();
            spawn_local(health::look_at_unknown(Arc::clone(&deployment.replicas), path, deployment.health.timeout))
        })
        .collect();
    for look in looks {
        let _ = timeout(LOOKING, look).await;
    }
}

fn unseen<'a>(catalog: &'a Catalog, name: &str) -> impl Iterator<Item = &'a Deployment> {
    let service = catalog.services().iter().find(|service| &*service.name == name);
    let deployments = service.map(Service::deployments).unwrap_or_default();
    let is_unseen =
        |deployment: &&Deployment| deployment.takes_calls() && !deployment.replicas.views().iter().any(answers);
    deployments.iter().filter(is_unseen)
}

/// Whether it answered when it was asked last, for its health or with a score: one that scores may have another path for
/// its health than it is asked at.
fn answers(view: &View) -> bool {
    let has_scored = view.replica.pace().mean().is_some();
    view.out.is_none() && (view.healthy || (has_scored && !view.is_failing()))
}

/// Whether nothing is known of it yet.
fn is_unknown(view: &View) -> bool {
    view.out.is_none() && view.trouble.is_none() && !answers(view)
}

fn failure(view: &View) -> Option<(&View, &Failure)> {
    let failure = view.out.as_ref().map(|out| &out.failure).or(view.trouble.as_ref())?;
    Some((view, failure))
}

fn reason(deployment: &Deployment, views: &[View]) -> Detail {
    let name = &deployment.name;
    let message = match (views.iter().find_map(failure), &deployment.source) {
        (Some((view, failure)), _) => {
            format!("deployment {name}: {}: {failure}", view.replica.endpoint().address())
        }
        (None, Source::Dns { target, .. }) if views.is_empty() => {
            format!("deployment {name}: no address was found for {target} yet")
        }
        (None, Source::Kubernetes { target, .. }) if views.is_empty() => {
            format!("deployment {name}: Kubernetes has no ready endpoint of {target} yet")
        }
        (None, _) => format!("deployment {name}: no replica has answered yet"),
    };
    Detail { code: "NoReplicaAnswers".to_owned(), message }
}

/// When it was made, and when its file was changed last.
fn times(service: &config::Service) -> (SystemTime, SystemTime) {
    let changed = fs::metadata(&service.at.file).and_then(|metadata| metadata.modified());
    let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
    let created = service.created_at.unwrap_or(changed);
    (created, changed.max(created))
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
