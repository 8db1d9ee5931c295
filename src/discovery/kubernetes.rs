//! Replicas and front ends by Kubernetes: the endpoints of a Service, as its `EndpointSlice`s have them; and what else its
//! API says that a front end goes by.
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
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::task::{AbortHandle, spawn_local};

use crate::config::{self, KubernetesName, KubernetesTarget, ReplicaAddress};
use access::Access;
use endpoints::Found;
pub use endpoints::{Family, Which};
pub use error::ApiError;
use namespace::{Follower, Namespace};
pub use services::{follow_address, follow_labelled};
use standing::{Standing, TargetStanding, Trouble};
use watch::{Heard, Question};

/// Addresses a target has at most, as by DNS; the highest of them are left out.
pub const MAX_ADDRESSES: usize = super::dns::MAX_ADDRESSES;

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

/// Follows those endpoints of `target` that are meant, for ever, and hands every set that differs from the one before to
/// `publish`.
///
/// It is meant for the control thread, and a target that is not needed any more is dropped with the future. Nothing is
/// published before the first answer.
pub async fn follow(
    cluster: &Cluster,
    target: &KubernetesTarget,
    which: Which,
    mut publish: impl FnMut(Vec<ReplicaAddress>),
) -> Infallible {
    let watched = cluster.watched(target.namespace.as_ref());
    let mut follower = Follower::new(Rc::clone(&watched.known), &target.service);
    let mut told = Told { target, standing: cluster.standing.target(target), was_cut: false };
    let mut published: Option<BTreeSet<SocketAddr>> = None;
    loop {
        let found = watched.known.borrow().found(target, which);
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
    target: &'a KubernetesTarget,
    standing: Arc<TargetStanding>,
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
        if self.standing.replace(found.trouble) == found.trouble {
            return;
        }
        match found.trouble {
            None => tracing::info!(kubernetes = %target, "the Service and its port are there"),
            Some(trouble) => tracing::warn!(kubernetes = %target, "{}", explain(target, trouble, found)),
        }
    }
}

/// What is wrong, and what to do about it.
fn explain(target: &KubernetesTarget, trouble: Trouble, found: &Found) -> String {
    match trouble {
        Trouble::NoService => {
            "no EndpointSlice is of this Service: there is no such Service in the namespace, or one without a selector; \
             correct its name"
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
    /// Those endpoints of `target`, which is in this namespace, that are meant.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and the remedy.
    pub fn endpoints(&self, target: &KubernetesTarget, which: Which) -> Result<Vec<ReplicaAddress>, String> {
        let found = self.0.found(target, which).unwrap_or_default();
        match found.trouble {
            Some(trouble) => Err(explain(target, trouble, &found)),
            None => Ok(found.addresses.into_iter().take(MAX_ADDRESSES).map(ReplicaAddress::of).collect()),
        }
    }
}
