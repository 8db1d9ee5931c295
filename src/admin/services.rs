//! `/v1/services`: the services there are, and changes of them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use toml_edit::{Table, value};

use super::answer::{Named, Object, Precondition, Problem, json};
use super::model::{ErrorResponse, Service, ServiceCreateRequest, ServicePage, ServiceSettings};
use super::service::{document, etag, find, find_own, own};
use super::{Admin, keys, settings, state};
use crate::config::{self, ServiceName};
use crate::environment::draft::Draft;

/// Services in one answer, unless told otherwise.
const PAGE: usize = 100;

const MAX_PAGE: usize = 1000;

/// Where the outcome of a change can be asked for.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// Which services, and how many at a time.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only the one of this name.
    #[serde(rename = "serviceName")]
    service_name: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    count: Option<usize>,
    /// Where the page before ended.
    #[serde(rename = "$skipToken")]
    #[param(rename = "$skipToken")]
    skip_token: Option<String>,
}

/// All services, by name
#[utoipa::path(get, path = "/v1/services", params(Wanted), responses(
    (status = 200, body = ServicePage),
    (status = 400, body = ErrorResponse),
))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|error| Problem::bad_request("BadRequest", error.body_text()))?;
    let count = wanted.count.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&count) {
        return Err(Problem::bad_request("BadRequest", format!("`count` is 1 to {MAX_PAGE}.")));
    }
    let config = admin.config.load_full();
    let mut services: Vec<_> = config.services.iter().collect();
    services.sort_by(|one, other| one.name.cmp(&other.name));
    let is_wanted = |service: &&config::Service| {
        let name = service.name.as_str();
        wanted.service_name.as_deref().is_none_or(|wanted| wanted == name)
            && wanted.skip_token.as_deref().is_none_or(|last| name > last)
    };
    let mut rest = services.into_iter().filter(is_wanted).peekable();
    let page: Vec<_> = rest.by_ref().take(count).collect();
    let next_link = page.last().filter(|_| rest.peek().is_some()).map(|last| {
        // Names have no character that a query could not.
        format!("/v1/services?count={count}&$skipToken={}", last.name)
    });
    let value = page.into_iter().map(|service| document(&admin, &config, service)).collect();
    Ok(json(StatusCode::OK, &ServicePage { value, next_link }))
}

/// One service
#[utoipa::path(get, path = "/v1/services/{name}", params(("name" = String, Path, description = "Its name or id")), responses(
    (status = 200, body = Service, headers(("ETag" = String))),
    (status = 404, body = ErrorResponse),
))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(name): Named) -> Result<Response, Problem> {
    let config = admin.config.load_full();
    let service = find(&config, &name)?;
    state::make_certain(&admin, service.name.as_str()).await;
    Ok(etag(service).on(json(StatusCode::OK, &document(&admin, &config, service))))
}

/// A new service
///
/// It is served when this is answered. `Succeeded` it is when a replica has answered: see the operation.
#[utoipa::path(post, path = "/v1/services", request_body = ServiceCreateRequest, responses(
    (status = 202, body = Service, headers(("ETag" = String), ("Location" = String), ("Operation-Location" = String))),
    (status = 400, body = ErrorResponse),
    (status = 409, body = ErrorResponse, description = "There is one of this name, or the files are invalid"),
    (status = 412, body = ErrorResponse, description = "The files were changed at the same time"),
))]
pub(super) async fn create(State(admin): State<Arc<Admin>>, Object(mut fields): Object) -> Result<Response, Problem> {
    let Some(Value::String(name)) = fields.remove("name") else {
        return Err(Problem::bad_request("InvalidService", "`name` is missing: a text such as \"iris\"."));
    };
    let name = name.parse::<ServiceName>();
    let name = name.map_err(|wrong| Problem::bad_request("InvalidServiceName", wrong.to_string()))?;
    let settings = merged(&ServiceSettings::default(), fields)?;
    let new = name.clone();
    admin
        .change(move |draft| {
            if draft.service(new.as_str()).is_some() {
                let message = format!("There is a service {new} already; change it with PUT /v1/services/{new}.");
                return Err(Problem::new(StatusCode::CONFLICT, "ServiceAlreadyExists", message));
            }
            add(draft, new.as_str(), &settings)
        })
        .await?;
    accepted(&admin, name.as_str())
}

/// Changes a service
///
/// A merge patch (RFC 7396): settings that are not named stay, those that are `null` have their defaults again.
#[utoipa::path(put, path = "/v1/services/{name}", request_body = ServiceSettings,
    params(("name" = String, Path, description = "Its name or id"), ("If-Match" = Option<String>, Header, description = "Only if it is still this one")),
    responses(
        (status = 202, body = Service, headers(("ETag" = String), ("Operation-Location" = String))),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
        (status = 409, body = ErrorResponse, description = "Kubernetes names it, or the files are invalid"),
        (status = 412, body = ErrorResponse, description = "It is another one by now"),
))]
pub(super) async fn update(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    headers: HeaderMap,
    Object(mut fields): Object,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers)?;
    let name = find_own(&admin.config.load(), &name)?.name.clone();
    if fields.remove("name").is_some_and(|new| new != name.as_str()) {
        let message = "A service keeps its name; create another one, and delete this.";
        return Err(Problem::bad_request("InvalidService", message));
    }
    let changed = name.clone();
    admin
        .change(move |draft| {
            let name = changed.as_str();
            let service = draft.service(name).ok_or_else(|| Problem::no_service(name))?;
            precondition.check(&etag(service))?;
            let before = settings::of(service);
            let has_keys = ["primary_key_sha256", "key"].iter().any(|key| service.written.contains_key(*key));
            let after = merged(&before, fields.clone())?;
            let table = draft.service_table(name)?.ok_or_else(|| Problem::no_service(name))?;
            settings::write(table, &before, &after);
            if !has_keys && after.auth_enabled.unwrap_or_else(|| draft.is_keyed_by_default()) {
                keys::make(draft, name)?;
            }
            Ok(())
        })
        .await?;
    accepted(&admin, name.as_str())
}

/// Takes a service away
#[utoipa::path(delete, path = "/v1/services/{name}",
    params(("name" = String, Path, description = "Its name or id"), ("If-Match" = Option<String>, Header, description = "Only if it is still this one")),
    responses(
        (status = 200, description = "It is gone"),
        (status = 204, description = "There was none"),
        (status = 400, body = ErrorResponse),
        (status = 409, body = ErrorResponse, description = "Kubernetes names it, or the files are invalid"),
        (status = 412, body = ErrorResponse, description = "It is another one by now"),
))]
pub(super) async fn delete(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers)?;
    let name = match find(&admin.config.load(), &name) {
        Ok(service) => own(service)?.name.to_string(),
        Err(_) => name,
    };
    let deleted = admin
        .change(move |draft| {
            let Some(service) = draft.service(&name) else { return Ok(false) };
            precondition.check(&etag(service))?;
            draft.remove_service(&name)?;
            Ok(true)
        })
        .await?;
    Ok(if deleted { StatusCode::OK } else { StatusCode::NO_CONTENT }.into_response())
}

/// Adds a service with `settings`, and keys if callers need one.
fn add(draft: &mut Draft, name: &str, settings: &ServiceSettings) -> Result<(), Problem> {
    let mut table = Table::new();
    table.insert("name", value(name));
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let now: toml_edit::Datetime =
        now.parse().map_err(|error| Problem::internal("No time could be written", &error))?;
    table.insert("created_at", value(now));
    settings::write(&mut table, &ServiceSettings::default(), settings);
    draft.add_service(name, table)?;
    if settings.auth_enabled.unwrap_or_else(|| draft.is_keyed_by_default()) {
        keys::make(draft, name)?;
    }
    Ok(())
}

fn merged(before: &ServiceSettings, fields: serde_json::Map<String, Value>) -> Result<ServiceSettings, Problem> {
    settings::merged(before, fields).map_err(|error| Problem::bad_request("InvalidService", error.to_string()))
}

/// The answer to a change that is served, and may yet have to find a replica that answers.
fn accepted(admin: &Admin, name: &str) -> Result<Response, Problem> {
    let config = admin.config.load_full();
    let service = find(&config, name)?;
    let etag = etag(service);
    let mut response = json(StatusCode::ACCEPTED, &document(admin, &config, service));
    let operation = format!("/v1/operations/{}", super::operations::id(service.name.as_str(), &etag));
    for (field, text) in [(OPERATION_LOCATION, operation), (LOCATION, format!("/v1/services/{}", service.name))] {
        if let Ok(text) = HeaderValue::try_from(text) {
            response.headers_mut().insert(field, text);
        }
    }
    Ok(etag.on(response))
}
