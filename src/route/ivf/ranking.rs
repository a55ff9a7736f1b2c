//! Distances of queries to centroids on the host, in f64: euclidean ones in the space of the lists, for the proof that a list
//! holds no neighbour; and those of the metric, for more lists than an engine finds at a time and for their ranks.

use rayon::prelude::*;

use crate::block::RowBlock;
use crate::metric::Metric;
use crate::route::space::ListSpace;
use crate::visit::Horizon;

/// Centroids, ready to be measured.
#[derive(Clone, Debug)]
pub struct Ranking {
    metric: Metric,
    space: ListSpace,
    dim: usize,
    /// `lists × dim`.
    centroids: Vec<f64>,
    /// What makes each as long as 1, its own mean taken off under correlation; 0 where it has no direction.
    inverse_lengths: Vec<f64>,
}

impl Ranking {
    /// Of these centroids.
    pub fn new(metric: Metric, centroids: &RowBlock) -> Self {
        let (space, dim) = (ListSpace::of(metric), centroids.dim());
        let mut placed = vec![0.0; dim];
        let mut inverse_length = |row: &[f32]| {
            // What is there is as long as 1 afterwards, and in the direction that it had.
            let there = space != ListSpace::Rows && space.place(row, &mut placed);
            let length = lane_sum(&placed, &row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), |p, c| p * c);
            if there { 1.0 / length } else { 0.0 }
        };
        let inverse_lengths = centroids.values().chunks_exact(dim).map(&mut inverse_length).collect();
        let values = centroids.values().iter().map(|&x| f64::from(x)).collect();
        Self { metric, space, dim, centroids: values, inverse_lengths }
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

    /// What orders the centroids of a placed row as the distances that an engine finds: those of the metric.
    fn distances(&self, placed: &[f64], out: &mut Vec<f64>) {
        out.clear();
        let centroids = self.centroids.chunks_exact(self.dim);
        match self.metric {
            Metric::Euclidean | Metric::SqEuclidean => out.extend(self.squares(placed)),
            Metric::InnerProduct => out.extend(centroids.map(|c| -lane_sum(placed, c, |q, c| q * c))),
            // A centroid without a direction is at 1 from everything, as one at a right angle is.
            Metric::Cosine | Metric::Correlation => {
                let cosines = centroids.map(|c| lane_sum(placed, c, |q, c| q * c)).zip(&self.inverse_lengths);
                out.extend(cosines.map(|(product, inverse)| 0.0 - product * inverse));
            }
            Metric::Manhattan => out.extend(centroids.map(|c| lane_sum(placed, c, |q, c| (q - c).abs()))),
            Metric::Chebyshev => {
                let largest = |c: &[f64]| placed.iter().zip(c).map(|(q, c)| (q - c).abs()).fold(0.0, f64::max);
                out.extend(centroids.map(largest));
            }
        }
    }

    /// The ranks, from 0, of some lists of each query among all by distance; ties go by number. A list that is not there
    /// comes after all others.
    pub fn ranks(&self, queries: &RowBlock, lists: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let rank = |distances: &[f64], list: usize| {
            let Some(&own) = distances.get(list) else { return distances.len() };
            let before = |&(at, &distance): &(usize, &f64)| distance.total_cmp(&own).then(at.cmp(&list)).is_lt();
            distances.iter().enumerate().filter(before).count()
        };
        let of_query = |(placed, distances): &mut (Vec<f64>, Vec<f64>), (query, lists): (usize, &Vec<usize>)| {
            self.place(queries.row(query), placed);
            self.distances(placed, distances);
            lists.iter().map(|&list| rank(distances, list)).collect()
        };
        lists.par_iter().enumerate().map_init(Default::default, of_query).collect()
    }

    /// The numbers of the `n` lists nearest each query by the metric, `rows × n`, nearest first; ties go by number. Those
    /// beyond the horizon are [`u32::MAX`].
    pub fn nearest(&self, queries: &RowBlock, n: usize, horizon: Option<Horizon>) -> Vec<u32> {
        let mut near = vec![u32::MAX; queries.rows() * n];
        near.par_chunks_mut(n.max(1)).enumerate().for_each_init(Room::default, |room, (query, near)| {
            self.rank(queries.row(query), n, room);
            let kept = horizon.map_or(n, |horizon| horizon.kept(&self.reported(&room.ranked)));
            near.iter_mut().zip(room.ranked.iter().take(kept)).for_each(|(near, (_, list))| *near = *list);
        });
        near
    }

    /// For each query, the ratios of the `n` lists nearest to it that a horizon is compared with, ascending.
    pub fn ratios(&self, queries: &RowBlock, n: usize, horizon: Horizon) -> Vec<Vec<f32>> {
        let of_query = |room: &mut Room, query| {
            self.rank(queries.row(query), n, room);
            horizon.ratios(&self.reported(&room.ranked))
        };
        (0..queries.rows()).into_par_iter().map_init(Room::default, of_query).collect()
    }

    /// Ranks the `n` lists nearest a row.
    fn rank(&self, row: &[f32], n: usize, room: &mut Room) {
        let Room { placed, distances, ranked } = room;
        self.place(row, placed);
        self.distances(placed, distances);
        ranked.clear();
        ranked.extend(distances.iter().copied().zip(0_u32..));
        let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if n < ranked.len() {
            ranked.select_nth_unstable_by(n, order);
            ranked.truncate(n);
        }
        ranked.sort_unstable_by(order);
    }

    /// What an engine would report of ranked lists.
    #[allow(clippy::cast_possible_truncation)]
    fn reported(&self, ranked: &[(f64, u32)]) -> Vec<f32> {
        let reported = |&(distance, _): &(f64, u32)| match self.metric {
            Metric::Euclidean => distance.sqrt() as f32,
            Metric::Cosine | Metric::Correlation => (1.0 + distance).max(0.0) as f32,
            _ => distance as f32,
        };
        ranked.iter().map(reported).collect()
    }
}

/// What ranking the lists of a query works in.
#[derive(Default)]
struct Room {
    placed: Vec<f64>,
    distances: Vec<f64>,
    /// The nearest lists, nearest first.
    ranked: Vec<(f64, u32)>,
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
        let near = Ranking::new(Metric::Euclidean, &centroids).nearest(&queries, 3, None);
        assert_eq!(near, [1, 2, 0, 0, 1, 2]);
        let near = Ranking::new(Metric::InnerProduct, &centroids).nearest(&block(2, &[1.0, 1.0]), 4, None);
        assert_eq!(near, [3, 0, 1, 2]);
        let centroids = block(2, &[0.0, 9.0, 8.0, 1.0, -1.0, 0.0, 0.1, 0.2]);
        let near = Ranking::new(Metric::Cosine, &centroids).nearest(&block(2, &[5.0, 1.0]), 4, None);
        assert_eq!(near, [1, 3, 0, 2], "an engine looks at their direction alone");
    }

    #[test]
    fn lists_are_ranked_as_an_engine_ranks_them_by_every_metric() {
        let value = |i: usize| f64::from(u32::try_from(i * 7919 % 1_000).unwrap()) / 500.0 - 1.0;
        #[allow(clippy::cast_possible_truncation)]
        let rows = |n: usize, from: usize| (0..n * 9).map(|i| value(from + i * i) as f32).collect::<Vec<_>>();
        let mut values = rows(60, 1);
        values[9..18].fill(0.0);
        values[18..27].fill(0.25);
        let (centroids, queries) = (block(9, &values), block(9, &rows(20, 77)));
        for metric in Metric::ALL {
            let ranking = Ranking::new(metric, &centroids);
            let near = ranking.nearest(&queries, 60, None);
            let all = ranking.ranks(&queries, &vec![(0..61).collect(); 20]);
            for (query, near) in near.chunks_exact(60).enumerate() {
                let constant = |list: u32| metric == Metric::Correlation && matches!(list, 1 | 2);
                let distance = |list: u32| {
                    let list = usize::try_from(list).unwrap();
                    crate::oracle::search::distance(metric, queries.row(query), centroids.row(list))
                };
                let told: Vec<f64> = near.iter().filter(|&&list| !constant(list)).map(|&list| distance(list)).collect();
                assert!(told.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12), "{metric}, query {query}: {told:?}");
                let ranked = near.iter().map(|&list| all[query][usize::try_from(list).unwrap()]);
                assert!(ranked.eq(0..60) && all[query][60] == 60, "{metric}, query {query}");
            }
        }
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
