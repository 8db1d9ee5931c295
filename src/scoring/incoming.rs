//! A caller's body as its connection brings it, whichever protocol that speaks.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of the request that a connection of HTTP/1 answers now.
pub trait Http1Body {
    /// The next part, none at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncomingError>>>;

    /// How many bytes are still to come, if that is known.
    fn left(&self) -> Option<u64>;

    /// Whether nothing is to come.
    fn is_over(&self) -> bool;
}

/// See the module.
pub enum Incoming {
    Http1(Rc<RefCell<dyn Http1Body>>),
    Http2(hyper::body::Incoming),
}

/// How far the caller's body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    Reading,
    Complete,
    TooLarge,
    /// The caller broke off, or its framing was malformed.
    Broken,
}

/// Why the rest of a body will not come.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("its chunks are malformed")]
    Malformed,
    #[error(transparent)]
    Http2(hyper::Error),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match &mut *self {
            Self::Http1(body) => {
                let data = ready!(body.borrow_mut().poll_data(cx));
                Poll::Ready(data.map(|data| data.map(Frame::data)))
            }
            Self::Http2(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(IncomingError::Http2)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.borrow().is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.borrow().left().map(SizeHint::with_exact).unwrap_or_default(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
