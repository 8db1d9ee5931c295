//! Why Kubernetes did not say something.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing says where the API is or who we are there, or what says so cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// No connection, no TLS, or a connection that broke off.
    #[error("its API cannot be reached: {0}")]
    Unreachable(String),
    #[error("its API did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// 401.
    #[error("its API does not know who asks: {0}")]
    Unauthorized(String),
    /// 403.
    #[error("its API forbids it: {0}")]
    Forbidden(String),
    /// 410: what was known is too old to go on from.
    #[error("what was known is too old: {0}")]
    Gone(String),
    /// Any other status that is no success.
    #[error("its API answers {code}: {message}")]
    Status { code: u16, message: String, retry_after: Option<Duration> },
    #[error("its API gives an answer that cannot be read: {0}")]
    Invalid(String),
    #[error("there are more objects than the {0} that are taken")]
    TooMany(usize),
}

impl ApiError {
    /// Every reason, as metrics name it.
    pub const REASONS: [&str; 8] =
        ["configuration", "unreachable", "unauthorized", "forbidden", "gone", "status", "invalid", "too_many"];

    /// Its place among [`Self::REASONS`].
    pub fn reason(&self) -> usize {
        match self {
            Self::Configuration(_) => 0,
            Self::Unreachable(_) | Self::Silent(_) => 1,
            Self::Unauthorized(_) => 2,
            Self::Forbidden(_) => 3,
            Self::Gone(_) => 4,
            Self::Status { .. } => 5,
            Self::Invalid(_) => 6,
            Self::TooMany(_) => 7,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Configuration(_) => {
                "run it in a pod with a service account, set KUBECONFIG, or write kubeconfig = \"…\" in [kubernetes]"
            }
            Self::Unreachable(_) | Self::Silent(_) => {
                "see that the API server runs and that no NetworkPolicy is in the way"
            }
            Self::Unauthorized(_) => {
                "see that the service account's token is mounted, or that the kubeconfig's is valid"
            }
            Self::Forbidden(_) => "bind a Role that allows it to the service account",
            Self::Gone(_) | Self::Status { .. } => "it is asked again; see the API server's log if this goes on",
            Self::Invalid(_) => "see that the address is that of a Kubernetes API",
            Self::TooMany(_) => "name a namespace, or a selector, with fewer",
        }
    }

    /// Whether another connection, or other credentials, could help.
    pub fn is_about_access(&self) -> bool {
        matches!(self, Self::Configuration(_) | Self::Unreachable(_) | Self::Silent(_) | Self::Unauthorized(_))
    }

    /// Whether waiting is all that helps.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Silent(_) | Self::Gone(_))
    }

    /// What went wrong on the way, with all its causes.
    pub fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(error) => Self::Configuration(causes(&error)),
            error => Self::Unreachable(causes(&error)),
        }
    }
}

/// An error and what is behind it, each once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    const DEEPEST: usize = 8;
    let mut said = error.to_string();
    let mut behind = error.source();
    for _ in 0..DEEPEST {
        let Some(error) = behind else { break };
        let cause = error.to_string();
        behind = error.source();
        if !said.contains(&cause) {
            // Writing to a string does not fail.
            let _ = write!(said, ": {cause}");
        }
    }
    said
}
