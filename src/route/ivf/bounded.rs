//! Exact search that leaves out the lists which, by the triangle inequality, hold no neighbour.
//!
//! The nearest few lists give each query a bound b: k rows are no farther. A row x of the list with centroid c and radius r
//! has ‖q − x‖ ≥ ‖q − c‖ − r, so a list where that is beyond b holds nothing nearer, and nothing as near with a lower id.
//! Cosine and correlation are ½‖q̂ − x̂‖² of rows of length 1. Everything is rounded towards visiting more.

use std::sync::Arc;

use rayon::prelude::*;

use super::pairs::{Pairs, WORD, index};
use super::probing::nearest_by_engine;
use super::ranking::Ranking;
use super::{Cut, ListRoute, Lists};
use crate::metric::{EngineKind, Metric, TieBand, tie_band};
use crate::route::{Known, Landmarks, Route, Router};
use crate::units::K;

/// How far rounding may move a row of length 1, or its distance to a centroid.
const UNIT_SLACK: f64 = 1e-6;
/// Relative error of a sum of squares in f64, however many dimensions, and of what follows from it: far more than both.
const SUM_SLACK: f64 = 1e-9;

/// The arithmetic whose distances are farthest from the true ones: bounds may be of one engine and what follows of another.
const WIDEST: EngineKind = EngineKind::Gpu;

/// Lists that may hold a neighbour.
#[derive(Clone, Debug)]
pub struct Bounded {
    metric: Metric,
    lists: Arc<Lists>,
    seeds: usize,
    seeds_by_engine: Option<K>,
    cut: Cut,
    ranking: Ranking,
}

/// Why a metric has no bounds; `None` where it has.
#[must_use]
pub fn refusal(metric: Metric) -> Option<String> {
    let why = match metric {
        Metric::Euclidean | Metric::SqEuclidean | Metric::Cosine | Metric::Correlation => return None,
        Metric::InnerProduct => "it is no distance, so nothing follows from how far a centroid is",
        Metric::Manhattan | Metric::Chebyshev => "the lists of an index are round in euclidean distance",
    };
    Some(format!("exact search through an index needs bounds, and {metric} has none: {why}; leave out --index"))
}

impl Bounded {
    /// Visits the `seeds` lists nearest each query (at least 1), then whatever may hold a neighbour.
    #[must_use]
    pub fn new(metric: Metric, lists: Arc<Lists>, seeds: usize, cut: Cut) -> Self {
        let seeds = seeds.clamp(1, lists.len().max(1));
        let seeds_by_engine = nearest_by_engine(metric, &lists, seeds);
        let ranking = Ranking::new(metric, &lists.centroids);
        Self { metric, lists, seeds, seeds_by_engine, cut, ranking }
    }

    /// The euclidean distance, in the space of the lists, beyond which no row of this reported distance or less lies.
    fn reach(&self, bound: f32) -> f64 {
        // A row reported at the bound itself may have a lower id; and what is reported was rounded.
        let edge = f64::from(bound.next_up());
        let edge = match tie_band(self.metric, self.ranking.dim(), WIDEST) {
            TieBand::Relative(share) | TieBand::RelativeToNorms(share) => edge * (1.0 + share),
            TieBand::Absolute(width) => edge + width,
        };
        match self.metric {
            Metric::SqEuclidean => edge.max(0.0).sqrt(),
            Metric::Cosine | Metric::Correlation => (2.0 * edge.max(0.0)).sqrt() + UNIT_SLACK,
            _ => edge,
        }
    }

    /// Which of up to [`WORD`] queries may have a neighbour in which list.
    fn mark(&self, known: &Known<'_>, first: usize, words: &mut [u64]) {
        let mut placed = Vec::new();
        for query in first..known.queries.rows().min(first + WORD) {
            let bit = 1_u64 << (query - first);
            let reach = self.reach(known.bounds[query]);
            self.ranking.place(known.queries.row(query), &mut placed);
            let squares = self.ranking.squares(&placed).zip(&self.lists.radii);
            for (word, (square, &radius)) in words.iter_mut().zip(squares) {
                let beyond = square.sqrt() * (1.0 - SUM_SLACK) - f64::from(radius) > reach;
                *word |= if beyond { 0 } else { bit };
            }
        }
    }

    /// Takes back the lists that were visited in the first round, where it is known which those were.
    fn unmark_seeds(&self, near: &[u32], first: usize, words: &mut [u64]) {
        for (query, seeds) in near.chunks_exact(self.seeds).skip(first).take(WORD).enumerate() {
            for &list in seeds {
                words.get_mut(index(list)).into_iter().for_each(|word| *word &= !(1 << query));
            }
        }
    }
}

impl Router for Bounded {
    fn landmarks(&self) -> Option<Landmarks<'_>> {
        self.seeds_by_engine.map(|nearest| Landmarks { rows: &self.lists.centroids, nearest, horizon: None })
    }

    fn rounds(&self) -> u32 {
        2
    }

    fn route<'r>(&'r self, round: u32, known: &Known<'_>) -> Box<dyn Route + 'r> {
        let ranked = self.seeds_by_engine.is_none().then(|| self.ranking.nearest(known.queries, self.seeds, None));
        let near = ranked.as_deref().unwrap_or(known.near);
        let lists = self.lists.len();
        let pairs = if round == 0 {
            Pairs::sorted(lists, near, self.seeds, &(0..self.seeds.min(lists)))
        } else {
            let mut words = vec![0; known.queries.rows().div_ceil(WORD) * lists];
            words.par_chunks_mut(lists.max(1)).enumerate().for_each(|(word, words)| {
                self.mark(known, word * WORD, words);
                self.unmark_seeds(near, word * WORD, words);
            });
            Pairs::Bits { lists, words }
        };
        Box::new(ListRoute::new(vec![pairs], &self.lists, &self.cut, known.seen_to))
    }
}
