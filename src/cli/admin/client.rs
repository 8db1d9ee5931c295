//! Speaks HTTP to a running front end's admin address: one connection a question, and what went wrong as a sentence.
//!
//! It knows no resource of the API, only how all of them refuse (`ErrorResponse`).

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::model::{Detail, ErrorResponse};
use crate::config::AdminListen;

/// How long an answer may take: a reload reads every file.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to learn whether somebody is there at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer: some 400 bytes for each of 10,000 certificates, many times over.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A front end that can be asked.
pub(in crate::cli) struct Client {
    address: AdminListen,
    /// How it is spoken to over TLS, and as whom; absent: in the clear.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Option<HeaderValue>,
    how_to_start: Option<String>,
    runtime: Runtime,
}

/// A question.
pub(in crate::cli) struct Ask {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// The whole answer to it.
pub(in crate::cli) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// `path` is as it stands in the request line; names in it went through [`segment`].
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// The same with a body.
    pub fn with(mut self, body: &impl Serialize) -> anyhow::Result<Self> {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = serde_json::to_vec(body)?.into();
        Ok(self)
    }

    /// The same, on the condition that what it is about is still what `etag` is of.
    pub fn if_match(mut self, etag: &str) -> anyhow::Result<Self> {
        let value = HeaderValue::try_from(etag).with_context(|| format!("{etag:?} is no ETag"))?;
        self.headers.insert(IF_MATCH, value);
        Ok(self)
    }
}

impl Answer {
    /// The answer, if it is a success.
    ///
    /// # Errors
    ///
    /// What the front end says is wrong.
    pub fn accepted(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        match serde_json::from_slice::<ErrorResponse>(&self.body) {
            Ok(refused) => bail!(sentence(&refused.error.message, &refused.error.details)),
            Err(_) => bail!("{}: {}", self.status, String::from_utf8_lossy(&self.body).trim()),
        }
    }

    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context("not the answer of a front end")
    }

    /// Which refusal it is, if it is one.
    pub fn code(&self) -> Option<String> {
        serde_json::from_slice::<ErrorResponse>(&self.body).ok().map(|refused| refused.error.code)
    }

    /// A field's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The message, and a line for each detail that says more.
fn sentence(message: &str, details: &[Detail]) -> String {
    let mut text = message.to_owned();
    // Some say where in the files the same would stand, of which nothing was written.
    for detail in details.iter().filter(|detail| !detail.message.contains(message)) {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {}", detail.message);
    }
    text
}

/// `text` as one segment of a path (RFC 3986, section 2.1).
pub(in crate::cli) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

impl Client {
    pub fn new(
        address: AdminListen,
        tls: Option<(ClientConfig, ServerName<'static>)>,
        token: Option<HeaderValue>,
        how_to_start: Option<String>,
    ) -> anyhow::Result<Self> {
        let tls = tls.map(|(config, name)| (TlsConnector::from(Arc::new(config)), name));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address, tls, token, how_to_start, runtime })
    }

    /// Where it is asked, as messages have it.
    pub fn address(&self) -> String {
        self.address.url(self.tls.is_some())
    }

    /// The address of the machine that it is asked on, where that is another one than this may be.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        match &self.address {
            AdminListen::Tcp(address) if !address.ip().is_loopback() && !address.ip().is_unspecified() => {
                Some(address.ip())
            }
            AdminListen::Tcp(_) | AdminListen::Unix(_) => None,
        }
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// There is no answer, or it says that the token is missing or wrong.
    pub fn ask(&self, ask: Ask) -> anyhow::Result<Answer> {
        self.ask_within(PATIENCE, ask)
    }

    /// The same with a patience of one's own.
    ///
    /// # Errors
    ///
    /// As with [`Client::ask`].
    pub fn ask_within(&self, patience: Duration, ask: Ask) -> anyhow::Result<Answer> {
        let answer = self.runtime.block_on(async {
            timeout(patience, self.ask_over_any(ask)).await.map_err(|_| anyhow!("no answer within {patience:?}"))
        });
        let answer = answer.flatten().map_err(|error| self.unreachable(&error))?;
        if answer.status == StatusCode::UNAUTHORIZED {
            match self.token {
                Some(_) => bail!("{} asks for another token than the one that was given", self.address()),
                None => bail!("{} asks for a token; --token-file names the file that holds it", self.address()),
            }
        }
        Ok(answer)
    }

    /// Asks, and takes nothing but a success for an answer.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn accepted(&self, ask: Ask) -> anyhow::Result<Answer> {
        self.ask(ask)?.accepted()
    }

    /// `GET path`, as what it answers.
    ///
    /// # Errors
    ///
    /// There is no such answer.
    pub fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> anyhow::Result<T> {
        self.accepted(Ask::get(path))?.json()
    }

    /// Whether anybody takes connections there.
    pub fn is_answering(&self) -> bool {
        let connect = async {
            match &self.address {
                AdminListen::Tcp(address) => TcpStream::connect(address).await.map(drop),
                AdminListen::Unix(socket) => UnixStream::connect(socket).await.map(drop),
            }
        };
        let connected = self.runtime.block_on(async { timeout(CONNECT_TIMEOUT, connect).await });
        let refused = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
        // Where nothing can be learnt, somebody may be.
        !connected.is_ok_and(|connected| connected.is_err_and(|error| refused.contains(&error.kind())))
    }

    /// What to do where nobody answers.
    fn unreachable(&self, error: &anyhow::Error) -> anyhow::Error {
        // It comes as an error of the connection, or of HTTP on it, after the handshake.
        if format!("{error:#}").contains("CertificateRequired") {
            return anyhow!("{} asks for a certificate; --admin-cert and --admin-key name its files", self.address());
        }
        match &self.how_to_start {
            Some(command) => anyhow!("{}: {error:#}; no front end answers there: {command} starts it", self.address()),
            None => anyhow!("{}: {error:#}; is a front end running there? --admin says where else", self.address()),
        }
    }

    async fn ask_over_any(&self, ask: Ask) -> anyhow::Result<Answer> {
        match &self.address {
            AdminListen::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                match &self.tls {
                    Some((tls, name)) => self.ask_over(tls.connect(name.clone(), stream).await?, ask).await,
                    None => self.ask_over(stream, ask).await,
                }
            }
            AdminListen::Unix(socket) => self.ask_over(UnixStream::connect(socket).await?, ask).await,
        }
    }

    async fn ask_over<S>(&self, stream: S, ask: Ask) -> anyhow::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(ask.method).uri(ask.path).body(Full::new(ask.body))?;
        *request.headers_mut() = ask.headers;
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let asked = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
            anyhow::Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        // The connection is driven for as long as the answer takes; how it ends after that is nobody's business.
        tokio::select! {
            biased;
            answer = asked => answer,
            Err(error) = connection => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() }
    }

    fn refusal(status: StatusCode, body: &str) -> String {
        match answer(status, body).accepted() {
            Ok(_) => panic!("{status} is no success"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_details() {
        let body = r#"{"error":{"code":"Invalid","message":"It is invalid.","details":[
            {"code":"A","message":"a.toml:1:1: It is invalid."},{"code":"B","message":"a.toml:3:1: error: no."}]}}"#;
        assert_eq!(refusal(StatusCode::BAD_REQUEST, body), "It is invalid.\n  a.toml:3:1: error: no.");
        assert_eq!(refusal(StatusCode::NOT_FOUND, "no such path\n"), "404 Not Found: no such path");
        assert!(answer(StatusCode::NO_CONTENT, "").accepted().is_ok());
    }

    #[test]
    fn any_text_is_one_segment() {
        assert_eq!(segment("iris.my-cluster.my_rg~"), "iris.my-cluster.my_rg~");
        assert_eq!(segment("a/b?c#d e(é)%"), "a%2Fb%3Fc%23d%20e%28%C3%A9%29%25");
    }
}
