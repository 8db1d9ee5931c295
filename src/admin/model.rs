//! What the management API reads and writes, as JSON. Names are those of the original's APIs: the cluster's
//! (`Microsoft.MachineLearningCompute/operationalizationClusters`, 2017-08-01-preview) and its services' (model
//! management, 2017-09-01-preview).
//!
//! Shapes only: what they mean for the files is for the files beside this one to say.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is true of a service now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum State {
    /// It is new, and none of its replicas has answered yet.
    Creating,
    /// It was changed, and none of the replicas it has now has answered yet.
    Updating,
    /// A replica answers.
    Succeeded,
    /// No replica answers; `error` says why.
    Failed,
}

/// A service. Settings that are absent have their defaults.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `<name>.<environment>.<group>`; the name alone where the environment has none.
    pub id: String,
    pub name: String,
    pub state: State,
    /// RFC 3339, in UTC.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// RFC 3339, in UTC.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// Where it is scored: https and the CNAME while TLS is enabled.
    pub scoring_uri: String,
    pub swagger_uri: String,
    /// Why it is not `Succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Detail>,
    /// Replicas that take calls, and did not fail when they were asked last.
    pub ready_replicas: usize,
    pub total_replicas: usize,
    #[serde(flatten)]
    pub settings: ServiceSettings,
}

/// The body of `POST /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceCreateRequest {
    /// 3 to 32 of `a-z`, `0-9`, `-` and `.`; a letter first, a letter or digit last.
    #[schema(pattern = "^[a-z]([-a-z0-9.]*[a-z0-9])?$", min_length = 3, max_length = 32)]
    pub name: String,
    #[serde(flatten)]
    pub settings: ServiceSettings,
}

/// What can be set of a service. The body of `PUT /v1/services/{name}`: what is absent stays, `null` is the default
/// again (RFC 7396).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSettings {
    /// The CNAMEs it is served under; by default every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnames: Option<Vec<String>>,
    /// Whether calls need a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub scoring_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_wait_ms: Option<u64>,
    /// Calls that wait at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100_000)]
    pub max_queue: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_body_bytes: Option<u64>,
    /// The form of the front end's own errors: `json` or `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_format: Option<String>,
    /// `key`, `address` or `header:<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_requests_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_requests_in_flight: Option<u64>,
    /// Calls that one replica is given at a time; 0: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests_per_container: Option<u64>,
    /// 0: replicas in use are not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub health_timeout_ms: Option<u64>,
    /// How the replicas are called: `azureml`, `kserve-v1`, `kserve-v2`, `mlflow`, `sagemaker`, `tfserving`,
    /// `torchserve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// In place of the protocol's own path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// The model's name in the protocol's paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Such as `http://10.1.0.11:5001`. For a service of one deployment; else they stand in `deployments`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<String>>,
    /// What replicas are looked up by, in place of `replicas`: a host and port, or an SRV name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Whose endpoints the replicas are, in place of `replicas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<DeploymentSettings>>,
}

/// One version of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSettings {
    pub name: String,
    /// Percent of the service's calls; those of its deployments add up to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub traffic: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests_per_container: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_interval_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub health_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
}

/// A Service of Kubernetes whose endpoints are replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kubernetes {
    /// By default the front end's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub service: String,
    pub port: KubernetesPort,
}

/// A port of the pods, by its number or by its name in the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "no such port, expected 1 to 65535, or a name")]
pub enum KubernetesPort {
    Number(u16),
    Name(String),
}

/// Copies of a share of the calls go to a deployment whose answers nobody gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mirror {
    pub deployment: String,
    #[schema(minimum = 1, maximum = 50)]
    pub percent: u64,
}

/// `GET /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePage {
    pub value: Vec<Service>,
    /// Where the next page is, relative to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_link: Option<String>,
}

/// `GET /v1/services/{name}/keys`. Absent: there is no such key, or its hash alone is known.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    pub primary_key: Option<String>,
    pub secondary_key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum KeyType {
    Primary,
    Secondary,
}

/// The body of `POST /v1/services/{name}/regenerateKeys`.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegenerateKeysRequest {
    pub key_type: KeyType,
    /// The key to be; by default a random one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 16, max_length = 256)]
    pub key_value: Option<String>,
}

/// What became of a change that goes on after its answer: `GET /v1/operations/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub id: String,
    pub state: OperationState,
    /// The resource that it is about.
    pub resource_location: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Detail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    /// The service is gone.
    Cancelled,
}

/// `GET /v1/env`: the cluster.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// `<name>.<group>`.
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub cluster_type: ClusterType,
    pub provisioning_state: ProvisioningState,
    /// Why what the files hold is not what is served.
    pub provisioning_errors: Vec<Detail>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub created_on: Option<String>,
    #[schema(format = DateTime)]
    pub modified_on: String,
    /// The address of the front end, which the CNAME has to lead to; the name of a load balancer that has no address of
    /// its own.
    pub public_ip_address: String,
    pub public_ip_address_source: AddressSource,
    pub container_service: ContainerService,
    pub global_service_configuration: GlobalServiceConfiguration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ClusterType {
    #[serde(rename = "ACS")]
    Acs,
    /// For development: plain HTTP on this machine, and no keys.
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProvisioningState {
    /// Everything the files hold is served.
    Succeeded,
    /// Something is not; `provisioningErrors` says what, and what was there before goes on.
    Failed,
}

/// Where `publicIpAddress` was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum AddressSource {
    /// `frontend.public_ip_address`.
    Configuration,
    /// It is that of the Service that `kubernetes.front_end_service` names, of type `LoadBalancer`.
    LoadBalancer,
    /// It is the one that is listened on.
    Listener,
    /// It is the one that this machine reaches others from; a load balancer or a router before it has another.
    Outbound,
    /// None could be found: this machine itself.
    Loopback,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerService {
    pub orchestrator_type: String,
    pub system_services: Vec<SystemService>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemService {
    /// `ScoringFrontEnd`.
    pub system_service_type: String,
    pub public_ip_address: String,
    pub version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GlobalServiceConfiguration {
    /// For `If-Match`, or to be sent back with a change.
    pub etag: String,
    pub ssl: Ssl,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ssl {
    pub status: SslStatus,
    /// The chain, as PEM text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// The name that scoring URIs have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    /// Every name there is a certificate for.
    pub cnames: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SslStatus {
    Enabled,
    Disabled,
}

/// The body of `PATCH /v1/env`: what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_service_configuration: Option<GlobalServiceConfigurationPatch>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct GlobalServiceConfigurationPatch {
    /// What `If-Match` would say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl: Option<SslPatch>,
}

/// A certificate comes with its key, both as raw PEM text, and with the CNAME unless the cluster has one.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SslPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<SslStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
}

impl std::fmt::Debug for SslPatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SslPatch").field("status", &self.status).field("cname", &self.cname).finish_non_exhaustive()
    }
}

/// `POST /v1/env/listKeys`: what no other answer has.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentKeys {
    pub ssl_configuration: SslKeys,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SslKeys {
    pub status: SslStatus,
    pub cert: Option<String>,
    pub key: Option<String>,
    pub cname: Option<String>,
}

/// Every answer of 400 and above.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorResponse {
    pub error: ErrorBody,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub code: String,
    /// What is wrong, and what to do.
    pub message: String,
    pub details: Vec<Detail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    pub code: String,
    pub message: String,
}
