//! How rows are searched: the one trait that the CPU, GPU and HNSW engines implement. No files, no threads of its own.

#[cfg(test)]
pub(crate) mod conformance;
pub mod cpu;
pub mod gpu;
pub mod hnsw;
pub mod several;
mod visits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::block::{RowBlock, Rows};
use crate::error::EngineError;
pub use crate::plan::EngineLimits;
use crate::topk::TopK;
use crate::units::K;
pub use crate::visit::{Horizon, Visit, VisitQueries};

/// The group of a row that belongs to none: it is never excluded.
pub const NO_GROUP: u32 = u32::MAX;

/// Reference rows that are resident together (≤ 1 GiB).
#[derive(Debug)]
pub struct Partition {
    key: u64,
    /// The rows and their ids.
    pub block: Rows,
    /// Each row's group, for [`Exclude::SameGroup`]; [`NO_GROUP`] where it has none.
    pub groups: Option<Vec<u32>>,
    /// Rows that may be found; `None` is all of them.
    pub mask: Option<Vec<bool>>,
}

impl Partition {
    /// A partition of these rows, without groups or mask.
    #[must_use]
    pub fn new(rows: impl Into<Rows>) -> Arc<Self> {
        Self::with(rows, None, None)
    }

    /// A partition of these rows with their groups and mask, an entry per row each.
    ///
    /// # Panics
    /// When there are more or fewer groups or mask bits than rows.
    #[must_use]
    pub fn with(rows: impl Into<Rows>, groups: Option<Vec<u32>>, mask: Option<Vec<bool>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let block = rows.into();
        assert!(groups.as_ref().is_none_or(|g| g.len() == block.rows()), "one group per row");
        assert!(mask.as_ref().is_none_or(|m| m.len() == block.rows()), "one mask bit per row");
        Arc::new(Self { key: NEXT.fetch_add(1, Ordering::Relaxed), block, groups, mask })
    }

    /// Unique in this process: tells an engine that it has seen this partition before.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }
}

/// Which references a query must not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    #[default]
    Nothing,
    /// The reference whose id is the query's own (self-mapping).
    OwnRow,
    /// References of the query's group. One group per query row; [`NO_GROUP`] excludes nothing. With `own_row`, also
    /// the reference whose id is the query's own.
    SameGroup {
        /// Groups of the query rows.
        groups: Vec<u32>,
        /// Whether the own row is excluded as well.
        own_row: bool,
    },
}

/// A search engine: holds one block of queries and their running top-k from `begin` to `finish`.
///
/// All ids and distances are those of `oracle::search` on the same rows, outside `metric::tie_band`; the same calls
/// give the same bytes whatever the number of threads and however the references are split.
pub trait Engine: Send {
    /// What planning must know, for rows of `dim` dimensions and `k` neighbours.
    fn limits(&self, dim: usize, k: K) -> EngineLimits;

    /// Makes these queries resident, with an empty top-k each. Ends whatever was begun before.
    ///
    /// # Errors
    /// A constant row under correlation, exclusion groups that do not fit.
    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError>;

    /// Searches rows of a partition for rows of the query block. May return before the work is done.
    ///
    /// # Errors
    /// Rows of another dimension, rows out of range, a constant row under correlation, no `begin`.
    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError>;

    /// The ids of the rows of a partition that are nearest each query of the block, nearest first, excluded ones too:
    /// `queries × k`, [`u32::MAX`] behind the last where there are fewer or those are beyond `horizon`. Works on `at_a_time`
    /// queries at a time. What was found since `begin` stays as it is.
    ///
    /// # Errors
    /// As `visit`; a partition with groups, a mask or ids that are no 32 bits, which landmarks have not.
    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError>;

    /// Each query's k-th best distance so far, +∞ where it has fewer than k.
    ///
    /// # Errors
    /// No `begin`.
    fn bounds(&mut self) -> Result<Vec<f32>, EngineError>;

    /// The k nearest of everything visited since `begin`; the queries are released.
    ///
    /// # Errors
    /// No `begin`.
    fn finish(&mut self) -> Result<TopK, EngineError>;

    /// The k nearest so far; the queries stay.
    ///
    /// # Errors
    /// No `begin`.
    fn snapshot(&mut self) -> Result<TopK, EngineError>;

    /// Replaces what was found so far, as if everything behind `top` had been visited.
    ///
    /// # Errors
    /// No `begin`, or another number of rows or k.
    fn restore(&mut self, top: &TopK) -> Result<(), EngineError>;
}

/// Refuses a partition that is more than landmarks.
fn check_landmarks(part: &Partition) -> Result<(), EngineError> {
    let ids = part.block.ids();
    let is_wide = (0..ids.len()).any(|row| ids.get(row).0 >= u64::from(u32::MAX));
    if part.groups.is_none() && part.mask.is_none() && !is_wide {
        return Ok(());
    }
    let why = "landmarks have neither groups nor a mask, and ids below 2^32 - 1".to_owned();
    Err(EngineError::Shape { what: "a partition of landmarks", why })
}

/// [`Engine::nearest`] of these queries, by an engine that begins for some of them after the other. Called on its pool.
fn nearest_in_pieces(
    engine: &mut dyn Engine,
    queries: &RowBlock,
    part: &Arc<Partition>,
    (k, horizon): (K, Option<Horizon>),
    at_a_time: usize,
) -> Result<Vec<u32>, EngineError> {
    check_landmarks(part)?;
    let mut near = vec![u32::MAX; queries.rows() * k.get()];
    let rows = 0..u32::try_from(part.block.rows()).unwrap_or(u32::MAX);
    let visit = Visit { rows, queries: VisitQueries::All };
    for first in (0..queries.rows()).step_by(at_a_time.max(1)) {
        let piece = queries.part(first..(first + at_a_time.max(1)).min(queries.rows()));
        engine.begin(&piece, k, &Exclude::Nothing)?;
        engine.visit(part, std::slice::from_ref(&visit))?;
        let found = engine.finish()?;
        let of_row = |(row, near): (usize, &mut [u32])| {
            let (ids, distances) = found.row(row);
            let kept = horizon.map_or(k.get(), |horizon| horizon.kept(distances));
            near.iter_mut().zip(&ids[..kept]).for_each(|(near, &id)| *near = u32::try_from(id).unwrap_or(u32::MAX));
        };
        near[first * k.get()..][..found.rows() * k.get()].par_chunks_mut(k.get()).enumerate().for_each(of_row);
    }
    Ok(near)
}
