//! Which rows are searched: the trait that exact search and IVF share. It names rows and never reads them.

pub mod all;
pub mod kmeans;
pub mod lists;
pub mod patterns;
pub mod space;

use std::ops::Range;

use crate::block::RowBlock;
use crate::visit::Visit;

/// Cuts the reference into partitions and says, for a block of queries, which rows of each are worth a visit.
pub trait Router: Send + Sync {
    /// The reference rows of each partition, in the order in which they are best read.
    fn partitions(&self) -> &[Range<u64>];

    /// What a block of queries visits in one partition; empty when the partition need not be read for it.
    fn visits(&self, partition: usize, block: &RowBlock) -> Vec<Visit>;
}
