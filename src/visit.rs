//! What a search is a list of: some rows of the query block against a row range of a partition.

use std::ops::Range;

/// Which queries of the block a visit concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitQueries {
    /// All of them.
    All,
    /// These rows of the block, ascending.
    List(Vec<u32>),
}

/// Some rows of the query block against a row range of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Rows of the partition.
    pub rows: Range<u32>,
    /// Rows of the query block.
    pub queries: VisitQueries,
}
