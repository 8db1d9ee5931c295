//! What every test needs: a certificate authority, an environment to start, a replica that does as it is told, and
//! callers of every kind.

mod authority;
mod caller;
mod cluster;
mod environment;
mod http2;
pub mod kubernetes;
mod name_server;
mod replica;
mod wire;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, sleep, timeout};

pub use authority::{Algorithm, CallerAuthority, CallerPair, Pair, roots, roots_pem};
pub use caller::{Body, Caller, channel, empty, full, get, post, read, request, score};
pub use cluster::{Cluster, SECRET, free_addresses, member, member_by, see, until_members};
pub use environment::{
    CNAME, Captured, Environment, Front, client_config, client_config_as, client_config_for, handshake, session,
};
pub use http2::{Frame, Http2};
pub use name_server::NameServer;
pub use replica::{Gate, Replica, Seen, Step, chunk, chunked, ok};
pub use wire::Wire;

/// How long anything may take that takes no time on a machine at rest.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The path of the service that most tests call.
pub const SCORE: &str = "/api/v1/service/iris/score";

/// Waits for what must happen soon.
pub async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Asks again and again until the answer is yes; for what tells nobody when it changes.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "it never came true: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until `count` stands still, which nothing announces, and returns it.
pub async fn settled(count: impl Fn() -> usize) -> usize {
    let (mut last, mut unchanged) = (0, 0);
    eventually("it stands still", async || {
        unchanged = if count() == last { unchanged + 1 } else { 0 };
        last = count();
        last > 0 && unchanged >= 30
    })
    .await;
    last
}

/// A whole answer, however it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The value of a field that is there at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("text");
        assert!(values.next().is_none(), "{name} is there twice");
        Some(value)
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }

    /// Checks that this is an answer of the front end's own, with nothing missing and nothing more.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, code: &str, message: &str) {
        let id = self.field("x-ms-request-id").expect("a request id");
        let error = serde_json::json!({"error": {"code": code, "message": message}, "requestId": id});
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!((self.status, body), (status, error));
        assert_eq!(self.field("content-type"), Some("application/json"));
        assert_eq!(id.len(), 36);
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    /// Status and code of an answer of the front end's own.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        (self.status, body["error"]["code"].as_str().expect("a code").to_owned())
    }
}
