//! The out-of-core loop: threads, queues, residency, prefetch, checkpoints. Knows neither files nor metrics.
//!
//! [`search`] drives an engine over query blocks and partitions; [`units`] drives everything that is done unit by unit
//! over the neighbours store. Both write behind: while one unit is computed, the one before it is written.

pub mod assemble;
pub mod blocks;
pub mod near;
pub mod pager;
pub mod progress;
pub mod queries;
pub mod refine;
pub mod saved;
pub mod search;
pub mod stream;
pub mod units;

#[cfg(test)]
mod lists_case_tests;
#[cfg(test)]
mod lists_tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds spent in the parts of a run, summed over threads.
#[derive(Debug, Default)]
pub struct Clock {
    read: AtomicU64,
    search: AtomicU64,
    map: AtomicU64,
    write: AtomicU64,
}

/// A part of a run that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Part {
    Read,
    Search,
    Map,
    Write,
}

impl Clock {
    /// Does some work and adds the time it took.
    pub fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        let spent = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counter(part).fetch_add(spent, Ordering::Relaxed);
        result
    }

    /// Seconds spent so far.
    #[must_use]
    pub fn seconds(&self, part: Part) -> f64 {
        self.counter(part).load(Ordering::Relaxed) as f64 / 1e9
    }

    fn counter(&self, part: Part) -> &AtomicU64 {
        match part {
            Part::Read => &self.read,
            Part::Search => &self.search,
            Part::Map => &self.map,
            Part::Write => &self.write,
        }
    }
}
