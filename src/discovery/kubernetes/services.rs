//! What Services of Kubernetes say besides their endpoints: which of them are models, and which address leads to the
//! front end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::{Key, KeyHash, KubernetesName, Labelled, ServiceName};

use super::object;

/// The label that says what a service is called by, where that is not the name of its Service: that of Azure Machine
/// Learning.
const NAME: &str = "webservicename";

/// The annotations that hold the SHA-256 of a service's keys.
const KEYS: [(&str, &str); 2] =
    [("primary", "scorefront/primary-key-sha256"), ("secondary", "scorefront/secondary-key-sha256")];

/// The address that leads to a Service of type `LoadBalancer`: the first one that is no name.
pub fn address(service: &object::Service) -> Option<IpAddr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

/// The service that `service`, of `namespace`, is.
///
/// # Errors
///
/// Why it is none, for the log.
pub fn labelled(service: &object::Service, namespace: &str) -> Result<Labelled, String> {
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
pub fn choose(services: &BTreeMap<String, Result<Labelled, String>>) -> Vec<Labelled> {
    let mut chosen = BTreeMap::<&ServiceName, &Labelled>::new();
    for labelled in services.values().filter_map(|outcome| outcome.as_ref().ok()) {
        chosen.entry(&labelled.name).or_insert(labelled);
    }
    chosen.into_values().cloned().collect()
}

/// What is wrong with each of those that are none.
pub fn complaints(services: &BTreeMap<String, Result<Labelled, String>>) -> BTreeMap<String, String> {
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
