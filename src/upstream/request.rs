//! A request to a replica, written as it goes out (RFC 9112 sections 3 and 5) but for where its body ends, which follows
//! from the body there is.

use http::{HeaderName, Method};

/// A head of the usual size is written without growing the buffer.
const USUAL_HEAD: usize = 1024;

#[derive(Debug)]
pub struct Request<B> {
    /// The request line and the fields, each with its line end.
    pub(super) lines: Vec<u8>,
    pub(super) is_head: bool,
    /// Whether a body is usual, so that its absence is said (RFC 9110 section 8.6).
    pub(super) expects_body: bool,
    pub(super) body: B,
}

impl<B> Request<B> {
    /// A request without fields. `target` is a path and perhaps a query, in which no byte may end the line or begin
    /// another part of it; see [`is_target`].
    pub fn new(method: &Method, target: &str, body: B) -> Self {
        debug_assert!(is_target(target), "{target:?}");
        let mut lines = Vec::with_capacity(USUAL_HEAD);
        lines.extend_from_slice(method.as_str().as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(target.as_bytes());
        lines.extend_from_slice(b" HTTP/1.1\r\n");
        let expects_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        Self { lines, is_head: *method == Method::HEAD, expects_body, body }
    }

    /// Adds a field, whose value must be one that a `HeaderValue` can hold. Those that frame the body are not the caller's to
    /// add.
    pub fn field(&mut self, name: &HeaderName, value: &[u8]) {
        self.field_by(name, |lines| lines.extend_from_slice(value));
    }

    /// Adds a field whose value is written by `write`.
    pub fn field_by(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.lines.extend_from_slice(name.as_str().as_bytes());
        self.lines.extend_from_slice(b": ");
        write(&mut self.lines);
        self.lines.extend_from_slice(b"\r\n");
    }

    /// What is written so far, and the body.
    pub fn parts(&self) -> (&[u8], &B) {
        (&self.lines, &self.body)
    }
}

/// Whether this can stand in a request line.
pub fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}
