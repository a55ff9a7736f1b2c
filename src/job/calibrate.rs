//! How many lists find the recall that is asked for.
//!
//! A sample is searched exactly. A true neighbour of a query is found as soon as its list is among those that the query
//! visits, so the rank of that list, query by query, gives the recall of every number of lists at once; and how far it is
//! beside the nearest lists, that of every horizon. Some more lists at most, and a horizon, are far fewer lists on average.

use std::collections::HashMap;

use super::approach::{Approach, Near, Through};
use super::manifest::Manifest;
use super::planned::Planned;
use super::run::Run;
use super::sample::Sample;
use crate::block::{RowBlock, RowIds};
use crate::error::{Error, JobError};
use crate::route::ivf::{list_ranks, list_ratios};
use crate::schedule::progress::Stage;
use crate::store::index::Encoding;
use crate::topk::TopK;
use crate::units::K;
use crate::visit::Horizon;

/// Distinguishes the sample of a calibration from others of the same seed.
const SEED: u64 = 0x6361_6c69_6272;
/// Standard errors that the recall of the sample is to be above the one asked for: two of the difference between it and that
/// of the audit, another sample of as many, so that one run in forty is warned of a recall that is too low by chance.
const MARGIN: f64 = 2.0 * std::f64::consts::SQRT_2;
/// More lists, as a share, than are enough without a horizon: queries between lists need them, where others make do with few.
/// On clusters and on word vectors twice as many more would change the average by a few percent.
const MORE_LISTS: f64 = 0.25;
/// Steps that a horizon of once the mean is made of: finer than any sample tells apart, and short to type.
const HORIZON_STEPS: f64 = 1e3;
/// Ids of the index that are read at a time.
const IDS_AT_ONCE: u64 = 1 << 16;

impl Planned<'_> {
    /// Replaces a guessed number of lists by the one that finds the recall asked for: the one of the `earlier` run that
    /// goes on, or of a sample.
    ///
    /// # Errors
    /// The first error of reading or searching; a plan that no longer fits.
    pub fn settle(&mut self, earlier: Option<&Manifest>, run: &Run<'_>) -> Result<(), Error> {
        self.settle_as_before(earlier, run)?;
        let Some(recall) = self.to_settle() else { return Ok(()) };
        let seed = self.request.run.seed ^ SEED;
        let seeds = [seed, super::audit::seed(self.request)];
        let [sample, to_audit] = Sample::search(self, seeds, Stage::Calibrate, run)?;
        self.to_audit = Some(Sample { values: Vec::new(), ..to_audit });
        let Some(through) = &self.through else { return Ok(()) };
        let queries =
            RowBlock::new(RowIds::Range(0..sample.rows.len() as u64), through.index.dim(), sample.values.clone())?;
        let ranks = ranks(self, through, &sample, &queries, run)?;
        let lists = through.lists.len();
        let metric = self.request.metric;
        let fewest = enough(lists, recall, |nprobe| shares(&ranks, nprobe));
        let ratios = |n| {
            let horizon = Horizon::new(metric, 1.0)?;
            Some(run.pool.install(|| list_ratios(metric, &through.lists, &queries, n, horizon)))
        };
        let without = || (Near::nearest(fewest), mean(&shares(&ranks, fewest)));
        let (near, found) = with_horizon(&ranks, fewest, lists, recall, ratios).unwrap_or_else(without);
        let encoding = through.index.encoding();
        let lost = if encoding == Encoding::F32 {
            String::new()
        } else {
            format!("; what {} loses of them is not counted, and the audit will tell", encoding.name())
        };
        let which = match near {
            Near { nprobe, horizon: Some(times), .. } => {
                let visited = near.expected();
                format!("{visited:.1} of {lists} lists on average (--nprobe {nprobe} --horizon {times})")
            }
            Near { nprobe, .. } => format!("{nprobe} of {lists} lists"),
        };
        run.observer.note(&format!(
            "visiting {which}: {found:.4} of a sample's true neighbours are there, for a recall of {recall}{lost}"
        ));
        self.visit_lists(near, run)
    }

    /// The same where no sample is needed for it: as the `earlier` run did, or with all lists. Leaves it open otherwise.
    ///
    /// # Errors
    /// Any I/O error; a plan that no longer fits.
    pub fn settle_as_before(&mut self, earlier: Option<&Manifest>, run: &Run<'_>) -> Result<(), Error> {
        let Some(recall) = self.to_settle() else { return Ok(()) };
        let Some(through) = &self.through else { return Ok(()) };
        if recall >= 1.0 {
            // What held for a sample is no promise for the others.
            let all = through.lists.len();
            return self.visit_lists(Near::nearest(all), run);
        }
        let Some(earlier) = earlier else { return Ok(()) };
        self.known(earlier, recall)?.map_or(Ok(()), |near| self.visit_lists(near, run))
    }

    /// The recall that a sample has yet to find the lists for.
    fn to_settle(&self) -> Option<f64> {
        matches!(self.approach, Approach::Near(near) if near.guess).then(|| self.request.how.probes.recall()).flatten()
    }

    /// What an earlier run of the same job settled on.
    fn known(&self, earlier: &Manifest, recall: f64) -> Result<Option<Near>, Error> {
        let (then, now) = (&earlier.parameters, self.parameters()?);
        let same = ["index", "seed", "k", "metric"].into_iter().all(|key| then[key] == now[key]);
        if !same || then["recall"].as_f64() != Some(recall) {
            return Ok(None);
        }
        let nprobe = then["nprobe"].as_u64().and_then(|nprobe| usize::try_from(nprobe).ok());
        let (horizon, visited) = (then["horizon"].as_f64(), then["lists_visited"].as_f64());
        Ok(nprobe.map(|nprobe| Near { nprobe, horizon, visited, guess: false }))
    }
}

/// For each query of the sample, from 0, the ranks of the lists of its true neighbours.
fn ranks(
    planned: &Planned<'_>,
    through: &Through,
    sample: &Sample,
    queries: &RowBlock,
    run: &Run<'_>,
) -> Result<Vec<Vec<usize>>, Error> {
    let list_of = lists_of(&sample.truth, through, run)?;
    // An id that the index does not have is found by no number of lists.
    let list = |id: &u64| list_of.get(id).copied().unwrap_or(usize::MAX);
    let lists = |row: usize| sample.truth.neighbours(row).0.iter().map(list).collect();
    let lists: Vec<Vec<usize>> = (0..queries.rows()).map(lists).collect();
    Ok(run.pool.install(|| list_ranks(planned.request.metric, &through.lists, queries, &lists)))
}

/// The list of each true neighbour, `usize::MAX` of one that the index does not have.
fn lists_of(truth: &TopK, through: &Through, run: &Run<'_>) -> Result<HashMap<u64, usize>, Error> {
    let mut lists: HashMap<u64, usize> =
        (0..truth.rows()).flat_map(|row| truth.neighbours(row).0).map(|&id| (id, usize::MAX)).collect();
    let rows = through.index.rows();
    let mut start = 0;
    while start < rows {
        if run.stop.asked() {
            return Err(JobError::Interrupted.into());
        }
        let end = rows.min(start + IDS_AT_ONCE);
        for (row, id) in (start..end).zip(through.index.ids(start..end)?) {
            if let Some(list) = lists.get_mut(&id) {
                *list = through.lists.offsets.partition_point(|&offset| offset <= row) - 1;
            }
        }
        start = end;
    }
    Ok(lists)
}

/// A horizon, and some more lists than without one, that find as much with fewer on average, and what share of the neighbours
/// that is; `None` where there is none.
/// `ratios` are those of a horizon, of so many lists nearest each query.
fn with_horizon(
    ranks: &[Vec<usize>],
    fewest: usize,
    lists: usize,
    recall: f64,
    ratios: impl FnOnce(usize) -> Option<Vec<Vec<f32>>>,
) -> Option<(Near, f64)> {
    // No more than an engine ranks, for the sample's ratios are held beside everything else.
    let most = lists.min(usize::try_from(K::MAX).unwrap_or(usize::MAX));
    if fewest > most {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nprobe = ((fewest as f64 * (1.0 + MORE_LISTS)).ceil() as usize).min(most);
    let ratios = ratios(nprobe)?;
    // Each neighbour is found from a horizon on, none of those in lists beyond the last one.
    let of_query = |(ranks, ratios): (&Vec<usize>, &Vec<f32>)| -> Vec<usize> {
        let found_from = |rank: &usize| match ratios.get(*rank) {
            // The nearest list is visited in any case.
            Some(_) if *rank == 0 => 0,
            Some(&ratio) => step_of(ratio),
            None => usize::MAX,
        };
        ranks.iter().map(found_from).collect()
    };
    let found_from: Vec<Vec<usize>> = ranks.iter().zip(&ratios).map(of_query).collect();
    let largest = found_from.iter().flatten().filter(|step| **step < usize::MAX).max().copied().unwrap_or(0);
    let step = enough(largest + 1, recall, |steps| shares(&found_from, steps + 1));
    let times = step as f64 / HORIZON_STEPS;
    let kept = |ratios: &Vec<f32>| ratios.partition_point(|ratio| f64::from(*ratio) <= times).max(1) as f64;
    let visited = ratios.iter().map(kept).sum::<f64>() / ratios.len().max(1) as f64;
    let near = Near { nprobe, horizon: Some(times), visited: Some(visited), guess: false };
    (visited < fewest as f64).then(|| (near, mean(&shares(&found_from, step + 1))))
}

/// The first step of a horizon that has this ratio within it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn step_of(ratio: f32) -> usize {
    (f64::from(ratio) * HORIZON_STEPS).ceil() as usize
}

/// The least number of lists, or steps, whose recall is certain to be enough, `most` where none is.
fn enough(most: usize, recall: f64, shares: impl Fn(usize) -> Vec<f64>) -> usize {
    let is_enough = |n: usize| {
        let shares = shares(n);
        let mean = mean(&shares);
        let variance =
            shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (shares.len() as f64 - 1.0).max(1.0);
        // Sums of shares are off by their last digits.
        mean - MARGIN * (variance / shares.len().max(1) as f64).sqrt() >= recall - 1e-9
    };
    let (mut low, mut high) = (1, most.max(1));
    while low < high {
        let middle = usize::midpoint(low, high);
        if is_enough(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The share of each query's neighbours that are found at a rank, or from a step on, below `n`; queries without neighbours
/// are left out.
fn shares(ranks: &[Vec<usize>], n: usize) -> Vec<f64> {
    let found = |ranks: &Vec<usize>| ranks.iter().filter(|rank| **rank < n).count() as f64 / ranks.len() as f64;
    ranks.iter().filter(|ranks| !ranks.is_empty()).map(found).collect()
}

fn mean(shares: &[f64]) -> f64 {
    if shares.is_empty() { 1.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranks: &[Vec<usize>]) -> impl Fn(usize) -> Vec<f64> {
        |n| shares(ranks, n)
    }

    #[test]
    fn the_number_of_lists_follows_from_the_ranks_of_the_neighbours_lists() {
        // Of each of 1,000 queries nine neighbours are in the nearest list and one in the fifth.
        let ranks: Vec<Vec<usize>> = (0..1_000).map(|_| [vec![0; 9], vec![4]].concat()).collect();
        assert_eq!(enough(20, 0.9, of(&ranks)), 1);
        assert_eq!(enough(20, 0.91, of(&ranks)), 5);
        assert_eq!(enough(20, 1.0, of(&ranks)), 5);
        assert_eq!(shares(&ranks, 1)[..2], [0.9, 0.9]);
    }

    #[test]
    fn a_horizon_leaves_out_what_is_far_beside_the_nearest_lists() {
        // Of 2,000 queries half find all in their nearest list, and the others have the last of ten in the fifth, which is as
        // near as the first.
        let ranks: Vec<Vec<usize>> =
            (0..2_000_usize).map(|q| [vec![0; 9], vec![if q.is_multiple_of(2) { 0 } else { 4 }]].concat()).collect();
        let far = |q: usize| if q.is_multiple_of(2) { 3.0 } else { 1.0 };
        let ratios = |n: usize| {
            assert_eq!(n, 7, "a quarter more than 5");
            Some((0..2_000).map(|q| [vec![1.0], vec![far(q); n - 1]].concat()).collect())
        };
        let (near, found) = with_horizon(&ranks, 5, 40, 0.99, ratios).unwrap();
        assert_eq!((near.nprobe, near.visited, found), (7, Some(4.0), 1.0));
        assert!((1.0..1.01).contains(&near.horizon.unwrap()), "{near:?}");
        // Where all lists are as far, it is of no use; and a metric may have none.
        let alike = |n: usize| Some(vec![vec![1.0; n]; 2_000]);
        assert_eq!(with_horizon(&ranks, 5, 40, 0.99, alike), None);
        assert_eq!(with_horizon(&ranks, 5, 40, 0.99, |_| None), None);
        assert_eq!(with_horizon(&ranks, 300, 400, 0.99, |_| unreachable!("more than an engine ranks")), None);
    }

    #[test]
    fn what_varies_between_queries_asks_for_a_margin() {
        // One query in ten has all its neighbours in the third list, so the margin is 0.085 of 100 queries.
        let ranks: Vec<Vec<usize>> = (0..100).map(|q| vec![if q % 10 == 0 { 2 } else { 0 }; 5]).collect();
        assert_eq!(mean(&shares(&ranks, 1)), 0.9);
        assert_eq!(enough(9, 0.89, of(&ranks)), 3, "0.9 of this sample may be 0.85 of another");
        assert_eq!(enough(9, 0.81, of(&ranks)), 1);
    }

    #[test]
    fn a_sample_without_neighbours_needs_one_list_and_an_impossible_recall_all() {
        assert_eq!(enough(9, 0.99, of(&[vec![], vec![]])), 1);
        assert_eq!(enough(9, 0.99, of(&[vec![9], vec![9]])), 9);
    }
}
