//! One service: who may call it ([`keys`]), and how its deployments share the traffic.
//!
//! What concerns several services, or the names they are served under, is checked by the parent.

mod keys;

use std::collections::{HashMap, HashSet};

use super::choice::{choose, resolve_care};
use super::kubernetes::target as kubernetes_target;
use crate::config::diagnostic::{Diagnostics, Location, nearest};
use crate::config::file::{RawCare, RawDeployment, RawMirror, RawService, RawServiceSettings, RawTarget};
use crate::config::protocol::{Paths, Protocol};
use crate::config::table::{Field, Located};
use crate::config::value::ReplicaAddress;
use crate::config::{Auth, Deployment, Mirror, Replica, Service, Source, StickyBy, defaults};

/// All of the traffic, in percent.
const ALL: u8 = 100;

const ADD_REPLICAS: &str = "add replicas = [\"http://host:port\"]";

const ADD_SOURCE: &str =
    "add replicas = [\"http://host:port\"], dns = \"host:port\", or kubernetes = { service = \"…\", port = 5001 }";

/// Turns `raw` into a service, or `None` if it lacks what has no stand-in.
pub fn resolve(raw: &RawService, defaults: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Option<Service> {
    let auth = keys::resolve_auth(raw, defaults, diagnostics);
    check_sticky_by(raw, auth.as_ref(), diagnostics);
    let limits = keys::resolve_limits(&raw.limits, diagnostics);
    let deployments = resolve_deployments(raw, &defaults.care, diagnostics);
    let mirror = raw.mirror.given().and_then(|mirror| resolve_mirror(raw, mirror, diagnostics));
    let cnames = raw.cnames.given().map(|given| given.value.iter().map(|cname| cname.value.clone()).collect());
    let settings = &raw.settings;
    Some(Service {
        name: raw.name.as_ref()?.value.clone(),
        at: raw.name.as_ref()?.at.clone(),
        written: raw.written.clone(),
        from_kubernetes: None,
        created_at: raw.created_at.given().map(|given| given.value),
        cnames: cnames.unwrap_or_default(),
        auth: auth?,
        scoring_timeout: choose([&settings.scoring_timeout, &defaults.scoring_timeout], defaults::SCORING_TIMEOUT),
        max_body: choose([&settings.max_body, &defaults.max_body], defaults::MAX_BODY),
        error_format: choose([&settings.error_format, &defaults.error_format], defaults::ERROR_FORMAT),
        max_queue_wait: choose([&settings.max_queue_wait, &defaults.max_queue_wait], defaults::MAX_QUEUE_WAIT),
        max_queue: choose([&settings.max_queue, &defaults.max_queue], defaults::MAX_QUEUE),
        limits,
        sticky_by: raw.sticky_by.given().map(|given| given.value.clone()),
        mirror,
        deployments,
    })
}

fn check_sticky_by(raw: &RawService, auth: Option<&Auth>, diagnostics: &mut Diagnostics) {
    let Some(Located { value, at }) = raw.sticky_by.given() else { return };
    if let (StickyBy::Key, Some(Auth::Open)) = (value, auth) {
        let message = format!("`sticky_by`: {} takes calls without a key, so there is none to go by", label(raw));
        diagnostics.error_with(at.clone(), message, "write \"address\" or \"header:<name>\", or set auth = true");
    } else if is_one_deployment(raw) {
        let message = format!("`sticky_by` has no effect: {} has one deployment, which gets all calls", label(raw));
        diagnostics.warning_with(at.clone(), message, "delete it, or add [[service.deployment]] tables to choose from");
    }
}

/// Whether there is one for certain: what could not be read may be more.
fn is_one_deployment(raw: &RawService) -> bool {
    match &raw.deployments {
        Field::Given(deployments) => deployments.value.len() == 1,
        Field::Absent => sources(&raw.target).next().is_some(),
        Field::Invalid => false,
    }
}

fn resolve_mirror(raw: &RawService, mirror: &Located<RawMirror>, diagnostics: &mut Diagnostics) -> Option<Mirror> {
    match &raw.deployments {
        Field::Given(deployments) => check_mirrored(raw, &mirror.value, &deployments.value, diagnostics),
        Field::Absent => {
            let message = format!("`mirror`: {} has no [[service.deployment]] to mirror to", label(raw));
            let remedy = "give it [[service.deployment]] tables, the one that is mirrored to with traffic = 0";
            diagnostics.error_with(mirror.at.clone(), message, remedy);
        }
        Field::Invalid => {}
    }
    let RawMirror { deployment, percent } = &mirror.value;
    Some(Mirror { deployment: deployment.as_ref()?.value.as_str().to_owned(), percent: percent.as_ref()?.value })
}

fn check_mirrored(
    service: &RawService,
    mirror: &RawMirror,
    deployments: &[RawDeployment],
    diagnostics: &mut Diagnostics,
) {
    let names: Option<Vec<_>> =
        deployments.iter().map(|raw| raw.name.as_ref().map(|name| name.value.as_str())).collect();
    let (Some(Located { value: wanted, at }), Some(names)) = (&mirror.deployment, names) else {
        return;
    };
    let wanted = wanted.as_str();
    let Some(mirrored) = names.iter().position(|name| *name == wanted).and_then(|index| deployments.get(index)) else {
        let message = format!("`mirror`: {} has no deployment `{wanted}`", label(service));
        let remedy = match nearest(wanted, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add a [[service.deployment]] of that name with traffic = 0".to_owned(),
        };
        diagnostics.error_with(at.clone(), message, remedy);
        return;
    };
    let traffic = match &mirrored.traffic {
        Field::Given(traffic) => traffic.value,
        Field::Absent if deployments.len() == 1 => ALL,
        // Reported as missing, or as wrong.
        Field::Absent | Field::Invalid => return,
    };
    if traffic > 0 {
        let message = format!(
            "`mirror`: deployment `{wanted}` has {traffic} % of the traffic: it is live or mirrored to, not both"
        );
        diagnostics.error_with(at.clone(), message, "mirror to a deployment with traffic = 0");
    }
}

fn resolve_deployments(raw: &RawService, common: &RawCare, diagnostics: &mut Diagnostics) -> Vec<Deployment> {
    match &raw.deployments {
        Field::Given(deployments) => {
            refuse_short_form(raw, diagnostics);
            resolve_written_deployments(raw, &deployments.value, common, diagnostics)
        }
        Field::Invalid => Vec::new(),
        Field::Absent if has_no_source(&raw.target) => {
            let message = format!("{} has no replicas", label(raw));
            let remedy = format!("{ADD_SOURCE}, or [[service.deployment]] tables");
            diagnostics.error_with(raw.at.clone(), message, remedy);
            Vec::new()
        }
        Field::Absent => {
            let (paths, source) = resolve_target(raw, &raw.target, &raw.at, diagnostics);
            let (max_concurrent_requests, health) = resolve_care([&raw.settings.care, common]);
            let name = defaults::DEPLOYMENT_NAME.to_owned();
            vec![Deployment { name, traffic: ALL, paths, max_concurrent_requests, health, source }]
        }
    }
}

fn refuse_short_form(raw: &RawService, diagnostics: &mut Diagnostics) {
    let RawTarget { protocol, path, health_path, model, replicas, dns, kubernetes } = &raw.target;
    let given = [
        ("protocol", protocol.given().map(|given| &given.at)),
        ("path", path.given().map(|given| &given.at)),
        ("health_path", health_path.given().map(|given| &given.at)),
        ("model", model.given().map(|given| &given.at)),
        ("replicas", replicas.given().map(|given| &given.at)),
        ("dns", dns.given().map(|given| &given.at)),
        ("kubernetes", kubernetes.given().map(|given| &given.at)),
    ];
    for (key, at) in given {
        if let Some(at) = at {
            let message = format!("{} has both `{key}` and [[service.deployment]]", label(raw));
            let remedy = format!("move `{key}` into the [[service.deployment]] it is meant for");
            diagnostics.error_with(at.clone(), message, remedy);
        }
    }
}

fn resolve_written_deployments(
    service: &RawService,
    deployments: &[RawDeployment],
    common: &RawCare,
    diagnostics: &mut Diagnostics,
) -> Vec<Deployment> {
    check_shares(service, deployments, diagnostics);
    let mut seen: HashMap<&str, &Location> = HashMap::new();
    let mut resolved = Vec::new();
    for raw in deployments {
        let (paths, source) = resolve_target(service, &raw.target, &raw.at, diagnostics);
        let Some(Located { value: name, at }) = &raw.name else {
            continue;
        };
        let first = *seen.entry(name.as_str()).or_insert(at);
        if first != at {
            let message = format!("{} has a deployment `{}` already, at {first}", label(service), name.as_str());
            diagnostics.error_with(at.clone(), message, "rename or delete one of the two");
        }
        let traffic = raw.traffic.given().map_or(ALL, |traffic| traffic.value);
        let (max_concurrent_requests, health) = resolve_care([&raw.care, &service.settings.care, common]);
        let name = name.as_str().to_owned();
        resolved.push(Deployment { name, traffic, paths, max_concurrent_requests, health, source });
    }
    resolved
}

fn check_shares(service: &RawService, deployments: &[RawDeployment], diagnostics: &mut Diagnostics) {
    if deployments.is_empty() {
        let message = format!("{} has an empty list of deployments", label(service));
        diagnostics.error_with(service.at.clone(), message, "add a [[service.deployment]] table");
        return;
    }
    if deployments.len() > 1 {
        for raw in deployments.iter().filter(|raw| raw.traffic.is_absent()) {
            let message = format!("`traffic` is missing: {} has {} deployments", label(service), deployments.len());
            diagnostics.error_with(raw.at.clone(), message, "give each its percentage; they add up to 100");
        }
    }
    let shares: Option<Vec<_>> = deployments.iter().map(|raw| raw.traffic.given()).collect();
    let Some(shares) = shares else {
        return;
    };
    let sum: u32 = shares.iter().map(|share| u32::from(share.value)).sum();
    if let Some(first) = shares.first()
        && sum != 100
    {
        let message = format!("the traffic shares of {} add up to {sum}, not 100", label(service));
        let remedy = match shares.len() {
            1 => "delete `traffic`: a single deployment takes all".to_owned(),
            _ if sum < 100 => format!("give {} more", 100 - sum),
            _ => format!("take {} away", sum - 100),
        };
        diagnostics.error_with(first.at.clone(), message, remedy);
    }
}

/// `at` is where the table begins that `raw` stands in.
fn resolve_target(
    service: &RawService,
    raw: &RawTarget,
    at: &Location,
    diagnostics: &mut Diagnostics,
) -> (Paths, Source) {
    let protocol = raw.protocol.given().map_or(Protocol::AzureMl, |protocol| protocol.value);
    if let Some(Located { at, .. }) = raw.model.given()
        && !protocol.names_the_model()
        && !matches!(raw.protocol, Field::Invalid)
    {
        let message = "`model` has no effect: no path of this protocol names the model";
        diagnostics.warning_with(at.clone(), message, "delete it, or set the `protocol` it is for");
    }
    let service_name = service.name.as_ref().map_or("", |name| name.value.as_str());
    let model = raw.model.given().map_or(service_name, |model| &model.value);
    let preset = protocol.paths(model);
    let paths = Paths {
        score: raw.path.given().map_or(preset.score, |path| path.value.clone()),
        health: raw.health_path.given().map_or(preset.health, |path| path.value.clone()),
        swagger: preset.swagger,
    };
    (paths, resolve_source(raw, at, diagnostics))
}

/// What says which replicas there are, by key, as far as it is sound.
fn sources(raw: &RawTarget) -> impl Iterator<Item = (&'static str, &Location)> {
    let RawTarget { replicas, dns, kubernetes, .. } = raw;
    [
        ("replicas", replicas.given().map(|given| &given.at)),
        ("dns", dns.given().map(|given| &given.at)),
        ("kubernetes", kubernetes.given().map(|given| &given.at)),
    ]
    .into_iter()
    .filter_map(|(key, at)| Some((key, at?)))
}

fn has_no_source(raw: &RawTarget) -> bool {
    raw.replicas.is_absent() && raw.dns.is_absent() && raw.kubernetes.is_absent()
}

fn resolve_source(raw: &RawTarget, at: &Location, diagnostics: &mut Diagnostics) -> Source {
    let none = Source::Static(Vec::new());
    if has_no_source(raw) {
        let message = "neither `replicas` nor `dns` nor `kubernetes` is in [[service.deployment]]";
        diagnostics.error_with(at.clone(), message, ADD_SOURCE);
        return none;
    }
    let mut given = sources(raw);
    if let (Some((first, _)), Some((second, at))) = (given.next(), given.next()) {
        let message = format!("`{second}` stands beside `{first}`: one alone says which replicas there are");
        diagnostics.error_with(at.clone(), message, "delete one of the two");
        return none;
    }
    if let Some(replicas) = raw.replicas.given() {
        return Source::Static(resolve_replicas(replicas, diagnostics));
    }
    if let Some(Located { value: target, at }) = raw.dns.given() {
        return Source::Dns { target: target.clone(), at: at.clone() };
    }
    let kubernetes =
        raw.kubernetes.given().and_then(|given| Some((kubernetes_target(&given.value)?, given.at.clone())));
    kubernetes.map_or(none, |(target, at)| Source::Kubernetes { target, at })
}

fn resolve_replicas(replicas: &Located<Vec<Located<ReplicaAddress>>>, diagnostics: &mut Diagnostics) -> Vec<Replica> {
    if replicas.value.is_empty() {
        let message = "`replicas`: expected at least one address, found an empty list";
        diagnostics.error_with(replicas.at.clone(), message, ADD_REPLICAS);
    }
    let mut seen: HashSet<&ReplicaAddress> = HashSet::new();
    for Located { value: address, at } in &replicas.value {
        if !seen.insert(address) {
            diagnostics.error_with(at.clone(), format!("replica `{address}` is listed twice"), "delete one of the two");
        }
    }
    replicas.value.iter().map(|Located { value, at }| Replica { address: value.clone(), at: at.clone() }).collect()
}

/// How messages name the service.
fn label(raw: &RawService) -> String {
    match &raw.name {
        Some(name) => format!("service `{}`", name.value),
        None => "this service".to_owned(),
    }
}
