//! Who the front ends of the cluster are: who is named, who answers, and what each has said of itself.
//!
//! A front end is a member as long as somebody reaches it: it is named (by configuration, by name server, by another
//! member) or has introduced itself, knows the secret, and answers at its address. One that no one reaches is none; one
//! that one member alone cannot reach stays, so that all have the same view. Nothing here waits, reads a clock or sends.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shares::number;
use super::state::{self, Deployments, State};
use crate::scheduling::Replica;

/// Front ends of one cluster at most. What is beyond it is not asked, the highest addresses first.
pub const MOST_MEMBERS: usize = 100;

/// Questions in a row that one does not answer before it counts as gone. One that refuses connections is gone at once.
const FAILURES: u32 = 2;

/// How long one that introduced itself is asked, although nobody names it.
const INTRODUCED: Duration = Duration::from_secs(5);

/// How long a new front end looks for the others before it takes itself for the only one.
pub const ALONE_AFTER: Duration = Duration::from_secs(5);

/// How long others may see it otherwise before slots are taken that are one's own by one's own view. A front end with
/// another configuration, or one that cannot be reached from everywhere, must not keep a deployment from being served.
pub const GIVE_UP: Duration = Duration::from_secs(5);

/// Microseconds that lie between what one says by two clocks, not between two messages that crossed.
const ANOTHER_CLOCK: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub struct Members {
    own: SocketAddr,
    began: Instant,
    leaving: bool,
    /// Absent: nobody has said yet.
    named: Option<BTreeSet<SocketAddr>>,
    others: BTreeMap<SocketAddr, Other>,
    applied: Applied,
    /// When this one said something last.
    said_at: u64,
}

/// Another front end, or what may be one.
#[derive(Debug, Default)]
struct Other {
    /// What it said last.
    state: Option<State>,
    deployments: Arc<Deployments>,
    /// The number of those, as it gave it.
    digest: u64,
    /// Whether it answered when it was asked last, or failed fewer than [`FAILURES`] times since.
    answers: bool,
    failures: u32,
    /// Whether it was ever asked to the end.
    was_asked: bool,
    introduced: Option<Instant>,
}

/// How far this front end has shared out.
#[derive(Debug, Default)]
pub struct Applied {
    /// By [`view_number`]; 0: not at all.
    pub view: u64,
    pub deployments: Arc<Deployments>,
    pub digest: u64,
    pub epoch: u64,
    /// The digests of the others by which it was.
    pub heard: BTreeMap<SocketAddr, u64>,
    /// Replicas that had more requests than are one's share by now.
    pub draining: Vec<(u64, Arc<Replica>)>,
}

/// What is to be shared out by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The members, in order, each with the deployments it has; oneself has all.
    pub members: BTreeMap<SocketAddr, Arc<Deployments>>,
    /// The numbers of the others' deployments, also of those who leave.
    pub heard: BTreeMap<SocketAddr, u64>,
}

/// What came of hearing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// It was newer than what was known.
    pub is_taken: bool,
    /// It changes something.
    pub is_news: bool,
}

/// How it is with one member, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub address: SocketAddr,
    pub answers: bool,
    pub leaving: bool,
    /// Whether it sees the same members as this one.
    pub agrees: bool,
}

impl Members {
    pub fn new(own: SocketAddr, now: Instant) -> Self {
        Self {
            own,
            began: now,
            leaving: false,
            named: None,
            others: BTreeMap::new(),
            applied: Applied::default(),
            said_at: 0,
        }
    }

    /// Whether that is other than before.
    pub fn set_named(&mut self, named: BTreeSet<SocketAddr>) -> bool {
        let named = Some(named.into_iter().take(MOST_MEMBERS).collect());
        let is_other = self.named != named;
        self.named = named;
        self.follow(None);
        is_other
    }

    pub fn set_leaving(&mut self) {
        self.leaving = true;
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Those to ask.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        self.others.keys().copied().collect()
    }

    /// Whether `address` is that of a member, or of one that was a moment ago or will be in a moment: it may know this one
    /// before this one knows it.
    pub fn is_known(&self, address: SocketAddr) -> bool {
        self.others.contains_key(&address)
    }

    /// Takes in what another one says, in answer to a question or asking one itself.
    pub fn hear(&mut self, mut state: State, is_answer: bool, now: Instant) -> Heard {
        let nothing = Heard { is_taken: false, is_news: false };
        let Some(from) = state.from.filter(|from| *from != self.own) else { return nothing };
        if !self.others.contains_key(&from) && self.others.len() >= MOST_MEMBERS {
            return nothing;
        }
        let other = self.others.entry(from).or_default();
        // An answer is to a question that was just asked, whatever clock it goes by.
        let is_old = |known: &State| known.at > state.at && !(is_answer && known.at - state.at > ANOTHER_CLOCK);
        if other.state.as_ref().is_some_and(is_old) {
            return nothing;
        }
        if !is_answer {
            other.introduced = Some(now);
        }
        if let Some(deployments) = state.deployments.take() {
            let deployments = deployments.into_iter().collect();
            if state::digest(state.epoch, &deployments) == state.digest {
                other.deployments = Arc::new(deployments);
                other.digest = state.digest;
            }
        }
        state.named.truncate(MOST_MEMBERS);
        state.reaches.truncate(MOST_MEMBERS);
        let became_reachable = is_answer && !other.answers;
        if is_answer {
            (other.answers, other.failures, other.was_asked) = (true, 0, true);
        }
        let before = other.state.replace(state);
        let is_other = other.state.as_ref().zip(before.as_ref()).is_none_or(|(now, before)| {
            let said = |state: &State| State { at: 0, deployments: None, ..state.clone() };
            said(now) != said(before)
        });
        self.follow(Some(now));
        Heard { is_taken: true, is_news: became_reachable || is_other }
    }

    /// Notes that a question found nobody (`refused`), or no answer in time; whether that changes something.
    pub fn note_failure(&mut self, address: SocketAddr, refused: bool) -> bool {
        let Some(other) = self.others.get_mut(&address) else { return false };
        let was_new = !other.was_asked;
        other.was_asked = true;
        other.failures = other.failures.saturating_add(1);
        let is_gone = other.answers && (refused || other.failures >= FAILURES);
        if is_gone {
            other.answers = false;
            tracing::warn!(member = %address, refused, "a front end of the cluster does not answer any more");
        }
        is_gone || was_new
    }

    /// Notes that a request could not be handed over: the next question decides.
    pub fn suspect(&mut self, address: SocketAddr) {
        if let Some(other) = self.others.get_mut(&address) {
            other.failures = other.failures.max(FAILURES - 1);
        }
    }

    /// Keeps those that are named by anybody who is a member, or have introduced themselves lately.
    fn follow(&mut self, now: Option<Instant>) {
        let mut candidates: BTreeSet<_> = self.named.iter().flatten().copied().collect();
        for other in self.others.values().filter(|other| other.answers) {
            candidates.extend(other.state.iter().flat_map(|state| &state.named));
        }
        candidates.remove(&self.own);
        let is_kept = |address: &SocketAddr, other: &Other| {
            let is_introduced = other.introduced.zip(now).is_some_and(|(then, now)| now - then < INTRODUCED);
            candidates.contains(address) || is_introduced || (now.is_none() && other.introduced.is_some())
        };
        self.others.retain(|address, other| is_kept(address, other));
        for address in candidates.into_iter().take(MOST_MEMBERS) {
            if self.others.len() < MOST_MEMBERS {
                self.others.entry(address).or_default();
            }
        }
    }

    /// Those who are there, and whether each of them leaves.
    fn present(&self) -> BTreeMap<SocketAddr, bool> {
        let answering = || self.others.iter().filter(|(_, other)| other.answers);
        let mut present: BTreeMap<_, _> = BTreeMap::from([(self.own, self.leaving)]);
        for (address, other) in &self.others {
            let Some(state) = &other.state else { continue };
            let is_reached = |(by, other): (&SocketAddr, &Other)| {
                by != address && other.state.as_ref().is_some_and(|state| state.reaches.contains(address))
            };
            if other.answers || answering().any(is_reached) {
                present.insert(*address, state.leaving);
            }
        }
        present
    }

    /// What is to be shared out by; `None` as long as it is not known who the others are.
    pub fn roster(&self, now: Instant) -> Option<Roster> {
        if !self.is_ready(now) {
            return None;
        }
        let present = self.present();
        // If all leave at once, they go on as they are until each of them is gone.
        let do_all_leave = present.values().all(|leaving| *leaving);
        let members = present.iter().filter(|(_, leaving)| do_all_leave || !**leaving).map(|(address, _)| {
            let deployments = self.others.get(address).map(|other| Arc::clone(&other.deployments));
            (*address, deployments.unwrap_or_default())
        });
        let heard = present.keys().filter_map(|address| Some((*address, self.others.get(address)?.digest)));
        Some(Roster { members: members.collect(), heard: heard.collect() })
    }

    /// Whether it is known who the others are: all that are named were asked, or there was time enough to. Whoever names the
    /// others and not this one has not heard of it yet, and may not have heard of others that are as new.
    pub fn is_ready(&self, now: Instant) -> bool {
        let is_named = || self.named.as_ref().is_some_and(|named| named.contains(&self.own));
        self.applied.view != 0
            || now.saturating_duration_since(self.began) >= ALONE_AFTER
            || (is_named() && self.others.values().all(|other| other.was_asked))
    }

    /// Notes how far this one has shared out.
    pub fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// Whether everybody present has shared out by the same members and deployments as this one; `owners` is the number of
    /// one makes of the deployment `key`.
    pub fn agree_on(&self, key: u64, owners: u64) -> bool {
        self.present().keys().filter(|address| **address != self.own).all(|address| {
            self.others.get(address).is_some_and(|other| {
                // Each by what the other one has now.
                let agrees = |state: &State| {
                    let ours = self.applied.heard.get(address);
                    state.view == self.applied.view && state.heard == self.applied.digest && ours == Some(&state.digest)
                };
                other.state.as_ref().is_some_and(agrees)
                    && other.deployments.get(&key).is_none_or(|theirs| *theirs == owners)
            })
        })
    }

    /// The replicas that somebody present still has more requests with than are its share.
    pub fn busy_elsewhere(&self) -> HashSet<u64> {
        let present = self.present();
        let others = self.others.iter().filter(|(address, _)| present.contains_key(address));
        others.filter_map(|(_, other)| other.state.as_ref()).flat_map(|state| state.busy.iter().copied()).collect()
    }

    /// Whether everybody present has shared out by the same members as this one.
    pub fn do_agree(&self) -> bool {
        let view = self.applied.view;
        self.standing().iter().filter(|other| other.answers).all(|other| other.agrees) && view != 0
    }

    /// What there is to tell `to`. `at` is the time in microseconds since 1970.
    pub fn state_for(&mut self, to: SocketAddr, at: u64) -> State {
        self.said_at = at.max(self.said_at + 1);
        let other = self.others.get(&to);
        let knows_us =
            other.and_then(|other| other.state.as_ref()).is_some_and(|state| state.heard == self.applied.digest);
        let Applied { view, deployments, digest, epoch, heard, draining } = &self.applied;
        let list = || deployments.iter().map(|(key, owners)| (*key, *owners)).collect();
        let busy = draining.iter().filter(|(_, replica)| replica.in_flight() > replica.limit());
        State {
            from: Some(self.own),
            at: self.said_at,
            leaving: self.leaving,
            named: self.named.iter().flatten().copied().collect(),
            reaches: self.others.iter().filter(|(_, other)| other.answers).map(|(address, _)| *address).collect(),
            view: *view,
            digest: *digest,
            epoch: *epoch,
            heard: heard.get(&to).copied().unwrap_or_default(),
            deployments: (!knows_us).then(list),
            busy: busy.map(|(key, _)| *key).collect(),
        }
    }

    /// How it is with each of the others.
    pub fn standing(&self) -> Vec<Standing> {
        let standing = self.others.iter().filter_map(|(address, other)| {
            let state = other.state.as_ref()?;
            let agrees = state.view == self.applied.view;
            Some(Standing { address: *address, answers: other.answers, leaving: state.leaving, agrees })
        });
        standing.collect()
    }
}

/// A number made of members, never 0.
pub fn view_number(members: impl Iterator<Item = SocketAddr>) -> u64 {
    let members: Vec<_> = members.map(|member| member.to_string()).collect();
    number(&["view", &members.join("\n")]).max(1)
}
