//! A caller's body on its way to a replica.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::BodyError;
use crate::scoring::copy::Tee;
use crate::scoring::exchange::Exchange;
use crate::scoring::incoming::{Incoming, Upload};
use crate::upstream;

/// A body of up to so many bytes is there as a whole before a replica is asked: a caller that sends slowly keeps no
/// replica, and one that hangs up while it waits is noticed.
pub const GATHERED: u64 = 64 * 1024;

/// What is gathered at most for the requests of one connection together, in bytes. What would go beyond it streams.
const GATHERED_BY_ONE: u64 = 1024 * 1024;

/// The same for all of a thread's connections.
const GATHERED_BY_ALL: u64 = 32 * 1024 * 1024;

/// See the module. Trailers are dropped (RFC 9110 section 6.5.1): in HTTP/1.1 a replica
/// might take them for header fields.
pub struct RequestBody {
    /// Only absent while this is dropped.
    incoming: Option<Incoming>,
    exchange: Rc<Exchange>,
    /// Bytes that may still come.
    allowance: u64,
    ended: bool,
    /// Whether the caller sends it only once it is asked for.
    is_expecting: bool,
    /// Read already and not passed on yet: the first part, or all if there are more.
    gathered: Bytes,
    more: BytesMut,
    /// Bytes that count in what the connection and the thread gather.
    counted: u64,
    /// Where a copy of it goes, if it is mirrored.
    tee: Option<Tee>,
}

impl RequestBody {
    /// A body of which nothing may be read yet. `is_expecting`: the caller sends it only once it is read (`Expect:
    /// 100-continue`, RFC 9110 section 10.1.1).
    pub fn new(incoming: Incoming, exchange: Rc<Exchange>, is_expecting: bool) -> Self {
        let ended = incoming.is_end_stream();
        if ended {
            exchange.upload.set(Upload::Complete);
        }
        Self {
            incoming: Some(incoming),
            exchange,
            allowance: 0,
            ended,
            is_expecting,
            gathered: Bytes::new(),
            more: BytesMut::new(),
            counted: 0,
            tee: None,
        }
    }

    /// Lets it have up to `max_body` bytes.
    pub fn allow(&mut self, max_body: u64) {
        self.allowance = max_body;
    }

    /// Whether it is to be [gathered](Self::poll_gather) before anything else is done with it. A body of unknown length is
    /// not: its caller may wait for the answer to the first part before it sends the next. Nor is one that the caller need
    /// not send at all if there is no room for it.
    pub fn is_small(&self) -> bool {
        !self.ended && !self.is_expecting && self.size_hint().exact().is_some_and(|length| length <= GATHERED)
    }

    /// Reads it to its end and keeps it, or as much of it as there is room for.
    ///
    /// # Errors
    ///
    /// The body broke off.
    pub fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while !self.ended && self.has_room() {
            match ready!(self.poll_incoming(cx)) {
                Some(Ok(data)) if self.gathered.is_empty() && self.more.is_empty() => {
                    self.count(data.len() as u64);
                    self.gathered = data;
                }
                Some(Ok(data)) => {
                    self.count(data.len() as u64);
                    self.more.extend_from_slice(&mem::take(&mut self.gathered));
                    self.more.extend_from_slice(&data);
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn has_room(&self) -> bool {
        let Exchange { worker, caller, .. } = &*self.exchange;
        worker.gathered.get() < GATHERED_BY_ALL && caller.gathered.get() < GATHERED_BY_ONE
    }

    fn count(&mut self, length: u64) {
        self.counted += length;
        let Exchange { worker, caller, .. } = &*self.exchange;
        for gathered in [&worker.gathered, &caller.gathered] {
            gathered.set(gathered.get() + length);
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        loop {
            let polled = Pin::new(&mut *incoming).poll_frame(cx);
            self.exchange.awaits_body.set(polled.is_pending());
            let frame = ready!(polled);
            let data = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(_trailers))) => continue,
                Some(Err(error)) => {
                    self.exchange.upload.set(Upload::Broken);
                    return Poll::Ready(Some(Err(BodyError::Caller(error))));
                }
                None => {
                    self.finish();
                    return Poll::Ready(None);
                }
            };
            let length = data.len() as u64;
            self.exchange.request_bytes.set(self.exchange.request_bytes.get() + length);
            let Some(rest) = self.allowance.checked_sub(length) else {
                self.exchange.upload.set(Upload::TooLarge);
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            self.allowance = rest;
            if let Some(tee) = &self.tee {
                tee.push(&data);
            }
            if incoming.is_end_stream() {
                self.finish();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Has what was gathered, and what is read from now on, go to `tee` too. Nothing may have been passed on yet.
    pub fn copy_to(&mut self, tee: Tee) {
        self.join_gathered();
        if !self.gathered.is_empty() {
            tee.push(&self.gathered);
        }
        if self.ended {
            tee.finish();
        } else {
            self.tee = Some(tee);
        }
    }

    fn join_gathered(&mut self) {
        if !self.more.is_empty() {
            self.gathered = self.more.split().freeze();
        }
    }

    fn finish(&mut self) {
        self.ended = true;
        self.exchange.upload.set(Upload::Complete);
        if let Some(tee) = self.tee.take() {
            tee.finish();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.join_gathered();
        if !self.gathered.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.gathered)))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.poll_incoming(cx).map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.gathered.is_empty() && self.more.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = (self.gathered.len() + self.more.len()) as u64;
        if self.ended {
            return SizeHint::with_exact(kept);
        }
        let rest = self.incoming.as_ref().map(Body::size_hint).unwrap_or_default();
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(kept + rest))
    }
}

impl upstream::Upload for RequestBody {
    fn take_back(&mut self, data: Bytes) {
        self.gathered = data;
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Exchange { worker, caller, .. } = &*self.exchange;
        for gathered in [&worker.gathered, &caller.gathered] {
            gathered.set(gathered.get().saturating_sub(self.counted));
        }
        if self.ended {
            return;
        }
        if let Some(incoming @ Incoming::Http2(_)) = self.incoming.take() {
            self.exchange.caller.leave_unread(incoming);
        }
    }
}
