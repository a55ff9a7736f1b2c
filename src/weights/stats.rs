//! What gauss and scarches must know of all distances at once: count, mean, variance, extremes. `O(1)` memory.

use rayon::prelude::*;

use crate::topk::{PADDING, TopK};

/// Rows whose distances are summed as one piece.
///
/// Floating-point sums depend on their grouping, so the grouping is fixed: pieces of this many rows, folded in row
/// order. Blocks that begin and end on multiples of it (the last may be short) then give the same bytes however the
/// rows were split into blocks.
pub const PIECE_ROWS: usize = 16_384;

/// Count, mean and spread of the distances of some query rows, padding left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistanceStatistics {
    /// How many distances.
    pub count: f64,
    /// Their mean; 0 when there are none.
    pub mean: f64,
    /// Σ(d − mean)².
    pub m2: f64,
    /// The smallest; 0 when there are none.
    pub min: f64,
    /// The largest; 0 when there are none.
    pub max: f64,
}

impl DistanceStatistics {
    /// Statistics of each piece of `PIECE_ROWS` rows, in row order: what to [`merge`](Self::merge), in that order.
    #[must_use]
    pub fn pieces(top: &TopK) -> Vec<Self> {
        let slots = PIECE_ROWS * top.k();
        top.ids().par_chunks(slots).zip(top.distances().par_chunks(slots)).map(|(ids, d)| Self::piece(ids, d)).collect()
    }

    /// Takes in the rows that follow those seen so far. Only the last call may bring rows that do not fill whole pieces.
    pub fn extend(&mut self, top: &TopK) {
        for piece in Self::pieces(top) {
            self.merge(&piece);
        }
    }

    /// Takes in the statistics of the rows that follow.
    ///
    /// The pairwise update of Chan et al. (1979). Not associative in floating point: merge in row order.
    pub fn merge(&mut self, next: &Self) {
        if next.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *next;
            return;
        }
        let count = self.count + next.count;
        let step = next.mean - self.mean;
        self.mean += step * (next.count / count);
        self.m2 += next.m2 + step * step * (self.count * next.count / count);
        self.count = count;
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
    }

    /// The same with `n` more distances of 0: the self edges, which count in CellMapper's mean and variance.
    #[must_use]
    pub fn with_zeros(mut self, n: u64) -> Self {
        self.merge(&Self { count: n as f64, ..Self::default() });
        self
    }

    /// Mean squared deviation (n in the denominator); 0 when there are no distances.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.m2 / self.count }
    }

    /// Square root of the variance.
    #[must_use]
    pub fn std(&self) -> f64 {
        self.variance().sqrt()
    }

    /// Two passes: the mean first, then squares of small deviations, so that nothing large cancels.
    fn piece(ids: &[u64], distances: &[f32]) -> Self {
        let found = || ids.iter().zip(distances).filter(|&(&id, &d)| is_neighbour(id, d)).map(|(_, &d)| f64::from(d));
        let mut piece = Self { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Self::default() };
        let mut sum = 0.0;
        for d in found() {
            piece.count += 1.0;
            sum += d;
            piece.min = piece.min.min(d);
            piece.max = piece.max.max(d);
        }
        if piece.count == 0.0 {
            return Self::default();
        }
        piece.mean = sum / piece.count;
        piece.m2 = found().map(|d| (d - piece.mean) * (d - piece.mean)).sum();
        piece
    }
}

/// Whether a slot holds a neighbour that can be weighed: not padding, and not so far that float32 overflowed.
pub(super) fn is_neighbour(id: u64, distance: f32) -> bool {
    id != PADDING && distance.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::K;
    use proptest::prelude::*;

    /// `rows` rows of up to two neighbours; row r's distances depend on r alone.
    fn rows(range: std::ops::Range<usize>) -> TopK {
        let mut top = TopK::empty(range.len(), K::new(2).expect("k"));
        for (slot, row) in range.enumerate() {
            let d = ((row * 7919) % 1009) as f32 / 31.0 + 1e3;
            let neighbours = [(d, 1), (d + 0.5, 2)];
            top.set_row(slot, &neighbours[..row % 3]);
        }
        top
    }

    fn of(top: &TopK) -> DistanceStatistics {
        let mut statistics = DistanceStatistics::default();
        statistics.extend(top);
        statistics
    }

    fn bytes(s: &DistanceStatistics) -> [u64; 5] {
        [s.count, s.mean, s.m2, s.min, s.max].map(f64::to_bits)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_grouping_of_whole_pieces_gives_the_same_bytes(cuts in prop::collection::btree_set(1_usize..6, 0..5), tail in 0_usize..PIECE_ROWS) {
            let end = 6 * PIECE_ROWS + tail;
            let whole = of(&rows(0..end));
            let mut grouped = DistanceStatistics::default();
            let mut start = 0;
            for stop in cuts.into_iter().map(|cut| cut * PIECE_ROWS).chain([end]) {
                grouped.extend(&rows(start..stop));
                start = stop;
            }
            prop_assert_eq!(bytes(&grouped), bytes(&whole));
        }
    }

    #[test]
    fn mean_and_variance_are_those_of_the_textbook() {
        let top = rows(0..PIECE_ROWS + 3);
        let all: Vec<f64> = top.distances().iter().filter(|d| d.is_finite()).map(|&d| f64::from(d)).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / all.len() as f64;
        let statistics = of(&top);
        assert_eq!(statistics.count, all.len() as f64);
        assert!((statistics.mean / mean - 1.0).abs() < 1e-13);
        assert!((statistics.variance() / variance - 1.0).abs() < 1e-11);
        assert_eq!((statistics.min, statistics.max), (1000.0, f64::from(1008.0_f32 / 31.0 + 1e3 + 0.5)));
    }

    #[test]
    fn zeros_count_as_distances() {
        let mut top = TopK::empty(1, K::new(2).expect("k"));
        top.set_row(0, &[(3.0, 1), (5.0, 2)]);
        let with = of(&top).with_zeros(2);
        assert_eq!((with.count, with.mean, with.min, with.max), (4.0, 2.0, 0.0, 5.0));
        assert!((with.variance() - 4.5).abs() < 1e-15);
        assert_eq!(of(&top).with_zeros(0), of(&top));
    }

    #[test]
    fn padding_and_infinite_distances_are_left_out() {
        let mut top = TopK::empty(2, K::new(3).expect("k"));
        top.set_row(0, &[(3.0, 1), (f32::INFINITY, 2)]);
        assert_eq!(of(&top), DistanceStatistics { count: 1.0, mean: 3.0, m2: 0.0, min: 3.0, max: 3.0 });
        for rows in [0, 5] {
            let none = of(&TopK::empty(rows, K::new(3).expect("k")));
            assert_eq!((none, none.std()), (DistanceStatistics::default(), 0.0));
        }
    }
}
