//! How things stand with Kubernetes, for others to read: what `/readyz`, `/metrics` and `env show` say of it.
//!
//! The control thread writes it, and nobody waits for anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::DnsName;

use super::error::ApiError;
use crate::config::KubernetesTarget;

/// For how long after the start Kubernetes is waited for. Who cannot reach it by then serves what can be served without.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Standing {
    started: Instant,
    /// How many watches the configuration that it began with asks for.
    expected: usize,
    /// Once true it stays so: what was heard goes on when nobody answers any more.
    is_settled: AtomicBool,
    watches: Mutex<Vec<Weak<WatchStanding>>>,
    targets: Mutex<Vec<Weak<TargetStanding>>>,
    public_address: Mutex<Option<PublicAddress>>,
}

/// What leads callers to the front end, and CNAMEs have to lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicAddress {
    Ip(IpAddr),
    /// Of a load balancer whose addresses change, so that none of them is to be kept.
    Name(DnsName<'static>),
}

impl PublicAddress {
    /// `None` if that is no name as DNS has them.
    pub(super) fn named(name: &str) -> Option<Self> {
        DnsName::try_from(name.to_owned()).ok().map(Self::Name)
    }
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name.as_ref()),
        }
    }
}

/// What is wrong with a target, although Kubernetes answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no slice of the Service.
    NoService,
    /// No slice of it has the port.
    NoPort,
}

impl Trouble {
    /// As metrics name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoService => "no_service",
            Self::NoPort => "no_port",
        }
    }
}

impl Standing {
    /// `expected`: how many watches the configuration asks for.
    pub fn new(expected: usize) -> Self {
        Self {
            started: Instant::now(),
            expected,
            is_settled: AtomicBool::new(expected == 0),
            watches: Mutex::default(),
            targets: Mutex::default(),
            public_address: Mutex::default(),
        }
    }

    /// Whether all has been said that was to be known before the first request, or will not be said for now.
    pub fn is_settled(&self) -> bool {
        let is_settled = self.is_settled.load(Relaxed)
            || self.started.elapsed() >= PATIENCE
            || self.watches().iter().filter(|watch| watch.is_settled()).count() >= self.expected;
        if is_settled {
            self.is_settled.store(true, Relaxed);
        }
        is_settled
    }

    /// Every watch there is now.
    pub fn watches(&self) -> Vec<Arc<WatchStanding>> {
        lock(&self.watches).iter().filter_map(Weak::upgrade).collect()
    }

    /// A new one. It is among [`Self::watches`] for as long as somebody holds it.
    pub(super) fn watch(&self, watch: &'static str, namespace: &str) -> Arc<WatchStanding> {
        let watch = Arc::new(WatchStanding::new(watch, namespace));
        hold(&self.watches, &watch);
        watch
    }

    /// The targets that something is wrong with.
    pub fn troubles(&self) -> BTreeMap<String, Trouble> {
        let targets = lock(&self.targets);
        let targets = targets.iter().filter_map(Weak::upgrade);
        targets.filter_map(|target| Some((target.target.clone(), (*lock(&target.trouble))?))).collect()
    }

    /// What is noted of `target` for as long as somebody holds it.
    pub(super) fn target(&self, target: &KubernetesTarget) -> Arc<TargetStanding> {
        let target = Arc::new(TargetStanding { target: target.to_string(), trouble: Mutex::default() });
        hold(&self.targets, &target);
        target
    }

    /// The address of the load balancer before the front end.
    pub fn public_address(&self) -> Option<PublicAddress> {
        lock(&self.public_address).clone()
    }

    pub fn set_public_address(&self, address: Option<PublicAddress>) {
        *lock(&self.public_address) = address;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds `one` to `all`, and takes out those that are gone before there have to be more places.
fn hold<T>(all: &Mutex<Vec<Weak<T>>>, one: &Arc<T>) {
    let mut all = lock(all);
    if all.len() == all.capacity() {
        all.retain(|one| one.strong_count() > 0);
    }
    all.push(Arc::downgrade(one));
}

/// One target.
#[derive(Debug)]
pub(super) struct TargetStanding {
    target: String,
    trouble: Mutex<Option<Trouble>>,
}

impl TargetStanding {
    /// Notes what is wrong, and gives what was before.
    pub(super) fn replace(&self, trouble: Option<Trouble>) -> Option<Trouble> {
        std::mem::replace(&mut lock(&self.trouble), trouble)
    }
}

/// One watch.
#[derive(Debug)]
pub struct WatchStanding {
    /// What is watched: `endpointslices`, `services` or `front_end_service`.
    pub watch: &'static str,
    /// Empty: the front end's own.
    pub namespace: Box<str>,
    state: AtomicU8,
    has_synced: AtomicBool,
    objects: AtomicUsize,
    lists: AtomicU64,
    /// Seconds since 1970; 0: never.
    heard_at: AtomicU64,
    errors: [AtomicU64; ApiError::REASONS.len()],
}

const WAITING: u8 = 0;
const UP: u8 = 1;
/// It is not known when somebody will answer.
const AWAY: u8 = 2;
/// The answer was one that waiting does not change.
const REFUSED: u8 = 3;

impl WatchStanding {
    fn new(watch: &'static str, namespace: &str) -> Self {
        Self {
            watch,
            namespace: namespace.into(),
            state: AtomicU8::new(WAITING),
            has_synced: AtomicBool::new(false),
            objects: AtomicUsize::new(0),
            lists: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn is_settled(&self) -> bool {
        self.has_synced.load(Relaxed) || self.state.load(Relaxed) == REFUSED
    }

    /// Whether the API answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.state.load(Relaxed) == UP
    }

    /// How many there are, as far as is known.
    pub fn objects(&self) -> usize {
        self.objects.load(Relaxed)
    }

    /// How often all of them were asked for.
    pub fn lists(&self) -> u64 {
        self.lists.load(Relaxed)
    }

    /// When what is known was last known to be so, in seconds since 1970.
    pub fn heard_at(&self) -> Option<u64> {
        Some(self.heard_at.load(Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// How often something went wrong, in the order of [`ApiError::REASONS`].
    pub fn errors(&self) -> [u64; ApiError::REASONS.len()] {
        std::array::from_fn(|reason| self.errors.get(reason).map_or(0, |count| count.load(Relaxed)))
    }

    pub(super) fn set_objects(&self, objects: usize) {
        self.objects.store(objects, Relaxed);
    }

    pub(super) fn answered(&self) {
        self.state.store(UP, Relaxed);
    }

    pub(super) fn synced(&self) {
        self.lists.fetch_add(1, Relaxed);
        self.has_synced.store(true, Relaxed);
        self.heard();
    }

    pub(super) fn heard(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.heard_at.store(now, Relaxed);
    }

    pub(super) fn count(&self, error: &ApiError) {
        if let Some(count) = self.errors.get(error.reason()) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn failed(&self, error: &ApiError) {
        self.state.store(if error.is_absence() { AWAY } else { REFUSED }, Relaxed);
    }
}
