//! The body of an answer, and with it the connection it comes over.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Pool;
use super::link::Link;
use super::replica::InFlight;

/// Streams an answer. Read to its end it puts the connection back for reuse; dropped earlier it closes it, and the
/// replica sees that the caller has gone.
///
/// Trailers end here: nothing in scoring needs them, and a recipient may discard them (RFC 9110 section 6.5.1).
pub struct AnswerBody<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    incoming: Incoming,
    /// Gone once the connection was put back.
    carrier: Option<Carrier<B>>,
}

struct Carrier<B: Body + 'static> {
    link: Box<Link<B>>,
    /// Absent when the connection must not be used again.
    pool: Option<Rc<Pool<B>>>,
    in_flight: InFlight,
}

impl<B> AnswerBody<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(incoming: Incoming, link: Box<Link<B>>, pool: Option<Rc<Pool<B>>>, in_flight: InFlight) -> Self {
        let mut body = Self { incoming, carrier: Some(Carrier { link, pool, in_flight }) };
        if body.incoming.is_end_stream() {
            body.put_back();
        }
        body
    }

    fn put_back(&mut self) {
        if let Some(Carrier { link, pool: Some(pool), in_flight }) = self.carrier.take() {
            pool.put(in_flight.replica(), link);
        }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        loop {
            let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
            if polled.is_pending()
                && let Some(carrier) = &mut this.carrier
            {
                carrier.link.drive(cx);
                polled = Pin::new(&mut this.incoming).poll_frame(cx);
            }
            match &polled {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(None) => this.put_back(),
                // The length was known and is reached: nobody may ask for the end that follows.
                Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.put_back(),
                Poll::Ready(_) | Poll::Pending => {}
            }
            return polled;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
