//! What a front end tells the others of itself. Bounded, versioned by being tolerant: fields that are not known are passed over.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Bytes of one as JSON at most: ten thousand deployments fit.
pub const MAX_STATE: usize = 1024 * 1024;

/// By whom each deployment is shared, as a number made of its owners, by [`deployment_key`].
pub type Deployments = BTreeMap<u64, u64>;

/// One front end, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is; absent in nothing but a default.
    pub from: Option<SocketAddr>,
    /// When this was said, in microseconds since 1970; what is older than what is known is nothing new.
    pub at: u64,
    /// Whether it gives up what it has, because it is going to stop.
    #[serde(default)]
    pub leaving: bool,
    /// The front ends it was told of, by configuration or by name server.
    #[serde(default)]
    pub named: Vec<SocketAddr>,
    /// The front ends that answered it when it asked last.
    #[serde(default)]
    pub reaches: Vec<SocketAddr>,
    /// The members by whom it has shared out, as [`super::members::view_number`] numbers them: it takes no permit that is
    /// not its own by these.
    #[serde(default)]
    pub view: u64,
    /// A number made of its deployments.
    #[serde(default)]
    pub digest: u64,
    /// When it was shared out so, as a number that comes but once.
    #[serde(default)]
    pub epoch: u64,
    /// The number of the receiver's deployments by which it has shared out.
    #[serde(default)]
    pub heard: u64,
    /// Its deployments; absent where the receiver has said that it knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<(u64, u64)>>,
    /// The replicas that run more of its requests than are its share by now, by [`replica_key`].
    #[serde(default)]
    pub busy: Vec<u64>,
}

/// A deployment, in messages.
pub fn deployment_key(service: &str, deployment: &str) -> u64 {
    super::shares::number(&["deployment", service, deployment])
}

/// A replica of a deployment, in messages.
pub fn replica_key(deployment: u64, replica: &str) -> u64 {
    super::shares::number(&["replica", &deployment.to_string(), replica])
}

/// A number made of `deployments` as they were shared out at a time, `epoch`, that is like no other: what was, and is again,
/// has another number, so that whoever has heard the one has not heard the other.
pub fn digest(epoch: u64, deployments: &Deployments) -> u64 {
    let deployments: Vec<_> = deployments.iter().map(|(key, owners)| format!("{key} {owners}")).collect();
    super::shares::number(&["deployments", &epoch.to_string(), &deployments.join("\n")])
}
