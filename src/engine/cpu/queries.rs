//! The queries between `begin` and `finish`: their rows as given, what they must not get, and their top-k so far.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::exact::check_rows;
use super::pending::Pending;
use super::tasks::Met;
use crate::block::RowBlock;
use crate::engine::Exclude;
use crate::error::EngineError;
use crate::metric::Metric;
use crate::topk::TopK;
use crate::units::K;
use crate::visit::Horizon;

/// Queries under one lock: tasks of a call mostly have their own.
const SHARD: usize = 64;

/// A block of queries and what was found for them.
#[derive(Debug)]
pub(super) struct Queries {
    pub block: RowBlock,
    pub k: K,
    /// Whether a reference of the query's own id is excluded.
    pub own_row: bool,
    /// Groups whose references are excluded.
    pub groups: Option<Vec<u32>>,
    /// How far references are wanted, beside the nearest; however far where there is none.
    pub horizon: Option<Horizon>,
    /// In which order visits named them.
    pub met: Met,
    tops: Vec<Mutex<TopK>>,
}

impl Queries {
    /// Queries with an empty top-k each.
    pub fn new(metric: Metric, block: &RowBlock, k: K, exclude: &Exclude) -> Result<Self, EngineError> {
        check_rows(metric, block, "query")?;
        let (own_row, groups) = match exclude {
            Exclude::Nothing => (false, None),
            Exclude::OwnRow => (true, None),
            Exclude::SameGroup { groups, own_row } => (*own_row, Some(groups.clone())),
        };
        if let Some(groups) = groups.as_ref().filter(|groups| groups.len() != block.rows()) {
            let why = format!("{} groups were given for {} queries", groups.len(), block.rows());
            return Err(EngineError::Shape { what: "exclusion groups", why });
        }
        let shard = |first: usize| Mutex::new(TopK::empty(SHARD.min(block.rows() - first), k));
        let tops = (0..block.rows()).step_by(SHARD).map(shard).collect();
        Ok(Self { block: block.clone(), k, own_row, groups, horizon: None, met: Met::default(), tops })
    }

    /// References per query that wait for their exact distance. What is within a horizon is few beside k.
    pub fn room(&self) -> usize {
        Pending::room(if self.horizon.is_some() { self.k.get().min(2 * Horizon::NEAREST) } else { self.k.get() })
    }

    /// Bytes per query: its row, its top-k, its id and group, its place among those met and in which task, its share of locks
    /// and of the list of tasks.
    pub fn bytes_per_query(dim: usize, k: usize) -> usize {
        dim * size_of::<f32>() + k * (size_of::<f32>() + size_of::<u64>()) + size_of::<u64>() + 5 * size_of::<u32>() + 4
    }

    fn shard(&self, row: usize) -> MutexGuard<'_, TopK> {
        // A row is replaced whole, so what a panicking thread left behind is still a top-k.
        self.tops[row / SHARD].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on a query's row of its top-k.
    pub fn with_top<T>(&self, row: usize, work: impl FnOnce(&mut TopK, usize) -> T) -> T {
        work(&mut self.shard(row), row % SHARD)
    }

    /// Everything found so far.
    pub fn top(&self) -> TopK {
        let mut all = TopK::empty(self.block.rows(), self.k);
        let rows: Vec<_> = all.chunks_mut(SHARD).zip(&self.tops).collect();
        rows.into_par_iter().for_each(|((ids, distances), shard)| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            ids.copy_from_slice(shard.ids());
            distances.copy_from_slice(shard.distances());
        });
        all
    }

    /// Replaces everything found so far.
    pub fn restore(&mut self, all: &TopK) -> Result<(), EngineError> {
        if (all.rows(), all.k()) != (self.block.rows(), self.k.get()) {
            let why =
                format!("it has {} rows of {}, there are {} of {}", all.rows(), all.k(), self.block.rows(), self.k);
            return Err(EngineError::Shape { what: "the saved top-k and the queries", why });
        }
        let mut neighbours = Vec::with_capacity(self.k.get());
        for (i, shard) in self.tops.iter_mut().enumerate() {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            for row in 0..shard.rows() {
                let (ids, distances) = all.neighbours(i * SHARD + row);
                neighbours.clear();
                neighbours.extend(distances.iter().copied().zip(ids.iter().copied()));
                shard.set_row(row, &neighbours);
            }
        }
        Ok(())
    }
}
