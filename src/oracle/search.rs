//! Brute force in f64 on f32 rows, and the comparer that holds an engine to it.

use std::collections::HashMap;

use thiserror::Error as ThisError;

use crate::block::RowBlock;
use crate::metric::{EngineKind, Metric, TieBand, tie_band};
use crate::topk::TopK;

/// One reference as seen from one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// In the metric's own unit.
    pub distance: f64,
    /// Its id.
    pub id: u64,
    /// ‖q‖‖r‖, which the tie band of inner products is relative to.
    pub norm_product: f64,
}

/// What a search must find.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// The metric.
    pub metric: Metric,
    /// Values per row.
    pub dim: usize,
    /// For each query **all** the references it may have, ascending by (distance, id).
    pub neighbours: Vec<Vec<Neighbour>>,
}

/// How an answer differs from the truth.
#[derive(Clone, Debug, PartialEq, ThisError)]
#[non_exhaustive]
pub enum Disagreement {
    /// Another number of queries.
    #[error("{found} rows were found for {expected} queries")]
    Rows {
        /// Found.
        found: usize,
        /// In the truth.
        expected: usize,
    },
    /// More or fewer neighbours than there are.
    #[error("query {query} has {found} neighbours, expected {expected}")]
    Count {
        /// Row of the query block.
        query: usize,
        /// Found.
        found: usize,
        /// min(k, references it may have).
        expected: usize,
    },
    /// A reference the query may not have, or has twice.
    #[error("query {query} found reference {id}, which it {why}")]
    Stranger {
        /// Row of the query block.
        query: usize,
        /// The reference.
        id: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The right reference at a wrong distance.
    #[error("query {query} has reference {id} at {found}, expected {expected}")]
    Distance {
        /// Row of the query block.
        query: usize,
        /// The reference.
        id: u64,
        /// Found.
        found: f32,
        /// In f64.
        expected: f64,
    },
    /// A reference that is farther than the one which belongs there.
    #[error(
        "query {query} has at rank {rank} reference {found} ({found_distance}); {expected} ({expected_distance}) is nearer"
    )]
    Farther {
        /// Row of the query block.
        query: usize,
        /// From 0.
        rank: usize,
        /// The id found.
        found: u64,
        /// Its true distance.
        found_distance: f64,
        /// The id that belongs there.
        expected: u64,
        /// Its distance.
        expected_distance: f64,
    },
}

/// The distance of two rows, by its definition. NaN for the correlation of a constant row.
#[must_use]
pub fn distance(metric: Metric, q: &[f32], r: &[f32]) -> f64 {
    let pairs = || q.iter().zip(r).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    match metric {
        Metric::Euclidean => pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        Metric::SqEuclidean => pairs().map(|(a, b)| (a - b).powi(2)).sum(),
        Metric::Manhattan => pairs().map(|(a, b)| (a - b).abs()).sum(),
        Metric::Chebyshev => pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
        Metric::InnerProduct => -pairs().map(|(a, b)| a * b).sum::<f64>(),
        Metric::Cosine if norm(q) == 0.0 || norm(r) == 0.0 => 1.0,
        Metric::Cosine => 1.0 - pairs().map(|(a, b)| a * b).sum::<f64>() / (norm(q) * norm(r)),
        Metric::Correlation => {
            let (mean_q, mean_r) = (mean(q), mean(r));
            let sum = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(a, b)| f(a - mean_q, b - mean_r)).sum::<f64>();
            1.0 - sum(&|a, b| a * b) / (sum(&|a, _| a * a).sqrt() * sum(&|_, b| b * b).sqrt())
        }
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn mean(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64
}

/// For every query all references that `allowed(query row, reference row)` lets it have, nearest first.
pub fn search(
    metric: Metric,
    queries: &RowBlock,
    references: &RowBlock,
    allowed: impl Fn(usize, usize) -> bool,
) -> Truth {
    let norms: Vec<f64> = (0..references.rows()).map(|r| norm(references.row(r))).collect();
    let neighbours_of = |q: usize| {
        let row = queries.row(q);
        let norm_q = norm(row);
        let mut all: Vec<Neighbour> = (0..references.rows())
            .filter(|&r| allowed(q, r))
            .map(|r| Neighbour {
                distance: distance(metric, row, references.row(r)),
                id: references.ids().get(r).0,
                norm_product: norm_q * norms[r],
            })
            .collect();
        all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        all
    };
    Truth { metric, dim: queries.dim(), neighbours: (0..queries.rows()).map(neighbours_of).collect() }
}

/// Checks that `found` holds the nearest references at their distances. Another id than the truth's is accepted only
/// where the two true distances are within the metric's tie band.
///
/// # Errors
/// The first [`Disagreement`].
pub fn agrees(found: &TopK, truth: &Truth, engine: EngineKind) -> Result<(), Disagreement> {
    if found.rows() != truth.neighbours.len() {
        return Err(Disagreement::Rows { found: found.rows(), expected: truth.neighbours.len() });
    }
    let band = tie_band(truth.metric, truth.dim, engine);
    (0..found.rows()).try_for_each(|query| row_agrees(query, found, &truth.neighbours[query], band))
}

fn row_agrees(query: usize, found: &TopK, truth: &[Neighbour], band: TieBand) -> Result<(), Disagreement> {
    let (ids, distances) = found.neighbours(query);
    let expected = found.k().min(truth.len());
    if ids.len() != expected {
        return Err(Disagreement::Count { query, found: ids.len(), expected });
    }
    let mut open: HashMap<u64, &Neighbour> = truth.iter().map(|n| (n.id, n)).collect();
    for (rank, (&id, &distance)) in ids.iter().zip(distances).enumerate() {
        let Some(neighbour) = open.remove(&id) else {
            let known = truth.iter().any(|n| n.id == id);
            let why = if known { "has already" } else { "may not have" };
            return Err(Disagreement::Stranger { query, id, why });
        };
        if !same(band, f64::from(distance), neighbour.distance, neighbour.norm_product) {
            return Err(Disagreement::Distance { query, id, found: distance, expected: neighbour.distance });
        }
        let best = &truth[rank];
        let norm_product = neighbour.norm_product.max(best.norm_product);
        if !same(band, neighbour.distance, best.distance, norm_product) {
            return Err(Disagreement::Farther {
                query,
                rank,
                found: id,
                found_distance: neighbour.distance,
                expected: best.id,
                expected_distance: best.distance,
            });
        }
    }
    Ok(())
}

/// Equal within the band, or as f32: beyond its range all distances are +∞, and below it 0, give or take one step.
fn same(band: TieBand, a: f64, b: f64, norm_product: f64) -> bool {
    let smallest = f64::from(f32::from_bits(1));
    #[allow(clippy::cast_possible_truncation)]
    let equal_as_f32 = a as f32 == b as f32;
    equal_as_f32 || (a - b).abs() <= smallest || band.is_tie(a, b, norm_product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RowIds;
    use crate::units::K;

    fn block(rows: u64, dim: usize, values: &[f32]) -> RowBlock {
        RowBlock::new(RowIds::Range(0..rows), dim, values.to_vec()).expect("a block")
    }

    fn top(neighbours: &[(f32, u64)]) -> TopK {
        let mut top = TopK::empty(1, K::new(2).expect("k"));
        top.set_row(0, neighbours);
        top
    }

    #[test]
    fn distances_follow_their_definitions() {
        let (q, r) = ([1.0, 2.0, 4.0], [1.0, -2.0, 0.0]);
        for (metric, expected) in [
            (Metric::Euclidean, 32f64.sqrt()),
            (Metric::SqEuclidean, 32.0),
            (Metric::Manhattan, 8.0),
            (Metric::Chebyshev, 4.0),
            (Metric::InnerProduct, 3.0),
            (Metric::Cosine, 1.0 + 3.0 / (21f64 * 5.0).sqrt()),
            (Metric::Correlation, 1.0 + (2.0 / 3.0) / ((42f64 / 9.0) * (42.0 / 9.0)).sqrt()),
        ] {
            assert!((distance(metric, &q, &r) - expected).abs() < 1e-12, "{metric}: {}", distance(metric, &q, &r));
        }
        assert_eq!(distance(Metric::Cosine, &[0.0; 3], &[0.0; 3]), 1.0);
        assert!(distance(Metric::Correlation, &[2.0; 3], &q).is_nan());
    }

    #[test]
    fn only_allowed_references_are_found_and_ties_go_by_id() {
        let truth =
            search(Metric::Manhattan, &block(1, 1, &[0.0]), &block(4, 1, &[1.0, -1.0, 0.0, 5.0]), |_, r| r != 2);
        let ids: Vec<u64> = truth.neighbours[0].iter().map(|n| n.id).collect();
        assert_eq!(ids, [0, 1, 3]);
    }

    #[test]
    fn the_comparer_tells_right_from_wrong() {
        let truth =
            search(Metric::Euclidean, &block(1, 1, &[0.0]), &block(4, 1, &[1.0, 1.000_000_5, 2.0, 3.0]), |_, r| r != 3);
        let check = |neighbours: &[(f32, u64)]| agrees(&top(neighbours), &truth, EngineKind::Cpu);
        assert_eq!(check(&[(1.0, 0), (1.000_000_5, 1)]), Ok(()));
        assert_eq!(check(&[(1.0, 1), (1.0, 0)]), Ok(()), "a tie within the band");
        assert!(matches!(check(&[(1.0, 0)]), Err(Disagreement::Count { found: 1, expected: 2, .. })));
        assert!(matches!(check(&[(1.0, 0), (2.0, 2)]), Err(Disagreement::Farther { rank: 1, found: 2, .. })));
        assert!(matches!(check(&[(1.0, 0), (1.1, 1)]), Err(Disagreement::Distance { id: 1, .. })));
        assert!(matches!(check(&[(1.0, 0), (3.0, 3)]), Err(Disagreement::Stranger { why: "may not have", .. })));
        assert!(matches!(check(&[(1.0, 0), (1.0, 0)]), Err(Disagreement::Stranger { why: "has already", .. })));
        let nobody = Truth { neighbours: vec![], ..truth.clone() };
        assert!(matches!(agrees(&top(&[]), &nobody, EngineKind::Cpu), Err(Disagreement::Rows { found: 1, .. })));
    }

    #[test]
    fn inner_products_tie_relative_to_the_norms() {
        let truth =
            search(Metric::InnerProduct, &block(1, 2, &[1e3, 0.0]), &block(2, 2, &[0.0, 1e3, 1e-4, 1e3]), |_, _| true);
        assert_eq!(agrees(&top(&[(0.0, 0), (-0.1, 1)]), &truth, EngineKind::Cpu), Ok(()));
        assert!(agrees(&top(&[(-0.1, 1), (2.0, 0)]), &truth, EngineKind::Cpu).is_err());
    }
}
