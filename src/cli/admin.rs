//! Which running front end a command is about: where its admin address is, and the token it asks for. How it is spoken
//! to is in [`client`].

mod client;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use http::HeaderValue;

pub(super) use self::client::{Answer, Ask, Client, segment};
use super::Configuration;
use crate::config::{self, AdminListen, Diagnostics, defaults};
use crate::tls::finding::quoted;

/// Names the admin address where no argument does.
const VARIABLE: &str = "SCOREFRONT_ADMIN";

/// Which running front end a command is about.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// Its admin address, http://ADDRESS:PORT or unix:PATH; else what the variable `SCOREFRONT_ADMIN` says, else port
    /// 8900 of this machine
    #[arg(long = "admin", value_name = "URL", conflicts_with_all = ["config", "env"], verbatim_doc_comment)]
    url: Option<String>,
    /// The file that holds the token its admin address asks for
    #[arg(long, value_name = "FILE", env = "SCOREFRONT_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The configuration file it runs with, which names both
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    config: Option<PathBuf>,
    /// The environment it runs with
    #[arg(long, value_name = "DIR", visible_alias = "dir")]
    env: Option<PathBuf>,
}

impl Admin {
    /// The front end that an environment's files belong to.
    pub(super) fn of_environment(directory: PathBuf) -> Self {
        Self { url: None, token_file: None, config: None, env: Some(directory) }
    }

    /// # Errors
    ///
    /// The address or the token cannot be made out.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let (mut address, mut token_file) = (defaults::ADMIN_LISTEN, self.token_file.clone());
        if self.names_files() {
            let config = self.configuration()?;
            address = config.listen;
            token_file = token_file.or(config.token_file.map(|file| file.path));
        } else if let Some(url) = &self.url {
            address = parse(url).with_context(|| format!("--admin {url}"))?;
        } else if let Some(url) = env::var(VARIABLE).ok().filter(|url| !url.is_empty()) {
            address = parse(&url).with_context(|| format!("{VARIABLE}={url}"))?;
        }
        Client::new(address, token_file.map(token).transpose()?, self.how_to_start())
    }

    /// The arguments that name this front end, each after a blank: for commands that are told to run next.
    pub(super) fn words(&self) -> String {
        let url = self.url.as_ref().map(|url| format!(" --admin {url}"));
        let file = |flag: &str, file: &Option<PathBuf>| file.as_ref().map(|file| format!(" {flag} {}", quoted(file)));
        let files = [file("--token-file", &self.token_file), file("--config", &self.config), file("--env", &self.env)];
        url.into_iter().chain(files.into_iter().flatten()).collect()
    }

    fn names_files(&self) -> bool {
        self.config.is_some() || self.env.is_some()
    }

    /// What runs it, if the files are known that it runs with.
    fn how_to_start(&self) -> Option<String> {
        let file = |flag: &str, file: &Option<PathBuf>| file.as_ref().map(|file| format!("{flag} {}", quoted(file)));
        let files = file("--config", &self.config).or_else(|| file("--env", &self.env));
        files.map(|files| format!("scorefront serve {files}"))
    }

    /// What the files say of its admin address. It runs also while something else in them is wrong.
    fn configuration(&self) -> anyhow::Result<config::Admin> {
        let file = Configuration { config: self.config.clone(), env: self.env.clone() }.file();
        let mut diagnostics = Diagnostics::default();
        let (config, _) = config::load_partly(&file, &mut diagnostics);
        config.map(|config| config.admin).ok_or_else(|| anyhow!("{diagnostics}"))
    }
}

fn parse(url: &str) -> anyhow::Result<AdminListen> {
    const EXPECTED: &str = "expected http://ADDRESS:PORT or unix:PATH";
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(AdminListen::Unix(path.into()));
    }
    if url.starts_with("https://") {
        bail!("{EXPECTED}: the admin address speaks plain HTTP");
    }
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let address = address.replace("localhost:", "127.0.0.1:");
    address.parse().map(AdminListen::Tcp).map_err(|_| anyhow!(EXPECTED))
}

fn token(file: PathBuf) -> anyhow::Result<HeaderValue> {
    let token = fs::read_to_string(&file).with_context(|| format!("token file {}", file.display()))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| anyhow!("token file {}: holds characters that no token has", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_in_several_ways() {
        for (text, expected) in [
            ("http://127.0.0.1:8900", "http://127.0.0.1:8900"),
            ("127.0.0.1:8900", "http://127.0.0.1:8900"),
            ("http://localhost:8900/", "http://127.0.0.1:8900"),
            ("http://[::1]:1", "http://[::1]:1"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(parse(text).expect(text).to_string(), expected);
        }
        for text in ["", "https://127.0.0.1:8900", "http://admin.example:8900", "127.0.0.1", "http://127.0.0.1:1/x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn commands_to_run_next_name_the_same_front_end() {
        let admin = Admin::of_environment("my env".into());
        assert_eq!(admin.words(), " --env 'my env'");
        assert_eq!(admin.how_to_start().as_deref(), Some("scorefront serve --env 'my env'"));
    }
}
