//! Environments as their files say, whether a front end runs or not.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::admin::model::{ClusterType, SslStatus};

/// What an environment's files say of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    pub name: String,
    pub resource_group: Option<String>,
    pub cluster_type: ClusterType,
    pub ssl_status: SslStatus,
    pub cnames: Vec<String>,
    pub directory: PathBuf,
}

/// Whether there are files of an environment in `directory`.
pub fn is_one(directory: &Path) -> bool {
    directory.join("scorefront.toml").is_file()
}

impl Found {
    /// The environment in `directory`.
    ///
    /// # Errors
    ///
    /// There is none, or its files do not say which it is.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let file = directory.join("scorefront.toml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let table: toml::Table = text.parse().with_context(|| file.display().to_string())?;
        let Some(environment) = table.get("environment") else {
            bail!("{}: is no environment: scorefront.toml has no [environment]", directory.display());
        };
        let text = |key: &str| environment.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let is_local = text("cluster_type").is_some_and(|kind| kind == "Local");
        let status = table.get("tls").and_then(|tls| tls.get("status")).and_then(toml::Value::as_str);
        let cnames = table.get("cname").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let cname = |table: &toml::Value| table.get("name").and_then(toml::Value::as_str).map(str::to_owned);
        Ok(Self {
            name: text("name").with_context(|| format!("{}: [environment] has no name", file.display()))?,
            resource_group: text("resource_group"),
            cluster_type: if is_local { ClusterType::Local } else { ClusterType::Acs },
            ssl_status: if status == Some("Disabled") { SslStatus::Disabled } else { SslStatus::Enabled },
            cnames: cnames.iter().filter_map(cname).collect(),
            directory: directory.to_owned(),
        })
    }
}
