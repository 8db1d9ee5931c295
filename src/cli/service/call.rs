//! One call of a service, as a caller makes it: TLS to the front end under the service's CNAME, the certificate verified,
//! HTTP/1.1, the key in `Authorization`. What is asked and what becomes of the answer is for others.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Place;
use crate::cli::trust;

/// How long connecting to one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a certificate that nobody here vouches for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate for {0} is signed by nobody this machine trusts; \
     --cacert FILE names the certificate of the authority that signed it"
)]
pub struct UnknownIssuer(String);

/// What is asked.
pub struct Call {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How long nothing may come.
    pub patience: Duration,
}

impl Call {
    pub fn new(method: Method, body: Bytes, patience: Duration) -> Self {
        Self { method, headers: HeaderMap::new(), body, patience }
    }

    /// The same with a field.
    ///
    /// # Errors
    ///
    /// The value cannot stand in one.
    pub fn with(mut self, name: &'static str, value: &str) -> anyhow::Result<Self> {
        let value = HeaderValue::try_from(value).map_err(|_| anyhow!("{name}: holds what no field can"))?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// The same with a service's key.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn with_key(mut self, key: &str) -> anyhow::Result<Self> {
        let value = HeaderValue::try_from(format!("Bearer {key}"));
        // What is wrong with it is not shown: it is a key all the same.
        let mut value = value.map_err(|_| anyhow!("the key holds what no key does"))?;
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        Ok(self)
    }

    /// Calls, and hands what comes to `take`, part after part. The authority in `cacert` is trusted, or else those of this
    /// machine.
    ///
    /// # Errors
    ///
    /// There is no answer, or it breaks off.
    pub async fn send<T>(
        self,
        place: &Place,
        cacert: Option<&Path>,
        take: impl AsyncFnOnce(Answer) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if !place.is_tls {
            return self.send_over(connect(place).await?, place, take).await;
        }
        let tls = TlsConnector::from(Arc::new(trust::config(cacert)?));
        let name = ServerName::try_from(place.host.clone()).with_context(|| format!("{:?} is no name", place.host))?;
        let handshake = tls.connect(name, connect(place).await?);
        let Ok(stream) = timeout(self.patience, handshake).await else { bail!("no TLS handshake in time") };
        let stream = stream.map_err(|error| explain(error, &place.host))?;
        self.send_over(stream, place, take).await
    }

    async fn send_over<S, T>(
        self,
        stream: S,
        place: &Place,
        take: impl AsyncFnOnce(Answer) -> anyhow::Result<T>,
    ) -> anyhow::Result<T>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(self.method).uri(&place.path).body(Full::new(self.body))?;
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(HOST, HeaderValue::try_from(&place.authority)?);
        let patience = self.patience;
        let called = async move {
            let Ok(response) = timeout(patience, sender.send_request(request)).await else {
                bail!("no answer within {patience:?}");
            };
            take(Answer { response: response.context("the connection was lost")?, patience }).await
        };
        tokio::pin!(called);
        // It ends once all has been read from it; what is left to take then is here.
        tokio::select! {
            biased;
            taken = &mut called => return taken,
            ended = connection => ended.context("the connection was lost")?,
        }
        called.await
    }
}

/// An answer whose body is still coming.
pub struct Answer {
    pub response: Response<Incoming>,
    patience: Duration,
}

impl Answer {
    /// The next part of the body.
    ///
    /// # Errors
    ///
    /// It breaks off, or nothing comes.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let Ok(frame) = timeout(self.patience, self.response.body_mut().frame()).await else {
                bail!("the answer stopped for {:?}", self.patience);
            };
            match frame.transpose().context("the answer broke off")?.map(hyper::body::Frame::into_data) {
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The whole body, or as much of it as `limit` bytes.
    ///
    /// # Errors
    ///
    /// See [`Answer::next`].
    pub async fn body(&mut self, limit: usize) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while body.len() < limit
            && let Some(part) = self.next().await?
        {
            body.extend_from_slice(&part);
        }
        body.truncate(limit);
        Ok(body)
    }
}

/// The same place, the first address that takes connections first.
pub async fn reach(mut place: Place) -> Place {
    let reached = connect(&place).await.ok().and_then(|stream| stream.peer_addr().ok());
    place.addresses.sort_by_key(|address| Some(*address) != reached);
    place
}

/// To the first address that takes the connection.
async fn connect(place: &Place) -> anyhow::Result<TcpStream> {
    let mut failures = Vec::new();
    for address in &place.addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer within {CONNECT_TIMEOUT:?}")),
        }
    }
    bail!("the front end cannot be reached: {}", failures.join("; "))
}

/// What a failed handshake means to a caller.
fn explain(error: io::Error, host: &str) -> anyhow::Error {
    use rustls::Error;

    match error.downcast::<Error>() {
        Ok(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => UnknownIssuer(host.to_owned()).into(),
        Ok(Error::InvalidCertificate(problem)) => anyhow!("the certificate for {host} is refused: {problem}"),
        Ok(Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
            anyhow!("the front end has no certificate for {host}")
        }
        Ok(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            anyhow!("{host} asks callers for a certificate, which this command has none of; call it with curl --cert")
        }
        Ok(error) => anyhow!("the TLS handshake failed: {error}"),
        Err(error) => anyhow!("the connection was lost in the TLS handshake: {error}"),
    }
}
