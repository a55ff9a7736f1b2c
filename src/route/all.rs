//! Exact search: every query visits every row.

use std::ops::Range;

use super::{Known, Route, Router};
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
    fn route<'r>(&'r self, _round: u32, known: &Known<'_>) -> Box<dyn Route + 'r> {
        let seen = self.partitions.partition_point(|rows| rows.end <= known.seen_to);
        let partitions = if known.queries.rows() > 0 { &self.partitions[seen..] } else { &[] };
        Box::new(Rest { partitions, seen_to: known.seen_to })
    }
}

/// The partitions that are not behind `seen_to`.
struct Rest<'a> {
    partitions: &'a [Range<u64>],
    seen_to: u64,
}

impl Route for Rest<'_> {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn rows(&self, partition: usize) -> &[Range<u64>] {
        std::slice::from_ref(&self.partitions[partition])
    }

    fn visits<'v>(&'v self, partition: usize) -> Box<dyn Iterator<Item = Vec<Visit>> + Send + 'v> {
        let rows = &self.partitions[partition];
        let local = |row: u64| u32::try_from(row - rows.start).unwrap_or(u32::MAX);
        let rows = local(rows.start.max(self.seen_to))..local(rows.end);
        Box::new(std::iter::once(vec![Visit { rows, queries: VisitQueries::All }]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RowBlock, RowIds};

    /// What a block visits: the rows of each partition, and what is visited of it.
    fn visited(router: &AllRows, queries: u64, seen_to: u64) -> Vec<(Range<u64>, Range<u32>)> {
        let len = usize::try_from(queries).expect("few");
        let queries = RowBlock::new(RowIds::Range(5..5 + queries), 1, vec![0.0; len]).expect("a block");
        let route = router.route(0, &Known { queries: &queries, near: &[], bounds: &[], seen_to });
        let visit = |partition| {
            let visits: Vec<Visit> = route.visits(partition).flatten().collect();
            let [visit] = <[Visit; 1]>::try_from(visits).expect("one visit");
            assert_eq!(visit.queries, VisitQueries::All);
            (route.rows(partition)[0].clone(), visit.rows)
        };
        (0..route.partitions()).map(visit).collect()
    }

    #[test]
    fn every_query_visits_every_row_once() {
        for (rows, step, expected) in [
            (0, 10, vec![]),
            (5, 10, vec![(0..5, 0..5)]),
            (20, 10, vec![(0..10, 0..10), (10..20, 0..10)]),
            (21, 10, vec![(0..10, 0..10), (10..20, 0..10), (20..21, 0..1)]),
            (2, 0, vec![(0..1, 0..1), (1..2, 0..1)]),
        ] {
            assert_eq!(visited(&AllRows::new(rows, step), 2, 0), expected, "{rows} rows by {step}");
            assert!(visited(&AllRows::new(rows, step), 0, 0).is_empty());
        }
    }

    #[test]
    fn what_was_seen_is_not_visited_again() {
        let router = AllRows::new(21, 10);
        assert_eq!(visited(&router, 2, 13), [(10..20, 3..10), (20..21, 0..1)]);
        assert_eq!(visited(&router, 2, 20), [(20..21, 0..1)]);
        assert!(visited(&router, 2, 21).is_empty());
    }
}
