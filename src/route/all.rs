//! Exact search: every query visits every row.

use std::ops::Range;

use super::Router;
use crate::block::RowBlock;
use crate::visit::{Visit, VisitQueries};

/// All rows, in runs of at most so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllRows {
    partitions: Vec<Range<u64>>,
}

impl AllRows {
    /// `rows` reference rows in partitions of `rows_per_partition` (at least 1), the last one shorter.
    #[must_use]
    pub fn new(rows: u64, rows_per_partition: u32) -> Self {
        let step = u64::from(rows_per_partition.max(1));
        let partitions = (0..rows.div_ceil(step)).map(|i| i * step..((i + 1) * step).min(rows)).collect();
        Self { partitions }
    }
}

impl Router for AllRows {
    fn partitions(&self) -> &[Range<u64>] {
        &self.partitions
    }

    fn visits(&self, partition: usize, block: &RowBlock) -> Vec<Visit> {
        let rows = self.partitions.get(partition).map_or(0, |p| p.end - p.start);
        // The constructor cut runs of at most u32 rows, so this only fails where there is nothing to visit.
        match u32::try_from(rows) {
            Ok(rows) if rows > 0 && block.rows() > 0 => vec![Visit { rows: 0..rows, queries: VisitQueries::All }],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RowIds;

    #[test]
    fn every_row_is_in_exactly_one_partition() {
        #[allow(clippy::single_range_in_vec_init)]
        for (rows, step, expected) in
            [(0, 10, vec![]), (5, 10, vec![0..5]), (20, 10, vec![0..10, 10..20]), (21, 10, vec![0..10, 10..20, 20..21])]
        {
            assert_eq!(AllRows::new(rows, step).partitions(), expected, "{rows} rows by {step}");
        }
        assert_eq!(AllRows::new(2, 0).partitions().len(), 2);
    }

    #[test]
    fn every_query_visits_the_whole_of_every_partition() {
        let router = AllRows::new(21, 10);
        let block = RowBlock::new(RowIds::Range(5..7), 1, vec![0.0; 2]).expect("a block");
        let whole = |rows| vec![Visit { rows, queries: VisitQueries::All }];
        assert_eq!(router.visits(0, &block), whole(0..10));
        assert_eq!(router.visits(2, &block), whole(0..1));
        assert!(router.visits(3, &block).is_empty());
        let nobody = RowBlock::new(RowIds::Range(5..5), 1, vec![]).expect("a block");
        assert!(router.visits(0, &nobody).is_empty());
    }
}
