//! Which running front end a command is about: where its admin address is, and the token it asks for. How it is spoken
//! to is in [`client`].

mod client;

use std::env;
use std::fs;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use http::HeaderValue;
use rustls::pki_types::ServerName;

pub(super) use self::client::{Answer, Ask, Client, segment};
use super::{Configuration, trust};
use crate::config::{self, AdminListen, Diagnostics, defaults};
use crate::tls::facts::Facts;
use crate::tls::finding::quoted;
use crate::tls::pem;

/// Names the admin address where no argument does.
const VARIABLE: &str = "SCOREFRONT_ADMIN";

/// Which running front end a command is about.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// Its admin address, http://ADDRESS:PORT, https://NAME:PORT or unix:PATH; else what the variable `SCOREFRONT_ADMIN`
    /// says, else port 8900 of this machine
    #[arg(long = "admin", value_name = "URL", conflicts_with_all = ["config", "env"], verbatim_doc_comment)]
    url: Option<String>,
    /// The file that holds the token its admin address asks for
    #[arg(long, value_name = "FILE", env = "SCOREFRONT_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The certificate of the authority that signed that of an https admin address; by default those this machine trusts
    #[arg(id = "admin-ca", long = "admin-ca", value_name = "FILE", env = "SCOREFRONT_ADMIN_CA")]
    ca: Option<PathBuf>,
    /// The certificate to show to an admin address that asks for one, as PEM
    #[arg(
        id = "admin-cert",
        long = "admin-cert",
        value_name = "FILE",
        env = "SCOREFRONT_ADMIN_CERT",
        requires = "admin-key"
    )]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(
        id = "admin-key",
        long = "admin-key",
        value_name = "FILE",
        env = "SCOREFRONT_ADMIN_KEY",
        requires = "admin-cert"
    )]
    key: Option<PathBuf>,
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
        let (ca, cert, key) = (None, None, None);
        Self { url: None, token_file: None, ca, cert, key, config: None, env: Some(directory) }
    }

    /// # Errors
    ///
    /// The address or the token cannot be made out.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let (mut address, mut token_file) = (Address::plain(defaults::ADMIN_LISTEN), self.token_file.clone());
        let mut ca = self.ca.clone();
        if self.names_files() {
            let config = self.configuration()?;
            address = Address { listen: config.listen, tls_name: None };
            if let (Some(tls), AdminListen::Tcp(_)) = (config.tls, &address.listen) {
                address.tls_name = Some(name_in(&tls.cert_pem.path)?);
                // Nobody else has its key.
                ca = ca.or(Some(tls.cert_pem.path));
            }
            token_file = token_file.or(config.token_file.map(|file| file.path));
        } else if let Some(url) = &self.url {
            address = parse(url).with_context(|| format!("--admin {url}"))?;
        } else if let Some(url) = env::var(VARIABLE).ok().filter(|url| !url.is_empty()) {
            address = parse(&url).with_context(|| format!("{VARIABLE}={url}"))?;
        }
        let tls = match (address.tls_name, &self.cert, &self.key) {
            (None, ..) => None,
            (Some(name), Some(cert), Some(key)) => Some((trust::config_as(ca.as_deref(), cert, key)?, name)),
            (Some(name), ..) => Some((trust::config(ca.as_deref())?, name)),
        };
        Client::new(address.listen, tls, token_file.map(token).transpose()?, self.how_to_start())
    }

    /// The arguments that name this front end, each after a blank: for commands that are told to run next.
    pub(super) fn words(&self) -> String {
        let url = self.url.as_ref().map(|url| format!(" --admin {}", quoted(Path::new(url))));
        let file = |flag: &str, file: &Option<PathBuf>| file.as_ref().map(|file| format!(" {flag} {}", quoted(file)));
        let files = [
            file("--token-file", &self.token_file),
            file("--admin-ca", &self.ca),
            file("--admin-cert", &self.cert),
            file("--admin-key", &self.key),
            file("--config", &self.config),
            file("--env", &self.env),
        ];
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

/// Where a front end is asked, and how.
#[derive(Debug)]
struct Address {
    listen: AdminListen,
    /// Over TLS, as this name; absent: in the clear.
    tls_name: Option<ServerName<'static>>,
}

impl Address {
    fn plain(listen: AdminListen) -> Self {
        Self { listen, tls_name: None }
    }
}

/// A name that the certificate in `file` is good for.
fn name_in(file: &Path) -> anyhow::Result<ServerName<'static>> {
    let what = || format!("{}: the certificate of the admin address", file.display());
    let chain = fs::read(file).with_context(what)?;
    let chain = pem::certificates(&chain).map_err(|problem| anyhow!("{problem}")).with_context(what)?;
    let facts = chain.first().and_then(|leaf| Facts::read(leaf).ok()).with_context(what)?;
    let names = facts.names.iter().map(|name| name.replacen('*', "admin", 1));
    let name = names.chain(facts.addresses.iter().map(ToString::to_string)).next();
    let name = name.with_context(|| format!("{}: has no name; --admin https://NAME:PORT says it", file.display()))?;
    ServerName::try_from(name).with_context(what)
}

fn parse(url: &str) -> anyhow::Result<Address> {
    const EXPECTED: &str = "expected http://ADDRESS:PORT, https://NAME:PORT or unix:PATH";
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(Address::plain(AdminListen::Unix(path.into())));
    }
    if let Some(authority) = url.strip_prefix("https://") {
        let authority = authority.trim_end_matches('/');
        let (name, _) = authority.rsplit_once(':').context(EXPECTED)?;
        let tls_name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).context(EXPECTED)?;
        let mut found = authority.to_socket_addrs().with_context(|| authority.to_owned())?;
        let address = found.next().with_context(|| format!("{name} has no address"))?;
        return Ok(Address { listen: AdminListen::Tcp(address), tls_name: Some(tls_name) });
    }
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let address = address.replace("localhost:", "127.0.0.1:");
    let address = address.parse().map_err(|_| anyhow!(EXPECTED))?;
    Ok(Address::plain(AdminListen::Tcp(address)))
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
            assert_eq!(parse(text).expect(text).listen.to_string(), expected);
        }
        let over_tls = parse("https://localhost:8900").expect("an address");
        assert_eq!(over_tls.tls_name, ServerName::try_from("localhost").ok());
        for text in ["", "https://127.0.0.1", "http://admin.example:8900", "127.0.0.1", "http://127.0.0.1:1/x"] {
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
