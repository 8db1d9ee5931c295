//! One service: who may call it, and how its deployments share the traffic.
//!
//! What concerns several services, or the names they are served under, is checked by the parent.

use std::collections::{HashMap, HashSet};

use crate::config::diagnostic::{Diagnostics, Location};
use crate::config::file::{RawDeployment, RawService, RawServiceSettings, RawTarget};
use crate::config::protocol::{Paths, Protocol};
use crate::config::table::{Field, Located};
use crate::config::value::{HOW_TO_HASH, ReplicaAddress};
use crate::config::{Auth, Deployment, Replica, Service, defaults};

/// Turns `raw` into a service, or `None` if it lacks what has no stand-in.
pub fn resolve(raw: &RawService, defaults: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Option<Service> {
    let auth = resolve_auth(raw, defaults, diagnostics);
    let deployments = resolve_deployments(raw, diagnostics);
    let cnames = raw.cnames.given().map(|given| given.value.iter().map(|cname| cname.value.clone()).collect());
    let settings = &raw.settings;
    Some(Service {
        name: raw.name.as_ref()?.value.clone(),
        cnames: cnames.unwrap_or_default(),
        auth: auth?,
        scoring_timeout: choose(&settings.scoring_timeout, &defaults.scoring_timeout, defaults::SCORING_TIMEOUT),
        max_body: choose(&settings.max_body, &defaults.max_body, defaults::MAX_BODY),
        error_format: choose(&settings.error_format, &defaults.error_format, defaults::ERROR_FORMAT),
        deployments,
    })
}

/// The service's own value, else that of `[defaults]`, else the built-in one.
fn choose<T: Copy>(own: &Field<T>, common: &Field<T>, built_in: T) -> T {
    own.given().or(common.given()).map_or(built_in, |given| given.value)
}

fn resolve_auth(raw: &RawService, defaults: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Option<Auth> {
    let asked = match (&raw.settings.auth, &defaults.auth) {
        (Field::Invalid, _) | (Field::Absent, Field::Invalid) => return None,
        (own, common) => choose(own, common, defaults::AUTH),
    };
    let (primary, secondary) = (&raw.primary_key_sha256, &raw.secondary_key_sha256);
    if !asked {
        for (key, field) in [("primary_key_sha256", primary), ("secondary_key_sha256", secondary)] {
            if let Some(Located { at, .. }) = field.given() {
                let message = format!("`{key}` has no effect: {} takes calls without a key", label(raw));
                diagnostics.warning_with(at.clone(), message, "delete it, or set auth = true");
            }
        }
        return Some(Auth::Open);
    }
    if primary.is_absent() {
        let message = format!("{} asks for a key and has no `primary_key_sha256`", label(raw));
        let remedy =
            format!("add the 64 digits that this prints: {HOW_TO_HASH}; or set auth = false to let everybody call it");
        diagnostics.error_with(raw.at.clone(), message, remedy);
    }
    let primary = primary.given()?;
    if let Some(secondary) = secondary.given()
        && secondary.value.as_bytes() == primary.value.as_bytes()
    {
        let message = "`secondary_key_sha256` is the same as the primary: neither can be replaced while callers use it";
        diagnostics.warning_with(secondary.at.clone(), message, "make a second key, or delete this one");
    }
    Some(Auth::Keys {
        primary: primary.value.clone(),
        secondary: secondary.given().map(|secondary| secondary.value.clone()),
    })
}

fn resolve_deployments(raw: &RawService, diagnostics: &mut Diagnostics) -> Vec<Deployment> {
    match (&raw.target.replicas, &raw.deployments) {
        (_, Field::Given(deployments)) => {
            refuse_short_form(raw, diagnostics);
            resolve_written_deployments(raw, &deployments.value, diagnostics)
        }
        (Field::Absent, Field::Absent) => {
            let message = format!("{} has no replicas", label(raw));
            let remedy = "add replicas = [\"http://host:port\"], or [[service.deployment]] tables";
            diagnostics.error_with(raw.at.clone(), message, remedy);
            Vec::new()
        }
        (_, Field::Invalid) => Vec::new(),
        (_, Field::Absent) => {
            let name = defaults::DEPLOYMENT_NAME.to_owned();
            let (paths, replicas) = resolve_target(raw, &raw.target, &raw.at, diagnostics);
            vec![Deployment { name, traffic: 100, paths, replicas }]
        }
    }
}

fn refuse_short_form(raw: &RawService, diagnostics: &mut Diagnostics) {
    let RawTarget { protocol, path, health_path, model, replicas } = &raw.target;
    let given = [
        ("protocol", protocol.given().map(|given| &given.at)),
        ("path", path.given().map(|given| &given.at)),
        ("health_path", health_path.given().map(|given| &given.at)),
        ("model", model.given().map(|given| &given.at)),
        ("replicas", replicas.given().map(|given| &given.at)),
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
    diagnostics: &mut Diagnostics,
) -> Vec<Deployment> {
    check_shares(service, deployments, diagnostics);
    let mut seen: HashMap<&str, &Location> = HashMap::new();
    let mut resolved = Vec::new();
    for raw in deployments {
        let (paths, replicas) = resolve_target(service, &raw.target, &raw.at, diagnostics);
        let Some(Located { value: name, at }) = &raw.name else {
            continue;
        };
        let first = *seen.entry(name.as_str()).or_insert(at);
        if first != at {
            let message = format!("{} has a deployment `{}` already, at {first}", label(service), name.as_str());
            diagnostics.error_with(at.clone(), message, "rename or delete one of the two");
        }
        let traffic = raw.traffic.given().map_or(100, |traffic| traffic.value);
        resolved.push(Deployment { name: name.as_str().to_owned(), traffic, paths, replicas });
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
) -> (Paths, Vec<Replica>) {
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
    (paths, resolve_replicas(raw, at, diagnostics))
}

fn resolve_replicas(raw: &RawTarget, at: &Location, diagnostics: &mut Diagnostics) -> Vec<Replica> {
    const REMEDY: &str = "add replicas = [\"http://host:port\"]";
    let replicas = match &raw.replicas {
        Field::Given(replicas) => replicas,
        Field::Invalid => return Vec::new(),
        Field::Absent => {
            diagnostics.error_with(at.clone(), "`replicas` is missing in [[service.deployment]]", REMEDY);
            return Vec::new();
        }
    };
    if replicas.value.is_empty() {
        let message = "`replicas`: expected at least one address, found an empty list";
        diagnostics.error_with(replicas.at.clone(), message, REMEDY);
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
