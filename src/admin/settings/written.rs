//! From what is to be set to the table that an operator would write.

use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value, value};

use super::super::model::{DeploymentSettings, Kubernetes, KubernetesPort, Mirror, ServiceSettings};
use crate::environment::draft::set;

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
