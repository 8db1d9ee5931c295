//! Environments as their files say, whether a front end runs or not.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure};
use serde::Serialize;

use crate::admin::model::{ClusterType, SslStatus};
use crate::config::{self, Diagnostics, TlsStatus};

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
    /// The environment in `directory`, also while something in its files is wrong.
    ///
    /// # Errors
    ///
    /// There is none, or its files do not say which it is.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        if !is_one(directory) {
            bail!("{}: is no environment: there is no scorefront.toml in it", directory.display());
        }
        let file = directory.join("scorefront.toml");
        let mut diagnostics = Diagnostics::default();
        let (config, _) = config::load_partly(&file, &mut diagnostics);
        let config = config.ok_or_else(|| anyhow!("{diagnostics}"))?;
        let environment = config.environment;
        let Some(name) = environment.name else {
            // It may stand in what could not be read.
            ensure!(!diagnostics.has_errors(), "{diagnostics}");
            bail!("{}: is no environment: its scorefront.toml has no [environment] with a name", directory.display());
        };
        let mut cnames: Vec<_> = config.cnames.iter().map(|cname| cname.name.to_string()).collect();
        cnames.dedup();
        Ok(Self {
            name: name.to_string(),
            resource_group: environment.resource_group.map(|group| group.to_string()),
            cluster_type: match environment.cluster_type {
                config::ClusterType::Acs => ClusterType::Acs,
                config::ClusterType::Local => ClusterType::Local,
            },
            ssl_status: match config.tls.status {
                TlsStatus::Enabled => SslStatus::Enabled,
                TlsStatus::Disabled => SslStatus::Disabled,
            },
            cnames,
            directory: directory.to_owned(),
        })
    }
}
