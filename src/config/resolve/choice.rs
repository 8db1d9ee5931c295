//! Which of several places a setting is taken from.

use std::time::Duration;

use crate::config::file::RawCare;
use crate::config::table::Field;
use crate::config::{HealthChecks, defaults};

/// The first of the values that is there, else the built-in one. The nearest to what it is for comes first: a
/// deployment's own, then the service's, then that of `[defaults]`.
pub fn choose<T: Copy, const N: usize>(fields: [&Field<T>; N], built_in: T) -> T {
    fields.into_iter().find_map(Field::given).map_or(built_in, |given| given.value)
}

/// The nearest to the deployment comes first.
pub fn resolve_care<const N: usize>(raw: [&RawCare; N]) -> (usize, HealthChecks) {
    let max = choose(raw.map(|raw| &raw.max_concurrent_requests), defaults::MAX_CONCURRENT_REQUESTS);
    let interval = choose(raw.map(|raw| &raw.health_interval), defaults::HEALTH_INTERVAL);
    let timeout = choose(raw.map(|raw| &raw.health_timeout), defaults::HEALTH_TIMEOUT);
    (max, HealthChecks { interval: Some(interval).filter(|interval| *interval != Duration::ZERO), timeout })
}
