//! Requests that belong to another front end of the cluster: handed over to it, and taken from others.
//!
//! The first front end decides what a request is (host, route, key, limits, deployment) and stays its caller's; the second
//! one is the deployment's home, and does what comes then: queue, replica, retry. What it answers, its own refusals
//! too, passes through. One that waits while its deployment moves is handed on, and so is one that meets a front end which
//! sees the cluster otherwise; how often is bounded, so that none goes round in circles.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, request};
use http_body::Body;
use tokio::time::{Instant, timeout};

use super::body::{RequestBody, ResponseBody};
use super::catalog::ServiceRef;
use super::error::{Code, Refusal};
use super::exchange::{Elsewhere, Exchange, Handed, Stages};
use super::forward::{Asked, write_head};
use super::headers::is_for_caller;
use super::holder::Holder;
use super::incoming::Upload;
use super::judge::route::Route;
use super::judge::{Judged, deployment_for, target, timeout_of};
use crate::cluster::exchange::{PATH, SIGNATURE};
use crate::cluster::plan::Plan;
use crate::cluster::secret::handing_over;
use crate::cluster::state::MAX_STATE;
use crate::cluster::{Cluster, Member};
use crate::scheduling::{Rank, Replicas};
use crate::upstream::{self, AnswerBody, AnswerError, Failure, Fields};

/// How often a request is handed over at most. Once, as a rule; and once more for each time that its deployment moves while
/// it waits, or that it meets a front end which sees the cluster otherwise.
const MOST_HOPS: u8 = 8;

/// How long a request that was handed over is kept before it is handed on: two front ends that see the cluster otherwise would
/// send it to and fro, and be through with [`MOST_HOPS`] before they have heard of each other. Twice as long each time, it
/// is more than a second in all.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How long a connection to another front end may take to open; it is near, and there may be another one to ask.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long another front end may take to send its question.
const QUESTION: Duration = Duration::from_secs(2);

/// What is handed over, as [`Call::parse`] reads it.
const CALL: HeaderName = HeaderName::from_static("scorefront-call");

/// Which front end hands it over.
const FROM: HeaderName = HeaderName::from_static("scorefront-from");

/// What became of it there, as [`Outcome::parse`] reads it.
const OUTCOME: HeaderName = HeaderName::from_static("scorefront-outcome");

/// Where a request belongs.
pub(super) enum Place {
    Here,
    At(Arc<Member>),
}

/// Where a request for `replicas` belongs that found no permit here, and could not reach `tried`: with one of those who
/// have slots, the more of them the more often.
pub(super) fn place(
    exchange: &Exchange,
    cluster: &Cluster,
    plan: &Plan,
    replicas: &Arc<Replicas>,
    tried: &[SocketAddr],
) -> Place {
    let hops = exchange.handed().map_or(0, |handed| handed.hops);
    let Some(home) = plan.home(replicas) else { return Place::Here };
    if hops >= MOST_HOPS || (hops > 0 && home.own > 0) {
        return Place::Here;
    }
    let is_left = |address: &SocketAddr| !tried.contains(address);
    let owners: Vec<_> = home.owners.iter().filter(|(owner, _)| is_left(owner)).collect();
    let mut number = match owners.iter().map(|(_, slots)| slots).sum() {
        0 => 0,
        all => fastrand::usize(..all),
    };
    let chosen = owners.iter().find(|(_, slots)| {
        let is_it = number < *slots;
        number = number.saturating_sub(*slots);
        is_it
    });
    match chosen.or(owners.first()) {
        Some((owner, _)) if *owner == cluster.own() => return Place::Here,
        Some((owner, _)) => {
            if let Some(member) = plan.other(*owner) {
                return Place::At(Arc::clone(member));
            }
        }
        None => {}
    }
    // None of those who have it can be reached from here. Perhaps from elsewhere; and if they are gone, whoever is asked
    // knows as soon as this one who has it now.
    let other = plan.others().find(|member| hops == 0 && is_left(&member.address));
    other.map_or(Place::Here, |member| Place::At(Arc::clone(member)))
}

/// How long to wait before a request is handed on, which may have been for this front end by the time; absent if nobody handed
/// it over.
pub(super) fn pause(exchange: &Exchange) -> Option<Duration> {
    exchange.handed().map(|handed| FIRST_PAUSE * (1 << handed.hops.saturating_sub(1).min(MOST_HOPS)))
}

/// What came of handing over.
pub(super) enum HandedOver {
    Answered(Response<AnswerBody<RequestBody, Holder>>),
    /// Nothing of it left this process.
    Unsent(Asked),
}

/// Has `member` answer the request.
pub(super) async fn hand_over(
    exchange: &Exchange,
    cluster: &Cluster,
    asked: Asked,
    member: Arc<Member>,
    (deadline, promised): (Instant, Duration),
) -> Result<HandedOver, Refusal> {
    let left = deadline.saturating_duration_since(Instant::now());
    let Asked { mut headers, target, body } = asked;
    let mut request = upstream::Request::new(exchange.method(), origin_form(&exchange.uri), body);
    write(exchange, cluster, &member, left, promised, &headers, &mut request)?;
    exchange.member.replace(Some(Arc::clone(&member)));
    let connect_timeout = CONNECT_TIMEOUT.min(left / 2);
    let holder = Holder::Member(Arc::clone(&member));
    let mut fields = Fields { room: &mut headers, is_wanted: is_for_caller };
    let (pool, times) = (&exchange.worker.pool, &exchange.times);
    let sent = upstream::send(pool, request, times, holder, connect_timeout, &mut fields).await;
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(Failure::Unsent { body, cause, .. }) => {
            tracing::debug!(member = %member.address, %cause, "a front end of the cluster cannot be reached");
            exchange.member.take();
            cluster.suspect(member.address);
            return Ok(HandedOver::Unsent(Asked { headers, target, body }));
        }
        Err(Failure::Sent { cause, .. }) => {
            member.handed_over.fetch_add(1, Relaxed);
            return Err(broken(exchange, cluster, &member, &cause));
        }
    };
    member.handed_over.fetch_add(1, Relaxed);
    let outcome = answer.headers_mut().remove(OUTCOME).as_ref().and_then(Outcome::parse);
    let Some(outcome) = outcome else {
        // Whoever that is knows nothing of this request, or of us.
        tracing::warn!(member = %member.address, status = answer.status().as_u16(), "no answer of a front end of the cluster");
        cluster.suspect(member.address);
        return Err(Refusal::replica_closed());
    };
    exchange.elsewhere.set(Some(outcome.elsewhere));
    exchange.refused.set(outcome.code);
    Ok(HandedOver::Answered(answer))
}

fn broken(exchange: &Exchange, cluster: &Cluster, member: &Member, cause: &AnswerError) -> Refusal {
    match (exchange.upload.get(), exchange.service()) {
        (Upload::TooLarge, Some(service)) => Refusal::body_too_large(service.max_body),
        (Upload::Broken, _) => Refusal::broken_body(),
        _ => {
            tracing::debug!(member = %member.address, %cause, "no answer from a front end of the cluster");
            cluster.suspect(member.address);
            Refusal::replica_closed()
        }
    }
}

/// The target as the caller named it, without scheme and host.
fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

fn write(
    exchange: &Exchange,
    cluster: &Cluster,
    member: &Member,
    left: Duration,
    promised: Duration,
    headers: &HeaderMap,
    request: &mut upstream::Request<RequestBody>,
) -> Result<(), Refusal> {
    let (Some(service), Some(deployment)) = (exchange.service(), exchange.deployment()) else {
        return Err(Refusal::not_found());
    };
    let hops = exchange.handed().map_or(1, |handed| handed.hops + 1);
    // Who has stood in a line does not go to the end of another one, and was let in before.
    let rank = if exchange.queued.get().is_zero() { exchange.rank() } else { Rank::Again };
    let call = Call { hops, rank, timeout: promised, service: &service.name, deployment: &deployment.name };
    write_head(exchange, service, headers, &member.endpoint, left, request);
    request.field(&CALL, call.to_text().as_bytes());
    request.field(&FROM, cluster.own().to_string().as_bytes());
    request.field(&SIGNATURE, member.token.as_bytes());
    Ok(())
}

/// `hops rank timeout service deployment`, the time in milliseconds.
struct Call<'a> {
    hops: u8,
    rank: Rank,
    timeout: Duration,
    service: &'a str,
    deployment: &'a str,
}

const RANKS: [Rank; 4] = [Rank::Again, Rank::High, Rank::Normal, Rank::Low];

impl<'a> Call<'a> {
    fn to_text(&self) -> String {
        let Self { hops, rank, timeout, service, deployment } = self;
        format!("{hops} {} {} {service} {deployment}", *rank as usize, timeout.as_millis())
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let call = Self {
            hops: words.next()?.parse().ok()?,
            rank: *RANKS.get(words.next()?.parse::<usize>().ok()?)?,
            timeout: Duration::from_millis(words.next()?.parse().ok()?),
            service: words.next()?,
            deployment: words.next()?,
        };
        words.next().is_none().then_some(call)
    }
}

/// `code queue connect model`, the times in microseconds; `-` for what is not.
struct Outcome {
    /// Of a refusal.
    code: Option<Code>,
    elsewhere: Elsewhere,
}

impl Outcome {
    fn to_text(&self) -> String {
        let Stages { queue, connect, model } = self.elsewhere;
        let code = self.code.map_or("-", Code::as_str);
        let model = model.map_or("-".to_owned(), |model| model.as_micros().to_string());
        format!("{code} {} {} {model}", queue.as_micros(), connect.as_micros())
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let mut words = value.to_str().ok()?.split(' ');
        let code = match words.next()? {
            "-" => None,
            word => Some(*Code::ALL.iter().find(|code| code.as_str() == word)?),
        };
        let mut time = || match words.next()? {
            "-" => Some(None),
            word => word.parse().ok().map(|micros| Some(Duration::from_micros(micros))),
        };
        let (queue, connect, model) = (time()??, time()??, time()?);
        Some(Self { code, elsewhere: Stages { queue, connect, model } })
    }
}

/// Tells the front end that handed this request over what became of it.
pub(super) fn write_outcome(exchange: &Exchange, fields: &mut HeaderMap) {
    let outcome = Outcome { code: exchange.refused.get(), elsewhere: exchange.stages() };
    if let Ok(outcome) = HeaderValue::try_from(outcome.to_text()) {
        fields.insert(OUTCOME, outcome);
    }
}

/// Reads what another front end hands over: the request as a replica gets it, all but its body and what depends on which
/// replica that is, and how long it may take.
pub(super) fn judge(head: &mut request::Parts, exchange: &Exchange) -> Result<Judged, Refusal> {
    let text = head.headers.remove(CALL);
    let call = text.as_ref().and_then(|text| text.to_str().ok()).and_then(Call::parse);
    let cluster = exchange.worker.cluster.as_deref().ok_or_else(Refusal::not_a_member)?;
    let from = admit(cluster, &mut head.headers)?;
    let call = call.ok_or_else(|| Refusal::bad_request("This is no request of a front end of this version."))?;
    let handed = Handed { from, hops: call.hops, rank: call.rank, timeout: call.timeout };
    exchange.note_handed(handed);

    let catalog = exchange.worker.catalog();
    let service = ServiceRef::named(&catalog, call.service).ok_or_else(|| Refusal::service_not_found(call.service))?;
    let service = exchange.route(service);
    let timeout = timeout_of(&head.headers, service.scoring_timeout)?;
    if timeout.is_zero() {
        return Err(Refusal::scoring_timeout(call.timeout.as_millis()));
    }
    let deployment = match service.deployment_named(call.deployment.as_bytes()) {
        Some(deployment) => deployment,
        // It is gone here already.
        None => deployment_for(service, exchange, &head.headers)?,
    };
    let deployment = exchange.choose(deployment).ok_or_else(|| Refusal::no_ready_replicas(&service.name))?;
    let resource = Route::parse(head.uri.path())?.resource;
    let target = target(resource, &head.uri, deployment)?;
    Ok(Judged { target, timeout, max_body: service.max_body })
}

/// Who hands a request over, if it is a member.
fn admit(cluster: &Cluster, fields: &mut HeaderMap) -> Result<SocketAddr, Refusal> {
    let from = fields.remove(FROM).and_then(|from| from.to_str().ok()?.parse::<SocketAddr>().ok());
    let (Some(from), Some(signature)) = (from, fields.remove(SIGNATURE)) else {
        cluster.counts.wrong_secret.fetch_add(1, Relaxed);
        return Err(Refusal::not_a_member());
    };
    if !cluster.secrets().fits(&handing_over(from, cluster.own()), &signature) {
        cluster.counts.wrong_secret.fetch_add(1, Relaxed);
        return Err(Refusal::not_a_member());
    }
    if !cluster.members().is_known(from) {
        cluster.counts.not_a_member.fetch_add(1, Relaxed);
        return Err(Refusal::not_a_member());
    }
    Ok(from)
}

/// Whether another front end asks how this one is.
pub(super) fn is_question(exchange: &Exchange, head: &request::Parts) -> bool {
    exchange.caller.is_member && head.uri.path() == PATH
}

/// Answers that. It is no request of anybody, so it is written down nowhere unless it is refused.
pub(super) async fn answer(
    exchange: Rc<Exchange>,
    head: request::Parts,
    mut body: RequestBody,
) -> Result<Response<ResponseBody>, Refusal> {
    let cluster = exchange.worker.cluster.as_deref().ok_or_else(Refusal::not_a_member)?;
    body.allow(MAX_STATE as u64);
    let mut text = BytesMut::new();
    let read = timeout(QUESTION, async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let data = frame.map_err(|_| Refusal::broken_body())?.into_data().unwrap_or_default();
            text.extend_from_slice(&data);
        }
        Ok(())
    });
    read.await.map_err(|_| Refusal::request_timeout("The question did not arrive in time."))??;
    let answered = cluster.answer(head.headers.get(SIGNATURE), &text).map_err(|_| Refusal::not_a_member());
    let (signature, answer) = answered?;
    exchange.is_silent.set(true);
    let mut response = Response::new(ResponseBody::full(answer.into()));
    response.headers_mut().insert(SIGNATURE, signature);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_read_as_it_was_written() {
        let call = Call {
            hops: 1,
            rank: Rank::Low,
            timeout: Duration::from_millis(60_000),
            service: "iris",
            deployment: "blue",
        };
        assert_eq!(call.to_text(), "1 3 60000 iris blue");
        let text = call.to_text();
        let read = Call::parse(&text).expect("a call");
        assert_eq!((read.hops, read.rank, read.timeout), (1, Rank::Low, Duration::from_secs(60)));
        assert_eq!((read.service, read.deployment), ("iris", "blue"));
        for wrong in ["", "1", "1 4 60000 iris blue", "256 0 1 a b", "1 0 -1 a b", "1 0 1 a b c", "1 0 1 a"] {
            assert!(Call::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_became_of_it_is_read_as_it_was_written() {
        for text in ["- 12 5 20000", "Overloaded 500000 0 -"] {
            let outcome = Outcome::parse(&text.parse().unwrap()).expect("an outcome");
            assert_eq!(outcome.to_text(), text);
        }
        for wrong in ["", "-", "Nothing 1 1 1", "- - 1 1", "- 1 1", "- a 1 1"] {
            assert!(Outcome::parse(&wrong.parse().unwrap()).is_none(), "{wrong}");
        }
    }
}
