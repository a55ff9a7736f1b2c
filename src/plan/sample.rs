//! Which rows centroids are learned from: a seeded sample that follows from the number of rows and of lists alone.

use std::ops::Range;

/// Rows per list in the sample: more hardly move the centroids (measured on word vectors and a mixture).
const ROWS_PER_LIST: u64 = 128;
/// And from so many lists on, where the sample itself would become large.
const MANY_LISTS: u64 = 8_192;
const ROWS_PER_LIST_OF_MANY: u64 = 64;
/// The sample is taken from blocks of so many rows, so that of a long array few chunks are read.
const BLOCK_ROWS: u64 = 16_384;
/// From at least so many blocks: cells are stored by donor and tissue, so few blocks would know few of them.
const BLOCKS_MIN: u64 = 1_024;
/// And from more where there are many lists.
const LISTS_PER_BLOCK: u64 = 16;
/// Rows that are taken together, for sources that are read row by row.
const RUN_ROWS: u64 = 16;

/// A sequence of numbers that follows from its seed (`SplitMix64`, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The high half of a product (Lemire 2019): uneven by less than n / 2⁶⁴.
        u64::try_from((u128::from(self.number()) * u128::from(n)) >> 64).unwrap_or(0)
    }
}

/// How many rows a sample of so many rows for so many lists has, about.
#[must_use]
pub fn sample_rows(rows: u64, lists: u64) -> u64 {
    let per_list = if lists < MANY_LISTS { ROWS_PER_LIST } else { ROWS_PER_LIST_OF_MANY };
    let most = lists.saturating_mul(per_list).max(MANY_LISTS.min(lists) * ROWS_PER_LIST);
    rows.min(most)
}

/// The sample's rows, ascending: short runs spread over blocks that are spread over the array.
#[must_use]
pub fn sample(rows: u64, lists: u64, seed: u64) -> Vec<Range<u64>> {
    let wanted = sample_rows(rows, lists);
    if wanted >= rows {
        return if rows == 0 { Vec::new() } else { vec![0..rows] };
    }
    let mut random = Random::new(seed);
    let blocks = rows.div_ceil(BLOCK_ROWS);
    let chosen = blocks.min(BLOCKS_MIN.max(lists / LISTS_PER_BLOCK));
    let mut runs = Vec::new();
    for i in 0..chosen {
        let block = within(&share(0..blocks, i, chosen), 1, &mut random).start;
        let block = block * BLOCK_ROWS..rows.min((block + 1) * BLOCK_ROWS);
        let rows_of_it = share(0..wanted, i, chosen);
        let count = (rows_of_it.end - rows_of_it.start).div_ceil(RUN_ROWS);
        let stretches = (0..count).map(|run| share(block.clone(), run, count));
        runs.extend(stretches.map(|stretch| within(&stretch, RUN_ROWS, &mut random)).filter(|run| !run.is_empty()));
    }
    runs
}

/// The `i`-th of `n` nearly equal parts of a range.
fn share(range: Range<u64>, i: u64, n: u64) -> Range<u64> {
    let at = |i: u64| {
        let part = u128::from(range.end - range.start) * u128::from(i) / u128::from(n);
        range.start + u64::try_from(part).unwrap_or(0)
    };
    at(i)..at(i + 1)
}

/// So many rows anywhere in a range, or all of it.
fn within(range: &Range<u64>, rows: u64, random: &mut Random) -> Range<u64> {
    let room = (range.end - range.start).saturating_sub(rows);
    let start = range.start + random.below(room + 1);
    start..range.end.min(start + rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_ascending_inside_the_rows_and_of_about_the_wanted_size() {
        for (rows, lists) in [
            (0, 1),
            (1, 1),
            (10, 1),
            (1_000, 1),
            (129, 1),
            (1_000_000, 2_000),
            (1_000_000, 100),
            (20_000_000, 17_888),
            (1_000_000_000, 126_000),
        ] {
            for seed in [0, 7] {
                let runs = sample(rows, lists, seed);
                assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start), "{rows} {lists}");
                assert!(runs.iter().all(|run| run.start < run.end && run.end <= rows), "{rows} {lists}");
                let found: u64 = runs.iter().map(|run| run.end - run.start).sum();
                let wanted = sample_rows(rows, lists);
                assert!(found.abs_diff(wanted) <= wanted / 8, "{found} of {wanted}: {rows} {lists}");
            }
        }
    }

    #[test]
    fn another_seed_is_another_sample_and_the_same_the_same() {
        let of = |seed| sample(1_000_000, 100, seed);
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
    }

    #[test]
    fn of_a_long_array_few_blocks_are_read() {
        let runs = sample(1_000_000_000, 16_000, 0);
        let blocks: std::collections::BTreeSet<u64> = runs.iter().map(|run| run.start / BLOCK_ROWS).collect();
        assert_eq!(blocks.len(), 1_024);
    }

    #[test]
    fn numbers_below_reach_both_ends() {
        let mut random = Random::new(1);
        let seen: std::collections::BTreeSet<u64> = (0..100).map(|_| random.below(5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(random.below(0), 0);
    }
}
