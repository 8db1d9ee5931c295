//! Speaks to a running front end through its admin address.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Configuration;
use crate::config::{self, AdminListen, defaults};

/// How long an answer may take: a reload reads every file.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer: some 400 bytes for each of 10,000 certificates, many times over.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Which running front end a command is about.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// Its admin address, http://ADDRESS:PORT or unix:PATH; by default port 8900 of this machine
    #[arg(long = "admin", value_name = "URL", env = "SCOREFRONT_ADMIN", conflicts_with_all = ["config", "env"])]
    url: Option<String>,
    /// The file that holds the token its admin address asks for
    #[arg(long, value_name = "FILE", env = "SCOREFRONT_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The configuration file it runs with, which names both
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    config: Option<PathBuf>,
    /// The environment it runs with
    #[arg(long, value_name = "DIR")]
    env: Option<PathBuf>,
}

/// A front end that can be asked.
pub(super) struct Client {
    address: AdminListen,
    token: Option<HeaderValue>,
}

impl Admin {
    /// # Errors
    ///
    /// The address or the token cannot be made out.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let (mut address, mut token_file) = (defaults::ADMIN_LISTEN, self.token_file.clone());
        if self.config.is_some() || self.env.is_some() {
            let file = Configuration { config: self.config.clone(), env: self.env.clone() }.file();
            let (config, _) = config::load(&file).map_err(|found| anyhow!("{found}"))?;
            address = config.admin.listen;
            token_file = token_file.or(config.admin.token_file.map(|file| file.path));
        } else if let Some(url) = &self.url {
            address = parse(url)?;
        }
        let token = token_file.map(|file| {
            let token = fs::read_to_string(&file).with_context(|| format!("token file {}", file.display()))?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| anyhow!("token file {}: holds characters that no token has", file.display()))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        Ok(Client { address, token: token.transpose()? })
    }
}

fn parse(url: &str) -> anyhow::Result<AdminListen> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(AdminListen::Unix(path.into()));
    }
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let address = address.replace("localhost:", "127.0.0.1:");
    let address = address.parse().with_context(|| format!("--admin {url}: expected http://ADDRESS:PORT or unix:PATH"));
    address.map(AdminListen::Tcp)
}

impl Client {
    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// There is no answer, or it says that the token is missing or wrong.
    pub(super) async fn ask(&self, method: Method, path: &'static str) -> anyhow::Result<(StatusCode, Bytes)> {
        let asked = async {
            match &self.address {
                AdminListen::Tcp(address) => self.ask_over(TcpStream::connect(address).await?, method, path).await,
                AdminListen::Unix(socket) => self.ask_over(UnixStream::connect(socket).await?, method, path).await,
            }
        };
        let answer = timeout(PATIENCE, asked).await.map_err(|_| anyhow!("no answer within {PATIENCE:?}"));
        let (status, body) = answer
            .flatten()
            .with_context(|| format!("{}: is a front end running there? --admin says where else", self.address))?;
        if status == StatusCode::UNAUTHORIZED {
            bail!("{} asks for a token; --token-file names the file that holds it", self.address);
        }
        Ok((status, body))
    }

    async fn ask_over<S>(&self, stream: S, method: Method, path: &'static str) -> anyhow::Result<(StatusCode, Bytes)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let asked = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        // The connection is driven for as long as the answer takes; how it ends after that is nobody's business.
        tokio::select! {
            biased;
            answer = asked => answer,
            Err(error) = connection => Err(error.into()),
        }
    }
}
