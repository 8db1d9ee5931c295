//! From what is set and a patch in JSON to what is to be set.

use serde_json::{Map, Value as Json};

use super::super::answer::wrong_value;
use super::super::model::ServiceSettings;
use crate::config;

/// What is wrong with a body of JSON.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("`{0}` is not known here; {1}")]
    Unknown(String, String),
    #[error("{0}")]
    Wrong(String),
}

/// `before` with `patch` (RFC 7396): what the patch does not name stays, what is null in it goes.
///
/// # Errors
///
/// A field is unknown, or has a value that it cannot have.
pub fn merged(before: &ServiceSettings, patch: Map<String, Json>) -> Result<ServiceSettings, SettingsError> {
    refuse_unknown(&patch, SERVICE_FIELDS)?;
    for deployment in patch.get("deployments").and_then(Json::as_array).into_iter().flatten() {
        refuse_unknown(deployment.as_object().unwrap_or(&Map::new()), DEPLOYMENT_FIELDS)?;
    }
    for one in
        patch.get("deployments").and_then(Json::as_array).into_iter().flatten().chain([&Json::Object(patch.clone())])
    {
        if let Some(kubernetes) = one.get("kubernetes").and_then(Json::as_object) {
            refuse_unknown(kubernetes, &["namespace", "service", "port"])?;
        }
    }
    if let Some(mirror) = patch.get("mirror").and_then(Json::as_object) {
        refuse_unknown(mirror, &["deployment", "percent"])?;
    }
    let before = serde_json::to_value(before).map_err(|error| SettingsError::Wrong(error.to_string()))?;
    let merged = serde_path_to_error::deserialize(merge(before, Json::Object(patch)));
    merged.map_err(|error| SettingsError::Wrong(wrong_value(&error)))
}

/// RFC 7396, section 2. How deep it goes is bounded by the settings, of which all names are known.
fn merge(target: Json, patch: Json) -> Json {
    let Json::Object(patch) = patch else { return patch };
    let mut fields = match target {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, new) in patch {
        let old = fields.remove(&name);
        if !new.is_null() {
            fields.insert(name, merge(old.unwrap_or_default(), new));
        }
    }
    Json::Object(fields)
}

/// Every field, as JSON has it.
const SERVICE_FIELDS: &[&str] = &[
    "cnames",
    "authEnabled",
    "scoringTimeoutMs",
    "maxQueueWaitMs",
    "maxQueue",
    "maxBodyBytes",
    "errorFormat",
    "stickyBy",
    "mirror",
    "maxRequestsPerSecond",
    "burst",
    "maxRequestsInFlight",
    "maxConcurrentRequestsPerContainer",
    "healthIntervalMs",
    "healthTimeoutMs",
    "protocol",
    "path",
    "healthPath",
    "model",
    "replicas",
    "dns",
    "kubernetes",
    "deployments",
];

const DEPLOYMENT_FIELDS: &[&str] = &[
    "name",
    "traffic",
    "maxConcurrentRequestsPerContainer",
    "healthIntervalMs",
    "healthTimeoutMs",
    "protocol",
    "path",
    "healthPath",
    "model",
    "replicas",
    "dns",
    "kubernetes",
];

/// What the original had for the containers that it ran.
const OF_THE_ORIGINAL: [&str; 5] =
    ["numReplicas", "imageId", "autoScaler", "computeResource", "containerResourceReservation"];

/// # Errors
///
/// One of `fields` is none of `known`.
pub fn refuse_unknown(fields: &Map<String, Json>, known: &[&str]) -> Result<(), SettingsError> {
    let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let shown: String = unknown.chars().take(64).collect();
    let remedy = match config::diagnostic::nearest(&shown, known.iter().copied()) {
        _ if OF_THE_ORIGINAL.contains(&shown.as_str()) => {
            "containers are run by others: name those that run in `replicas`, or what they are looked up by in `dns` or \
             `kubernetes`"
                .to_owned()
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Err(SettingsError::Unknown(shown, remedy))
}
