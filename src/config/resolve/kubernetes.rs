//! `[kubernetes]`: where its API is, and what is read there besides replicas and front ends; and the key `kubernetes`, which
//! names those.

use super::beside;
use super::choice::{choose, resolve_care};
use crate::config::diagnostic::Diagnostics;
use crate::config::file::{RawDiscovered, RawKubernetes, RawKubernetesTarget, RawServiceSettings};
use crate::config::protocol::Protocol;
use crate::config::table::{Field, Located};
use crate::config::value::{KeyHash, KubernetesPort, KubernetesTarget};
use crate::config::{Auth, Discovered, FrontEndService, Key, Kubernetes, defaults};

pub fn resolve(raw: RawKubernetes, common: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Kubernetes {
    let front_end_service = raw
        .front_end_service
        .value()
        .and_then(|raw| Some(FrontEndService { namespace: raw.namespace.value(), service: raw.service?.value }));
    Kubernetes {
        kubeconfig: raw.kubeconfig.given().map(beside),
        discovered: raw.discover_services.given().map(|given| resolve_discovered(given, common, diagnostics)),
        front_end_service,
    }
}

/// What a key `kubernetes` names; `None` if that could not be read.
pub(super) fn target(raw: &RawKubernetesTarget) -> Option<KubernetesTarget> {
    let RawKubernetesTarget { namespace, service, port } = raw;
    Some(KubernetesTarget {
        namespace: namespace.given().map(|given| given.value.clone()),
        service: service.as_ref()?.value.clone(),
        port: port.as_ref()?.value.clone(),
    })
}

fn resolve_discovered(
    Located { value: raw, at }: &Located<RawDiscovered>,
    common: &RawServiceSettings,
    diagnostics: &mut Diagnostics,
) -> Discovered {
    let (max_concurrent_requests, health) = resolve_care([&common.care]);
    let port = raw.port.given().map(|port| port.value.clone());
    Discovered {
        at: at.clone(),
        namespace: raw.namespace.given().map(|namespace| namespace.value.clone()),
        selector: raw
            .selector
            .given()
            .map_or_else(|| defaults::DISCOVERED_SELECTOR.to_owned(), |selector| selector.value.clone()),
        port: port.unwrap_or(KubernetesPort::Number(defaults::DISCOVERED_PORT)),
        auth: resolve_auth(raw, common, diagnostics),
        scoring_timeout: choose([&common.scoring_timeout], defaults::SCORING_TIMEOUT),
        max_body: choose([&common.max_body], defaults::MAX_BODY),
        error_format: choose([&common.error_format], defaults::ERROR_FORMAT),
        max_queue_wait: choose([&common.max_queue_wait], defaults::MAX_QUEUE_WAIT),
        max_queue: choose([&common.max_queue], defaults::MAX_QUEUE),
        paths: Protocol::AzureMl.paths(""),
        max_concurrent_requests,
        health,
    }
}

/// The keys that hold for services without keys of their own; there may be none.
fn resolve_auth(raw: &RawDiscovered, common: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Auth {
    let keys = [("primary", &raw.primary_key_sha256), ("secondary", &raw.secondary_key_sha256)];
    if choose([&common.auth], defaults::AUTH) {
        let key = |(name, hash): (&str, &Field<KeyHash>)| Some(Key::plain(name, hash.given()?.value.clone()));
        return Auth::Keys(keys.into_iter().filter_map(key).collect());
    }
    for (name, hash) in keys {
        if let Some(given) = hash.given() {
            let message = format!("`{name}_key_sha256` has no effect: [defaults] has auth = false");
            diagnostics.warning_with(given.at.clone(), message, "delete it, or set auth = true");
        }
    }
    Auth::Open
}
