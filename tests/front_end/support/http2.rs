//! A caller that writes HTTP/2 frame by frame (RFC 9113 section 4), as no library would.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{CNAME, SCORE, within};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct Http2(TlsStream<TcpStream>);

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;

    /// Of a ping; the same bit as the next.
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    pub fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    /// The head of a call to the service `iris`, with a body to follow.
    pub fn score(stream: u32) -> Self {
        let fields = [(":method", "POST"), (":scheme", "https"), (":authority", CNAME), (":path", SCORE)];
        Self::new(Self::HEADERS, Self::END_HEADERS, stream, &hpack(&fields))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("short").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

impl Http2 {
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(stream)
    }

    /// The preface and empty settings.
    pub async fn open(&mut self) {
        self.send(PREFACE).await;
        self.send(Frame::new(Frame::SETTINGS, 0, 0, &[]).bytes()).await;
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.0.write_all(bytes.as_ref())).await.expect("the front end reads");
        within(self.0.flush()).await.expect("the front end reads");
    }

    pub async fn frame(&mut self) -> io::Result<Frame> {
        within(async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await?;
            Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        })
        .await
    }

    /// Skips frames until one of this kind.
    pub async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await.expect("a frame");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits for the end of the connection; the frames before it.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }
}

/// Fields as literals that are never indexed (RFC 7541 section 6.2.2).
fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}
