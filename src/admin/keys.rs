//! The two keys of a service. The configuration has their hashes, by which calls are let in; the keys themselves lie beside
//! it in a file of their own, which nobody but its owner can read and which is read for nothing but to show them.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use toml_edit::value;
use zeroize::Zeroizing;

use super::answer::{Named, Object, Problem, json, typed};
use super::model::{ErrorResponse, KeyType, Keys, RegenerateKeysRequest};
use super::{Admin, service, settings};
use crate::config::{self, Auth, KeyHash};
use crate::environment::draft::{Draft, keys_file, set};

/// Bytes of chance in a key: as much as nobody can guess.
const KEY_BYTES: usize = 24;

/// What a caller can send in a field and people can tell apart, and no less than nobody guesses.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// The keys of a service
///
/// Absent is one of which only a hash is kept, or which there is not.
#[utoipa::path(get, path = "/v1/services/{name}/keys", params(("name" = String, Path, description = "Its name or id")), responses(
    (status = 200, body = Keys),
    (status = 404, body = ErrorResponse),
))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(name): Named) -> Result<Response, Problem> {
    let (main, config) = (admin.main.clone(), Arc::clone(&admin.config));
    let keys = admin.read(move || {
        let config = config.load_full();
        let found = service::find(&config, &name)?;
        Ok::<_, Problem>(Kept::read(&keys_file(&main, found.name.as_str())).of(found))
    });
    Ok(json(StatusCode::OK, &keys.await??))
}

/// Makes one of the keys anew
///
/// The other one goes on as it is, so that callers can change over.
#[utoipa::path(post, path = "/v1/services/{name}/regenerateKeys", request_body = RegenerateKeysRequest,
    params(("name" = String, Path, description = "Its name or id")),
    responses(
        (status = 200, body = Keys),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
        (status = 409, body = ErrorResponse, description = "The service asks for no key, Kubernetes names it, or the files are invalid"),
        (status = 412, body = ErrorResponse, description = "The files were changed at the same time"),
))]
pub(super) async fn regenerate(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    Object(fields): Object,
) -> Result<Response, Problem> {
    settings::refuse_unknown(&fields, &["keyType", "keyValue"])
        .map_err(|error| Problem::bad_request("BadRequest", error.to_string()))?;
    let RegenerateKeysRequest { key_type, key_value } = typed(fields)?;
    let name = service::find_own(&admin.config.load(), &name)?.name.to_string();
    let keys = admin
        .change(move |draft| {
            let service = draft.service(&name).ok_or_else(|| Problem::no_service(&name))?;
            if service.auth == Auth::Open {
                let message = format!("Service {name} asks for no key; {{\"authEnabled\": true}} makes it ask.");
                return Err(Problem::new(StatusCode::CONFLICT, "NoKeys", message));
            }
            let mut kept = Kept::read(&draft.keys_file(&name)).of(service);
            let key = key_value.clone().map_or_else(random_key, |key| chosen(&key).map(|()| key))?;
            match key_type {
                KeyType::Primary => kept.primary_key = Some(key),
                KeyType::Secondary => kept.secondary_key = Some(key),
            }
            if kept.primary_key.is_some() && kept.primary_key == kept.secondary_key {
                let message = "The two keys would be the same, and none could be replaced while callers use the other.";
                return Err(Problem::bad_request("InvalidKey", message));
            }
            put(draft, &name, &kept)?;
            Ok(kept)
        })
        .await?;
    Ok(json(StatusCode::OK, &keys))
}

/// Gives the service `name` two keys.
pub(super) fn make(draft: &mut Draft, name: &str) -> Result<(), Problem> {
    let keys = Keys { primary_key: Some(random_key()?), secondary_key: Some(random_key()?) };
    put(draft, name, &keys)
}

/// Has the configuration have the hashes of those that are known, and the file beside it the keys.
fn put(draft: &mut Draft, name: &str, keys: &Keys) -> Result<(), Problem> {
    let table = draft.service_table(name)?.ok_or_else(|| Problem::no_service(name))?;
    let mut document = toml_edit::DocumentMut::new();
    for (key, hash_field, field) in [
        (&keys.primary_key, "primary_key_sha256", "primary"),
        (&keys.secondary_key, "secondary_key_sha256", "secondary"),
    ] {
        let Some(key) = key else { continue };
        set(table, hash_field, Some(value(KeyHash::of(key.as_bytes()).to_string())));
        document.insert(field, value(key.as_str()));
    }
    let file = draft.keys_file(name);
    draft.put_secret(file, Zeroizing::new(document.to_string().into_bytes()));
    Ok(())
}

fn random_key() -> Result<String, Problem> {
    let mut bytes = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Problem::internal("No key could be drawn", &"no random bytes"))?;
    let mut key = String::new();
    for byte in bytes {
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

fn chosen(key: &str) -> Result<(), Problem> {
    if LENGTHS.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let message = format!(
        "`keyValue` has {} to {} characters, letters, digits and signs without blanks.",
        LENGTHS.start(),
        LENGTHS.end()
    );
    Err(Problem::bad_request("InvalidKey", message))
}

/// What the file beside the configuration says, whatever became of it.
struct Kept(toml::Table);

impl Kept {
    fn read(file: &std::path::Path) -> Self {
        let text = Zeroizing::new(fs::read_to_string(file).unwrap_or_default());
        Self(text.parse().unwrap_or_default())
    }

    /// Those that are the keys of `service` still.
    fn of(&self, service: &config::Service) -> Keys {
        let kept = |name: &str| {
            let key = self.0.get(name)?.as_str()?;
            let Auth::Keys(keys) = &service.auth else { return None };
            let known = keys.iter().find(|known| known.name == name)?;
            (known.hash == KeyHash::of(key.as_bytes())).then(|| key.to_owned())
        };
        Keys { primary_key: kept("primary"), secondary_key: kept("secondary") }
    }
}
