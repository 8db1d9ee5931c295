//! Who may call a service, and how much may be asked of it.
//!
//! What a limit does to a request is none of its business.

use std::collections::HashMap;

use super::label;
use crate::config::diagnostic::{Diagnostics, Location};
use crate::config::file::{RawKey, RawRequestLimits, RawService, RawServiceSettings};
use crate::config::resolve::choice::choose;
use crate::config::table::{Field, Located};
use crate::config::value::{HOW_TO_HASH, KeyHash};
use crate::config::{Auth, Key, Rate, RequestLimits, defaults};

/// The names of the two keys that have no table of their own.
const PRIMARY: &str = "primary";
const SECONDARY: &str = "secondary";

pub fn resolve_auth(raw: &RawService, defaults: &RawServiceSettings, diagnostics: &mut Diagnostics) -> Option<Auth> {
    let asked = match (&raw.settings.auth, &defaults.auth) {
        (Field::Invalid, _) | (Field::Absent, Field::Invalid) => return None,
        (own, common) => choose([own, common], defaults::AUTH),
    };
    let tables = raw.keys.given().map_or(&[][..], |keys| &keys.value);
    // Their limits are judged in either case.
    let limits: Vec<_> = tables.iter().map(|key| resolve_limits(&key.limits, diagnostics)).collect();
    if !asked {
        warn_of_useless(raw, tables, diagnostics);
        return Some(Auth::Open);
    }
    if raw.primary_key_sha256.is_absent() && tables.is_empty() && !matches!(raw.keys, Field::Invalid) {
        let message = format!("{} asks for a key and has no `primary_key_sha256`", label(raw));
        let remedy =
            format!("add the 64 digits that this prints: {HOW_TO_HASH}; or set auth = false to let everybody call it");
        diagnostics.error_with(raw.at.clone(), message, remedy);
    }
    check_same_hashes(raw, tables, diagnostics);
    check_names(raw, tables, diagnostics);
    let short = |name: &str, field: &Field<KeyHash>| {
        let hash = field.given()?.value.clone();
        let (name, priority, limits) = (name.to_owned(), defaults::PRIORITY, RequestLimits::default());
        Some(Key { name, hash, priority, limits })
    };
    let long = |(key, limits): (&RawKey, RequestLimits)| {
        let (name, hash) = (key.name.as_ref()?.value.as_str().to_owned(), key.sha256.as_ref()?.value.clone());
        Some(Key { name, hash, priority: choose([&key.priority], defaults::PRIORITY), limits })
    };
    let keys: Vec<_> = [(PRIMARY, &raw.primary_key_sha256), (SECONDARY, &raw.secondary_key_sha256)]
        .into_iter()
        .filter_map(|(name, field)| short(name, field))
        .chain(tables.iter().zip(limits).filter_map(long))
        .collect();
    // Without a single sound one, something was said of it.
    (!keys.is_empty()).then_some(Auth::Keys(keys))
}

fn warn_of_useless(raw: &RawService, tables: &[RawKey], diagnostics: &mut Diagnostics) {
    let given = |field: &Field<KeyHash>| field.given().map(|given| given.at.clone());
    let fields = [
        ("primary_key_sha256", given(&raw.primary_key_sha256)),
        ("secondary_key_sha256", given(&raw.secondary_key_sha256)),
    ];
    let tables = tables.iter().map(|key| ("[[service.key]]", Some(key.at.clone())));
    for (key, at) in fields.into_iter().chain(tables) {
        if let Some(at) = at {
            let message = format!("`{key}` has no effect: {} takes calls without a key", label(raw));
            diagnostics.warning_with(at, message, "delete it, or set auth = true");
        }
    }
}

fn check_same_hashes(raw: &RawService, tables: &[RawKey], diagnostics: &mut Diagnostics) {
    let mut seen: Vec<(&str, &Located<KeyHash>)> = Vec::new();
    let short = [(PRIMARY, raw.primary_key_sha256.given()), (SECONDARY, raw.secondary_key_sha256.given())];
    let long = tables.iter().map(|key| (key.name.as_ref().map_or("", |name| name.value.as_str()), key.sha256.as_ref()));
    for (name, hash) in short.into_iter().chain(long) {
        let Some(hash) = hash else { continue };
        match seen.iter().find(|(_, other)| other.value == hash.value) {
            Some((PRIMARY, _)) if name == SECONDARY => {
                let message = "`secondary_key_sha256` is the same as the primary: neither can be replaced while \
                               callers use it";
                diagnostics.warning_with(hash.at.clone(), message, "make a second key, or delete this one");
            }
            Some((first, _)) => {
                let message = format!("key `{name}` is the same as key `{first}`, under which all its calls are taken");
                diagnostics.warning_with(hash.at.clone(), message, "make another key, or delete one of the two");
            }
            None => seen.push((name, hash)),
        }
    }
}

fn check_names(raw: &RawService, tables: &[RawKey], diagnostics: &mut Diagnostics) {
    let short = [(PRIMARY, &raw.primary_key_sha256), (SECONDARY, &raw.secondary_key_sha256)];
    let mut seen: HashMap<&str, &Location> =
        short.into_iter().filter_map(|(name, field)| Some((name, &field.given()?.at))).collect();
    for Located { value: name, at } in tables.iter().filter_map(|key| key.name.as_ref()) {
        let first = *seen.entry(name.as_str()).or_insert(at);
        if first != at {
            let message = format!("{} has a key `{}` already, at {first}", label(raw), name.as_str());
            diagnostics.error_with(at.clone(), message, "rename or delete one of the two");
        }
    }
}

pub fn resolve_limits(raw: &RawRequestLimits, diagnostics: &mut Diagnostics) -> RequestLimits {
    if let (Some(burst), true) = (raw.burst.given(), raw.max_requests_per_second.is_absent()) {
        let message = "`burst` has no effect without `max_requests_per_second`";
        diagnostics.error_with(burst.at.clone(), message, "add max_requests_per_second, or delete it");
    }
    let rate = raw.max_requests_per_second.given().map(|given| Rate {
        per_second: given.value,
        // What comes in a second may come at once.
        burst: raw.burst.given().map_or(given.value, |burst| burst.value),
    });
    RequestLimits { rate, max_in_flight: raw.max_requests_in_flight.given().map(|given| given.value) }
}
