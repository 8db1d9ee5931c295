//! A caller that writes HTTP/1 byte by byte, as no library would.

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Reply, SCORE, within};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct Wire {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Wire {
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    /// Writes all of `bytes`; the front end reads them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.try_send(bytes)).await.expect("the front end reads");
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Closes its own side, with `close_notify` over TLS.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// A call to the service `iris` with more field lines, each ending in CR LF, and a body.
    pub async fn post(&mut self, fields: &str, body: &str) {
        let host = super::CNAME;
        self.send(format!("POST {SCORE} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}")).await;
    }

    /// Sends `bytes` and reads one answer.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.send(bytes).await;
        self.reply().await
    }

    pub async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("a whole answer")
    }

    /// One answer, interim ones (1xx) too; an error when it breaks off.
    pub async fn try_reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.try_head().await?;
        let length = reply.field("content-length").map(|length| length.parse().expect("a length"));
        reply.body = match (reply.status, length) {
            (100..200 | 204 | 304, _) => Vec::new(),
            (_, Some(length)) => self.take(length).await?,
            _ if reply.field("transfer-encoding") == Some("chunked") => self.chunks().await?,
            _ => self.rest().await?,
        }
        .into();
        Ok(reply)
    }

    /// The head of an answer alone.
    pub async fn head(&mut self) -> Reply {
        self.try_head().await.expect("a head")
    }

    async fn try_head(&mut self) -> io::Result<Reply> {
        let status = self.line().await?;
        let status = status.strip_prefix("HTTP/1.1 ").or(status.strip_prefix("HTTP/1.0 ")).expect("a status line");
        let mut reply = Reply {
            status: status.get(..3).and_then(|status| status.parse().ok()).expect("a status"),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(reply);
            }
            let (name, value) = line.split_once(':').expect("a field");
            let value = HeaderValue::from_str(value.trim()).expect("a value");
            reply.headers.append(HeaderName::try_from(name).expect("a name"), value);
        }
    }

    /// One chunk of an answer's body; empty at the last.
    pub async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a chunk size: {size:?}"));
        let chunk = self.take(size).await?;
        assert_eq!(self.line().await?, "", "a chunk or the trailers end");
        Ok(chunk)
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Everything up to the end of the connection, which must be a clean one.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.received))
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub async fn closed(&mut self) {
        let rest = self.rest().await.expect("a clean end");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }

    /// Waits for the end of the connection, however it comes, whatever comes before.
    pub async fn gone(&mut self) {
        while self.fill().await.is_ok_and(|n| n > 0) {
            self.received.clear();
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8(line[..end].to_vec()).expect("UTF-8"));
            }
            self.more().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.more().await?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.fill().await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        within(self.stream.read_buf(&mut self.received)).await
    }
}
