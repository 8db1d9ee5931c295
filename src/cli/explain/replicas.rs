//! Which replicas a deployment has, asked where a front end asks.

use std::sync::Arc;

use crate::config::{Config, ReplicaAddress, Source};
use crate::discovery::dns::{self, Resolver};
use crate::discovery::kubernetes::standing::Standing;
use crate::discovery::kubernetes::{self, Cluster, Which};

/// The addresses, in the order of the source.
///
/// # Errors
///
/// Why they cannot be looked up from here, and what to do about it.
pub(super) async fn of(config: &Config, source: &Source) -> Result<Vec<ReplicaAddress>, String> {
    match source {
        Source::Static(listed) => Ok(listed.iter().map(|replica| replica.address.clone()).collect()),
        Source::Dns { target, .. } => dns::look_up(&Resolver::of(&config.dns), target)
            .await
            .map_err(|error| format!("{error}; {}", error.remedy())),
        Source::Kubernetes { target, .. } => {
            let cluster = Cluster::of(&config.kubernetes, Arc::new(Standing::new(0)));
            let snapshot = kubernetes::look_up(&cluster, target.namespace.as_ref()).await;
            let snapshot = snapshot.map_err(|error| format!("{error}; {}", error.remedy()))?;
            snapshot.endpoints(target, Which::Serving)
        }
    }
}
