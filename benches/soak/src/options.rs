//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;

#[derive(Clone, Debug)]
pub struct Options {
    pub binary: PathBuf,
    pub requests: u64,
    pub seed: u64,
    /// Requests the front end may give one container at a time.
    pub limit: usize,
    /// How much later than its deadline an answer may be.
    pub grace: Duration,
    /// Whether a deployment that is renamed keeps its containers.
    pub in_place: bool,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            binary: "target/release/scorefront".into(),
            requests: 50_000,
            seed: 1,
            limit: 1,
            grace: Duration::from_millis(100),
            in_place: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--binary" => options.binary = value()?.into(),
                "--requests" => options.requests = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--limit" => options.limit = value()?.parse()?,
                "--grace-ms" => options.grace = Duration::from_millis(value()?.parse()?),
                "--in-place" => options.in_place = true,
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}
