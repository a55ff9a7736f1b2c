//! Which query rows are searched together, from the units that are still to do. Arithmetic only.

use std::ops::Range;

use crate::units::UNIT_ROWS;

/// The rows of a unit.
#[must_use]
pub fn unit_rows(unit: u64, rows: u64) -> Range<u64> {
    unit * UNIT_ROWS..rows.min((unit + 1) * UNIT_ROWS)
}

/// How many units `rows` make.
#[must_use]
pub fn unit_count(rows: u64) -> u64 {
    rows.div_ceil(UNIT_ROWS)
}

/// The rows of these units (ascending) as runs, less the rows that a checkpoint `covers`. What follows the checkpoint
/// comes first, so that its unit is completed before another is begun.
#[must_use]
pub fn runs(todo: &[u64], rows: u64, covers: &Range<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for unit in todo.iter().map(|&unit| unit_rows(unit, rows)) {
        let before = unit.start..unit.end.min(covers.start.max(unit.start));
        let after = unit.start.max(covers.end.min(unit.end))..unit.end;
        let parts = if covers.is_empty() { [unit, 0..0] } else { [before, after] };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            match runs.last_mut() {
                Some(run) if run.end == part.start => run.end = part.end,
                _ => runs.push(part),
            }
        }
    }
    runs.sort_by_key(|run| (run.start != covers.end, run.start));
    runs
}

/// Cuts runs into blocks of at most `block_rows`. Those smaller than a unit never cross its border, nor do those that begin
/// inside a unit: all others begin with one, and what is found for the units of a block is refined and saved together.
#[must_use]
pub fn blocks(runs: &[Range<u64>], block_rows: u64) -> Vec<Range<u64>> {
    let mut blocks = Vec::new();
    for run in runs {
        let mut start = run.start;
        while start < run.end {
            let mut end = run.end.min(start + block_rows);
            if block_rows < UNIT_ROWS || !start.is_multiple_of(UNIT_ROWS) {
                end = end.min((start / UNIT_ROWS + 1) * UNIT_ROWS);
            }
            blocks.push(start..end);
            start = end;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: u64 = UNIT_ROWS;

    #[test]
    fn units_that_follow_each_other_are_one_run() {
        assert_eq!(runs(&[0, 1, 3], 3 * U + 5, &(0..0)), [0..2 * U, 3 * U..3 * U + 5]);
    }

    #[test]
    fn what_a_checkpoint_covers_is_left_out_and_its_unit_comes_first() {
        assert_eq!(runs(&[0, 1, 2], 3 * U, &(U..U + 10)), [U + 10..3 * U, 0..U]);
        assert_eq!(runs(&[1, 2], 3 * U, &(U..3 * U)), Vec::<Range<u64>>::new());
        assert_eq!(runs(&[0], 100, &(0..40)), [40..100]);
    }

    #[test]
    fn blocks_cover_each_row_once_and_small_ones_stay_inside_a_unit() {
        for block_rows in [256, 16_384, U, 3 * U] {
            let runs = runs(&[0, 1, 2, 5], 6 * U - 7, &(0..1_000));
            let blocks = blocks(&runs, block_rows);
            let covered: u64 = blocks.iter().map(|b| b.end - b.start).sum();
            assert_eq!(covered, 4 * U - 7 - 1_000, "blocks of {block_rows}");
            assert!(blocks.iter().all(|b| b.end - b.start <= block_rows && !b.is_empty()));
            let (start, end) = (|b: &Range<u64>| b.start / U, |b: &Range<u64>| (b.end - 1) / U);
            assert!(blocks.iter().all(|b| (block_rows >= U && b.start % U == 0) || start(b) == end(b)));
        }
    }
}
