//! Whether replicas can be found and take connections. One that does not may do so later, so all of it is a warning; what
//! they answer is nothing to this file.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, Diagnostics, DnsTarget, Location, ReplicaAddress, Source};
use crate::discovery::dns::{self, Resolver};

/// How long a replica may take to accept a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Replicas tried, or names looked up, at a time.
const AT_ONCE: usize = 128;

/// A replica to try.
struct Candidate {
    address: ReplicaAddress,
    at: Location,
    /// What it was looked up by, if it was.
    found_by: Option<DnsTarget>,
}

/// What is wrong: where, what, and what to do about it.
type Problem = (Location, String, String);

/// Tries every replica that the configuration lists or DNS names.
pub(super) async fn reach_all(config: &Config, diagnostics: &mut Diagnostics) {
    let sources = || config.services.iter().flat_map(|service| &service.deployments).map(|one| &one.source);
    let listed = sources().flat_map(Source::listed);
    let listed = listed.map(|one| Candidate { address: one.address.clone(), at: one.at.clone(), found_by: None });
    let resolver = Arc::new(Resolver::of(&config.dns));
    let targets = sources().filter_map(|source| match source {
        Source::Dns { target, at } => Some((target.clone(), at.clone())),
        Source::Static(_) => None,
    });
    let mut found = Vec::new();
    let look_up = |(target, at)| look_up(Arc::clone(&resolver), target, at);
    each(targets, look_up, |outcome| match outcome {
        Ok(candidates) => found.extend(candidates),
        Err((at, problem, remedy)) => diagnostics.warning_with(at, problem, remedy),
    })
    .await;
    each(listed.chain(found), reach, |outcome| {
        if let Err((at, problem, remedy)) = outcome {
            diagnostics.warning_with(at, problem, remedy);
        }
    })
    .await;
}

/// Does `work` for all `items`, some at a time, and hands on what comes of it.
async fn each<T, R: Send + 'static, W: Future<Output = R> + Send + 'static>(
    mut items: impl Iterator<Item = T>,
    work: impl Fn(T) -> W,
    mut done: impl FnMut(R),
) {
    let mut working = JoinSet::new();
    loop {
        for item in items.by_ref().take(AT_ONCE - working.len()) {
            working.spawn(work(item));
        }
        match working.join_next().await {
            Some(Ok(outcome)) => done(outcome),
            // A panic has been reported.
            Some(Err(_)) => {}
            None => return,
        }
    }
}

async fn look_up(resolver: Arc<Resolver>, target: DnsTarget, at: Location) -> Result<Vec<Candidate>, Problem> {
    match dns::look_up(&resolver, &target).await {
        Ok(found) if found.is_empty() => {
            let remedy = "start them, or correct the name".to_owned();
            Err((at, format!("DNS names no replicas for {target}"), remedy))
        }
        Ok(found) => {
            let candidate = |address| Candidate { address, at: at.clone(), found_by: Some(target.clone()) };
            Ok(found.into_iter().map(candidate).collect())
        }
        Err(error) => {
            Err((at, format!("the replicas of {target} cannot be looked up: {error}"), error.remedy().to_owned()))
        }
    }
}

async fn reach(Candidate { address, at, found_by }: Candidate) -> Result<(), Problem> {
    let problem = match timeout(REACH_TIMEOUT, TcpStream::connect((address.host(), address.port()))).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} s", REACH_TIMEOUT.as_secs()),
    };
    let (by, remedy) = match found_by {
        None => (String::new(), "start it, or correct the address"),
        Some(target) => (format!(", which DNS names for {target},"), "start it, or correct the record"),
    };
    Err((at, format!("replica http://{address}{by} cannot be reached: {problem}"), remedy.to_owned()))
}
