//! A byte for a few dimensions at a time: the nearest of 256 patterns (product quantisation, Jégou, Douze and Schmid 2011)
//! of what is left of a row beside the centroid of its list.

/// Patterns of each few dimensions.
pub const PATTERNS: usize = 256;
/// Dimensions that a code is of.
const DIMENSIONS: usize = 2;

/// Codes of a row.
#[must_use]
pub fn codes_per_row(dim: u64) -> u64 {
    dim.div_ceil(DIMENSIONS as u64)
}

/// The patterns of all codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Patterns {
    dim: usize,
    /// `codes × PATTERNS`, as they are stored.
    rows: Vec<[f32; DIMENSIONS]>,
    /// `codes × DIMENSIONS × PATTERNS`: a dimension of all patterns lies together, so that all are compared at once.
    columns: Vec<f32>,
}

impl Patterns {
    /// Patterns in this order: code, then pattern, then dimension, as they are stored. `None` where they do not fit rows of
    /// `dim` dimensions, or where one is no number.
    #[must_use]
    pub fn from_rows(rows: &[f32], dim: usize) -> Option<Self> {
        let codes = dim.div_ceil(DIMENSIONS);
        if rows.len() != codes * PATTERNS * DIMENSIONS || !rows.iter().all(|value| value.is_finite()) {
            return None;
        }
        let rows: Vec<[f32; DIMENSIONS]> = rows.as_chunks().0.to_vec();
        let mut columns = vec![0.0; codes * DIMENSIONS * PATTERNS];
        for (columns, rows) in columns.chunks_exact_mut(DIMENSIONS * PATTERNS).zip(rows.chunks_exact(PATTERNS)) {
            for (at, column) in columns.chunks_exact_mut(PATTERNS).enumerate() {
                column.iter_mut().zip(rows).for_each(|(value, row)| *value = row[at]);
            }
        }
        Some(Self { dim, rows, columns })
    }

    /// The patterns as they are stored, `(codes × 256) × dimensions of a code`.
    #[must_use]
    pub fn to_rows(&self) -> Vec<f32> {
        self.rows.as_flattened().to_vec()
    }

    /// Codes per row.
    #[must_use]
    pub fn codes(&self) -> usize {
        self.dim.div_ceil(DIMENSIONS)
    }

    /// The dimensions of a code, and how many of them rows have.
    #[must_use]
    pub fn dimensions(dim: usize, code: usize) -> std::ops::Range<usize> {
        code * DIMENSIONS..dim.min((code + 1) * DIMENSIONS)
    }

    /// Values that a pattern has, those beyond a row's end included.
    #[must_use]
    pub fn width() -> usize {
        DIMENSIONS
    }

    /// The codes of a row.
    pub fn encode(&self, row: &[f32], centroid: &[f32], codes: &mut [u8]) {
        for (code, byte) in codes.iter_mut().enumerate() {
            let mut left = [0.0; DIMENSIONS];
            for (left, at) in left.iter_mut().zip(Self::dimensions(self.dim, code)) {
                *left = row[at] - centroid[at];
            }
            let patterns = &self.columns[code * DIMENSIONS * PATTERNS..(code + 1) * DIMENSIONS * PATTERNS];
            *byte = nearest(patterns, &left);
        }
    }

    /// The row of codes.
    ///
    /// # Panics
    /// When a centroid is shorter than the row.
    pub fn decode(&self, codes: &[u8], centroid: &[f32], row: &mut [f32]) {
        let beside = |value: f32, pattern: f32| (value + pattern).clamp(f32::MIN, f32::MAX);
        let of = codes.iter().zip(self.rows.as_chunks::<PATTERNS>().0);
        let mut patterns = of.map(|(code, patterns)| patterns[usize::from(*code)]);
        let ((values, rest), (centroids, rest_of)) =
            (row.as_chunks_mut::<DIMENSIONS>(), centroid.as_chunks::<DIMENSIONS>());
        for ((values, centroid), pattern) in values.iter_mut().zip(centroids).zip(&mut patterns) {
            for at in 0..DIMENSIONS {
                values[at] = beside(centroid[at], pattern[at]);
            }
        }
        // The last code of a row may be of fewer dimensions.
        let last = patterns.next().unwrap_or_default();
        rest.iter_mut().zip(rest_of).zip(last).for_each(|((value, at), left)| *value = beside(*at, left));
    }
}

/// Patterns compared at once.
const LANES: usize = 8;

/// The nearest of 256 patterns, the first of several. `patterns` has a dimension of all of them together.
#[must_use]
pub fn nearest(patterns: &[f32], row: &[f32]) -> u8 {
    // The nearest of every 8th pattern, for each of 8: loops without branches, which the compiler turns into wide ones.
    let (mut best, mut place) = ([f32::INFINITY; LANES], [0_u32; LANES]);
    for (group, number) in (0..PATTERNS).step_by(LANES).zip(0_u32..) {
        let mut distances = [0.0_f32; LANES];
        for (value, patterns) in row.iter().zip(patterns.chunks_exact(PATTERNS)) {
            for (distance, pattern) in distances.iter_mut().zip(&patterns[group..group + LANES]) {
                let apart = value - pattern;
                *distance += apart * apart;
            }
        }
        for lane in 0..LANES {
            let nearer = distances[lane] < best[lane];
            best[lane] = if nearer { distances[lane] } else { best[lane] };
            place[lane] = if nearer { number } else { place[lane] };
        }
    }
    let lanes = best.into_iter().zip(place).zip(0_u32..);
    let all = lanes.map(|((distance, group), lane)| (distance, group * 8 + lane));
    let nearest = all.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    nearest.and_then(|(_, pattern)| u8::try_from(pattern).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns of a grid: the first dimension in 16 steps, the second in 16.
    fn grid(dim: usize) -> Patterns {
        let one: Vec<f32> = (0..PATTERNS).flat_map(|p| [(p % 16) as f32, (p / 16) as f32]).collect();
        let rows: Vec<f32> = (0..dim.div_ceil(DIMENSIONS)).flat_map(|_| one.iter().copied()).collect();
        Patterns::from_rows(&rows, dim).unwrap()
    }

    #[test]
    fn a_row_becomes_the_nearest_patterns_and_comes_back() {
        let patterns = grid(3);
        assert_eq!((patterns.codes(), codes_per_row(3)), (2, 2));
        let mut codes = [0; 2];
        patterns.encode(&[13.2, 24.9, 10.4], &[10.0, 20.0, 10.0], &mut codes);
        assert_eq!(codes, [3 + 5 * 16, 0]);
        let mut row = [0.0; 3];
        patterns.decode(&codes, &[10.0, 20.0, 10.0], &mut row);
        assert_eq!(row, [13.0, 25.0, 10.0]);
        assert_eq!(Patterns::from_rows(&patterns.to_rows(), 3), Some(patterns));
    }

    #[test]
    fn patterns_that_do_not_fit_are_none() {
        assert_eq!(Patterns::from_rows(&[0.0; 512], 3), None);
        assert_eq!(Patterns::from_rows(&[f32::NAN; 512], 2), None);
    }

    #[test]
    fn the_nearest_is_the_one_that_a_plain_search_finds() {
        let mut random = 1_u32;
        let mut value = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(random >> 24).unwrap()) / 16.0
        };
        let patterns: Vec<f32> = (0..2 * PATTERNS).map(|_| value()).collect();
        for _ in 0..500 {
            let row = [value(), value()];
            let distance = |p: usize| (row[0] - patterns[p]).powi(2) + (row[1] - patterns[PATTERNS + p]).powi(2);
            let truth = (0..PATTERNS).min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
            assert_eq!(Some(usize::from(nearest(&patterns, &row))), truth);
        }
    }

    #[test]
    fn of_equal_patterns_the_first_is_taken() {
        assert_eq!(nearest(&[1.0; 2 * PATTERNS], &[0.0, 5.0]), 0);
    }
}
