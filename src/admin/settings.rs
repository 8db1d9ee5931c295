//! What can be set of a service: from the configuration to JSON, and from JSON to the table that an operator would write.

mod merged;
mod shown;
#[cfg(test)]
mod tests;
mod written;

pub use self::merged::{SettingsError, merged, refuse_unknown};
pub use self::shown::of;
pub use self::written::write;
