//! Patterns of what is left of rows beside their centroids: 256 for each few dimensions, learned as centroids are.

use super::kmeans::{Assignment, Sample, first_centroids, index, means, rebalance};
use crate::block::patterns::{PATTERNS, Patterns, nearest as nearest_pattern};
use crate::plan::sample::Random;

/// Rounds of learning, and how many of them at the end only settle.
const ROUNDS: usize = 8;
const SETTLING: usize = 3;

/// A few dimensions of some rows.
struct Part {
    values: Vec<f32>,
    width: usize,
}

impl Sample for Part {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// The patterns of one code, `256 × width`, from what is left of `rows × dim` rows.
#[must_use]
pub fn learn(left: &[f32], dim: usize, code: usize, seed: u64) -> Vec<f32> {
    let width = Patterns::width();
    let of = Patterns::dimensions(dim, code);
    let mut values = Vec::with_capacity(left.len() / dim * width);
    for row in left.chunks_exact(dim) {
        values.extend_from_slice(&row[of.clone()]);
        values.resize(values.len() + width - of.len(), 0.0);
    }
    let part = Part { values, width };
    let mut random = Random::new(seed.wrapping_add(code as u64));
    let mut patterns = first_centroids(&part, PATTERNS.min(part.rows()), &mut random);
    for round in 0..ROUNDS {
        let assignment = assign(&part, &patterns);
        let (moved, counts) = means(&part, &assignment.lists, &patterns, width);
        patterns = moved;
        if round + SETTLING < ROUNDS {
            rebalance(&part, &assignment, &counts, &mut patterns, &mut random);
        }
    }
    // With fewer rows than patterns, the others are zero.
    patterns.resize(PATTERNS * width, 0.0);
    patterns
}

fn assign(part: &Part, patterns: &[f32]) -> Assignment {
    let width = part.width;
    // A dimension of all patterns together, as `nearest_pattern` wants them; what is not there is never near.
    let mut turned = vec![f32::MAX; width * PATTERNS];
    for (pattern, values) in patterns.chunks_exact(width).enumerate() {
        values.iter().enumerate().for_each(|(at, value)| turned[at * PATTERNS + pattern] = *value);
    }
    let mut assignment = Assignment::default();
    for row in 0..part.rows() {
        let list = u32::from(nearest_pattern(&turned, part.row(row)));
        let pattern = patterns.chunks_exact(width).nth(index(list)).unwrap_or(&[]);
        let apart = part.row(row).iter().zip(pattern).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        assignment.lists.push(list);
        assignment.distances.push(apart);
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_few_values_become_patterns_of_their_own() {
        let rows: Vec<f32> =
            (0..900_u16).flat_map(|i| [f32::from(i % 10), f32::from(i % 9), f32::from(i % 7)]).collect();
        for code in 0..2 {
            let learned = learn(&rows, 3, code, 1);
            assert_eq!(learned.len(), PATTERNS * Patterns::width());
            let of = Patterns::dimensions(3, code);
            for row in rows.chunks_exact(3) {
                let there = learned.chunks_exact(Patterns::width()).any(|p| p[..of.len()] == row[of.clone()]);
                assert!(there, "{row:?}, code {code}");
            }
            assert_eq!(learned, learn(&rows, 3, code, 1));
        }
    }

    #[test]
    fn fewer_rows_than_patterns_are_enough() {
        let learned = learn(&[1.0, 2.0, 3.0, 4.0], 2, 0, 0);
        assert_eq!(learned[..4], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(learned.len(), PATTERNS * Patterns::width());
        assert!(learn(&[], 2, 0, 0).iter().all(|value| *value == 0.0));
    }
}
