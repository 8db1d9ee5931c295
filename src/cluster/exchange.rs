//! Asks every other front end, again and again, how it is, and tells it the same of oneself: one small request each way over
//! a kept connection. It is meant for the control thread; what is asked here is answered by [`Cluster::answer`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::Cluster;
use super::secret::{answer, question};
use super::state::{MAX_STATE, State};
use crate::config::ReplicaAddress;
use crate::upstream::{self, AnswerError, ConnectError, Endpoint, Failure, Fields, Pool, Request, Times};

/// Where front ends ask each other.
pub const PATH: &str = "/cluster";

/// What a message is signed in.
pub const SIGNATURE: HeaderName = HeaderName::from_static("scorefront-signature");

/// From one question to the next as long as nothing happens. Two that fail take less than two seconds longer.
const INTERVAL: Duration = Duration::from_millis(500);

/// The same while slots are on their way from one to another.
const QUICK_INTERVAL: Duration = Duration::from_millis(20);

/// However much there is to tell.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows the front ends of `cluster`, for ever.
pub async fn follow(cluster: Arc<Cluster>) -> Infallible {
    let pool = Rc::<Pool>::default();
    let sweep = Rc::clone(&pool);
    let _sweep = Task(spawn_local(async move { sweep.sweep().await }).abort_handle());
    let mut pulses = cluster.pulses();
    let mut asked: HashMap<SocketAddr, Task> = HashMap::new();
    loop {
        let candidates = cluster.members().candidates();
        asked.retain(|address, _| candidates.contains(address));
        for address in candidates {
            asked.entry(address).or_insert_with(|| {
                Task(spawn_local(ask_again_and_again(Arc::clone(&cluster), address, Rc::clone(&pool))).abort_handle())
            });
        }
        // The sender is in `cluster`.
        let _ = pulses.changed().await;
    }
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask_again_and_again(cluster: Arc<Cluster>, address: SocketAddr, pool: Rc<Pool>) {
    let Some(endpoint) = Endpoint::new(ReplicaAddress::of(address)).map(Arc::new) else { return };
    let mut pulses = cluster.pulses();
    loop {
        pulses.mark_unchanged();
        match timeout(PATIENCE, ask(&cluster, address, &endpoint, &pool)).await {
            Ok(Ok(state)) => drop(cluster.hear(state, true)),
            failed => {
                let error = failed.map_or(Unanswered::Late, |answered| answered.err().unwrap_or(Unanswered::Late));
                tracing::debug!(member = %address, %error, "a front end of the cluster does not answer");
                // Bound first: the lock must be free before the news are told.
                let is_news = cluster.members().note_failure(address, error.is_final());
                if is_news {
                    cluster.news();
                }
            }
        }
        sleep(LEAST_PAUSE).await;
        let interval = if cluster.is_settled() { INTERVAL } else { QUICK_INTERVAL };
        let _ = timeout(interval, pulses.changed()).await;
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("no connection: {0}")]
    Connect(ConnectError),
    #[error("{0}")]
    Broken(AnswerError),
    #[error("not within {} ms", PATIENCE.as_millis())]
    Late,
    #[error("status {0}; do both have the same secret?")]
    Status(StatusCode),
    #[error("the answer is none of a front end of this cluster")]
    Foreign,
    #[error("there is no secret")]
    NoSecret,
}

impl Unanswered {
    /// Whether there is nobody, or somebody else.
    fn is_final(&self) -> bool {
        match self {
            Self::Connect(ConnectError::Io(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Self::Status(_) | Self::Foreign | Self::NoSecret => true,
            Self::Connect(_) | Self::Broken(_) | Self::Late => false,
        }
    }
}

struct To(Arc<Endpoint>);

impl AsRef<Endpoint> for To {
    fn as_ref(&self) -> &Endpoint {
        &self.0
    }
}

async fn ask(
    cluster: &Cluster,
    address: SocketAddr,
    endpoint: &Arc<Endpoint>,
    pool: &Rc<Pool>,
) -> Result<State, Unanswered> {
    let secrets = cluster.secrets();
    let state = cluster.members().state_for(address, micros_now());
    let body = serde_json::to_vec(&state).unwrap_or_default();
    let signature = secrets.sign(&question(address, &body)).ok_or(Unanswered::NoSecret)?;
    let mut request = Request::new(&Method::POST, PATH, Full::new(Bytes::from(body)));
    request.field(&HOST, endpoint.authority().as_bytes());
    request.field(&SIGNATURE, signature.as_bytes());
    let (times, to) = (Times::default(), To(Arc::clone(endpoint)));
    let mut fields = Fields { room: &mut HeaderMap::new(), is_wanted: |name| *name == SIGNATURE };
    let sent = upstream::send(pool, request, &times, to, PATIENCE, &mut fields).await;
    let reply = sent.map_err(|failure| match failure {
        Failure::Unsent { cause, .. } => Unanswered::Connect(cause),
        Failure::Sent { cause, .. } => Unanswered::Broken(cause),
    })?;
    let (head, body) = reply.into_parts();
    if head.status != StatusCode::OK {
        return Err(Unanswered::Status(head.status));
    }
    let body = Limited::new(body, MAX_STATE).collect().await.map_err(|_| Unanswered::Foreign)?.to_bytes();
    let signed = head.headers.get(SIGNATURE).ok_or(Unanswered::Foreign)?;
    if !secrets.fits(&answer(&signature, &body), signed) {
        return Err(Unanswered::Foreign);
    }
    let state: State = serde_json::from_slice(&body).map_err(|_| Unanswered::Foreign)?;
    if state.from == Some(address) { Ok(state) } else { Err(Unanswered::Foreign) }
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not signed by the secret, for this front end.
    Signature,
    /// It is signed, and no message of a front end.
    Malformed,
}

impl Cluster {
    /// The answer to a question of another front end, and its signature.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn answer(&self, signature: Option<&HeaderValue>, body: &[u8]) -> Result<(HeaderValue, Vec<u8>), Refused> {
        let secrets = self.secrets();
        let signature = signature.ok_or(Refused::Signature)?;
        if !secrets.fits(&question(self.own, body), signature) {
            self.counts.wrong_secret.fetch_add(1, Relaxed);
            return Err(Refused::Signature);
        }
        let state: State = serde_json::from_slice(body).map_err(|_| Refused::Malformed)?;
        let from = state.from.ok_or(Refused::Malformed)?;
        self.hear(state, false);
        let body = serde_json::to_vec(&self.members().state_for(from, micros_now())).map_err(|_| Refused::Malformed)?;
        let signed = secrets.sign(&answer(signature, &body)).ok_or(Refused::Signature)?;
        Ok((signed, body))
    }
}

fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
