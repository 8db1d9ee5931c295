//! Replicas by Kubernetes: the endpoints of a Service, as its `EndpointSlice`s have them; and what else its API says that
//! a front end goes by.
//!
//! A namespace is watched once, whoever wants to know of however many of its Services, and only while somebody does.
//! What was heard goes on for as long as nothing else is: that the API is away takes no replica away. But what the API
//! says is taken at once, for it says what is so: a Service without endpoints has no replicas.
//!
//! `access` has where the API is and who we are there, `watch` how it is followed, `object` what it sends, `namespace`
//! what is known, `endpoints` what follows from that, `services` what else is read, and `standing` what others are told.

mod access;
mod endpoints;
mod error;
mod namespace;
mod object;
mod services;
pub mod standing;
mod watch;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use crate::config::{self, Discovered, FrontEndService, KubernetesName, KubernetesTarget, Labelled, ReplicaAddress};
use access::Access;
use endpoints::Found;
pub use error::ApiError;
use namespace::{Follower, Namespace};
use standing::{Standing, Trouble};
use watch::{Heard, Question, Resource};

/// Addresses a target has at most, as by DNS; the highest of them are left out.
pub const MAX_ADDRESSES: usize = super::dns::MAX_ADDRESSES;

/// Services come in bursts, and all of them are made anew when one of them changes.
const BURST: Duration = Duration::from_millis(100);

/// A cluster, as somebody on this thread follows it. It asks nothing by itself.
pub struct Cluster {
    access: Rc<Access>,
    standing: Arc<Standing>,
    namespaces: RefCell<HashMap<Option<KubernetesName>, Weak<Watched>>>,
}

/// A namespace whose slices are watched, until this is dropped.
pub struct Watched {
    known: Rc<RefCell<Namespace>>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// The one that `config` names. What is found out about it by the way is noted in `standing`.
    pub fn of(config: &config::Kubernetes, standing: Arc<Standing>) -> Self {
        let access = Access::new(config.kubeconfig.as_ref().map(|file| &*file.path));
        Self { access: Rc::new(access), standing, namespaces: RefCell::default() }
    }

    /// Has the slices of `namespace` be watched for as long as what is returned is held. It has to be called within a
    /// runtime that runs tasks on this thread.
    pub fn watched(&self, namespace: Option<&KubernetesName>) -> Rc<Watched> {
        let mut namespaces = self.namespaces.borrow_mut();
        namespaces.retain(|_, watched| watched.strong_count() > 0);
        let key = namespace.cloned();
        if let Some(watched) = namespaces.get(&key).and_then(Weak::upgrade) {
            return watched;
        }
        let question = Question::endpoint_slices(namespace);
        let standing = self.standing.watch(question.watch, namespace.map_or("", KubernetesName::as_str));
        let known = Rc::new(RefCell::new(Namespace::new(Arc::clone(&standing))));
        let (access, heard) = (Rc::clone(&self.access), Rc::clone(&known));
        let follow =
            async move { watch::watch(&access, &question, &standing, |slice| heard.borrow_mut().hear(slice)).await };
        let watched = Rc::new(Watched { known, task: spawn_local(follow).abort_handle() });
        namespaces.insert(key, Rc::downgrade(&watched));
        watched
    }
}

/// Follows the replicas of `target`, for ever, and hands every set that differs from the one before to `publish`.
///
/// It is meant for the control thread, and a target that is not needed any more is dropped with the future. Nothing is
/// published before the first answer.
pub async fn follow(
    cluster: &Cluster,
    target: &KubernetesTarget,
    mut publish: impl FnMut(Vec<ReplicaAddress>),
) -> Infallible {
    let watched = cluster.watched(target.namespace.as_ref());
    let mut follower = Follower::new(Rc::clone(&watched.known), &target.service);
    let mut told = Told { standing: &cluster.standing, target, trouble: None, was_cut: false };
    let mut published: Option<BTreeSet<SocketAddr>> = None;
    loop {
        let found = watched.known.borrow().found(&target.service, &target.port);
        if let Some(mut found) = found {
            told.tell(&mut found);
            if published.as_ref() != Some(&found.addresses) {
                publish(found.addresses.iter().copied().map(ReplicaAddress::of).collect());
                published = Some(found.addresses);
            }
        }
        follower.changed().await;
    }
}

/// What the log and the metrics have of a target, as long as that is followed.
struct Told<'a> {
    standing: &'a Standing,
    target: &'a KubernetesTarget,
    trouble: Option<Trouble>,
    was_cut: bool,
}

impl Told<'_> {
    /// Says what is wrong with what was found, once, and cuts it to what may be.
    fn tell(&mut self, found: &mut Found) {
        let target = self.target;
        let was_cut = found.addresses.len() > MAX_ADDRESSES;
        while found.addresses.len() > MAX_ADDRESSES {
            found.addresses.pop_last();
        }
        if was_cut && !self.was_cut {
            tracing::warn!(kubernetes = %target, "the Service has more than {MAX_ADDRESSES} endpoints; the lowest are taken");
        }
        self.was_cut = was_cut;
        if found.trouble == self.trouble {
            return;
        }
        match found.trouble {
            None => tracing::info!(kubernetes = %target, "the Service and its port are there"),
            Some(trouble) => tracing::warn!(kubernetes = %target, "{}", explain(target, trouble, found)),
        }
        self.trouble = found.trouble;
        self.standing.note_trouble(target, found.trouble);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.trouble.is_some() {
            self.standing.note_trouble(self.target, None);
        }
    }
}

/// What is wrong, and what to do about it.
fn explain(target: &KubernetesTarget, trouble: Trouble, found: &Found) -> String {
    match trouble {
        Trouble::NoService => {
            "no EndpointSlice is of this Service: there is no such Service in the namespace, or one without \
                               a selector; correct its name"
                .to_owned()
        }
        Trouble::NoPort => {
            let ports = found.ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let ports = if ports.is_empty() { "none" } else { &ports };
            format!(
                "no pod of this Service has the port {}; write a name of the Service's ports, or a number of the pods': there are {ports}",
                target.port
            )
        }
    }
}

/// What a namespace has now.
pub struct Snapshot(Namespace);

/// All there is in `namespace`, asked once.
///
/// # Errors
///
/// See [`ApiError`].
pub async fn look_up(cluster: &Cluster, namespace: Option<&KubernetesName>) -> Result<Snapshot, ApiError> {
    let question = Question::endpoint_slices(namespace);
    let mut known = Namespace::new(cluster.standing.watch(question.watch, ""));
    watch::list(&cluster.access, &question, |slice| known.hear(Heard::Listed(slice))).await?;
    known.hear(Heard::End);
    Ok(Snapshot(known))
}

impl Snapshot {
    /// The replicas of `target`, which is in this namespace.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and the remedy.
    pub fn replicas(&self, target: &KubernetesTarget) -> Result<Vec<ReplicaAddress>, String> {
        let found = self.0.found(&target.service, &target.port).unwrap_or_default();
        match found.trouble {
            Some(trouble) => Err(explain(target, trouble, &found)),
            None => Ok(found.addresses.into_iter().take(MAX_ADDRESSES).map(ReplicaAddress::of).collect()),
        }
    }
}

/// Follows the Services that are services by their labels, for ever, and hands all of them to `publish`, by name,
/// whenever they have become others.
pub async fn follow_labelled(
    cluster: &Cluster,
    discovered: &Discovered,
    mut publish: impl FnMut(Vec<Labelled>),
) -> Infallible {
    let question = Question {
        watch: "services",
        resource: Resource::Services,
        namespace: discovered.namespace.clone(),
        labels: Some(discovered.selector.clone()),
        fields: None,
    };
    let all = RefCell::new(BTreeMap::new());
    let mut published: Option<Vec<Labelled>> = None;
    let mut told = BTreeMap::new();
    let read = |service: &object::Service| {
        let own = || cluster.access.namespace();
        let namespace = discovered.namespace.as_ref().map_or_else(own, |namespace| namespace.as_str().into());
        services::labelled(service, &namespace)
    };
    let settled = |all: &BTreeMap<_, _>| {
        let complaints = services::complaints(all);
        for (service, why) in complaints.iter().filter(|(service, why)| told.get(*service) != Some(*why)) {
            tracing::warn!(service, why, "this Service of Kubernetes is no service");
        }
        told = complaints;
        let chosen = services::choose(all);
        if published.as_ref() != Some(&chosen) {
            publish(chosen.clone());
            published = Some(chosen);
        }
    };
    follow_services(cluster, &question, &all, read, settled).await
}

/// Follows the address that leads to `service`, for ever, and hands it to `publish` whenever it has become another one.
pub async fn follow_address(
    cluster: &Cluster,
    service: &FrontEndService,
    mut publish: impl FnMut(Option<IpAddr>),
) -> Infallible {
    let question = Question {
        watch: "front_end_service",
        resource: Resource::Services,
        namespace: service.namespace.clone(),
        labels: None,
        fields: Some(format!("metadata.name={}", service.service)),
    };
    let all = RefCell::new(BTreeMap::new());
    let mut published = None;
    let settled = |all: &BTreeMap<String, Option<IpAddr>>| {
        let address = all.values().flatten().next().copied();
        if published != Some(address) {
            if address.is_none() {
                tracing::warn!(service = %service.service, "the Service of the front end has no address yet");
            }
            publish(address);
            published = Some(address);
        }
    };
    follow_services(cluster, &question, &all, services::address, settled).await
}

/// Keeps in `all` what `read` finds in each Service that `question` asks for, and hands it to `settled` whenever some of
/// them have changed and no more do for the moment.
async fn follow_services<T>(
    cluster: &Cluster,
    question: &Question,
    all: &RefCell<BTreeMap<String, T>>,
    read: impl Fn(&object::Service) -> T,
    mut settled: impl FnMut(&BTreeMap<String, T>),
) -> Infallible {
    let namespace = question.namespace.as_ref().map_or("", KubernetesName::as_str);
    let standing = cluster.standing.watch(question.watch, namespace);
    let changed = Notify::new();
    let mut listed = BTreeMap::new();
    let hear = |heard: Heard<object::Service>| {
        let mut all = all.borrow_mut();
        let is_partial = matches!(heard, Heard::Begin | Heard::Listed(_));
        match heard {
            Heard::Begin => listed.clear(),
            Heard::Listed(service) => {
                listed.insert(service.metadata.name.clone(), read(&service));
            }
            Heard::End => *all = std::mem::take(&mut listed),
            Heard::Set(service) => {
                all.insert(service.metadata.name.clone(), read(&service));
            }
            Heard::Gone(service) => {
                all.remove(&service.metadata.name);
            }
        }
        standing.set_objects(all.len());
        if !is_partial {
            changed.notify_one();
        }
    };
    let settle = async {
        loop {
            changed.notified().await;
            sleep(BURST).await;
            settled(&all.borrow());
        }
    };
    tokio::select! {
        never = watch::watch(&cluster.access, question, &standing, hear) => never,
        never = settle => never,
    }
}
