//! What can be set of a service: from the configuration to JSON, and from JSON to the table that an operator would write.

use serde_json::{Map, Value as Json};
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value, value};

use super::answer::wrong_value;
use super::model::{DeploymentSettings, Kubernetes, KubernetesPort, Mirror, ServiceSettings};
use crate::config::{self, ErrorFormat};
use crate::environment::draft::set;

/// What is written of `service`; what has its default is absent.
pub fn of(service: &config::Service) -> ServiceSettings {
    let written = &service.written;
    let has = |key: &str| written.contains_key(key);
    // In the short form the only deployment's settings stand in the service's own table.
    let only = service.deployments.first();
    let target = Target::of(written);
    ServiceSettings {
        cnames: texts(written, "cnames"),
        auth_enabled: written.get("auth").and_then(toml::Value::as_bool),
        scoring_timeout_ms: has("scoring_timeout").then(|| millis(service.scoring_timeout)),
        max_queue_wait_ms: has("max_queue_wait").then(|| millis(service.max_queue_wait)),
        max_queue: number(written, "max_queue"),
        max_body_bytes: has("max_body").then_some(service.max_body),
        error_format: has("error_format").then(|| match service.error_format {
            ErrorFormat::Json => "json".to_owned(),
            ErrorFormat::Text => "text".to_owned(),
        }),
        sticky_by: text(written, "sticky_by"),
        mirror: service
            .mirror
            .as_ref()
            .map(|mirror| Mirror { deployment: mirror.deployment.clone(), percent: mirror.percent.into() }),
        max_requests_per_second: number(written, "max_requests_per_second"),
        burst: number(written, "burst"),
        max_requests_in_flight: number(written, "max_requests_in_flight"),
        max_concurrent_requests_per_container: number(written, "max_concurrent_requests_per_replica"),
        health_interval_ms: only.filter(|_| has("health_interval")).map(health_interval),
        health_timeout_ms: only.filter(|_| has("health_timeout")).map(|only| millis(only.health.timeout)),
        protocol: target.protocol,
        path: target.path,
        health_path: target.health_path,
        model: target.model,
        replicas: target.replicas,
        dns: target.dns,
        kubernetes: target.kubernetes,
        deployments: deployments(service),
    }
}

fn deployments(service: &config::Service) -> Option<Vec<DeploymentSettings>> {
    let tables = service.written.get("deployment")?.as_array()?.iter().filter_map(toml::Value::as_table);
    let of = |(written, deployment): (&toml::Table, &config::Deployment)| {
        let has = |key: &str| written.contains_key(key);
        let target = Target::of(written);
        DeploymentSettings {
            name: deployment.name.clone(),
            traffic: number(written, "traffic"),
            max_concurrent_requests_per_container: number(written, "max_concurrent_requests_per_replica"),
            health_interval_ms: has("health_interval").then(|| health_interval(deployment)),
            health_timeout_ms: has("health_timeout").then(|| millis(deployment.health.timeout)),
            protocol: target.protocol,
            path: target.path,
            health_path: target.health_path,
            model: target.model,
            replicas: target.replicas,
            dns: target.dns,
            kubernetes: target.kubernetes,
        }
    };
    Some(tables.zip(&service.deployments).map(of).collect())
}

/// What a service in its short form and a deployment have in common.
struct Target {
    protocol: Option<String>,
    path: Option<String>,
    health_path: Option<String>,
    model: Option<String>,
    replicas: Option<Vec<String>>,
    dns: Option<String>,
    kubernetes: Option<Kubernetes>,
}

impl Target {
    fn of(written: &toml::Table) -> Self {
        Self {
            protocol: text(written, "protocol"),
            path: text(written, "path"),
            health_path: text(written, "health_path"),
            model: text(written, "model"),
            replicas: texts(written, "replicas"),
            dns: text(written, "dns"),
            kubernetes: written.get("kubernetes").and_then(toml::Value::as_table).and_then(kubernetes),
        }
    }
}

fn kubernetes(table: &toml::Table) -> Option<Kubernetes> {
    Some(Kubernetes {
        namespace: text(table, "namespace"),
        service: text(table, "service")?,
        port: match number(table, "port") {
            Some(number) => KubernetesPort::Number(number.try_into().ok()?),
            None => KubernetesPort::Name(text(table, "port")?),
        },
    })
}

fn text(table: &toml::Table, key: &str) -> Option<String> {
    table.get(key)?.as_str().map(str::to_owned)
}

fn texts(table: &toml::Table, key: &str) -> Option<Vec<String>> {
    let texts = table.get(key)?.as_array()?.iter().filter_map(toml::Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

fn number(table: &toml::Table, key: &str) -> Option<u64> {
    table.get(key)?.as_integer().and_then(|number| u64::try_from(number).ok())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn health_interval(deployment: &config::Deployment) -> u64 {
    deployment.health.interval.map_or(0, millis)
}

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
pub const SERVICE_FIELDS: &[&str] = &[
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

/// Has `table` say `new` where it says `old`; nothing else in it is touched.
pub fn write(table: &mut Table, old: &ServiceSettings, new: &ServiceSettings) {
    let mut change = Change { table };
    change.plain("cnames", [&old.cnames, &new.cnames]);
    change.plain("auth", [&old.auth_enabled, &new.auth_enabled]);
    change.duration("scoring_timeout", [&old.scoring_timeout_ms, &new.scoring_timeout_ms]);
    change.duration("max_queue_wait", [&old.max_queue_wait_ms, &new.max_queue_wait_ms]);
    change.plain("max_queue", [&old.max_queue, &new.max_queue]);
    change.with("max_body", [&old.max_body_bytes, &new.max_body_bytes], |bytes| value(size(*bytes)));
    change.plain("error_format", [&old.error_format, &new.error_format]);
    change.plain("sticky_by", [&old.sticky_by, &new.sticky_by]);
    change.plain("mirror", [&old.mirror, &new.mirror]);
    change.plain("max_requests_per_second", [&old.max_requests_per_second, &new.max_requests_per_second]);
    change.plain("burst", [&old.burst, &new.burst]);
    change.plain("max_requests_in_flight", [&old.max_requests_in_flight, &new.max_requests_in_flight]);
    change.plain(
        "max_concurrent_requests_per_replica",
        [&old.max_concurrent_requests_per_container, &new.max_concurrent_requests_per_container],
    );
    change.duration("health_interval", [&old.health_interval_ms, &new.health_interval_ms]);
    change.duration("health_timeout", [&old.health_timeout_ms, &new.health_timeout_ms]);
    change.plain("protocol", [&old.protocol, &new.protocol]);
    change.plain("path", [&old.path, &new.path]);
    change.plain("health_path", [&old.health_path, &new.health_path]);
    change.plain("model", [&old.model, &new.model]);
    change.plain("replicas", [&old.replicas, &new.replicas]);
    change.plain("dns", [&old.dns, &new.dns]);
    change.plain("kubernetes", [&old.kubernetes, &new.kubernetes]);
    if old.deployments != new.deployments {
        let old = old.deployments.as_deref().unwrap_or_default();
        write_deployments(table, old, new.deployments.as_deref());
    }
}

/// Deployments that stay keep their tables, with what else is in them.
fn write_deployments(table: &mut Table, old: &[DeploymentSettings], new: Option<&[DeploymentSettings]>) {
    let before = table.remove("deployment");
    let before = before.as_ref().and_then(Item::as_array_of_tables);
    let Some(new) = new else { return };
    let mut tables = ArrayOfTables::new();
    let blank = DeploymentSettings::default();
    for deployment in new {
        let known = before.and_then(|tables| tables.iter().find(|one| named(one) == Some(deployment.name.as_str())));
        let was = old.iter().find(|one| one.name == deployment.name).filter(|_| known.is_some()).unwrap_or(&blank);
        let mut one = known.cloned().unwrap_or_default();
        write_deployment(&mut one, was, deployment);
        // They may stand in another order now.
        one.set_position(None);
        tables.push(one);
    }
    table.insert("deployment", Item::ArrayOfTables(tables));
}

fn named(table: &Table) -> Option<&str> {
    table.get("name").and_then(Item::as_str)
}

fn write_deployment(table: &mut Table, old: &DeploymentSettings, new: &DeploymentSettings) {
    if old.name != new.name {
        set(table, "name", Some(value(&new.name)));
    }
    let mut change = Change { table };
    change.plain("traffic", [&old.traffic, &new.traffic]);
    change.plain(
        "max_concurrent_requests_per_replica",
        [&old.max_concurrent_requests_per_container, &new.max_concurrent_requests_per_container],
    );
    change.duration("health_interval", [&old.health_interval_ms, &new.health_interval_ms]);
    change.duration("health_timeout", [&old.health_timeout_ms, &new.health_timeout_ms]);
    change.plain("protocol", [&old.protocol, &new.protocol]);
    change.plain("path", [&old.path, &new.path]);
    change.plain("health_path", [&old.health_path, &new.health_path]);
    change.plain("model", [&old.model, &new.model]);
    change.plain("replicas", [&old.replicas, &new.replicas]);
    change.plain("dns", [&old.dns, &new.dns]);
    change.plain("kubernetes", [&old.kubernetes, &new.kubernetes]);
}

/// Of one table: each setting as it was and as it is to be.
struct Change<'a> {
    table: &'a mut Table,
}

impl Change<'_> {
    /// What is written in TOML as it is in JSON.
    fn plain<T: PartialEq + Plain>(&mut self, key: &str, change: [&Option<T>; 2]) {
        self.with(key, change, Plain::item);
    }

    /// Milliseconds.
    fn duration(&mut self, key: &str, change: [&Option<u64>; 2]) {
        self.with(key, change, |millis| value(duration(*millis)));
    }

    fn with<T: PartialEq>(&mut self, key: &str, [old, new]: [&Option<T>; 2], item: impl FnOnce(&T) -> Item) {
        if old != new {
            set(self.table, key, new.as_ref().map(item));
        }
    }
}

trait Plain {
    fn item(&self) -> Item;
}

impl Plain for bool {
    fn item(&self) -> Item {
        value(*self)
    }
}

impl Plain for u64 {
    fn item(&self) -> Item {
        value(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Plain for String {
    fn item(&self) -> Item {
        value(self)
    }
}

impl Plain for Vec<String> {
    fn item(&self) -> Item {
        value(self.iter().collect::<Array>())
    }
}

impl Plain for Mirror {
    fn item(&self) -> Item {
        let mut table = InlineTable::new();
        table.insert("deployment", Value::from(self.deployment.as_str()));
        table.insert("percent", Value::from(i64::try_from(self.percent).unwrap_or(i64::MAX)));
        value(table)
    }
}

impl Plain for Kubernetes {
    fn item(&self) -> Item {
        let mut table = InlineTable::new();
        if let Some(namespace) = &self.namespace {
            table.insert("namespace", Value::from(namespace.as_str()));
        }
        table.insert("service", Value::from(self.service.as_str()));
        table.insert(
            "port",
            match &self.port {
                KubernetesPort::Number(number) => Value::from(i64::from(*number)),
                KubernetesPort::Name(name) => Value::from(name.as_str()),
            },
        );
        value(table)
    }
}

/// As an operator would write it: in seconds where it is some.
fn duration(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// In the largest unit that it is a multiple of.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fitting = UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::option::of as maybe;
    use proptest::prelude::*;
    use toml_edit::DocumentMut;

    use super::*;
    use crate::config::{Diagnostics, Overlay};

    /// What stands in a table of its own, before and after all changes.
    const KEPT: &str = "# Who asks for more talks to the owners.\n";

    /// The service that the text of a main file describes.
    fn meant(text: &str) -> config::Service {
        let file = Path::new("scorefront.toml");
        let mut overlay = Overlay::default();
        overlay.set(file.to_owned(), Some(text.to_owned()));
        let mut found = Diagnostics::default();
        let (config, _) = config::load_over(file, &overlay, &mut found);
        assert!(!found.has_errors(), "{found}\n{text}");
        config.and_then(|mut config| config.services.pop()).expect("a service")
    }

    fn replicas() -> impl Strategy<Value = Vec<String>> {
        (1..4u8).prop_map(|many| (0..many).map(|number| format!("http://10.0.0.{number}:5001")).collect())
    }

    prop_compose! {
        fn target()(
            protocol in maybe(prop::sample::select(vec!["azureml", "mlflow", "kserve-v2"])),
            path in maybe("/[a-z]{1,8}"),
            health_path in maybe("/[a-z]{1,8}"),
            replicas in replicas(),
            source in 0..4usize,
            concurrent in maybe(0..100u64),
            interval in maybe(0..100_000u64),
            timeout in maybe(1..100_000u64),
        ) -> DeploymentSettings {
            DeploymentSettings {
                protocol: protocol.map(str::to_owned),
                path,
                health_path,
                replicas: (source == 0).then_some(replicas),
                dns: (source == 1).then(|| "models.svc:5001".to_owned()),
                kubernetes: (source > 1).then(|| Kubernetes {
                    namespace: Some("models".to_owned()),
                    service: "churn".to_owned(),
                    port: [KubernetesPort::Number(5001), KubernetesPort::Name("http".to_owned())][source - 2].clone(),
                }),
                max_concurrent_requests_per_container: concurrent,
                health_interval_ms: interval,
                health_timeout_ms: timeout,
                ..DeploymentSettings::default()
            }
        }
    }

    fn deployments() -> impl Strategy<Value = Vec<DeploymentSettings>> {
        (vec(target(), 2..4), 0..=100u64, any::<bool>()).prop_map(|(mut targets, share, swapped)| {
            for (number, target) in targets.iter_mut().enumerate() {
                target.name = ["blue", "green", "red"][number].to_owned();
                target.traffic = Some([share, 100 - share, 0][number]);
            }
            if swapped {
                targets.swap(0, 1);
            }
            targets
        })
    }

    prop_compose! {
        fn settings()(
            only in target(),
            several in maybe(deployments()),
            scoring_timeout_ms in maybe(1..3_600_000u64),
            max_queue_wait_ms in maybe(1..100_000u64),
            max_queue in maybe(1..1000u64),
            max_body_bytes in maybe(1..u64::from(u32::MAX)),
            text in any::<bool>(),
            rate in maybe(1..1000u64),
            in_flight in maybe(1..1000u64),
            mirrored in maybe(1..=50u64),
        ) -> ServiceSettings {
            let has_several = several.is_some();
            let idle = several.iter().flatten().find(|one| one.traffic == Some(0)).map(|one| one.name.clone());
            let mirror = idle.zip(mirrored).map(|(deployment, percent)| Mirror { deployment, percent });
            let only = if has_several { DeploymentSettings::default() } else { only };
            ServiceSettings {
                auth_enabled: Some(false),
                scoring_timeout_ms,
                max_queue_wait_ms,
                max_queue,
                max_body_bytes,
                error_format: text.then(|| "text".to_owned()),
                max_requests_per_second: rate,
                burst: rate.map(|rate| rate * 2),
                max_requests_in_flight: in_flight,
                mirror,
                max_concurrent_requests_per_container: only.max_concurrent_requests_per_container,
                health_interval_ms: only.health_interval_ms,
                health_timeout_ms: only.health_timeout_ms,
                protocol: only.protocol,
                path: only.path,
                health_path: only.health_path,
                replicas: only.replicas,
                dns: only.dns,
                kubernetes: only.kubernetes,
                deployments: several,
                ..ServiceSettings::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_means_what_was_asked_for_whatever_it_was_before(before in settings(), after in settings()) {
            let mut document: DocumentMut = format!("{KEPT}[[service]]\nname = 'iris' # the flower\n").parse().expect("TOML");
            let table = |document: &mut DocumentMut, old: &ServiceSettings, new: &ServiceSettings| {
                let table = document["service"].as_array_of_tables_mut().and_then(|tables| tables.get_mut(0));
                write(table.expect("a service"), old, new);
            };
            table(&mut document, &ServiceSettings::default(), &before);
            let first = document.to_string();
            prop_assert_eq!(&of(&meant(&first)), &before);

            table(&mut document, &before, &after);
            let text = document.to_string();
            prop_assert_eq!(&of(&meant(&text)), &after);
            let name_line = "name = 'iris' # the flower\n";
            prop_assert!(text.starts_with(KEPT) && text.contains(name_line));

            // Back again: nothing is left of the change.
            table(&mut document, &after, &before);
            prop_assert_eq!(&of(&meant(&document.to_string())), &before);
        }

        #[test]
        fn a_merge_patch_is_what_rfc_7396_says(before in settings(), patch in settings(), nulls in any::<u32>()) {
            let Ok(Json::Object(mut patch)) = serde_json::to_value(&patch) else { unreachable!("an object") };
            for (bit, value) in patch.values_mut().enumerate() {
                if nulls >> (bit % 32) & 1 == 1 {
                    *value = Json::Null;
                }
            }
            let Ok(Json::Object(mut expected)) = serde_json::to_value(&before) else { unreachable!("an object") };
            for (name, value) in &patch {
                if value.is_null() {
                    expected.remove(name);
                } else {
                    expected.insert(name.clone(), value.clone());
                }
            }
            let merged = merged(&before, patch).expect("settings");
            prop_assert_eq!(serde_json::to_value(merged).expect("JSON"), Json::Object(expected));
        }

        #[test]
        fn a_part_of_a_mirror_can_be_changed(before in settings(), percent in 1..=50u64) {
            let Some(mirror) = before.mirror.clone() else { return Ok(()) };
            let patch = serde_json::json!({"mirror": {"percent": percent}});
            let Json::Object(patch) = patch else { unreachable!("an object") };
            let merged = merged(&before, patch).expect("settings");
            prop_assert_eq!(merged.mirror, Some(Mirror { percent, ..mirror }));
        }
    }
}
