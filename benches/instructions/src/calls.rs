//! Scoring calls over one kept connection, as clients write them.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::caller::Caller;
use crate::stage::{CNAME, KEY, World};

const PATH: &str = "/api/v1/service/iris/score";

/// The fields of every call, of HTTP/1.1 and of HTTP/2.
const FIELDS: [(&str, &str); 4] = [
    ("user-agent", "python-requests/2.32.3"),
    ("accept-encoding", "gzip, deflate"),
    ("accept", "*/*"),
    ("content-type", "application/json"),
];

const BUFFER: usize = 64 * 1024;

/// One connection of HTTP/1.1.
pub struct Http1 {
    caller: Caller,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Http1 {
    /// Each call will have a body of so many bytes.
    pub fn connect(world: &mut World, config: &Arc<ClientConfig>, body: usize) -> Self {
        let fields: String = FIELDS.map(|(name, value)| [name, ": ", value, "\r\n"].concat()).concat();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: {CNAME}\r\n{fields}authorization: Bearer {KEY}\r\ncontent-length: {body}\r\n\r\n"
        );
        let request = [head.into_bytes(), vec![b'1'; body]].concat();
        Self { caller: Caller::connect(world, config), request, buffer: vec![0; BUFFER] }
    }

    /// Sends a call, and reads the answer to its end.
    pub fn call(&mut self, world: &mut World) {
        self.caller.send(world, &self.request);
        let mut head = Vec::new();
        let (end, length) = loop {
            let read = self.caller.receive(world, &mut self.buffer);
            head.extend(&self.buffer[..read]);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let fields = str::from_utf8(&head[..end]).expect("ASCII").to_ascii_lowercase();
            assert!(fields.starts_with("http/1.1 200 "), "{fields}");
            let length = fields.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            break (end + 4, length.parse::<usize>().expect("a number"));
        };
        let mut came = head.len() - end;
        while came < length {
            came += self.caller.receive(world, &mut self.buffer);
        }
        assert_eq!(came, length);
    }
}

/// Frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The first index of HPACK's dynamic table (RFC 7541 section 2.3.3).
const DYNAMIC: usize = 62;

/// One connection of HTTP/2.
pub struct Http2 {
    caller: Caller,
    next: u32,
    /// The head of a call: after the first one everything in it is in HPACK's table.
    head: Vec<u8>,
    later_head: Vec<u8>,
    body: Vec<u8>,
    buffer: Vec<u8>,
}

impl Http2 {
    /// Each call will have a body of so many bytes.
    pub fn connect(world: &mut World, config: &Arc<ClientConfig>, body: usize) -> Self {
        let (bearer, length) = (format!("Bearer {KEY}"), body.to_string());
        let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", CNAME), (":path", PATH)];
        let fields: Vec<(&str, &str)> = pseudo
            .into_iter()
            .chain(FIELDS)
            .chain([("authorization", &*bearer), ("content-length", &*length)])
            .collect();
        // The last one that was put in has the first index.
        let later_head = (0..fields.len()).rev().map(|n| 0x80 | short(DYNAMIC + n)).collect();
        let mut caller = Caller::connect(world, config);
        caller.send(world, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        caller.send(world, &frame(SETTINGS, 0, 0, &[]));
        caller.send(world, &frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
        let (head, body) = (indexed(&fields), vec![b'1'; body]);
        Self { caller, next: 1, head, later_head, body, buffer: vec![0; BUFFER] }
    }

    /// Sends so many calls at once, and reads their answers to the end of the last.
    pub fn calls(&mut self, world: &mut World, calls: usize) {
        let mut bytes = Vec::new();
        for _ in 0..calls {
            bytes.extend(frame(HEADERS, END_HEADERS, self.next, &self.head));
            bytes.extend(frame(DATA, END_STREAM, self.next, &self.body));
            self.next += 2;
            self.head.clone_from(&self.later_head);
        }
        self.caller.send(world, &bytes);
        let (mut unread, mut ended) = (Vec::new(), 0);
        while ended < calls {
            let read = self.caller.receive(world, &mut self.buffer);
            unread.extend(&self.buffer[..read]);
            while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = &*unread {
                let (kind, flags, length) = (*kind, *flags, u32::from_be_bytes([0, *a, *b, *c]) as usize);
                if rest.len() < length {
                    break;
                }
                match kind {
                    // An answer's status is the first field, and 200 is the eighth of HPACK's static table.
                    HEADERS => assert_eq!(rest.first(), Some(&0x88), "200"),
                    SETTINGS if flags == 0 => self.caller.send(world, &frame(SETTINGS, 1, 0, &[])),
                    DATA | SETTINGS | WINDOW_UPDATE => {}
                    _ => panic!("a frame of kind {kind}: {:?}", &rest[..length]),
                }
                ended += usize::from(matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
                unread.drain(..9 + length);
            }
        }
        assert!(unread.is_empty());
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that are put into the table (RFC 7541 section 6.2.1).
fn indexed(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x40);
        for text in [name, value] {
            block.push(short(text.len()));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A number that takes a byte alone.
fn short(n: usize) -> u8 {
    u8::try_from(n).ok().filter(|n| *n < 127).expect("short")
}
