//! The out-of-core loop: threads, queues, residency, prefetch, checkpoints.

pub mod progress;
