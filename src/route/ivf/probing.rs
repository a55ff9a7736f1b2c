//! Approximate search: each query visits the lists whose centroids are nearest.

use std::sync::Arc;

use super::pairs::Pairs;
use super::ranking::Ranking;
use super::{Cut, ListRoute, Lists};
use crate::block::RowBlock;
use crate::metric::Metric;
use crate::route::{Known, Landmarks, Route, Router};
use crate::units::K;
use crate::visit::Horizon;

/// The lists nearest each query.
#[derive(Clone, Debug)]
pub struct Probing {
    lists: Arc<Lists>,
    nprobe: usize,
    horizon: Option<Horizon>,
    cut: Cut,
    /// Where no engine finds the nearest lists.
    ranking: Option<Ranking>,
}

impl Probing {
    /// Visits the `nprobe` lists nearest each query, all of them where there are fewer.
    #[must_use]
    pub fn new(metric: Metric, lists: Arc<Lists>, nprobe: usize, cut: Cut) -> Self {
        let nprobe = nprobe.min(lists.len());
        let ranking =
            (nearest_by_engine(metric, &lists, nprobe).is_none()).then(|| Ranking::new(metric, &lists.centroids));
        Self { lists, nprobe, horizon: None, cut, ranking }
    }

    /// Only those of them that are within the horizon.
    #[must_use]
    pub fn within(self, horizon: Option<Horizon>) -> Self {
        Self { horizon, ..self }
    }
}

impl Router for Probing {
    fn landmarks(&self) -> Option<Landmarks<'_>> {
        let nearest = u32::try_from(self.nprobe).ok().and_then(|n| K::new(n).ok());
        let (rows, horizon) = (&self.lists.centroids, self.horizon);
        nearest.filter(|_| self.ranking.is_none()).map(|nearest| Landmarks { rows, nearest, horizon })
    }

    fn route<'r>(&'r self, _round: u32, known: &Known<'_>) -> Box<dyn Route + 'r> {
        let ranked = self.ranking.as_ref().map(|ranking| ranking.nearest(known.queries, self.nprobe, self.horizon));
        let near = ranked.as_deref().unwrap_or(known.near);
        // The nearest list sets a bound that most rows of the others are beyond.
        let ranks = [0..self.nprobe.min(1), self.nprobe.min(1)..self.nprobe];
        let pairs = ranks.map(|ranks| Pairs::sorted(self.lists.len(), near, self.nprobe, &ranks));
        Box::new(ListRoute::new(pairs.into(), &self.lists, &self.cut, known.seen_to))
    }
}

/// How many lists an engine is asked for where it can be: it finds up to [`K::MAX`] rows, and none that are constant under
/// correlation, which a centroid may be.
#[must_use]
pub fn nearest_by_engine(metric: Metric, lists: &Lists, nearest: usize) -> Option<K> {
    let constant = |list: usize| {
        let row = lists.centroids.row(list);
        row.iter().all(|x| *x == row[0])
    };
    if metric == Metric::Correlation && (0..lists.len()).any(constant) {
        return None;
    }
    u32::try_from(nearest).ok().and_then(|n| K::new(n).ok())
}

/// For each query, ascending, the ratios of the `n` lists nearest to it that a horizon is compared with. Holds the distances of
/// one query per thread, in order.
#[must_use]
pub fn list_ratios(metric: Metric, lists: &Lists, queries: &RowBlock, n: usize, horizon: Horizon) -> Vec<Vec<f32>> {
    Ranking::new(metric, &lists.centroids).ratios(queries, n, horizon)
}

/// How many lists [`Probing`] visits of each query before each of some lists: the number of all for one that is not there.
/// Holds the distances of one query per thread.
#[must_use]
pub fn list_ranks(metric: Metric, lists: &Lists, queries: &RowBlock, of: &[Vec<usize>]) -> Vec<Vec<usize>> {
    Ranking::new(metric, &lists.centroids).ranks(queries, of)
}
