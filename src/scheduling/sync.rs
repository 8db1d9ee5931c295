//! What the counting and the queue are built on. The package in `model/` puts a model checker's types in their place.

pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
pub use std::sync::{Arc, Mutex};

pub use tokio::sync::oneshot;
