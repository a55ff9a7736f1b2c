//! Search through a graph of the reference (HNSW: Malkov and Yashunin 2018), with the crate `hnsw_rs`: approximate, in
//! memory, built anew by each run. Behind the feature `hnsw`; without it, [`open`] says so.
//!
//! The crate ends the process at some inputs and panics at others. None of these is reached: options are checked here
//! ([`GraphOptions::check`]), rows are finite and scaled ([`space`]), nothing is loaded or dumped, and what panics all the
//! same becomes an error ([`guard`]).

#[cfg(feature = "hnsw")]
mod graph;
mod guard;
#[cfg(feature = "hnsw")]
mod search;
#[cfg(feature = "hnsw")]
mod space;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::Engine;
use crate::error::EngineError;
use crate::metric::Metric;

pub use guard::is_guarded;

/// References so few that comparing all is as quick as going through a graph of them.
pub const EXACT_ROWS: usize = 1_024;
/// The least and the most links of a row: with one there are no levels, and the crate ends the process beyond.
const M: (u32, u32) = (2, 256);
/// The least and the most candidates: there is memory for each.
const EF: (u32, u32) = (1, 10_000);

/// How a graph is built and searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// Links of each row to others, twice as many on the lowest level.
    pub m: u32,
    /// Candidates that are kept while a row's links are chosen.
    pub ef_construction: u32,
    /// Candidates that are kept while a query is searched, in each graph; at least k are.
    pub ef: u32,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200, ef: 128 }
    }
}

impl GraphOptions {
    /// These options, if a graph can be made with them.
    ///
    /// # Errors
    /// [`EngineError::GraphOption`] naming the first that is out of range.
    pub fn check(self) -> Result<Self, EngineError> {
        let all = [("m", self.m, M), ("ef-construction", self.ef_construction, EF), ("ef", self.ef, EF)];
        match all.into_iter().find(|(_, found, (least, most))| !(*least..=*most).contains(found)) {
            Some((name, found, (least, most))) => Err(EngineError::GraphOption { name, found, least, most }),
            None => Ok(self),
        }
    }
}

/// What an engine tells of its graph while it works.
#[derive(Debug, Default)]
pub struct GraphCounts {
    /// Pairs compared, for building and searching.
    pub pairs: AtomicU64,
    /// Milliseconds that building took.
    pub building_ms: AtomicU64,
    /// Queries that were compared with every reference, as the graph led to fewer than k.
    pub compared_with_all: AtomicU64,
}

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct HnswConfig {
    /// The metric.
    pub metric: Metric,
    /// Where all the work is done.
    pub pool: Arc<rayon::ThreadPool>,
    /// How the graph is built and searched.
    pub options: GraphOptions,
    /// Partitions of up to so many rows are compared whole: [`EXACT_ROWS`].
    pub exact_rows: usize,
    /// Set when building shall stop: it takes minutes.
    pub stop: Arc<AtomicBool>,
    /// Where it is told what was done.
    pub counts: Arc<GraphCounts>,
}

/// Whether rows can be linked by a metric.
///
/// # Errors
/// [`EngineError::GraphMetric`] for inner products, by which a row need not be the nearest to itself.
pub fn check_metric(metric: Metric) -> Result<(), EngineError> {
    if metric.is_distance() { Ok(()) } else { Err(EngineError::GraphMetric { metric: metric.name() }) }
}

/// The engine.
///
/// # Errors
/// A metric or options that no graph can be made with.
#[cfg(feature = "hnsw")]
pub fn open(config: HnswConfig) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(search::HnswEngine::new(config)?))
}

/// No engine: this build has none.
///
/// # Errors
/// [`EngineError::NoHnsw`].
#[cfg(not(feature = "hnsw"))]
pub fn open(_: HnswConfig) -> Result<Box<dyn Engine>, EngineError> {
    Err(EngineError::NoHnsw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_end_the_process_are_refused_by_name() {
        let usual = GraphOptions::default();
        assert_eq!(usual.check().unwrap(), usual);
        for m in [2, 256] {
            assert!(GraphOptions { m, ..usual }.check().is_ok());
        }
        for (options, says) in [
            (GraphOptions { m: 0, ..usual }, "--hnsw-m 0"),
            (GraphOptions { m: 1, ..usual }, "2 to 256"),
            (GraphOptions { m: 257, ..usual }, "--hnsw-m 257"),
            (GraphOptions { m: 1_000_000, ..usual }, "--hnsw-m 1000000"),
            (GraphOptions { ef: 0, ..usual }, "--hnsw-ef 0"),
            (GraphOptions { ef: u32::MAX, ..usual }, "1 to 10000"),
            (GraphOptions { ef_construction: 0, ..usual }, "--hnsw-ef-construction 0"),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
