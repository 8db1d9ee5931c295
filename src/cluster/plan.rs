//! Who has which part of which deployment, made of the members and the replicas there are, and applied to the permits of
//! this front end: what it loses at once, what it gains once nobody else has it any more.
//!
//! A slot that moves is given up first: who had it takes no new request for it, says so, and says which replicas it still
//! has requests with. Only then the other one takes it. So a replica sees no more requests at once than it may, however long
//! the last one of the old front end goes on; a front end that is gone says nothing, and is not waited for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use http::HeaderValue;

use super::members::{Applied, GIVE_UP, Roster, view_number};
use super::secret::{Secrets, handing_over};
use super::state::{self, Deployments, deployment_key, replica_key};
use super::{Cluster, shares};
use crate::config::ReplicaAddress;
use crate::scheduling::{Replica, Replicas};
use crate::upstream::Endpoint;

/// What requests go by: one snapshot, replaced whole.
#[derive(Debug, Default)]
pub struct Plan {
    /// In order, oneself among them; empty as long as they are not known.
    pub members: Vec<SocketAddr>,
    others: BTreeMap<SocketAddr, Arc<Member>>,
    /// By the address in memory of the replicas, which are held here.
    homes: HashMap<usize, (Arc<Replicas>, Arc<Home>)>,
}

/// Another front end that requests can be handed over to.
#[derive(Debug)]
pub struct Member {
    pub address: SocketAddr,
    pub endpoint: Endpoint,
    /// What proves to it that a request is from a member.
    pub token: HeaderValue,
    /// Requests that were handed over to it.
    pub handed_over: AtomicU64,
}

impl AsRef<Endpoint> for Member {
    fn as_ref(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Where the requests for one deployment belong.
#[derive(Clone, Debug)]
pub struct Home {
    /// Each with the slots that are to be its own, in the order of their numbers.
    pub owners: Vec<(SocketAddr, usize)>,
    /// Slots that are to be this front end's.
    pub own: usize,
}

impl Plan {
    pub fn home(&self, replicas: &Arc<Replicas>) -> Option<&Arc<Home>> {
        self.homes.get(&key_of(replicas)).map(|(_, home)| home)
    }

    /// Another front end than this.
    pub fn other(&self, address: SocketAddr) -> Option<&Arc<Member>> {
        self.others.get(&address)
    }

    pub fn others(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.others.values()
    }
}

fn key_of(replicas: &Arc<Replicas>) -> usize {
    Arc::as_ptr(replicas).addr()
}

/// One deployment that may be shared.
#[derive(Debug)]
pub struct Deployment<'a> {
    pub service: &'a str,
    pub name: &'a str,
    pub replicas: &'a Arc<Replicas>,
}

/// Applies what is agreed on to the permits of this front end.
pub struct Sharer {
    cluster: Arc<Cluster>,
    secrets: Arc<Secrets>,
    /// By what it was shared out last.
    view: u64,
    deployments: Arc<Deployments>,
    /// Since when by these: a number that comes but once.
    epoch: u64,
    heard: BTreeMap<SocketAddr, u64>,
    /// What is to be this front end's and is not yet.
    pending: Vec<Pending>,
    /// Since when it goes by these.
    since: Instant,
}

struct Pending {
    replicas: Arc<Replicas>,
    replica: Arc<Replica>,
    deployment: u64,
    key: u64,
    owners: u64,
    slots: usize,
}

/// One shared deployment as it is now.
struct Shared<'a> {
    of: &'a Deployment<'a>,
    key: u64,
    replicas: Vec<Arc<Replica>>,
    limit: usize,
    owners: Vec<SocketAddr>,
}

impl Shared<'_> {
    /// A number made of the owners in their order: who says the same one splits the slots in the same way.
    fn owners_number(&self) -> u64 {
        let owners: Vec<_> = self.owners.iter().map(ToString::to_string).collect();
        shares::number(&["owners", &owners.join("\n")])
    }

    fn slots(&self, owner: SocketAddr, replica: &Replica) -> usize {
        shares::slots(&self.owners, owner, replica.endpoint().address(), self.limit)
    }

    fn home(&self, own: SocketAddr) -> Home {
        let sum = |owner: SocketAddr| self.replicas.iter().map(|replica| self.slots(owner, replica)).sum();
        let owners: Vec<_> = self.owners.iter().map(|owner| (*owner, sum(*owner))).collect();
        let own = owners.iter().find(|(owner, _)| *owner == own).map_or(0, |(_, slots)| *slots);
        Home { owners, own }
    }
}

impl Sharer {
    pub fn new(cluster: Arc<Cluster>) -> Self {
        let secrets = cluster.secrets();
        Self {
            cluster,
            secrets,
            view: 0,
            deployments: Arc::default(),
            epoch: 0,
            heard: BTreeMap::new(),
            pending: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Whether everything that is to be this front end's is.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Shares out `deployments`, which are all there are, among the members there are now.
    pub fn share(&mut self, deployments: &[Deployment<'_>], now: Instant) {
        let Some(roster) = self.cluster.roster(now) else { return };
        let own = self.cluster.own();
        let shared: Vec<_> = deployments.iter().filter_map(|of| shared(of, &roster, own)).collect();
        self.pending.clear();
        let mut draining = Vec::new();
        for deployment in &shared {
            for replica in &deployment.replicas {
                let slots = deployment.slots(own, replica);
                let key = || replica_key(deployment.key, &replica.endpoint().address().to_string());
                if slots < replica.limit() {
                    replica.set_limit(slots);
                }
                if replica.in_flight() > slots {
                    draining.push((key(), Arc::clone(replica)));
                }
                if slots > replica.limit() {
                    self.pending.push(Pending {
                        replicas: Arc::clone(deployment.of.replicas),
                        replica: Arc::clone(replica),
                        deployment: deployment.key,
                        key: key(),
                        owners: deployment.owners_number(),
                        slots,
                    });
                }
            }
        }
        self.publish(&roster, &shared, draining, now);
        self.settle(now);
    }

    /// Makes it known, to requests here and to all others.
    fn publish(&mut self, roster: &Roster, shared: &[Shared<'_>], draining: Vec<(u64, Arc<Replica>)>, now: Instant) {
        let own = self.cluster.own();
        let before = self.cluster.plan();
        let plan = Plan {
            members: roster.members.keys().copied().collect(),
            others: self.others(roster, &before),
            homes: shared
                .iter()
                .map(|deployment| {
                    let replicas = deployment.of.replicas;
                    (key_of(replicas), (Arc::clone(replicas), Arc::new(deployment.home(own))))
                })
                .collect(),
        };
        let view = view_number(roster.members.keys().copied());
        let deployments: Deployments =
            shared.iter().map(|deployment| (deployment.key, deployment.owners_number())).collect();
        let is_shared_anew = view != self.view || deployments != *self.deployments;
        let is_other = is_shared_anew || roster.heard != self.heard;
        if is_shared_anew {
            self.epoch = fastrand::u64(1..);
        }
        if view != self.view {
            let members: Vec<_> = plan.members.iter().map(ToString::to_string).collect();
            tracing::info!(%own, members = members.join(", "), "the front ends of the cluster");
        }
        let strangers: Vec<_> =
            plan.homes.values().filter(|(_, home)| home.own == 0).map(|(replicas, _)| Arc::clone(replicas)).collect();
        self.cluster.apply(plan);
        if is_other {
            (self.view, self.deployments, self.since) = (view, Arc::new(deployments), now);
            self.heard.clone_from(&roster.heard);
        }
        let (epoch, digest) = (self.epoch, state::digest(self.epoch, &self.deployments));
        let applied = Applied {
            view,
            deployments: Arc::clone(&self.deployments),
            digest,
            epoch,
            heard: roster.heard.clone(),
            draining,
        };
        self.cluster.members().set_applied(applied);
        if is_other {
            // Who waits here for what is elsewhere now looks for it there.
            for replicas in strangers {
                if !replicas.lane().is_empty() {
                    replicas.lane().send_away();
                }
            }
            self.cluster.exchange_now();
        }
    }

    /// Those that are as they were stay the same, with their connections and counts.
    fn others(&mut self, roster: &Roster, before: &Plan) -> BTreeMap<SocketAddr, Arc<Member>> {
        let own = self.cluster.own();
        let secrets = self.cluster.secrets();
        let are_same = Arc::ptr_eq(&secrets, &self.secrets);
        let other = |address: SocketAddr| {
            let known = before.other(address);
            if let Some(same) = known.filter(|_| are_same) {
                return Some(Arc::clone(same));
            }
            let handed_over = known.map_or(0, |known| known.handed_over.load(std::sync::atomic::Ordering::Relaxed));
            Some(Arc::new(Member {
                address,
                endpoint: Endpoint::new(ReplicaAddress::of(address))?,
                token: secrets.sign(&handing_over(own, address))?,
                handed_over: AtomicU64::new(handed_over),
            }))
        };
        let addresses = roster.members.keys().copied().filter(|address| *address != own);
        let others = addresses.filter_map(|address| Some((address, other(address)?))).collect();
        self.secrets = secrets;
        others
    }

    /// Takes what is to be this front end's as far as nobody else has it any more.
    pub fn settle(&mut self, now: Instant) {
        let members = self.cluster.members();
        let is_late = now.saturating_duration_since(self.since) >= GIVE_UP;
        let busy: HashSet<u64> = members.busy_elsewhere();
        let mut agreed: HashMap<u64, bool> = HashMap::new();
        let pending = std::mem::take(&mut self.pending);
        let (taken, left): (Vec<_>, Vec<_>) = pending.into_iter().partition(|one| {
            let agree = || is_late || members.agree_on(one.deployment, one.owners);
            !busy.contains(&one.key) && *agreed.entry(one.deployment).or_insert_with(agree)
        });
        let do_agree = members.do_agree();
        drop(members);
        self.pending = left;
        let mut gained: Vec<(Arc<Replicas>, Vec<Arc<Replica>>)> = Vec::new();
        for Pending { replicas, replica, slots, .. } in taken {
            replica.set_limit(slots);
            match gained.last_mut() {
                Some((last, of)) if Arc::ptr_eq(last, &replicas) => of.push(replica),
                _ => gained.push((replicas, vec![replica])),
            }
        }
        for (replicas, of) in gained {
            replicas.note_gained(&of);
        }
        self.cluster.set_settled(self.pending.is_empty() && (do_agree || is_late));
    }
}

fn shared<'a>(of: &'a Deployment<'a>, roster: &Roster, own: SocketAddr) -> Option<Shared<'a>> {
    let (replicas, limit) = of.replicas.shared()?;
    let key = deployment_key(of.service, of.name);
    // Whoever has not heard of it yet cannot have a part of it.
    let knows = |(address, deployments): (&SocketAddr, &Arc<Deployments>)| {
        (*address == own || deployments.contains_key(&key)).then_some(*address)
    };
    let members: Vec<_> = roster.members.iter().filter_map(knows).collect();
    let parts = shares::parts(replicas.len() * limit, members.len());
    let owners = shares::owners(of.service, members, parts);
    Some(Shared { of, key, replicas, limit, owners })
}
