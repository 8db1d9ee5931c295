//! One service of the configuration: found by its name or id, and as the API shows it.

use http::StatusCode;

use super::answer::{ETag, Problem};
use super::model::Service;
use super::{Admin, settings, state};
use crate::config::{self, Config};

/// By name or, if there is none of that name, by id.
pub(super) fn find<'a>(config: &'a Config, name: &str) -> Result<&'a config::Service, Problem> {
    let mut services = config.services.iter();
    let named = services.find(|service| service.name.as_str() == name);
    let by_id = || config.services.iter().find(|service| id(config, service) == name);
    named.or_else(by_id).ok_or_else(|| Problem::no_service(name))
}

/// The same, if a file defines it: what Kubernetes names is changed there.
pub(super) fn find_own<'a>(config: &'a Config, name: &str) -> Result<&'a config::Service, Problem> {
    own(find(config, name)?)
}

pub(super) fn own(service: &config::Service) -> Result<&config::Service, Problem> {
    let Some(kubernetes) = &service.from_kubernetes else { return Ok(service) };
    let message = format!(
        "Service {} is the Service {kubernetes} of Kubernetes; change it there, or create one of this name here, which \
         takes its place.",
        service.name
    );
    Err(Problem::new(StatusCode::CONFLICT, "ServiceOfKubernetes", message))
}

fn id(config: &Config, service: &config::Service) -> String {
    let environment = &config.environment;
    let parts = [environment.name.as_ref(), environment.resource_group.as_ref()];
    let parts = parts.into_iter().flatten().map(config::EnvironmentName::as_str);
    std::iter::once(service.name.as_str()).chain(parts).collect::<Vec<_>>().join(".")
}

/// The tag of what is written of a service, whatever its form.
pub(super) fn etag(service: &config::Service) -> ETag {
    ETag::of(&service.written, "")
}

pub(super) fn document(admin: &Admin, config: &Config, service: &config::Service) -> Service {
    let name = service.name.as_str();
    let state = state::of(admin, service);
    let uri = admin.service_uri(config, service);
    Service {
        id: id(config, service),
        name: name.to_owned(),
        state: state.state,
        created_at: state.created_at,
        updated_at: state.updated_at,
        scoring_uri: format!("{uri}/score"),
        swagger_uri: format!("{uri}/swagger.json"),
        error: state.error,
        ready_replicas: state.ready,
        total_replicas: state.total,
        settings: settings::of(service),
    }
}
