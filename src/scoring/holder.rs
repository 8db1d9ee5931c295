//! On whose behalf a connection out of this process is held.

use std::sync::Arc;

use super::attempt::Attempt;
use super::exchange::Exchange;
use crate::cluster::Member;
use crate::upstream::Endpoint;

/// See the module.
pub enum Holder {
    Replica(Attempt<Exchange>),
    Member(Arc<Member>),
}

impl AsRef<Endpoint> for Holder {
    fn as_ref(&self) -> &Endpoint {
        match self {
            Self::Replica(attempt) => attempt.as_ref(),
            Self::Member(member) => &member.endpoint,
        }
    }
}
