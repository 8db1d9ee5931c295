//! Which service a command is about, and where the management API has it.

use std::fmt;

use http::StatusCode;

use crate::admin::model::Service;
use crate::cli::admin::{Answer, Ask, Client, segment};
use crate::config::ServiceName;

/// One service.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// Its name
    #[arg(short, long, value_parser = name)]
    name: Option<ServiceName>,
    /// Its id, as service create and service show say it
    #[arg(short, long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    id: Option<String>,
}

/// A service's name as an argument.
///
/// # Errors
///
/// The rule, where the text does not follow it.
pub fn name(text: &str) -> Result<ServiceName, String> {
    text.parse::<ServiceName>().map_err(|problem| problem.to_string())
}

impl Target {
    /// What it was called by.
    fn word(&self) -> &str {
        match (&self.name, &self.id) {
            (Some(name), _) => name.as_str(),
            // clap asks for one of the two.
            (None, id) => id.as_deref().unwrap_or_default(),
        }
    }

    /// Its path, with what stands behind it.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/services/{}{rest}", segment(self.word()))
    }

    /// The service as it is now.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn get(&self, client: &Client) -> anyhow::Result<Service> {
        self.ask(client)?.json()
    }

    /// The same as it was answered, which has its `ETag`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn ask(&self, client: &Client) -> anyhow::Result<Answer> {
        let answer = client.ask(Ask::get(self.path("")))?;
        anyhow::ensure!(answer.status != StatusCode::NOT_FOUND, "No such service: {self}.");
        answer.accepted()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It stands on one line, whatever was typed.
        write!(f, "{}", self.word().escape_debug())
    }
}
