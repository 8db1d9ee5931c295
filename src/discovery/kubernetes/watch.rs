//! One resource of one namespace, listed once and then watched for as long as anybody wants to know of it.
//!
//! A watch goes on from where the last one ended, whatever ended it; where that is too old by now (410) all is listed
//! again. Nothing that happens takes anything back that was heard: who hears it keeps it until something else is said.
//! What is read is bounded, each wait has an end, and a server that ends every watch at once is asked once a second.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Status, WatchEvent};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::access::Access;
use super::error::{ApiError, causes};
use super::object::{Object, Page};
use super::standing::WatchStanding;
use crate::config::KubernetesName;

/// Objects of one answer: what memory a list takes at a time.
const PAGE: u32 = 100;

/// The largest page: [`PAGE`] slices with as many endpoints as one may have.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// The largest event. etcd takes objects of 1.5 MiB, which are longer as JSON.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// The largest reason for a refusal that is read.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// Objects of one resource: Kubernetes is made for 150,000 pods and 10,000 Services.
const MAX_OBJECTS: usize = 100_000;

/// Until an answer begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// Until a list ends.
const LIST_PATIENCE: Duration = Duration::from_secs(120);

/// How long a watch is asked for, in seconds: the least, and by how much it may be longer, so that not all of them are
/// begun anew at once.
const WATCH_SECONDS: (u32, u32) = (240, 60);

/// How much longer a watch may be than was asked for.
const WATCH_GRACE: Duration = Duration::from_secs(10);

/// From the beginning of one watch to that of the next.
const LEAST_PACE: Duration = Duration::from_secs(1);

/// The time between failing questions, at first and at last, to which up to a quarter is added by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The longest that a server may ask us to stay away.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// What logs and metrics call it.
    pub watch: &'static str,
    pub resource: Resource,
    /// Absent: the front end's own.
    pub namespace: Option<KubernetesName>,
    pub labels: Option<String>,
    pub fields: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    EndpointSlices,
    Services,
}

impl Resource {
    /// As the API and Roles name it.
    fn name(self) -> &'static str {
        match self {
            Self::EndpointSlices => "endpointslices",
            Self::Services => "services",
        }
    }

    fn path(self, namespace: &str) -> String {
        let group = match self {
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1",
            Self::Services => "/api/v1",
        };
        format!("{group}/namespaces/{namespace}/{}", self.name())
    }
}

/// What is heard of objects.
#[derive(Debug)]
pub enum Heard<T> {
    /// All there are follow; what is known stays what is known until they have been heard.
    Begin,
    Listed(T),
    /// These are all.
    End,
    /// It is new, or another one now.
    Set(T),
    Gone(T),
}

/// Follows what `question` asks for, for ever, and hands everything there is to know of it to `hear`.
pub async fn watch<T: Object>(
    access: &Access,
    question: &Question,
    standing: &WatchStanding,
    hear: impl FnMut(Heard<T>),
) -> Infallible {
    Watch { access, question, standing, hear, failures: 0, told: None }.run().await
}

/// All that `question` asks for, asked once.
///
/// # Errors
///
/// See [`ApiError`].
pub async fn list<T: Object>(
    access: &Access,
    question: &Question,
    mut each: impl FnMut(T),
) -> Result<String, ApiError> {
    let pages = list_pages(access, question, &mut each);
    timeout(LIST_PATIENCE, pages).await.map_err(|_| ApiError::Silent(LIST_PATIENCE))?
}

struct Watch<'a, H> {
    access: &'a Access,
    question: &'a Question,
    standing: &'a WatchStanding,
    hear: H,
    /// Questions that failed since something was heard.
    failures: u32,
    /// The reason that the log has, if it was not told since that it is over.
    told: Option<usize>,
}

impl<H> Watch<'_, H> {
    async fn run<T: Object>(mut self) -> Infallible
    where
        H: FnMut(Heard<T>),
    {
        loop {
            match self.list_all().await {
                Ok(version) => self.go_on_from(version).await,
                Err(error) => self.fail(&error).await,
            }
        }
    }

    async fn list_all<T: Object>(&mut self) -> Result<String, ApiError>
    where
        H: FnMut(Heard<T>),
    {
        (self.hear)(Heard::Begin);
        let hear = &mut self.hear;
        let version = list(self.access, self.question, |object| hear(Heard::Listed(object))).await?;
        (self.hear)(Heard::End);
        self.standing.synced();
        self.answered();
        Ok(version)
    }

    /// Watches until all has to be listed again.
    async fn go_on_from<T: Object>(&mut self, mut version: String)
    where
        H: FnMut(Heard<T>),
    {
        loop {
            let began = Instant::now();
            match self.watch_once(&mut version).await {
                Ok(()) => {}
                Err(error @ ApiError::Gone(_)) => {
                    tracing::debug!(%error, "all is listed again");
                    self.standing.count(&error);
                    self.failures = self.failures.saturating_add(1);
                    // The first time at once, but not all front ends in the same moment.
                    let pause =
                        if self.failures > 1 { self.backoff() } else { LEAST_PACE.mul_f64(fastrand::f64() / 4.0) };
                    return sleep(pause).await;
                }
                Err(error) => {
                    self.fail(&error).await;
                    continue;
                }
            }
            sleep(LEAST_PACE.saturating_sub(began.elapsed())).await;
        }
    }

    /// Hears what happens after `version`, which goes along, until the watch ends.
    async fn watch_once<T: Object>(&mut self, version: &mut String) -> Result<(), ApiError>
    where
        H: FnMut(Heard<T>),
    {
        let connected = self.access.connected().await?;
        let (least, more) = WATCH_SECONDS;
        let seconds = least + fastrand::u32(0..=more);
        let parameters = WatchParams {
            label_selector: self.question.labels.clone(),
            field_selector: self.question.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let path = self.question.path(&connected.namespace);
        let request = kube::core::Request::new(path).watch(&parameters, version).map_err(unaskable)?;
        let body = ask(&connected.client, request).await?;
        self.answered();
        let end = Instant::now() + Duration::from_secs(seconds.into()) + WATCH_GRACE;
        let mut lines = Lines { body, buffer: BytesMut::new(), searched: 0 };
        loop {
            let line = match timeout_at(end, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                // Whatever ended it, the next one goes on from here, and finds out if nobody is there any more.
                Err(_) | Ok(Ok(None) | Err(ApiError::Unreachable(_))) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            let event = serde_json::from_slice(&line).map_err(|error| ApiError::Invalid(error.to_string()))?;
            let (heard, new) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => of(object, Heard::Set)?,
                WatchEvent::Deleted(object) => of(object, Heard::Gone)?,
                WatchEvent::Bookmark(bookmark) => (None, bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(refusal(status.code, *status, None)),
            };
            heard.into_iter().for_each(&mut self.hear);
            *version = new;
            self.failures = 0;
            self.standing.heard();
        }
    }

    fn answered(&mut self) {
        self.standing.answered();
        if self.told.take().is_some() {
            let (watch, namespace) = (self.standing.watch, &self.standing.namespace);
            tracing::info!(watch, %namespace, "Kubernetes can be followed again");
        }
    }

    /// Notes what went wrong, and waits until it is to be tried again.
    async fn fail(&mut self, error: &ApiError) {
        self.standing.count(error);
        self.standing.failed(error);
        if self.told != Some(error.reason()) {
            self.told = Some(error.reason());
            let (watch, namespace) = (self.standing.watch, &self.standing.namespace);
            let (remedy, goes_on) = (error.remedy(), self.standing.objects());
            tracing::warn!(watch, %namespace, %error, remedy, goes_on, "Kubernetes cannot be followed; what it said last goes on");
        }
        if error.is_about_access() {
            self.access.forget();
        }
        self.failures = self.failures.saturating_add(1);
        let asked = match error {
            ApiError::Status { retry_after: Some(asked), .. } => (*asked).min(LONGEST_RETRY_AFTER),
            _ => Duration::ZERO,
        };
        sleep(self.backoff().max(asked)).await;
    }

    fn backoff(&self) -> Duration {
        let (first, last) = BACKOFF;
        let wait = first.saturating_mul(1 << self.failures.saturating_sub(1).min(8)).min(last);
        wait.mul_f64(1.0 + fastrand::f64() / 4.0)
    }
}

/// What is heard of `object`, and the version it came with.
fn of<T: Object>(object: T, heard: impl Fn(T) -> Heard<T>) -> Result<(Option<Heard<T>>, String), ApiError> {
    let version = object.metadata().resource_version.clone();
    if version.is_empty() {
        return Err(ApiError::Invalid("an object without a resourceVersion".to_owned()));
    }
    Ok((Some(heard(object)), version))
}

impl Question {
    /// Of all Services of a namespace.
    pub fn endpoint_slices(namespace: Option<&KubernetesName>) -> Self {
        let (resource, namespace) = (Resource::EndpointSlices, namespace.cloned());
        Self { watch: "endpointslices", resource, namespace, labels: None, fields: None }
    }

    fn path(&self, own: &str) -> String {
        self.resource.path(self.namespace.as_ref().map_or(own, KubernetesName::as_str))
    }
}

async fn list_pages<T: Object>(
    access: &Access,
    question: &Question,
    each: &mut impl FnMut(T),
) -> Result<String, ApiError> {
    let connected = access.connected().await?;
    let request = kube::core::Request::new(question.path(&connected.namespace));
    let mut parameters = ListParams {
        label_selector: question.labels.clone(),
        field_selector: question.fields.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    let mut count = 0;
    loop {
        let body = ask(&connected.client, request.list(&parameters).map_err(unaskable)?).await?;
        let text = Limited::new(body, MAX_PAGE_BYTES).collect().await;
        let text = text.map_err(|error| ApiError::Unreachable(causes(&*error)))?.to_bytes();
        let page: Page<T> = serde_json::from_slice(&text).map_err(|error| ApiError::Invalid(error.to_string()))?;
        let items = page.items.unwrap_or_default();
        count += items.len();
        if count > MAX_OBJECTS {
            return Err(ApiError::TooMany(MAX_OBJECTS));
        }
        items.into_iter().for_each(&mut *each);
        parameters.continue_token = page.metadata.next.filter(|next| !next.is_empty());
        if parameters.continue_token.is_none() {
            let version = page.metadata.resource_version.filter(|version| !version.is_empty());
            return version.ok_or_else(|| ApiError::Invalid("a list without a resourceVersion".to_owned()));
        }
    }
}

/// The body of the answer, if that is a success.
async fn ask(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Body, ApiError> {
    let answer = timeout(PATIENCE, client.send(request.map(Body::from))).await;
    let (head, body) = answer.map_err(|_| ApiError::Silent(PATIENCE))?.map_err(ApiError::of)?.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let code = head.status.as_u16();
    let text = timeout(PATIENCE, Limited::new(body, MAX_STATUS_BYTES).collect()).await;
    let text = text.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status = serde_json::from_slice(&text).unwrap_or_else(|_| {
        let reason = head.status.canonical_reason().unwrap_or("no reason is given");
        Status::failure(reason, "")
    });
    Err(refusal(code, status, retry_after(&head.headers)))
}

fn refusal(code: u16, status: Status, retry_after: Option<Duration>) -> ApiError {
    const LONGEST: usize = 300;
    let message = status.message.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    match StatusCode::from_u16(code) {
        Ok(StatusCode::UNAUTHORIZED) => ApiError::Unauthorized(message),
        Ok(StatusCode::FORBIDDEN) => ApiError::Forbidden(message),
        Ok(StatusCode::GONE) => ApiError::Gone(message),
        _ => ApiError::Status { code, message, retry_after },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn unaskable(error: kube::core::request::Error) -> ApiError {
    ApiError::Invalid(error.to_string())
}

/// The lines of a body, one an event.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Bytes of the buffer in which there is no end of a line.
    searched: usize,
}

impl Lines {
    /// The next one. What stands after the last end of a line was cut off, and is none.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_EVENT_BYTES {
                return Err(ApiError::Invalid(format!("an event of more than {MAX_EVENT_BYTES} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(ApiError::Unreachable(causes(&error))),
                None => return Ok(None),
            }
        }
    }
}
