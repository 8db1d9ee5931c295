//! A replica that costs little: it answers every request at once, with what the request asks for.
//!
//! `x-down: N` is answered with N bytes of noise, `x-events: N` with so many server-sent events, `x-interval-ms` apart. A body
//! under `x-noise` has to be noise, and is answered with `right` if it is. All else is answered with the same few bytes.
//! `--close` ends every connection after its answer, as a replica of the Azure ML inference server does.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Failure;
use crate::bodies::{ANSWER, Body, EVENT};
use crate::caller::field;
use crate::gate::say;
use crate::options::Options;

const SMALL: usize = 4096;
const LARGE: usize = 256 * 1024;
/// For the other side to close what was ended.
const PATIENCE: Duration = Duration::from_secs(5);

struct Answers {
    small: Vec<u8>,
    right: Vec<u8>,
    is_closing: bool,
}

pub async fn run(options: &mut Options) -> Result<(), Failure> {
    let is_closing = options.flag("--close");
    options.end()?;
    let connection = if is_closing { "Connection: close\r\n" } else { "" };
    let answer = |body: &[u8]| {
        let head = head(&format!("Content-Length: {}\r\n{connection}", body.len()));
        [head.as_bytes(), body].concat()
    };
    let answers = Rc::new(Answers { small: answer(ANSWER), right: answer(b"right"), is_closing });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.port().to_string())?;
    loop {
        let (stream, _) = listener.accept().await?;
        let answers = Rc::clone(&answers);
        // A connection that breaks is the proxy's affair: its caller misses an answer.
        spawn_local(async move { serve(stream, &answers).await });
    }
}

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n")
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(SMALL);
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let request = std::str::from_utf8(&buffer[..end])?.to_owned();
        let number = |name| field(&request, name).map_or(Ok(0), str::parse::<usize>);
        if field(&request, "transfer-encoding").is_some() {
            return Err("a body without a length, which no caller sent".into());
        }
        let (length, is_noise) = (number("content-length")?, field(&request, "x-noise").is_some());
        buffer.drain(..end + 4);
        let is_right = read_body(&mut stream, &mut buffer, length, is_noise).await?;

        let (down, events) = (number("x-down")?, number("x-events")?);
        if is_noise && is_right {
            stream.write_all(&answers.right).await?;
        } else if is_noise {
            stream.write_all(head("Content-Length: 5\r\n").replace("200 OK", "400 Wrong").as_bytes()).await?;
            stream.write_all(b"wrong").await?;
        } else if down > 0 {
            let body = Body::noise(down);
            stream.write_all(head(&format!("Content-Length: {down}\r\n")).as_bytes()).await?;
            let mut sent = 0;
            while sent < down {
                let piece = body.piece(sent);
                stream.write_all(piece).await?;
                sent += piece.len();
            }
        } else if events > 0 {
            send_events(&mut stream, events, number("x-interval-ms")? as u64).await?;
        } else {
            stream.write_all(&answers.small).await?;
        }
        if answers.is_closing {
            stream.shutdown().await?;
            let _ = timeout(PATIENCE, stream.read_buf(&mut buffer)).await;
            return Ok(());
        }
    }
}

/// Whether it was noise, if it had to be.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: usize,
    is_noise: bool,
) -> Result<bool, Failure> {
    let (expected, mut at, mut is_right) = (Body::noise(length), 0, true);
    if length > SMALL && buffer.capacity() < LARGE {
        buffer.reserve(LARGE);
    }
    loop {
        let here = buffer.len().min(length - at);
        is_right &= !is_noise || expected.has(at, &buffer[..here]);
        buffer.drain(..here);
        at += here;
        if at == length {
            return Ok(is_right);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err("a request that broke off".into());
        }
    }
}

async fn send_events(stream: &mut TcpStream, count: usize, interval_ms: u64) -> Result<(), Failure> {
    let fields = "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n";
    let head = head(fields).replace("application/json", "text/event-stream");
    let chunk = [format!("{:x}\r\n", EVENT.len()).as_bytes(), &EVENT, b"\r\n"].concat();
    stream.write_all(head.as_bytes()).await?;
    let mut ticks = interval(Duration::from_millis(interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        ticks.tick().await;
        stream.write_all(&chunk).await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(())
}
