//! Several front ends before one set of replicas: who they are, and which of them gives which replica how many requests
//! at once.
//!
//! A replica's permits are exact within one process. So each slot of a replica belongs to one front end at a time
//! ([`shares`]), all of them agree on which that is ([`members`]), and who has none of a deployment hands its requests to
//! one that has. They tell each other what they know in one small message ([`state`]), each of them to every other one and
//! often ([`exchange`]); nobody leads.
//!
//! How requests are handed over is [`crate::scoring`]'s part, and who applies a share to replicas is
//! [`crate::front_end`]. This room sends no request of a caller.

pub mod exchange;
pub mod members;
mod own_address;
pub mod plan;
pub mod secret;
pub mod shares;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::scheduling::Replicas;
use members::{Members, Roster};
use plan::{Home, Plan};
use secret::Secrets;
use state::State;

pub use own_address::{AddressError, own_address};
pub use plan::Member;

/// What all threads share of it.
#[derive(Debug)]
pub struct Cluster {
    own: SocketAddr,
    secrets: ArcSwap<Secrets>,
    members: Mutex<Members>,
    /// What requests go by.
    plan: ArcSwap<Plan>,
    /// Whether every slot that is to be this front end's is.
    is_settled: AtomicBool,
    /// Told when there may be something to share out anew.
    pub sharing: Arc<Notify>,
    /// Counts the reasons to exchange at once what is known.
    pulse: watch::Sender<u64>,
    pub counts: Counts,
}

/// What is counted beside the members' own figures.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests and messages of somebody who does not know the secret.
    pub wrong_secret: AtomicU64,
    /// Requests of somebody who knows it and is no member.
    pub not_a_member: AtomicU64,
}

impl Cluster {
    /// One front end at `own`, which knows nobody yet.
    pub fn new(own: SocketAddr, secrets: Secrets) -> Arc<Self> {
        Arc::new(Self {
            own,
            secrets: ArcSwap::from_pointee(secrets),
            members: Mutex::new(Members::new(own, Instant::now())),
            plan: ArcSwap::default(),
            is_settled: AtomicBool::new(false),
            sharing: Arc::default(),
            pulse: watch::Sender::new(0),
            counts: Counts::default(),
        })
    }

    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// What requests go by now.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Where requests for a deployment belong; `None` as long as that is not known, or everywhere.
    pub fn home(&self, replicas: &Arc<Replicas>) -> Option<Arc<Home>> {
        self.plan.load().home(replicas).map(Arc::clone)
    }

    /// Whether requests go by `plan` still.
    pub fn goes_by(&self, plan: &Arc<Plan>) -> bool {
        Arc::ptr_eq(&self.plan.load(), plan)
    }

    pub fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn secrets(&self) -> Arc<Secrets> {
        self.secrets.load_full()
    }

    /// From now on the front ends know each other by these.
    pub fn set_secrets(&self, secrets: Secrets) {
        if **self.secrets.load() != secrets {
            self.secrets.store(Arc::new(secrets));
            self.news();
        }
    }

    /// These are the front ends by what was configured or looked up.
    pub fn set_named(&self, named: BTreeSet<SocketAddr>) {
        let is_other = self.members().set_named(named);
        if is_other {
            self.news();
        }
    }

    /// Gives up what it has, because it is going to stop.
    pub fn leave(&self) {
        self.members().set_leaving();
        self.news();
    }

    /// Notes that `member` could not be reached, so that it is looked for at once.
    pub fn suspect(&self, member: SocketAddr) {
        self.members().suspect(member);
        self.exchange_now();
    }

    /// Takes in what another one said of itself; false if it is older than what is known.
    pub fn hear(&self, state: State, is_answer: bool) -> bool {
        let mut members = self.members();
        let heard = members.hear(state, is_answer, Instant::now());
        drop(members);
        if heard.is_news {
            self.news();
        }
        heard.is_taken
    }

    /// There may be something to share out anew, and to tell.
    pub(crate) fn news(&self) {
        self.sharing.notify_one();
        self.exchange_now();
    }

    /// Has everybody told what is known, and asked.
    pub fn exchange_now(&self) {
        self.pulse.send_modify(|pulse| *pulse += 1);
    }

    pub(crate) fn pulses(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// Makes `plan` what requests go by.
    pub fn apply(&self, plan: Plan) {
        self.plan.store(Arc::new(plan));
    }

    /// Whether every slot that is to be this front end's is, and all agree.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Relaxed)
    }

    pub fn set_settled(&self, is_settled: bool) {
        self.is_settled.store(is_settled, Relaxed);
    }

    /// What is to be shared out by; `None` as long as it is not known who the others are. Without a secret none could be
    /// found out about, and each would take itself for the only one.
    pub fn roster(&self, now: Instant) -> Option<Roster> {
        let is_blind = self.secrets.load().is_empty() && self.plan.load().members.is_empty();
        if is_blind { None } else { self.members().roster(now) }
    }

    /// Whether it knows who the others are, so that it may take requests.
    pub fn is_ready(&self) -> bool {
        !self.plan.load().members.is_empty()
    }
}
