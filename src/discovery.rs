//! Which replicas a deployment has, where the configuration does not list them.
//!
//! A source says it with whole sets: it calls `publish(Vec<ReplicaAddress>)` with every address there is, each time
//! they have become others, and never with a difference. A source that cannot be asked says nothing, so that what was
//! said last goes on. Whoever publishes to requests knows no more than that: [`dns`] asks again and again,
//! [`kubernetes`] is told, and both fit the same closure.
//!
//! This room chooses no replica, connects to none, and does not know whether one is well.

pub mod dns;
pub mod kubernetes;
