//! HTTP/1.1 by hand, one request after the other (RFC 9112): its head is read here (`head`), its body by whoever answers
//! it (`framing`, `wire`), and the answer is written as it comes (`answer`). All of it in the connection's own task: no
//! part of a request or an answer is handed from one task to another.
//!
//! Between two requests a connection is its stream and nothing else: it has buffers only while there is something in them.

mod answer;
mod framing;
mod head;
mod syntax;
#[cfg(test)]
mod tests;
mod violation;
mod wire;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Method, Response, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tower::Service;

use super::activity::{Activity, Overdue};
use super::drive::{Connection, drive};
use super::{Common, LAST_WORDS};
use crate::scoring::body::ResponseBody;
use crate::scoring::error::Refusal;
use crate::scoring::incoming::Incoming;
use crate::scoring::{self, Observe, Score};

pub use self::answer::Date;
use self::answer::{Answer, Asked};
use self::head::{Bounds, Head, HeadReader};
use self::wire::Wire;

/// Bytes of an answer that are put together before they are written, while more is there already.
const PUT_TOGETHER: usize = 8 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, activity: &Rc<Activity>, common: &Common) -> Option<Overdue>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut http1 = Http1::new(stream, activity, common);
    let overdue = drive(activity, common, &mut http1).await;
    if overdue == Some(Overdue::Head) && matches!(http1.stage, Stage::Between) {
        http1.refuse(Refusal::request_timeout("The request head did not arrive in time."));
        // Should it be lost, the caller has waited for too long to miss it.
        let _ = timeout(LAST_WORDS, poll_fn(|cx| http1.poll(cx))).await;
    }
    overdue
}

struct Http1<'a, S> {
    wire: Rc<RefCell<Wire<S>>>,
    reader: HeadReader,
    stage: Stage,
    service: Observe<Score>,
    /// Whether no other request is to be taken.
    is_closing: bool,
    /// TLS leaves a ticket for the first answer to take along; if there is none soon it goes alone.
    holds_ticket: bool,
    activity: &'a Activity,
    common: &'a Common,
}

/// Where a connection is.
enum Stage {
    /// Between two requests, before the first, or in the head of one.
    Between,
    Answering(<Observe<Score> as Service<http::Request<Incoming>>>::Future, Asked),
    /// The head of the answer is there, and its body comes.
    Writing(ResponseBody, Answer),
    /// The last answer is there; whether the caller may still be sending.
    Closing {
        lingers: bool,
    },
}

/// What is to be done next.
enum Step {
    Next,
    /// The connection is over as it is, with nothing more to be said.
    Over,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + 'static> Http1<'a, S> {
    fn new(stream: S, activity: &'a Activity, common: &'a Common) -> Self {
        let caller = activity.caller();
        let bounds = if caller.is_member { Bounds::MEMBER } else { Bounds::CALLER };
        Self {
            wire: Rc::new(RefCell::new(Wire::new(stream))),
            reader: HeadReader::new(bounds),
            stage: Stage::Between,
            service: scoring::service(Rc::clone(&common.worker), caller),
            is_closing: false,
            holds_ticket: true,
            activity,
            common,
        }
    }

    /// Says what is wrong with a request that could not be read, and that this is the end.
    fn refuse(&mut self, refusal: Refusal) {
        let took = self.activity.end_head();
        let answer = scoring::refuse_unreadable(&self.common.worker, &self.activity.caller(), refusal, took);
        let (head, body) = answer.into_parts();
        let asked = Asked { is_head: false, is_http11: true, keeps_alive: false };
        let (head, length) = (Response::from_parts(head, ()), Some(body.len() as u64));
        let out = &mut self.wire.borrow_mut().out;
        let mut answer = Answer::begin(asked, &head, length, &self.common.date, out);
        answer.put(body, out);
        self.stage = Stage::Closing { lingers: true };
    }

    fn poll_between(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let mut wire = self.wire.borrow_mut();
        if ready!(wire.poll_flush(cx)).is_err() {
            return Poll::Ready(Step::Over);
        }
        let head = if self.is_closing { Poll::Ready(Ok(None)) } else { wire.poll_head(&mut self.reader, cx) };
        if !matches!(head, Poll::Ready(Err(_))) {
            self.activity.set_in_head(head.is_pending() && wire.has_read());
        }
        if head.is_pending() && !wire.has_read() {
            wire.rest();
        }
        drop(wire);
        match ready!(head) {
            Ok(Some(head)) => self.begin(head),
            // What is left of other requests is not to be taken.
            Ok(None) => self.stage = Stage::Closing { lingers: self.wire.borrow().has_read() },
            Err(violation) => self.refuse(violation.to_refusal()),
        }
        Poll::Ready(Step::Next)
    }

    /// Has the request answered whose head this is.
    fn begin(&mut self, Head { request, keeps_alive, .. }: Head) {
        self.holds_ticket = false;
        let asked = Asked {
            is_head: request.method() == Method::HEAD,
            is_http11: request.version() == Version::HTTP_11,
            keeps_alive,
        };
        let wire: Rc<RefCell<Wire<S>>> = Rc::clone(&self.wire);
        let answer = self.service.call(request.map(|()| Incoming::Http1(wire)));
        self.stage = Stage::Answering(answer, asked);
    }

    fn poll_answering(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Stage::Answering(answer, asked) = &mut self.stage else { return Poll::Ready(Step::Next) };
        let asked = *asked;
        match Pin::new(answer).poll(cx) {
            Poll::Ready(Ok(response)) => {
                self.write(asked, response);
                Poll::Ready(Step::Next)
            }
            Poll::Pending => {
                let mut wire = self.wire.borrow_mut();
                // What tells the caller to send its body.
                if matches!(wire.poll_flush(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(Step::Over);
                }
                ready!(wire.poll_hang_up(cx));
                drop(wire);
                // It may have closed its side only, and learns that so is ours.
                self.stage = Stage::Closing { lingers: false };
                Poll::Ready(Step::Next)
            }
        }
    }

    /// Begins to write an answer.
    fn write(&mut self, asked: Asked, response: Response<ResponseBody>) {
        let (parts, body) = response.into_parts();
        let response = Response::from_parts(parts, ());
        let length = body.size_hint().exact();
        let mut wire = self.wire.borrow_mut();
        // An answer that does not wait for the body of its request ends before it, most likely.
        let is_early = length.is_some() && wire.has_body_to_come();
        let asked = Asked { keeps_alive: asked.keeps_alive && !self.is_closing && !is_early, ..asked };
        let answer = Answer::begin(asked, &response, length, &self.common.date, &mut wire.out);
        drop(wire);
        self.stage = Stage::Writing(body, answer);
    }

    fn poll_writing(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Stage::Writing(body, answer) = &mut self.stage else { return Poll::Ready(Step::Next) };
        while !body.is_end_stream() {
            let mut wire = self.wire.borrow_mut();
            if wire.out.len() >= PUT_TOGETHER {
                match wire.poll_write(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Step::Over),
                    Poll::Pending => {
                        drop(wire);
                        // The caller may read only when it has sent all.
                        if !body.poll_upload(cx) {
                            return Poll::Ready(Step::Over);
                        }
                        ready!(self.wire.borrow_mut().poll_hang_up(cx));
                        return Poll::Ready(Step::Over);
                    }
                }
            }
            drop(wire);
            // It may read the body of the request meanwhile.
            let frame = Pin::new(&mut *body).poll_frame(cx);
            let mut wire = self.wire.borrow_mut();
            match frame {
                Poll::Ready(Some(Ok(frame))) => {
                    let is_announced = frame.into_data().is_ok_and(|data| answer.put(data, &mut wire.out));
                    if !is_announced {
                        return Poll::Ready(Step::Over);
                    }
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => {
                    drop(wire);
                    return Poll::Ready(self.break_off(cx));
                }
                Poll::Pending => {
                    if matches!(wire.poll_flush(cx), Poll::Ready(Err(_))) {
                        return Poll::Ready(Step::Over);
                    }
                    ready!(wire.poll_hang_up(cx));
                    return Poll::Ready(Step::Over);
                }
            }
        }
        if !answer.end(&mut self.wire.borrow_mut().out) {
            return Poll::Ready(self.break_off(cx));
        }
        let keeps_alive = answer.keeps_alive;
        // With it goes all that is kept of the request.
        self.stage = Stage::Between;
        self.activity.forget_requests();
        let is_past_body = self.wire.borrow_mut().is_past_body();
        if !(keeps_alive && is_past_body) {
            self.stage = Stage::Closing { lingers: true };
        }
        Poll::Ready(Step::Next)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Http1<'_, S> {
    /// Ends in the middle of an answer: what there is of it goes out, and the caller sees that it is not all. Where the
    /// end of the connection is that of the answer, it breaks off as well.
    fn break_off(&mut self, cx: &mut Context<'_>) -> Step {
        let shows_its_end = matches!(&self.stage, Stage::Writing(_, answer) if answer.shows_its_end());
        if shows_its_end {
            self.stage = Stage::Closing { lingers: true };
            return Step::Next;
        }
        let _ = self.wire.borrow_mut().poll_flush(cx);
        Step::Over
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection for Http1<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let step = match &self.stage {
                Stage::Between => ready!(self.poll_between(cx)),
                Stage::Answering(..) => ready!(self.poll_answering(cx)),
                Stage::Writing(..) => ready!(self.poll_writing(cx)),
                Stage::Closing { lingers } => return self.wire.borrow_mut().poll_close(*lingers, cx).map(drop),
            };
            if matches!(step, Step::Over) {
                return Poll::Ready(());
            }
        }
    }

    fn drain(&mut self) {
        self.is_closing = true;
    }

    fn wants_tick(&self) -> bool {
        self.holds_ticket
    }

    fn tick(&mut self) {
        if mem::take(&mut self.holds_ticket) {
            self.wire.borrow_mut().unsettle();
        }
    }
}
