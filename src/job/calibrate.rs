//! How many lists find the recall that is asked for.
//!
//! A sample is searched exactly. A true neighbour of a query is found as soon as its list is among those that the query
//! visits, so the rank of that list, query by query, gives the recall of every number of lists at once.

use std::collections::HashMap;

use super::approach::{Approach, Through};
use super::manifest::Manifest;
use super::planned::Planned;
use super::run::Run;
use super::sample::Sample;
use crate::block::{RowBlock, RowIds};
use crate::error::{Error, JobError};
use crate::route::ivf::list_ranks;
use crate::schedule::progress::Stage;
use crate::store::index::Encoding;
use crate::topk::TopK;

/// Distinguishes the sample of a calibration from others of the same seed.
const SEED: u64 = 0x6361_6c69_6272;
/// Standard errors that the recall of the sample is to be above the one asked for, so that other queries have it as well.
const MARGIN: f64 = 2.0;
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
        let (Approach::Near { guess: true, .. }, Some(recall)) = (self.approach, self.request.how.probes.recall())
        else {
            return Ok(());
        };
        let seed = self.request.run.seed ^ SEED;
        let sample = Sample::search(self, seed, Stage::Calibrate, run)?;
        let Some(through) = &self.through else { return Ok(()) };
        let ranks = ranks(self, through, &sample, run)?;
        let lists = through.lists.len();
        let nprobe = enough(&ranks, lists, recall);
        let encoding = through.index.encoding();
        let lost = if encoding == Encoding::F32 {
            String::new()
        } else {
            format!("; what {} loses of them is not counted, and the audit will tell", encoding.name())
        };
        run.observer.note(&format!(
            "visiting {nprobe} of {lists} lists: {} of a sample's true neighbours are there, for a recall of {recall}{lost}",
            mean(&shares(&ranks, nprobe))
        ));
        self.visit_lists(nprobe, run)
    }

    /// The same where no sample is needed for it: as the `earlier` run did, or with all lists. Leaves it open otherwise.
    ///
    /// # Errors
    /// Any I/O error; a plan that no longer fits.
    pub fn settle_as_before(&mut self, earlier: Option<&Manifest>, run: &Run<'_>) -> Result<(), Error> {
        let (Approach::Near { guess: true, .. }, Some(recall)) = (self.approach, self.request.how.probes.recall())
        else {
            return Ok(());
        };
        let Some(through) = &self.through else { return Ok(()) };
        if recall >= 1.0 {
            // What held for a sample is no promise for the others.
            let all = through.lists.len();
            return self.visit_lists(all, run);
        }
        let Some(earlier) = earlier else { return Ok(()) };
        self.known(earlier, recall)?.map_or(Ok(()), |nprobe| self.visit_lists(nprobe, run))
    }

    /// What an earlier run of the same job settled on.
    fn known(&self, earlier: &Manifest, recall: f64) -> Result<Option<usize>, Error> {
        let (then, now) = (&earlier.parameters, self.parameters()?);
        let same = ["index", "seed", "k", "metric"].into_iter().all(|key| then[key] == now[key]);
        let nprobe = then["nprobe"].as_u64().and_then(|nprobe| usize::try_from(nprobe).ok());
        Ok(nprobe.filter(|_| same && then["recall"].as_f64() == Some(recall)))
    }
}

/// For each query of the sample, from 0, the ranks of the lists of its true neighbours.
fn ranks(planned: &Planned<'_>, through: &Through, sample: &Sample, run: &Run<'_>) -> Result<Vec<Vec<usize>>, Error> {
    let list_of = lists_of(&sample.truth, through, run)?;
    let ids = RowIds::Range(0..sample.rows.len() as u64);
    let queries = RowBlock::new(ids, through.index.dim(), sample.values.clone())?;
    // An id that the index does not have is found by no number of lists.
    let list = |id: &u64| list_of.get(id).copied().unwrap_or(usize::MAX);
    let lists = |row: usize| sample.truth.neighbours(row).0.iter().map(list).collect();
    let lists: Vec<Vec<usize>> = (0..queries.rows()).map(lists).collect();
    Ok(run.pool.install(|| list_ranks(planned.request.metric, &through.lists, &queries, &lists)))
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

/// The least number of lists whose recall is certain to be enough, all of them where none is.
fn enough(ranks: &[Vec<usize>], lists: usize, recall: f64) -> usize {
    let is_enough = |nprobe: usize| {
        let shares = shares(ranks, nprobe);
        let mean = mean(&shares);
        let variance =
            shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (shares.len() as f64 - 1.0).max(1.0);
        // Sums of shares are off by their last digits.
        mean - MARGIN * (variance / shares.len().max(1) as f64).sqrt() >= recall - 1e-9
    };
    let (mut low, mut high) = (1, lists.max(1));
    while low < high {
        let middle = usize::midpoint(low, high);
        if is_enough(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The share of each query's neighbours that so many lists hold; queries without neighbours are left out.
fn shares(ranks: &[Vec<usize>], nprobe: usize) -> Vec<f64> {
    let found = |ranks: &Vec<usize>| ranks.iter().filter(|rank| **rank < nprobe).count() as f64 / ranks.len() as f64;
    ranks.iter().filter(|ranks| !ranks.is_empty()).map(found).collect()
}

fn mean(shares: &[f64]) -> f64 {
    if shares.is_empty() { 1.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_lists_follows_from_the_ranks_of_the_neighbours_lists() {
        // Of each of 1,000 queries nine neighbours are in the nearest list and one in the fifth.
        let ranks: Vec<Vec<usize>> = (0..1_000).map(|_| [vec![0; 9], vec![4]].concat()).collect();
        assert_eq!(enough(&ranks, 20, 0.9), 1);
        assert_eq!(enough(&ranks, 20, 0.91), 5);
        assert_eq!(enough(&ranks, 20, 1.0), 5);
        assert_eq!(shares(&ranks, 1)[..2], [0.9, 0.9]);
    }

    #[test]
    fn what_varies_between_queries_asks_for_a_margin() {
        // One query in ten has all its neighbours in the third list, so two standard errors are 0.06 of 100 queries.
        let ranks: Vec<Vec<usize>> = (0..100).map(|q| vec![if q % 10 == 0 { 2 } else { 0 }; 5]).collect();
        assert_eq!(mean(&shares(&ranks, 1)), 0.9);
        assert_eq!(enough(&ranks, 9, 0.89), 3, "0.9 of this sample may be 0.85 of another");
        assert_eq!(enough(&ranks, 9, 0.83), 1);
    }

    #[test]
    fn a_sample_without_neighbours_needs_one_list_and_an_impossible_recall_all() {
        assert_eq!(enough(&[vec![], vec![]], 9, 0.99), 1);
        assert_eq!(enough(&[vec![9], vec![9]], 9, 0.99), 9);
    }
}
