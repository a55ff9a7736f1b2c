//! Which reference rows a query block visits. Engines do not know; the scheduler does not care.

pub mod all;

use std::ops::Range;

use crate::block::RowBlock;
use crate::engine::Visit;

/// Chooses, for each block of queries, the rows of each partition that are searched.
pub trait Router: Send + Sync {
    /// The partitions there are, as ranges of reference rows in storage order, together covering what may be visited.
    fn partitions(&self) -> &[Range<u64>];

    /// The visits of this block to a partition. None at all: the partition is not even read.
    fn visits(&self, partition: usize, block: &RowBlock) -> Vec<Visit>;
}
