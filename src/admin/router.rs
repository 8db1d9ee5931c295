//! Which path leads where, who is let in, and the document that says so (`OpenAPI` 3.1), made from the same definitions.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{Problem, json};
use super::model::ErrorResponse;
use super::{Admin, Peer, cluster, drain, environment, keys, metrics, operations, replicas, services};
use crate::config::TlsStatus;
use crate::shutdown::Phase;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "scorefront",
        description = "The management API of a scoring front end. Whatever is changed here is written to the files of \
                       the environment, as an operator would write it; an answer of 2xx says that it is on the disk \
                       and served."
    ),
    modifiers(&Token),
    security((), ("token" = []))
)]
struct Document;

/// The bearer token that `admin.token_file` holds.
struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// Everything there is to ask.
fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(prometheus))
        .routes(routes!(openapi))
        .routes(routes!(reload))
        .routes(routes!(drain::show, drain::begin))
        .routes(routes!(certificates))
        .routes(routes!(all_replicas))
        .routes(routes!(front_ends))
        .routes(routes!(environment::show, environment::patch))
        .routes(routes!(environment::list_keys))
        .routes(routes!(services::list, services::create))
        .routes(routes!(services::show, services::update, services::delete))
        .routes(routes!(keys::show))
        .routes(routes!(keys::regenerate))
        .routes(routes!(operations::show))
}

/// Answers every request.
pub(super) fn router(admin: Arc<Admin>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard))
        .with_state(admin)
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    // What can happen to every request.
    for (path, item) in &mut document.paths.paths {
        let is_open = is_open(path);
        let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
        let changes = changes.map(|operation| (operation, true));
        for (operation, is_change) in changes.chain(item.get.iter_mut().map(|operation| (operation, false))) {
            super::documented::add_common(operation, is_open, is_change);
        }
    }
    document
}

async fn no_such_path() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NotFound", "No such path; /openapi.json has all there are.")
}

async fn wrong_method() -> Problem {
    let message = "This path does not take that method; Allow says which.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

/// Probes of an orchestrator cannot hold a secret; everything else can.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Lets in who may ask, and has a line in the log for every change.
async fn guard(
    State(admin): State<Arc<Admin>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match admit(&admin, &peer, request.headers(), is_change) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if is_change {
        let status = response.status().as_u16();
        // Never what was sent: it may hold keys.
        tracing::info!(target: "scorefront::audit", %peer, %method, path, status, "change");
    }
    response
}

fn admit(admin: &Admin, peer: &Peer, headers: &HeaderMap, is_change: bool) -> Result<(), Problem> {
    let token = admin.token.load();
    match &**token {
        // An empty one stands for a file that holds none.
        Some(token) => {
            let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let given = given.and_then(|given| given.strip_prefix(b"Bearer "));
            let fits = |given: &[u8]| verify_slices_are_equal(given.trim_ascii(), token).is_ok();
            if token.is_empty() || !given.is_some_and(fits) {
                return Err(Problem::unauthorized());
            }
        }
        None if matches!(peer, Peer::Tcp(_)) => refuse_browsers(headers)?,
        // Browsers have no way to a socket in the file system.
        None => {}
    }
    if is_change { admin.pace.take().map_err(Problem::too_many) } else { Ok(()) }
}

/// Where no token is asked for, whoever runs a program on this machine is trusted. A page in a browser on it is not: what it
/// sends says where the page is from, or is for a name that somebody made lead here.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let is_here = name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_address;
    if is_here && !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let message = "Without a token only programs on this host are answered, under its address or as localhost, and no \
                   web pages; set `token_file` in [admin].";
    Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden", message))
}

fn text(status: StatusCode, body: impl Into<axum::body::Body>, kind: &'static str) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether it runs
#[utoipa::path(get, path = "/livez", responses((status = 200, body = String, content_type = "text/plain")))]
async fn livez() -> Response {
    text(StatusCode::OK, "ok\n", PLAIN)
}

/// Whether it is to be sent calls
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, body = String, content_type = "text/plain"),
))]
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    match reason_not_to_be_ready(&admin) {
        None => text(StatusCode::OK, "ready\n", PLAIN),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason, PLAIN),
    }
}

fn reason_not_to_be_ready(admin: &Admin) -> Option<&'static str> {
    if *admin.phase.borrow() != Phase::Running {
        Some("not ready: shutting down\n")
    } else if admin.catalog.load().tls_status == TlsStatus::Enabled && admin.certificates.load().is_empty() {
        Some("not ready: no certificate is loaded\n")
    } else if !admin.kubernetes.is_settled() {
        Some("not ready: Kubernetes has not said yet which replicas there are\n")
    } else if admin.cluster.as_ref().is_some_and(|cluster| !cluster.is_ready()) {
        Some("not ready: the other front ends of the cluster are not known yet\n")
    } else {
        None
    }
}

/// Metrics, for Prometheus
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = 500, body = ErrorResponse),
))]
async fn prometheus(State(admin): State<Arc<Admin>>) -> Response {
    match metrics::render(&admin) {
        Ok(body) => text(StatusCode::OK, body, metrics::CONTENT_TYPE),
        Err(error) => Problem::internal("The metrics could not be written", &error).into_response(),
    }
}

/// This document
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
async fn openapi() -> Response {
    json(StatusCode::OK, &document())
}

/// Reads every file now
///
/// Answers when it is done, with what was taken and what was not: 422 if anything was not.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = Object),
    (status = 422, body = Object),
    (status = 503, body = ErrorResponse),
))]
async fn reload(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let report = admin.reload.reload().await?;
    let status = if report.is_all_taken() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok(json(status, &report))
}

/// The certificates that are served
#[utoipa::path(get, path = "/v1/certificates", responses((status = 200, body = Object)))]
async fn certificates(State(admin): State<Arc<Admin>>) -> Response {
    let status = &admin.reload.standing().status;
    json(StatusCode::OK, &serde_json::json!({ "certificates": status.certificates, "others": status.others }))
}

/// The replicas, and how each of them is
#[utoipa::path(get, path = "/v1/replicas", responses((status = 200, body = Object)))]
async fn all_replicas(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &replicas::Report::of(&admin.catalog.load()))
}

/// The front ends that share the replicas, and which of them has what
#[utoipa::path(get, path = "/v1/cluster", responses((status = 200, body = Object)))]
async fn front_ends(State(admin): State<Arc<Admin>>) -> Response {
    json(StatusCode::OK, &cluster::Report::of(admin.cluster.as_deref(), &admin.catalog.load()))
}
