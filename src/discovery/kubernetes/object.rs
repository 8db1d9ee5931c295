//! What is read of the objects that Kubernetes sends, as its API has them; everything else in them is skipped.
//!
//! Go writes an empty list as `null` or leaves it out, so that each may be absent.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// An object that can be listed and watched.
pub trait Object: DeserializeOwned + 'static {
    fn metadata(&self) -> &Metadata;
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub resource_version: String,
    pub creation_timestamp: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Metadata {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Page<T> {
    #[serde(default)]
    pub metadata: PageMetadata,
    pub items: Option<Vec<T>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageMetadata {
    pub resource_version: Option<String>,
    /// What the next page is asked for by.
    #[serde(rename = "continue")]
    pub next: Option<String>,
}

/// `discovery.k8s.io/v1`, some of the endpoints of a Service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    #[serde(default)]
    pub metadata: Metadata,
    pub address_type: Option<String>,
    pub endpoints: Option<Vec<Endpoint>>,
    pub ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub addresses: Option<Vec<String>>,
    pub conditions: Option<Conditions>,
    pub target_ref: Option<TargetRef>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct TargetRef {
    pub uid: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Port {
    pub name: Option<String>,
    #[serde(rename = "port")]
    pub number: Option<u16>,
    pub protocol: Option<String>,
}

/// `v1`, a Service.
#[derive(Debug, Deserialize)]
pub struct Service {
    #[serde(default)]
    pub metadata: Metadata,
    pub status: Option<ServiceStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    pub load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Deserialize)]
pub struct LoadBalancer {
    pub ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Deserialize)]
pub struct Ingress {
    pub ip: Option<String>,
    pub hostname: Option<String>,
}

impl Object for EndpointSlice {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for Service {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
