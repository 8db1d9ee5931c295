//! What callers know of the front end, and its configuration says.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;

pub const NAME: &str = "soak.example.com";

/// How long a call may take unless its caller says less.
pub const SCORING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may wait: longer than the longest queue takes, so that nobody but who was forgotten waits so long.
pub const MAX_QUEUE_WAIT: Duration = Duration::from_secs(1);

/// Keys and the SHA-256 of each, by priority.
pub const KEYS: [(&str, &str, &str); 3] = [
    ("high", "key-of-the-high-0123456789", "ebb35a1c08832ede8600c3e47e2123fa585fcddc0001bbd243b3477411d67664"),
    ("normal", "key-of-the-normal-0123456789", "28dd1d7a9731cda7f0a4110b8a83b3d8b6b60d63514dc4b5bff761dc83f1323a"),
    ("low", "key-of-the-low-0123456789", "d599a50138ab7f7bdd0208b84f228d698207317b426053c215ee71bb45422bfb"),
];

/// Where callers find it.
#[derive(Clone)]
pub struct Target {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub root: CertificateDer<'static>,
}
