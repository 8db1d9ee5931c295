//! What Services of Kubernetes say besides their endpoints: which of them are models, and which address leads to the
//! front end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::standing::PublicAddress;
use super::watch::{self, Heard, Question, Resource};
use super::{Cluster, object};
use crate::config::{Discovered, FrontEndService, Key, KeyHash, KubernetesName, Labelled, ServiceName};

/// Services come in bursts, and all of them are made anew when one of them changes.
const BURST: Duration = Duration::from_millis(100);

/// The label that says what a service is called by, where that is not the name of its Service: that of Azure Machine
/// Learning.
const NAME: &str = "webservicename";

/// The annotations that hold the SHA-256 of a service's keys.
const KEYS: [(&str, &str); 2] =
    [("primary", "scorefront/primary-key-sha256"), ("secondary", "scorefront/secondary-key-sha256")];

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
        labelled(service, &namespace)
    };
    let settled = |all: &BTreeMap<_, _>| {
        let complaints = complaints(all);
        for (service, why) in complaints.iter().filter(|(service, why)| told.get(*service) != Some(*why)) {
            tracing::warn!(service, why, "this Service of Kubernetes is no service");
        }
        told = complaints;
        let chosen = choose(all);
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
    mut publish: impl FnMut(Option<PublicAddress>),
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
    let settled = |all: &BTreeMap<String, Option<PublicAddress>>| {
        let address = all.values().flatten().next();
        if published.as_ref() != Some(&address.cloned()) {
            if address.is_none() {
                tracing::warn!(service = %service.service, "the Service of the front end has no address yet");
            }
            publish(address.cloned());
            published = Some(address.cloned());
        }
    };
    follow_services(cluster, &question, &all, address, settled).await
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

/// What leads to a Service of type `LoadBalancer`: its first IP address, or else its first name.
fn address(service: &object::Service) -> Option<PublicAddress> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    let ip = ingress.iter().find_map(|ingress| ingress.ip.as_deref()?.parse().ok()).map(PublicAddress::Ip);
    ip.or_else(|| ingress.iter().find_map(|ingress| PublicAddress::named(ingress.hostname.as_deref()?)))
}

/// The service that `service`, of `namespace`, is.
///
/// # Errors
///
/// Why it is none, for the log.
fn labelled(service: &object::Service, namespace: &str) -> Result<Labelled, String> {
    let metadata = &service.metadata;
    let name = metadata.label(NAME).unwrap_or(&metadata.name);
    let kubernetes = |name: &str| name.parse::<KubernetesName>().map_err(|problem| problem.to_string());
    let mut keys = Vec::new();
    for (key, annotation) in KEYS {
        let Some(text) = metadata.annotation(annotation) else { continue };
        // What was found is not said: it may be the key itself.
        let hash =
            text.parse::<KeyHash>().map_err(|_| format!("its annotation {annotation} is no SHA-256 of a key"))?;
        keys.push(Key::plain(key, hash));
    }
    Ok(Labelled {
        name: name.parse::<ServiceName>().map_err(|problem| problem.to_string())?,
        namespace: kubernetes(namespace)?,
        service: kubernetes(&metadata.name)?,
        keys,
        created_at: metadata.creation_timestamp.as_deref().and_then(|time| humantime::parse_rfc3339(time).ok()),
    })
}

/// Those that can be services, by name. Of two that are called the same the one whose own name comes first is.
fn choose(services: &BTreeMap<String, Result<Labelled, String>>) -> Vec<Labelled> {
    let mut chosen = BTreeMap::<&ServiceName, &Labelled>::new();
    for labelled in services.values().filter_map(|outcome| outcome.as_ref().ok()) {
        chosen.entry(&labelled.name).or_insert(labelled);
    }
    chosen.into_values().cloned().collect()
}

/// What is wrong with each of those that are none.
fn complaints(services: &BTreeMap<String, Result<Labelled, String>>) -> BTreeMap<String, String> {
    let mut complaints = BTreeMap::new();
    let mut first = BTreeMap::<&ServiceName, &str>::new();
    for (service, outcome) in services {
        match outcome {
            Err(why) => drop(complaints.insert(service.clone(), why.clone())),
            Ok(labelled) => {
                let owner = *first.entry(&labelled.name).or_insert(service);
                if owner != service {
                    complaints
                        .insert(service.clone(), format!("{owner} is called {} too, and comes first", labelled.name));
                }
            }
        }
    }
    complaints
}
