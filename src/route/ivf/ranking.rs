//! Distances of queries to centroids on the host, in f64 and in the space of the lists: for the proof that a list holds no
//! neighbour, and for more lists than an engine finds at a time.

use rayon::prelude::*;

use crate::block::RowBlock;
use crate::metric::Metric;
use crate::route::space::ListSpace;

/// Centroids, ready to be measured.
#[derive(Clone, Debug)]
pub struct Ranking {
    metric: Metric,
    space: ListSpace,
    dim: usize,
    /// `lists × dim`.
    centroids: Vec<f64>,
}

impl Ranking {
    /// Of these centroids.
    pub fn new(metric: Metric, centroids: &RowBlock) -> Self {
        let values = centroids.values().iter().map(|&x| f64::from(x)).collect();
        Self { metric, space: ListSpace::of(metric), dim: centroids.dim(), centroids: values }
    }

    /// Values per centroid.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Puts a row into the space of the lists. One that has no direction is at its centre.
    pub fn place(&self, row: &[f32], out: &mut Vec<f64>) {
        out.resize(self.dim, 0.0);
        self.space.place(row, out);
    }

    /// Squared euclidean distances of a placed row to all centroids, in order.
    pub fn squares<'a>(&'a self, placed: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.centroids.chunks_exact(self.dim).map(|centroid| lane_sum(placed, centroid, |q, c| (q - c) * (q - c)))
    }

    /// The numbers of the `n` lists nearest each query, `rows × n`, nearest first; ties go by number. By inner product
    /// where that is the metric, else by distance.
    pub fn nearest(&self, queries: &RowBlock, n: usize) -> Vec<u32> {
        let mut near = vec![0; queries.rows() * n];
        near.par_chunks_mut(n.max(1)).enumerate().for_each_init(
            || (Vec::new(), Vec::new()),
            |(placed, ranked), (query, near)| {
                self.place(queries.row(query), placed);
                ranked.clear();
                if self.metric == Metric::InnerProduct {
                    let products = self.centroids.chunks_exact(self.dim).map(|c| -lane_sum(placed, c, |q, c| q * c));
                    ranked.extend(products.zip(0_u32..));
                } else {
                    ranked.extend(self.squares(placed).zip(0_u32..));
                }
                let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
                if n < ranked.len() {
                    ranked.select_nth_unstable_by(n, order);
                    ranked.truncate(n);
                }
                ranked.sort_unstable_by(order);
                near.iter_mut().zip(ranked.iter()).for_each(|(near, (_, list))| *near = *list);
            },
        );
        near
    }
}

/// Σ term(q, c) in 8 lanes, so that it is fast and its order is the same everywhere.
fn lane_sum(q: &[f64], c: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let (q_chunks, c_chunks) = (q.chunks_exact(8), c.chunks_exact(8));
    let rest = q_chunks.remainder().iter().zip(c_chunks.remainder()).map(|(&q, &c)| term(q, c)).sum::<f64>();
    for (q, c) in q_chunks.zip(c_chunks) {
        for (lane, (&q, &c)) in lanes.iter_mut().zip(q.iter().zip(c)) {
            *lane += term(q, c);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RowIds;

    fn block(dim: usize, values: &[f32]) -> RowBlock {
        let rows = u64::try_from(values.len() / dim).unwrap();
        RowBlock::new(RowIds::Range(0..rows), dim, values.to_vec()).unwrap()
    }

    #[test]
    fn the_nearest_come_first_and_ties_go_by_number() {
        let centroids = block(2, &[3.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 9.0]);
        let queries = block(2, &[0.0, 0.0, 2.5, 0.0]);
        let near = Ranking::new(Metric::Euclidean, &centroids).nearest(&queries, 3);
        assert_eq!(near, [1, 2, 0, 0, 1, 2]);
        let near = Ranking::new(Metric::InnerProduct, &centroids).nearest(&block(2, &[1.0, 1.0]), 4);
        assert_eq!(near, [3, 0, 1, 2]);
        let near = Ranking::new(Metric::Cosine, &centroids).nearest(&block(2, &[5.0, 1.0]), 2);
        assert_eq!(near, [1, 2], "the query has length 1 there, and centroids stay where they are");
    }

    #[test]
    fn sums_are_right_for_any_number_of_dimensions() {
        for dim in [1, 7, 8, 9, 50] {
            let values: Vec<f32> = (0..2 * dim).map(|i| i as f32 / 3.0).collect();
            let centroids = block(dim, &values[..dim]);
            let ranking = Ranking::new(Metric::Euclidean, &centroids);
            let mut placed = Vec::new();
            ranking.place(&values[dim..], &mut placed);
            let expected: f64 =
                values[..dim].iter().zip(&values[dim..]).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            let found = ranking.squares(&placed).next().unwrap();
            assert!((found - expected).abs() <= 1e-12 * expected, "{dim}: {found} is not {expected}");
        }
    }
}
