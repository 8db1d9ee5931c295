//! What every operation of the management API can answer besides its own: said once, for the document that describes it.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

const EVERYWHERE: &[(&str, &str)] = &[
    ("401", "The token is missing or wrong"),
    (
        "403",
        "Without a token only programs on this host are answered; read-only files are changed where they come from",
    ),
];

const OF_CHANGES: &[(&str, &str)] = &[
    ("408", "The body took too long"),
    ("413", "The body is too large"),
    ("415", "The body is not said to be JSON"),
    ("429", "Too many changes at once; Retry-After says when there is room"),
    ("500", "The files could not be changed"),
    ("503", "The files were changed and could not be read again"),
];

/// Adds them to `operation`.
pub(super) fn add_common(operation: &mut Operation, is_open: bool, is_change: bool) {
    let everywhere = EVERYWHERE.iter().filter(|_| !is_open);
    for (status, description) in everywhere.chain(OF_CHANGES.iter().filter(|_| is_change)) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorResponse"))).build();
        let response = ResponseBuilder::new().description(*description).content("application/json", content).build();
        operation.responses.responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
}
