//! The body of an answer, and with it the connection it comes over.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Pool;
use super::link::Link;

/// Streams an answer, and holds an `H` for as long as it has the connection. Read to its end it puts the connection
/// back for reuse; dropped earlier it closes it, and the replica sees that the caller has gone.
///
/// Trailers end here: nothing in scoring needs them, and a recipient may discard them (RFC 9110 section 6.5.1).
pub struct AnswerBody<B, H>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    incoming: Incoming,
    /// Gone once the connection was put back.
    carrier: Option<Carrier<B, H>>,
}

/// Fields are dropped in this order: what is held goes when the connection is closed.
struct Carrier<B: Body + 'static, H> {
    link: Box<Link<B>>,
    /// Where the connection is put back, and as whose; absent when it must not be used again.
    place: Option<(Rc<Pool<B>>, usize)>,
    held: H,
}

impl<B, H> AnswerBody<B, H>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(incoming: Incoming, link: Box<Link<B>>, place: Option<(Rc<Pool<B>>, usize)>, held: H) -> Self {
        let mut body = Self { incoming, carrier: Some(Carrier { link, place, held }) };
        if body.incoming.is_end_stream() {
            body.put_back();
        }
        body
    }

    /// The same, holding what `map` makes of what is held.
    pub fn map_held<T>(self, map: impl FnOnce(H) -> T) -> AnswerBody<B, T> {
        let carrier = self.carrier.map(|Carrier { link, place, held }| Carrier { link, place, held: map(held) });
        AnswerBody { incoming: self.incoming, carrier }
    }

    fn put_back(&mut self) {
        let Some(Carrier { link, place, held }) = self.carrier.take() else { return };
        match place {
            Some((pool, endpoint)) => pool.put(endpoint, link),
            None => drop(link),
        }
        drop(held);
    }
}

impl<B, H: Unpin> Body for AnswerBody<B, H>
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
