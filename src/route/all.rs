//! Exact search: every query visits every row of every partition.

use std::ops::Range;

use super::Router;
use crate::block::RowBlock;
use crate::engine::{Visit, VisitQueries};

/// Runs of rows in storage order, all of them visited.
#[derive(Clone, Debug)]
pub struct All {
    partitions: Vec<Range<u64>>,
}

impl All {
    /// Cuts `rows` into runs of `partition_rows`, the last one shorter.
    ///
    /// # Panics
    /// When `partition_rows` is 0 or more than `u32::MAX`.
    #[must_use]
    pub fn new(rows: u64, partition_rows: u64) -> Self {
        assert!((1..=u64::from(u32::MAX)).contains(&partition_rows), "partitions of {partition_rows} rows");
        let starts = (0..rows.div_ceil(partition_rows)).map(|i| i * partition_rows);
        Self { partitions: starts.map(|start| start..rows.min(start + partition_rows)).collect() }
    }
}

impl Router for All {
    fn partitions(&self) -> &[Range<u64>] {
        &self.partitions
    }

    fn visits(&self, partition: usize, _block: &RowBlock) -> Vec<Visit> {
        let rows = &self.partitions[partition];
        // The constructor keeps partitions within u32.
        let rows = u32::try_from(rows.end - rows.start).unwrap_or(u32::MAX);
        vec![Visit { rows: 0..rows, queries: VisitQueries::All }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_cover_every_row_once() {
        for (rows, each, expected) in [(0, 5, &[][..]), (10, 5, &[0..5, 5..10]), (11, 5, &[0..5, 5..10, 10..11])] {
            assert_eq!(All::new(rows, each).partitions(), expected, "{rows} rows by {each}");
        }
    }
}
