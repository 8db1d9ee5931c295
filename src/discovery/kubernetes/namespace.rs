//! What is known of all Services of one namespace, by the slices of their endpoints: one watch, and as many who want to
//! know of one of the Services as there are deployments.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use super::endpoints::{Found, Slice, Which, merge};
use super::object::EndpointSlice;
use super::standing::WatchStanding;
use super::watch::Heard;
use crate::config::{KubernetesName, KubernetesTarget};

/// The label that says whose slice it is.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Endpoints of one namespace, counted in each slice they stand in: more pods than Kubernetes is made for, of both
/// families. What is more is left out.
const MAX_ENDPOINTS: usize = 400_000;

/// See the module.
pub struct Namespace {
    standing: Arc<WatchStanding>,
    /// Absent until all were listed once.
    known: Option<Slices>,
    /// What is listed anew, until it is complete.
    listed: Slices,
    followers: HashMap<Box<str>, watch::Sender<()>>,
    was_full: bool,
}

/// Slices by their name, and which of them a Service has.
#[derive(Default)]
struct Slices {
    by_name: HashMap<Rc<str>, (Rc<str>, Slice)>,
    of_service: HashMap<Rc<str>, BTreeSet<Rc<str>>>,
    endpoints: usize,
}

impl Namespace {
    pub fn new(standing: Arc<WatchStanding>) -> Self {
        let (known, listed, followers) = (None, Slices::default(), HashMap::new());
        Self { standing, known, listed, followers, was_full: false }
    }

    pub fn hear(&mut self, heard: Heard<EndpointSlice>) {
        match heard {
            Heard::Begin => self.listed = Slices::default(),
            Heard::Listed(slice) => {
                let is_taken = self.listed.set(slice, &mut Vec::new());
                self.note_full(is_taken);
            }
            Heard::End => self.take_listed(),
            Heard::Set(slice) => self.change(|known, changed| known.set(slice, changed)),
            Heard::Gone(slice) => self.change(|known, changed| {
                known.remove(&slice.metadata.name, changed);
                true
            }),
        }
        let known = self.known.as_ref().map_or(0, |known| known.by_name.len());
        self.standing.set_objects(known);
    }

    /// The endpoints of `target`, which is in this namespace; `None` as long as nothing is known.
    pub fn found(&self, target: &KubernetesTarget, which: Which) -> Option<Found> {
        let known = self.known.as_ref()?;
        let names = known.of_service.get(target.service.as_str()).into_iter().flatten();
        let slices = names.filter_map(|name| known.by_name.get(name)).map(|(_, slice)| slice);
        Some(merge(slices, &target.port, which))
    }

    fn change(&mut self, change: impl FnOnce(&mut Slices, &mut Vec<Rc<str>>) -> bool) {
        let Some(known) = &mut self.known else { return };
        let mut changed = Vec::new();
        let is_taken = change(known, &mut changed);
        self.note_full(is_taken);
        for service in changed {
            self.tell(&service);
        }
    }

    /// What was listed takes the place of what was known, and who follows a Service that is another one now is told.
    fn take_listed(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let before = self.known.replace(listed);
        let known = self.known.as_ref();
        let differs = |service: &str| match (&before, known) {
            (Some(before), Some(known)) => !known.has_same(before, service),
            _ => true,
        };
        let told: Vec<_> = self.followers.keys().filter(|service| differs(service)).cloned().collect();
        for service in told {
            self.tell(&service);
        }
    }

    fn tell(&self, service: &str) {
        if let Some(follower) = self.followers.get(service) {
            follower.send_replace(());
        }
    }

    fn note_full(&mut self, is_taken: bool) {
        if !is_taken && !self.was_full {
            self.was_full = true;
            let namespace = &self.standing.namespace;
            tracing::warn!(%namespace, "Kubernetes has more than {MAX_ENDPOINTS} endpoints there; some are left out");
        }
    }
}

impl Slices {
    /// Takes `slice` in place of the one of its name, and adds the Services that it is or was of to `changed`. False if
    /// there is no room for it.
    fn set(&mut self, slice: EndpointSlice, changed: &mut Vec<Rc<str>>) -> bool {
        let name = slice.metadata.name.as_str();
        let Some(service) = slice.metadata.label(SERVICE_NAME) else {
            // Somebody's own, or not that of the Service any more.
            self.remove(name, changed);
            return true;
        };
        let (name, service): (Rc<str>, Rc<str>) = (name.into(), service.into());
        let slice = Slice::of(slice);
        if self.by_name.get(&name).is_some_and(|(of, known)| *of == service && *known == slice) {
            return true;
        }
        self.remove(&name, changed);
        if self.endpoints + slice.endpoints.len() > MAX_ENDPOINTS {
            return false;
        }
        self.endpoints += slice.endpoints.len();
        let service = self.of_service.get_key_value(&service).map_or(service, |(known, _)| Rc::clone(known));
        self.of_service.entry(Rc::clone(&service)).or_default().insert(Rc::clone(&name));
        changed.push(Rc::clone(&service));
        self.by_name.insert(name, (service, slice));
        true
    }

    fn remove(&mut self, name: &str, changed: &mut Vec<Rc<str>>) {
        let Some((service, slice)) = self.by_name.remove(name) else { return };
        self.endpoints -= slice.endpoints.len();
        if let Some(names) = self.of_service.get_mut(&service) {
            names.remove(name);
            if names.is_empty() {
                self.of_service.remove(&service);
            }
        }
        changed.push(service);
    }

    /// Whether a Service has the same slices in both.
    fn has_same(&self, other: &Self, service: &str) -> bool {
        let names = |slices: &Self| slices.of_service.get(service).cloned().unwrap_or_default();
        let slice = |slices: &Self, name: &str| slices.by_name.get(name).map(|(_, slice)| slice.clone());
        let names_here = names(self);
        names_here == names(other) && names_here.iter().all(|name| slice(self, name) == slice(other, name))
    }
}

/// Somebody who wants to know of one Service.
pub struct Follower {
    namespace: Rc<RefCell<Namespace>>,
    service: Box<str>,
    changes: watch::Receiver<()>,
}

impl Follower {
    pub fn new(namespace: Rc<RefCell<Namespace>>, service: &KubernetesName) -> Self {
        let service: Box<str> = service.as_str().into();
        let new = || watch::channel(()).0;
        let changes = namespace.borrow_mut().followers.entry(service.clone()).or_insert_with(new).subscribe();
        Self { namespace, service, changes }
    }

    /// Waits until the Service may be another one.
    pub async fn changed(&mut self) {
        // The sender is there as long as this is.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut namespace = self.namespace.borrow_mut();
        // This one counts.
        if namespace.followers.get(&self.service).is_some_and(|sender| sender.receiver_count() <= 1) {
            namespace.followers.remove(&self.service);
        }
    }
}

#[cfg(test)]
mod tests;
