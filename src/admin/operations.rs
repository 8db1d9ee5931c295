//! `/v1/operations`: what became of a change. Nothing is kept of them: an operation is over when the service it was about
//! has a replica that answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::answer::{ETag, Named, Problem, json};
use super::model::{self, ErrorResponse, Operation, OperationState};
use super::{Admin, service, state};

/// What became of a change
#[utoipa::path(get, path = "/v1/operations/{id}", params(("id" = String, Path, description = "As Operation-Location says")), responses(
    (status = 200, body = Operation),
    (status = 404, body = ErrorResponse),
))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(id): Named) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "OperationNotFound", "No such operation.");
    let (name, tag) = id.rsplit_once('_').ok_or_else(unknown)?;
    let name: crate::config::ServiceName = name.parse().map_err(|_| unknown())?;
    if !ETag::is_one(tag) {
        return Err(unknown());
    }
    let config = admin.config.load_full();
    let resource_location = format!("/v1/services/{name}");
    let Ok(found) = service::find(&config, name.as_str()) else {
        let operation = Operation { id, state: OperationState::Cancelled, resource_location, error: None };
        return Ok(json(StatusCode::OK, &operation));
    };
    state::make_certain(&admin, name.as_str()).await;
    let state = state::of(&admin, found);
    let outcome = match state.state {
        model::State::Creating | model::State::Updating => OperationState::Running,
        model::State::Succeeded => OperationState::Succeeded,
        model::State::Failed => OperationState::Failed,
    };
    Ok(json(StatusCode::OK, &Operation { id, state: outcome, resource_location, error: state.error }))
}

/// The id of the change that made `etag` of the service `name`.
pub(super) fn id(name: &str, etag: &ETag) -> String {
    // No name has a low line.
    format!("{name}_{}", etag.as_str())
}
