//! Which replica answers a request, and when: permits counted exactly, one queue a service, replicas that fail alone.
//!
//! A [`Replica`] has as many permits as it may run requests at once. A request takes one of the replica chosen among
//! the [`Replicas`] of its deployment, or waits in the service's [`Queue`], bound to none, until one is free. This room
//! sends nothing and knows nothing of HTTP but a status; time passes outside of it as well.

mod budget;
mod clock;
mod condition;
mod loans;
mod pace;
mod permits;
mod queue;
mod replica;
mod replicas;
mod sync;
#[cfg(test)]
mod tests;

pub use condition::{Failure, Health, Out};
pub use permits::ANY;
pub use queue::{Queue, Rank, Turned, Waiting};
pub use replica::{Replica, ReplicaPermit};
pub use replicas::{Forecast, Replicas, Settings, View};
