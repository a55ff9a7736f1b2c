//! A seeded sample of the query, searched exactly: what recall is measured by, and the number of lists chosen by.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rayon::prelude::*;

use super::approach::{Approach, router};
use super::planned::Planned;
use super::run::Run;
use super::search::{open_again, side};
use crate::error::{EngineError, Error, JobError, PlanError, StoreError};
use crate::plan::round_up_to_tenth;
use crate::plan::sample::Random;
use crate::plan::search::{SearchInput, SearchPlan, Side, plan};
use crate::schedule::Clock;
use crate::schedule::pager::References;
use crate::schedule::progress::{Stage, Step};
use crate::schedule::search::{Engines, QueryGroups, Search, Unfinished, UnitSink, search};
use crate::store::memory::MemorySource;
use crate::topk::TopK;
use crate::units::{ByteCount, INNER_ROWS, K};

/// Query rows of a sample, where there are as many.
pub const SAMPLE_ROWS: u64 = 1_000;

/// Some queries and their true neighbours.
#[derive(Debug)]
pub struct Sample {
    /// Rows of the query, ascending.
    pub rows: Vec<u64>,
    /// Their values, `rows × dim`.
    pub values: Vec<f32>,
    /// Their neighbours, by comparing them with every reference.
    pub truth: TopK,
}

/// A sample's rows: the same for the same number of rows and seed.
#[must_use]
pub fn draw(rows: u64, seed: u64) -> Vec<u64> {
    let wanted = rows.min(SAMPLE_ROWS);
    let mut random = Random::new(seed);
    let mut drawn = BTreeSet::new();
    // Each step adds one of the first `end` rows, all subsets of a size being equally likely (Floyd 1987).
    for end in rows - wanted..rows {
        let row = random.below(end + 1);
        drawn.insert(if drawn.contains(&row) { end } else { row });
    }
    drawn.into_iter().collect()
}

impl Sample {
    /// Draws a sample for each seed and searches them together, as the job would search them without an index: the reference
    /// is read once.
    ///
    /// # Errors
    /// The first error of reading or searching; [`JobError::Interrupted`].
    pub fn search<const N: usize>(
        planned: &mut Planned<'_>,
        seeds: [u64; N],
        stage: Stage,
        run: &Run<'_>,
    ) -> Result<[Self; N], Error> {
        let source = &planned.inputs.queries.source;
        let drawn = seeds.map(|seed| draw(source.rows(), seed));
        let rows: Vec<u64> = drawn.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let ranges: Vec<_> = rows.iter().map(|&row| row..row + 1).collect();
        let dim = source.dim();
        let mut values = vec![0.0; rows.len() * dim];
        run.pool.install(|| source.read(&ranges, &mut values))?;
        source.release();
        let truth = loop {
            match truth(planned, &rows, &values, stage, run) {
                Err(Error::Engine(error @ EngineError::DeviceLost { .. })) if planned.opened.reopen.is_some() => {
                    planned.fall_back(&error, run)?;
                }
                truth => break truth?,
            }
        };
        Ok(drawn.map(|of| {
            let places = of.iter().map(|row| rows.partition_point(|before| before < row));
            let values = places.clone().flat_map(|at| &values[at * dim..(at + 1) * dim]).copied().collect();
            let mut its_truth = TopK::empty(of.len(), planned.request.k);
            places.enumerate().for_each(|(row, at)| its_truth.copy_rows(row, &truth, at, 1));
            Self { rows: of, values, truth: its_truth }
        }))
    }
}

/// The plan of searching the samples, beside what the job holds meanwhile.
///
/// # Errors
/// A budget that is too small.
pub fn plan_sample(planned: &Planned<'_>) -> Result<SearchPlan, Error> {
    Ok(plan_reading(planned)?.0)
}

/// How many chunks of the output are read at the same time for a sample that was searched.
///
/// # Errors
/// As [`plan_sample`].
pub fn chunks_at_once(planned: &Planned<'_>) -> Result<usize, Error> {
    Ok(usize::try_from(plan_reading(planned)?.1).unwrap_or(usize::MAX))
}

fn plan_reading(planned: &Planned<'_>) -> Result<(SearchPlan, u64), Error> {
    let held = planned.lists_bytes();
    let guess = matches!(planned.approach, Approach::Near(near) if near.guess);
    let measured = planned.through.as_ref().filter(|_| guess);
    let measured = measured.map_or(0, |through| through.measured_bytes(planned.threads));
    let rows = planned.inputs.queries.source.rows();
    // One sample to find out how many lists to visit, where that is still to be, and one to check; they may share rows.
    let queries = rows.min(SAMPLE_ROWS * (1 + u64::from(guess)));
    let input = SearchInput {
        queries: Side { rows: queries, stored_bytes: 0, chunk_rows: 1, ..planned.input.queries },
        references: side(&*planned.inputs.references.source),
        names: false,
        written: false,
        lists: None,
        graph: None,
        engine: planned.exact_engine().limits(planned.inputs.queries.source.dim(), planned.request.k),
        budget: ByteCount(planned.input.budget.0.saturating_sub(held + measured)),
        ..planned.input.clone()
    };
    let mut plan = plan(&input).map_err(|error| beside(error, planned.input.budget, held + measured))?;
    plan.memory.add("lists of the index", held);
    plan.memory.add("centroids, measured on the host", measured);
    // Of both together and of each, rows and what was found.
    let values = 2 * queries * input.dim * 4;
    plan.memory.add("samples and their neighbours", values + 2 * queries * input.k * 12);
    // A chunk of the output, as it is stored and as it is looked at.
    let chunk = rows.min(INNER_ROWS) * input.k * 24;
    let room = planned.input.budget.0.saturating_sub(plan.memory.total());
    let at_once = (room / chunk.max(1)).clamp(1, planned.threads as u64);
    plan.memory.add("output read for the sample", at_once * chunk);
    plan.bytes_written = 0;
    Ok((plan, at_once))
}

/// A budget that is too small, with what the job holds meanwhile.
fn beside(error: PlanError, budget: ByteCount, held: u64) -> PlanError {
    match error {
        PlanError::Budget { needs, why, advice, .. } => {
            let why = format!("to search a sample of the query in the reference as it is stored: {why}");
            let needs = ByteCount(round_up_to_tenth(needs.0 + held));
            PlanError::Budget { budget, needs, why, advice }
        }
        other => other,
    }
}

fn truth(planned: &mut Planned<'_>, rows: &[u64], values: &[f32], stage: Stage, run: &Run<'_>) -> Result<TopK, Error> {
    let plan = plan_sample(planned)?;
    let references = &*planned.inputs.references.source;
    let work = Step { rows: rows.len() as u64, pairs: rows.len() as u64 * references.rows(), bytes: 0 };
    run.observer.begin(stage, work, Step::default());
    let queries = MemorySource::from_f32("the sample", references.dim(), values.to_vec())?;
    let groups = planned.groups()?;
    let reader = groups.as_ref().map(super::groups::Groups::reader);
    let of_sample = |range: Range<u64>| -> Result<Vec<u32>, Error> {
        let place = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let sampled = &rows[place(range.start)..place(range.end)];
        let group = |&row: &u64| reader.as_ref().map_or(Ok(vec![]), |reader| reader(row..row + 1));
        Ok(sampled.iter().map(group).collect::<Result<Vec<_>, _>>()?.concat())
    };
    let router = router(Approach::All, None, planned.request.metric, &plan, references.rows());
    let task = Search {
        queries: &queries,
        query_ids: Some(rows),
        query_groups: groups.as_ref().map(|_| &of_sample as QueryGroups<'_>),
        references: References {
            source: references,
            ids: None,
            groups: groups.as_ref().map(|groups| groups.references.as_slice()),
        },
        exclude_own_row: planned.inputs.self_mapping,
        router: &*router,
        k: planned.request.k,
        refine: None,
        order: plan.order,
        block_rows: plan.block_rows,
        ranked_rows: plan.ranked_rows,
        stage,
        todo: &[0],
        checkpoint_every: Duration::MAX,
        pool: &run.pool,
        // Neither time nor pairs of the search itself.
        clock: &Clock::default(),
        pairs: &AtomicU64::new(0),
    };
    let reopen = &planned.opened.reopen;
    let engines = Engines {
        engine: &mut planned.opened.engine,
        reopen: &mut |lost, error| open_again(reopen.as_ref(), lost, error, run),
    };
    let found = Found::default();
    let result = search(&task, engines, &found, None, run.observer, run.stop);
    run.observer.end(stage);
    references.release();
    result?;
    let found = found.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.ok_or_else(|| JobError::Unfit("the search of a sample found nothing".to_owned()).into())
}

/// Keeps the one unit of a sample.
#[derive(Default)]
struct Found(Mutex<Option<TopK>>);

impl UnitSink for Found {
    fn commit(&self, _: u64, top: TopK) -> Result<(), Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(top);
        Ok(())
    }

    fn save(&self, _: &Unfinished<'_>) -> Result<(), Error> {
        // It is short enough to be searched again.
        Ok(())
    }
}

/// What was written for the rows of a sample, in their order: each chunk of the output is read once, so many at a time.
///
/// # Errors
/// Those of `read`.
pub fn written(
    rows: &[u64],
    k: K,
    at_once: usize,
    read: impl Fn(Range<u64>) -> Result<TopK, StoreError> + Sync,
) -> Result<TopK, Error> {
    let chunks: Vec<&[u64]> = rows.chunk_by(|a, b| a / INNER_ROWS == b / INNER_ROWS).collect();
    let of_chunk = |chunk: &&[u64]| -> Result<TopK, StoreError> {
        let first = chunk[0];
        let found = read(first..chunk[chunk.len() - 1] + 1)?;
        let mut wanted = TopK::empty(chunk.len(), k);
        for (place, row) in chunk.iter().enumerate() {
            wanted.copy_rows(place, &found, usize::try_from(row - first).unwrap_or(usize::MAX), 1);
        }
        Ok(wanted)
    };
    let mut all = TopK::empty(0, k);
    for chunks in chunks.chunks(at_once.max(1)) {
        let found: Vec<TopK> = chunks.par_iter().map(of_chunk).collect::<Result<_, _>>()?;
        all = found.iter().fold(all, TopK::followed_by);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_different_rows_in_order_and_follows_from_its_seed() {
        for rows in [1, 2, 999, 1_000, 1_001, 5_000, 1_000_000_000] {
            let drawn = draw(rows, 7);
            assert_eq!(drawn.len() as u64, rows.min(SAMPLE_ROWS));
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn.iter().all(|&row| row < rows));
            assert_eq!(drawn, draw(rows, 7));
        }
        assert_ne!(draw(5_000, 7), draw(5_000, 8));
        assert!(draw(0, 7).is_empty());
    }

    #[test]
    fn rows_are_drawn_from_everywhere() {
        let mut counts = [0_u32; 10];
        for seed in 0..50 {
            for row in draw(20_000, seed) {
                counts[usize::try_from(row / 2_000).unwrap()] += 1;
            }
        }
        // 5,000 each on average, with a standard deviation below 70.
        assert!(counts.iter().all(|count| count.abs_diff(5_000) < 350), "{counts:?}");
    }

    #[test]
    fn what_was_written_is_read_chunk_by_chunk_and_lands_in_the_order_of_the_sample() {
        let rows = [3, 16_383, 16_384, 40_000];
        let reads = Mutex::new(Vec::new());
        let read = |range: Range<u64>| {
            reads.lock().unwrap().push(range.clone());
            let mut top = TopK::empty(usize::try_from(range.end - range.start).unwrap(), K::new(1).unwrap());
            range.clone().for_each(|row| top.set_row(usize::try_from(row - range.start).unwrap(), &[(0.0, row)]));
            Ok(top)
        };
        let found = written(&rows, K::new(1).unwrap(), 2, read).unwrap();
        assert_eq!(found.ids(), rows);
        let mut reads = reads.into_inner().unwrap();
        reads.sort_unstable_by_key(|range| range.start);
        assert_eq!(reads, [3..16_384, 16_384..16_385, 40_000..40_001]);
    }
}
