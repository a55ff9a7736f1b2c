//! Gathers the neighbours of finished blocks into whole units: blocks may be smaller or larger than a unit.

use std::ops::Range;

use super::blocks::unit_rows;
use crate::topk::TopK;
use crate::units::{K, UNIT_ROWS};

/// The unit that is being filled.
#[derive(Debug)]
pub struct Assembler {
    rows: u64,
    k: K,
    current: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    unit: u64,
    rows: Range<u64>,
    top: TopK,
}

impl Assembler {
    /// Nothing gathered yet, of `rows` query rows in all.
    #[must_use]
    pub fn new(rows: u64, k: K) -> Self {
        Self { rows, k, current: None }
    }

    /// Takes the neighbours of these rows and returns the units that are whole with them.
    ///
    /// # Panics
    /// When rows do not follow those of an unfinished unit, or do not begin a unit: the caller's blocks are wrong.
    pub fn add(&mut self, rows: Range<u64>, top: TopK) -> Vec<(u64, TopK)> {
        assert_eq!(top.rows() as u64, rows.end - rows.start, "one row of neighbours per query");
        if self.current.is_none() && rows == unit_rows(rows.start / UNIT_ROWS, self.rows) {
            return vec![(rows.start / UNIT_ROWS, top)];
        }
        let mut whole = Vec::new();
        let mut next = rows.start;
        while next < rows.end {
            let unit = next / UNIT_ROWS;
            let bounds = unit_rows(unit, self.rows);
            let end = rows.end.min(bounds.end);
            let filling = self.current.get_or_insert_with(|| Filling {
                unit,
                rows: bounds.start..bounds.start,
                top: TopK::empty(length(&bounds), self.k),
            });
            assert_eq!((filling.unit, filling.rows.end), (unit, next), "blocks follow each other within a unit");
            filling.top.copy_rows(
                length(&(bounds.start..next)),
                &top,
                length(&(rows.start..next)),
                length(&(next..end)),
            );
            filling.rows.end = end;
            if end == bounds.end {
                whole.extend(self.current.take().map(|filling| (filling.unit, filling.top)));
            }
            next = end;
        }
        whole
    }

    /// The first row of the unit that is being filled, with the rows gathered so far.
    #[must_use]
    pub fn gathered(&self) -> Option<(Range<u64>, &TopK)> {
        self.current.as_ref().map(|filling| (filling.rows.clone(), &filling.top))
    }
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: Range<u64>) -> TopK {
        let mut top = TopK::empty(length(&rows), K::new(1).unwrap());
        for (i, row) in rows.enumerate() {
            top.set_row(i, &[(0.0, row)]);
        }
        top
    }

    #[test]
    fn blocks_of_any_size_make_the_same_units() {
        let total = 2 * UNIT_ROWS + 1_000;
        for block_rows in [1_024, UNIT_ROWS, 2 * UNIT_ROWS, total] {
            let mut assembler = Assembler::new(total, K::new(1).unwrap());
            let blocks = super::super::blocks::blocks(&[0..total], block_rows);
            let units: Vec<_> = blocks.into_iter().flat_map(|rows| assembler.add(rows.clone(), block(rows))).collect();
            assert_eq!(units.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [0, 1, 2]);
            for (unit, top) in units {
                assert_eq!(top, block(unit_rows(unit, total)), "blocks of {block_rows}, unit {unit}");
            }
            assert!(assembler.gathered().is_none());
        }
    }

    #[test]
    fn an_unfinished_unit_can_be_looked_at() {
        let mut assembler = Assembler::new(5_000, K::new(1).unwrap());
        assert!(assembler.add(0..100, block(0..100)).is_empty());
        let (rows, top) = assembler.gathered().unwrap();
        assert_eq!((rows, top.row(99).0), (0..100, [99].as_slice()));
    }
}
