//! What a search is a list of: some rows of the query block against a row range of a partition; and how far it reaches.

use std::ops::Range;

use crate::metric::Metric;

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

/// How far from a query lists are that it visits: those whose squared distance is at most so many times the mean of the
/// [`Horizon::NEAREST`] nearest.
///
/// A query in the middle of a list finds its neighbours in few lists, and one between many in many of them. How the distances
/// grow tells the two apart, without a look at any row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Horizon {
    /// How many times the mean.
    pub times: f32,
    /// Whether the distances of the metric are squares already.
    pub squares: bool,
}

impl Horizon {
    /// Distances that the mean is of, where there are as many.
    pub const NEAREST: usize = 10;

    /// So many times the mean, in distances of this metric; `None` for one whose values are no distances.
    #[must_use]
    pub fn new(metric: Metric, times: f32) -> Option<Self> {
        let squares = match metric {
            Metric::InnerProduct => return None,
            Metric::SqEuclidean | Metric::Cosine | Metric::Correlation => true,
            Metric::Euclidean | Metric::Manhattan | Metric::Chebyshev => false,
        };
        Some(Self { times, squares })
    }

    /// How many of the nearest are within it, by their distances, ascending; +∞ is one that is not there. The nearest one is in
    /// any case.
    #[must_use]
    pub fn kept(self, distances: &[f32]) -> usize {
        let there = there(distances);
        let mean = self.mean(there);
        there.partition_point(|&distance| self.ratio(distance, mean) <= self.times).max(1).min(distances.len())
    }

    /// A distance that none exceeds which is within it, where these are no less than those of the nearest.
    #[must_use]
    pub fn reach(self, nearest: &[f32]) -> f32 {
        let mean = self.mean(nearest);
        // Ratios are rounded to float32, and so is this.
        let reach = mean * f64::from(self.times) * (1.0 + 1e-6);
        #[allow(clippy::cast_possible_truncation)]
        let reach = (if self.squares { reach } else { reach.sqrt() }) as f32;
        nearest.iter().copied().fold(reach.next_up(), f32::max)
    }

    /// How many times the mean each squared distance is, of those that are there.
    #[must_use]
    pub fn ratios(self, distances: &[f32]) -> Vec<f32> {
        let there = there(distances);
        let mean = self.mean(there);
        there.iter().map(|&distance| self.ratio(distance, mean)).collect()
    }

    /// The mean square of the nearest, of distances in order.
    fn mean(self, distances: &[f32]) -> f64 {
        let nearest = &distances[..distances.len().min(Self::NEAREST)];
        nearest.iter().map(|&distance| self.square(distance)).sum::<f64>() / nearest.len().max(1) as f64
    }

    fn square(self, distance: f32) -> f64 {
        if self.squares { f64::from(distance) } else { f64::from(distance).powi(2) }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn ratio(self, distance: f32, mean: f64) -> f32 {
        let square = self.square(distance);
        if square > 0.0 { (square / mean) as f32 } else { 0.0 }
    }
}

/// The distances of what is there, of distances in order.
fn there(distances: &[f32]) -> &[f32] {
    &distances[..distances.partition_point(|distance| distance.is_finite())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_near_beside_the_mean_of_the_nearest() {
        let horizon = |metric, times| Horizon::new(metric, times).unwrap();
        let distances = [1.0, 1.0, 2.0, 3.0];
        // Squares 1, 1, 4, 9 have the mean 3.75.
        assert_eq!(horizon(Metric::Euclidean, 1.0).kept(&distances), 2);
        assert_eq!(horizon(Metric::Euclidean, 1.1).kept(&distances), 3);
        assert_eq!(horizon(Metric::Euclidean, 2.4).kept(&distances), 4);
        // And these, as squares, 1.75.
        assert_eq!(horizon(Metric::Cosine, 1.1).kept(&distances), 2);
        assert_eq!(horizon(Metric::Cosine, 1.2).kept(&distances), 3);
        let long = [vec![1.0; Horizon::NEAREST], vec![2.0, 100.0]].concat();
        assert_eq!(horizon(Metric::SqEuclidean, 2.0).kept(&long), 11, "those behind the first ten are not in the mean");
        assert_eq!(Horizon::new(Metric::InnerProduct, 1.0), None);
    }

    #[test]
    fn nothing_within_a_horizon_is_beyond_its_reach() {
        for metric in [Metric::Euclidean, Metric::SqEuclidean] {
            for times in [0.0, 0.3, 1.0, 1.333, 2.5] {
                let horizon = Horizon::new(metric, times).unwrap();
                let distances: Vec<f32> = (1..200_u16).map(|i| 0.1 * f32::from(i).sqrt()).collect();
                let reach = horizon.reach(&distances[..Horizon::NEAREST]);
                let kept = horizon.kept(&distances);
                let reached = distances.partition_point(|&distance| distance <= reach);
                assert!(reached >= kept.max(Horizon::NEAREST), "{metric}, {times}: {reached} of {kept}");
                // What is farther than the nearest reaches farther.
                assert!(horizon.reach(&distances[5..5 + Horizon::NEAREST]) >= reach);
                assert_eq!(horizon.kept(&distances[..reached]), kept, "{metric}, {times}");
            }
        }
    }

    #[test]
    fn the_nearest_is_kept_and_nothing_that_is_not_there() {
        let horizon = Horizon::new(Metric::Euclidean, 0.0).unwrap();
        assert_eq!(horizon.kept(&[5.0, 6.0]), 1);
        assert_eq!(horizon.kept(&[0.0, 0.0, 1.0]), 2);
        assert_eq!(horizon.kept(&[f32::INFINITY; 2]), 1, "which may be too far for f32");
        assert_eq!(horizon.kept(&[]), 0);
        assert_eq!(Horizon { times: f32::MAX, squares: true }.kept(&[1.0, 2.0, f32::INFINITY]), 2);
    }
}
