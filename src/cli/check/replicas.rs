//! Whether replicas can be found and take connections, and front ends be found. One that does not may do so later, so all of
//! it is a warning; what they answer is nothing to this file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, Diagnostics, DnsTarget, Location, Members, ReplicaAddress, Source};
use crate::discovery::dns::{self, Resolver};
use crate::discovery::kubernetes::standing::Standing;
use crate::discovery::kubernetes::{self, Cluster, Which};

/// How long a replica may take to accept a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Replicas tried, or names looked up, at a time.
const AT_ONCE: usize = 128;

/// A replica to try.
struct Candidate {
    address: ReplicaAddress,
    at: Location,
    /// Who says that it is there and what it was looked up by, if it was.
    found_by: Option<(Finder, String)>,
}

/// Who names replicas, and what to do about one that is not there.
type Finder = (&'static str, &'static str);

const DNS: Finder = ("DNS", "start it, or correct the record");
const KUBERNETES: Finder = ("Kubernetes", "see that its NetworkPolicies let this host in");

/// What is wrong: where, what, and what to do about it.
type Problem = (Location, String, String);

/// Tries every replica that the configuration lists, or that DNS or Kubernetes names.
pub(super) async fn reach_all(config: &Config, diagnostics: &mut Diagnostics) {
    let sources = || config.services.iter().flat_map(|service| &service.deployments).map(|one| &one.source);
    let listed = sources().flat_map(Source::listed);
    let listed = listed.map(|one| Candidate { address: one.address.clone(), at: one.at.clone(), found_by: None });
    let resolver = Arc::new(Resolver::of(&config.dns));
    let targets = sources().filter_map(|source| match source {
        Source::Dns { target, at } => Some((target.clone(), at.clone())),
        Source::Static(_) | Source::Kubernetes { .. } => None,
    });
    let mut found = Vec::new();
    let look_up = |(target, at)| look_up(Arc::clone(&resolver), target, at);
    each(targets, look_up, |outcome| match outcome {
        Ok(candidates) => found.extend(candidates),
        Err((at, problem, remedy)) => diagnostics.warning_with(at, problem, remedy),
    })
    .await;
    look_up_in_kubernetes(config, &mut found, diagnostics).await;
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
        Ok(found) => Ok(candidates(found, &at, DNS, &target)),
        Err(error) => {
            Err((at, format!("the replicas of {target} cannot be looked up: {error}"), error.remedy().to_owned()))
        }
    }
}

/// Adds the replicas that Kubernetes names to `found`, and sees whether it can name the front ends; each namespace is asked
/// once.
async fn look_up_in_kubernetes(config: &Config, found: &mut Vec<Candidate>, diagnostics: &mut Diagnostics) {
    let deployments = config.services.iter().flat_map(|service| &service.deployments);
    let replicas = deployments.filter_map(|deployment| match &deployment.source {
        Source::Kubernetes { target, at } => Some((target, at, Wanted::Replicas)),
        Source::Static(_) | Source::Dns { .. } => None,
    });
    let front_ends = config.cluster.iter().filter_map(|cluster| match &cluster.members {
        Members::Kubernetes { target, at } => Some((target, at, Wanted::FrontEnds)),
        Members::Listed(_) | Members::Dns(_) => None,
    });
    let cluster = Cluster::of(&config.kubernetes, Arc::new(Standing::new(0)));
    let mut namespaces = HashMap::new();
    for (target, at, wanted) in replicas.chain(front_ends) {
        let namespace = target.namespace.as_ref();
        let snapshot = match namespaces.entry(namespace) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(kubernetes::look_up(&cluster, namespace).await),
        };
        match snapshot {
            Ok(snapshot) => match snapshot.endpoints(target, Which::Serving) {
                // Before the first front end is started there is none, and each finds the others by itself.
                Ok(_) if wanted == Wanted::FrontEnds => {}
                Ok(none) if none.is_empty() => {
                    let message = format!("Kubernetes names no endpoint of {target} that is ready");
                    diagnostics.warning_with(at.clone(), message, "start its pods, or see why they are not ready");
                }
                Ok(replicas) => found.extend(candidates(replicas, at, KUBERNETES, target)),
                Err(why) => diagnostics.warning(at.clone(), format!("{target}: {why}")),
            },
            Err(error) => {
                let message = format!("{wanted} {target} cannot be looked up in Kubernetes: {error}");
                diagnostics.warning_with(at.clone(), message, error.remedy());
            }
        }
    }
}

/// What Kubernetes is asked for, as messages have it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Replicas,
    FrontEnds,
}

impl Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicas => "the replicas of",
            Self::FrontEnds => "the front ends of",
        })
    }
}

fn candidates(found: Vec<ReplicaAddress>, at: &Location, by: Finder, target: &impl Display) -> Vec<Candidate> {
    let candidate = |address| Candidate { address, at: at.clone(), found_by: Some((by, target.to_string())) };
    found.into_iter().map(candidate).collect()
}

async fn reach(Candidate { address, at, found_by }: Candidate) -> Result<(), Problem> {
    let problem = match timeout(REACH_TIMEOUT, TcpStream::connect((address.host(), address.port()))).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} s", REACH_TIMEOUT.as_secs()),
    };
    let (by, remedy) = match found_by {
        None => (String::new(), "start it, or correct the address"),
        Some(((who, remedy), target)) => (format!(", which {who} names for {target},"), remedy),
    };
    Err((at, format!("replica http://{address}{by} cannot be reached: {problem}"), remedy.to_owned()))
}
