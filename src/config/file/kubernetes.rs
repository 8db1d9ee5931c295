//! What is asked of Kubernetes: where its API is, and what is looked up there.

use std::path::PathBuf;

use toml::de::DeValue;

use super::read_key_hash;
use crate::config::diagnostic::Problem;
use crate::config::table::{Field, Located, Table};
use crate::config::value::{self, KeyHash, KubernetesName, KubernetesPort};

/// A Service that has the replicas of a deployment, or the front ends of a cluster.
pub struct RawKubernetesTarget {
    pub namespace: Field<KubernetesName>,
    pub service: Option<Located<KubernetesName>>,
    pub port: Option<Located<KubernetesPort>>,
}

pub struct RawKubernetes {
    pub kubeconfig: Field<PathBuf>,
    pub discover_services: Field<RawDiscovered>,
    pub front_end_service: Field<RawFrontEndService>,
}

/// Services that Kubernetes names.
pub struct RawDiscovered {
    pub namespace: Field<KubernetesName>,
    pub selector: Field<String>,
    pub port: Field<KubernetesPort>,
    pub primary_key_sha256: Field<KeyHash>,
    pub secondary_key_sha256: Field<KeyHash>,
}

pub struct RawFrontEndService {
    pub namespace: Field<KubernetesName>,
    pub service: Option<Located<KubernetesName>>,
}

pub(super) fn read_kubernetes(table: &mut Table<'_, '_>) -> RawKubernetes {
    RawKubernetes {
        kubeconfig: table.optional("kubeconfig", value::path),
        discover_services: table.inline(
            "discover_services",
            "in `discover_services`",
            "{ namespace = \"models\" }",
            read_discovered,
        ),
        front_end_service: table.inline(
            "front_end_service",
            "in `front_end_service`",
            "{ service = \"scorefront\" }",
            |table| RawFrontEndService {
                namespace: table.optional("namespace", read_kubernetes_name),
                service: table.required("service", "\"scorefront\"", read_kubernetes_name),
            },
        ),
    }
}

/// The key `kubernetes`; the examples are of a namespace, a Service and a port.
pub(super) fn read_kubernetes_target(
    table: &mut Table<'_, '_>,
    [namespace, service, port]: [&str; 3],
) -> Field<RawKubernetesTarget> {
    let example = format!("{{ namespace = {namespace}, service = {service}, port = {port} }}");
    table.inline("kubernetes", "in `kubernetes`", &example, |table| RawKubernetesTarget {
        namespace: table.optional("namespace", read_kubernetes_name),
        service: table.required("service", service, read_kubernetes_name),
        port: table.required("port", port, KubernetesPort::read),
    })
}

fn read_discovered(table: &mut Table<'_, '_>) -> RawDiscovered {
    RawDiscovered {
        namespace: table.optional("namespace", read_kubernetes_name),
        selector: table.optional("selector", value::label_selector),
        port: table.optional("port", KubernetesPort::read),
        primary_key_sha256: table.optional("primary_key_sha256", read_key_hash),
        secondary_key_sha256: table.optional("secondary_key_sha256", read_key_hash),
    }
}

fn read_kubernetes_name(value: &DeValue<'_>) -> Result<KubernetesName, Problem> {
    value::text(value, "a name such as \"models\"")?.parse()
}
