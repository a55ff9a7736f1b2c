//! Which rows are searched: the traits that exact search and IVF share. They name rows and never read them.

pub mod all;
pub mod ivf;
pub mod kmeans;
pub mod lists;
pub mod patterns;
pub mod space;

use std::ops::Range;

use crate::block::RowBlock;
use crate::units::K;
use crate::visit::{Horizon, Visit};

/// Says which reference rows a block of queries visits.
pub trait Router: Send + Sync {
    /// Rows of which each query's nearest are to be found before its block is routed.
    fn landmarks(&self) -> Option<Landmarks<'_>> {
        None
    }

    /// How many rounds a block takes: before each but the first, the k-th distances so far are known.
    fn rounds(&self) -> u32 {
        1
    }

    /// What a block visits in a round. In a block that goes on, a row may be visited once more in a later round: engines
    /// count it once.
    fn route<'r>(&'r self, round: u32, known: &Known<'_>) -> Box<dyn Route + 'r>;
}

/// Rows that say where a query is, for example centroids.
#[derive(Clone, Copy, Debug)]
pub struct Landmarks<'a> {
    /// The rows; their ids are their places.
    pub rows: &'a RowBlock,
    /// How many of them each query is told, at most as many as there are.
    pub nearest: K,
    /// How far those may be; `None` for however far.
    pub horizon: Option<Horizon>,
}

/// What is known of a block when it is routed.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The queries.
    pub queries: &'a RowBlock,
    /// The landmarks nearest each query, nearest first: `rows × nearest`, [`u32::MAX`] for those beyond its horizon; empty where
    /// none were asked for, and in later rounds of a block that goes on: the engine that began it may have found others.
    pub near: &'a [u32],
    /// Each query's k-th distance so far, +∞ where it has fewer than k; empty in the first round.
    pub bounds: &'a [f32],
    /// Rows before this one have been visited in this round, by a run that goes on now.
    pub seen_to: u64,
}

/// What one block visits in one round, partition by partition, in ascending order of their rows.
pub trait Route: Send + Sync {
    /// How many partitions there are to visit.
    fn partitions(&self) -> usize;

    /// The rows of a partition, ascending. Where partitions stay in memory, those that begin with the same row are the
    /// same in every block and round.
    fn rows(&self, partition: usize) -> &[Range<u64>];

    /// What is visited in a partition, in portions small enough to be held: [`crate::plan::lists::PORTION_PAIRS`]. What makes a good bound
    /// for the rest is in the first.
    fn visits<'v>(&'v self, partition: usize) -> Box<dyn Iterator<Item = Vec<Visit>> + Send + 'v>;
}
