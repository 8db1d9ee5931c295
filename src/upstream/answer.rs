//! The body of an answer, and with it the connection it comes over.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::framing::{Framing, Part};
use super::sending::SendError;
use super::{AnswerError, Dialogue, Pool, Upload};

/// What is read at a time of a body that goes on and on. More is no faster, and memory that was large once stays with the
/// process.
const MAX_READ: usize = 64 * 1024;

/// And of one whose beginning has come.
const NEXT_READ: usize = 16 * 1024;

/// Streams an answer, and holds an `H` for as long as it has the connection. Read to its end it puts the connection
/// back for reuse; dropped earlier it closes it, and the replica sees that the caller has gone.
pub struct AnswerBody<B, H>(Rest<B, H>);

enum Rest<B, H> {
    /// All there is, and the connection is not needed for it any more.
    Whole(Bytes),
    Coming(Box<Coming<B, H>>),
}

/// Fields are dropped in this order: what is held goes when the connection is closed.
struct Coming<B, H> {
    /// The request may still be on its way.
    dialogue: Dialogue<B>,
    framing: Framing,
    /// Read at a time.
    reads: usize,
    /// Where the connection is put back, and as whose; absent when it must not be used again.
    place: Option<(Rc<Pool>, usize)>,
    held: H,
}

impl<B: Upload, H> AnswerBody<B, H> {
    /// The body that follows a head which came `now`.
    pub(super) fn begin(
        mut dialogue: Dialogue<B>,
        mut framing: Framing,
        place: Option<(Rc<Pool>, usize)>,
        held: H,
        now: Instant,
    ) -> Self {
        let read = &mut dialogue.link.read;
        if framing.left().is_some_and(|left| left <= read.len() as u64) {
            let whole = match framing.take(read) {
                Ok(Part::Data(data)) => data,
                _ => Bytes::new(),
            };
            put_back(dialogue, place, now);
            drop(held);
            return Self(Rest::Whole(whole));
        }
        Self(Rest::Coming(Box::new(Coming { dialogue, framing, reads: NEXT_READ, place, held })))
    }

    /// Sends what is left of the request, as far as there is something to send and the replica takes it; false if the request
    /// broke off.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.0 {
            Rest::Whole(_) => true,
            Rest::Coming(coming) => coming.poll_upload(cx),
        }
    }

    /// The same, holding what `map` makes of what is held.
    pub fn map_held<T>(self, map: impl FnOnce(H) -> T) -> AnswerBody<B, T> {
        AnswerBody(match self.0 {
            Rest::Whole(data) => Rest::Whole(data),
            Rest::Coming(coming) => {
                let Coming { dialogue, framing, reads, place, held } = *coming;
                Rest::Coming(Box::new(Coming { dialogue, framing, reads, place, held: map(held) }))
            }
        })
    }
}

fn put_back<B: Upload>(dialogue: Dialogue<B>, place: Option<(Rc<Pool>, usize)>, now: Instant) {
    // One that has not taken the whole request would take the rest for another.
    if let Some((pool, endpoint)) = place
        && dialogue.sending.is_over()
    {
        pool.put(endpoint, dialogue.link, now);
    }
}

impl<B: Upload, H: Unpin> Body for AnswerBody<B, H> {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let coming = match &mut self.0 {
            Rest::Whole(data) if data.is_empty() => return Poll::Ready(None),
            Rest::Whole(data) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Rest::Coming(coming) => coming,
        };
        let part = ready!(coming.poll_part(cx));
        let is_over = match &part {
            Some(Ok(_)) => coming.is_over(),
            Some(Err(_)) => false,
            None => true,
        };
        if is_over && let Rest::Coming(coming) = std::mem::replace(&mut self.0, Rest::Whole(Bytes::new())) {
            let Coming { dialogue, place, held, .. } = *coming;
            put_back(dialogue, place, Instant::now());
            drop(held);
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Rest::Whole(data) if data.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Rest::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Rest::Coming(coming) => coming.framing.left().map(SizeHint::with_exact).unwrap_or_default(),
        }
    }
}

impl<B: Upload, H> Coming<B, H> {
    /// A replica that takes no more may go on answering; one that waits for what will not come has no end.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> bool {
        let Dialogue { link, sending, .. } = &mut self.dialogue;
        sending.is_over() || !matches!(sending.poll(link, cx), Poll::Ready(Err(SendError::Body)))
    }

    /// The next part of the body; none at its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerError>>> {
        if !self.poll_upload(cx) {
            return Poll::Ready(Some(Err(AnswerError::Request)));
        }
        let link = &mut self.dialogue.link;
        loop {
            let known = match self.framing.take(&mut link.read) {
                Ok(Part::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Part::End) => return Poll::Ready(None),
                Ok(Part::More(known)) => known,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            // No more than is needed is read where the end is known, so that no space is wasted on it.
            let most = match known {
                0 => self.reads,
                known => usize::try_from(known).unwrap_or(usize::MAX).clamp(1, MAX_READ),
            };
            match ready!(link.poll_read(cx, most)) {
                Ok(0) if self.framing.may_end_here() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(AnswerError::Closed))),
                Ok(read) if read >= self.reads => self.reads = (2 * self.reads).min(MAX_READ),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Whether nothing of the body is to come, as far as can be told without reading.
    fn is_over(&mut self) -> bool {
        let read = &mut self.dialogue.link.read;
        match self.framing {
            Framing::Length(left) => left == 0,
            // The last chunk often comes with the data before it.
            Framing::Chunked { .. } if !read.is_empty() => self.framing.is_at_end(read),
            Framing::Chunked { .. } | Framing::UntilClosed => false,
        }
    }
}
