//! Where replicas are, as arguments.

use crate::admin::model::{Kubernetes, KubernetesPort};
use crate::config::diagnostic::Problem;
use crate::config::{self, DnsTarget, KubernetesTarget, ReplicaAddress};

/// The address of a replica as it is sent.
///
/// # Errors
///
/// What is wrong with it.
pub fn replica(text: &str) -> Result<String, String> {
    let address: ReplicaAddress = text.parse().map_err(problem)?;
    Ok(format!("http://{address}"))
}

/// The name that replicas are looked up by.
///
/// # Errors
///
/// What is wrong with it.
pub fn dns(text: &str) -> Result<String, String> {
    text.parse::<DnsTarget>().map(|_| text.to_owned()).map_err(problem)
}

/// The Service whose endpoints are replicas.
///
/// # Errors
///
/// What is wrong with it.
pub fn kubernetes(text: &str) -> Result<Kubernetes, String> {
    let KubernetesTarget { namespace, service, port } = text.parse().map_err(problem)?;
    Ok(Kubernetes {
        namespace: namespace.map(|namespace| namespace.to_string()),
        service: service.to_string(),
        port: match port {
            config::KubernetesPort::Number(number) => KubernetesPort::Number(number),
            config::KubernetesPort::Name(name) => KubernetesPort::Name(name.to_string()),
        },
    })
}

fn problem(problem: Problem) -> String {
    problem.to_string()
}
