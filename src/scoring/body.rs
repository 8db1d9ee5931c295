//! The two bodies that pass through: the caller's to the replica, counted and limited, and the answer's to the
//! caller, counted and bounded in its silences. Both are streamed frame by frame and never held.

mod request;
mod response;

use super::incoming::IncomingError;
use crate::upstream::AnswerError;

pub use self::request::{GATHERED, RequestBody};
pub use self::response::ResponseBody;

/// Why a body ended before its end. The other side is told by the way its message breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is over the limit")]
    TooLarge,
    #[error("the caller: {0}")]
    Caller(IncomingError),
    #[error("the replica: {0}")]
    Replica(AnswerError),
    #[error("the replica was silent for too long")]
    Silent,
}
