//! What a compressed index found gets its exact distances from the reference, and the k nearest of it stay.
//!
//! The reference is gone through once, in windows of rows: of each, what some query found is read and measured. So memory
//! does not grow with what was found, and no row is read twice. A run that is asked to stop does so between windows, and
//! hands back what was found for whoever saves it: measuring it again gives the same.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::blocks::unit_rows;
use super::pager::read_rows;
use super::progress::Stop;
use super::queries::read_queries;
use super::search::Search;
use super::{Clock, Part};
use crate::block::{RowBlock, RowIds};
use crate::engine::cpu::Measure;
use crate::error::{Error, JobError};
use crate::metric::Metric;
use crate::store::Source;
use crate::topk::{PADDING, TopK, nearer};
use crate::units::K;

/// Rows that nobody found between others are read with them where they are no more than this.
const GAP_ROWS: u64 = 32;
/// Rows of a word of what is needed.
const WORD: u64 = 64;

/// How to refine.
#[derive(Clone, Copy)]
pub struct Refine<'a> {
    /// The reference as it is, by id.
    pub references: &'a dyn Source,
    /// The metric.
    pub metric: Metric,
    /// Neighbours that stay.
    pub k: K,
    /// References of a window.
    pub window_rows: u64,
}

/// What was found for some queries.
#[derive(Debug)]
pub struct Candidates {
    /// Where they begin in their block.
    pub first: usize,
    /// What was found.
    pub top: TopK,
}

/// The same while it is measured.
struct Measured {
    first: usize,
    width: usize,
    ids: Vec<u64>,
    distances: Vec<f32>,
}

/// What came of some candidates.
#[derive(Debug)]
pub enum Refined {
    /// The nearest of each query.
    Done(Vec<TopK>),
    /// All of them, where the run was asked to stop: in order, some by their exact distance and some not yet.
    Stopped(Vec<TopK>),
}

/// What refining works with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The threads to work on.
    pub pool: &'a rayon::ThreadPool,
    /// Where time is counted.
    pub clock: &'a Clock,
    /// Who may ask to stop.
    pub stop: &'a Stop,
}

impl Refine<'_> {
    /// The k nearest candidates of each query by exact distance, in the order of `found`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn run(&self, queries: &RowBlock, found: Vec<Candidates>, means: Means<'_>) -> Result<Refined, Error> {
        let Means { pool, clock, stop } = means;
        let mut measured: Vec<Measured> = found
            .into_iter()
            .map(|Candidates { first, top }| {
                let width = top.k();
                let (ids, distances) = top.into_parts();
                Measured { first, width, ids, distances }
            })
            .collect();
        let rows = self.references.rows();
        let mut start = 0;
        while start < rows {
            if stop.asked() {
                self.references.release();
                let all = measured.into_iter().map(in_order);
                return Ok(Refined::Stopped(pool.install(|| all.collect::<Result<_, _>>())?));
            }
            let window = start..rows.min(start + self.window_rows.max(1));
            start = window.end;
            let runs = clock.time(Part::Search, || pool.install(|| needed(&measured, &window)));
            if runs.is_empty() {
                continue;
            }
            let length: u64 = runs.iter().map(|run| run.end - run.start).sum();
            let ids = RowIds::Range(0..length);
            let block = clock.time(Part::Read, || read_rows(self.references, &runs, ids, pool))?;
            let near = Near::new(runs, block);
            let measure = |found: &mut Measured| self.measure(queries, found, &window, &near);
            clock.time(Part::Search, || pool.install(|| measured.iter_mut().for_each(measure)));
        }
        self.references.release();
        let nearest = |found: &Measured| nearest(found, self.k.get());
        let done =
            clock.time(Part::Search, || pool.install(|| measured.iter().map(nearest).collect::<Result<_, _>>()))?;
        Ok(Refined::Done(done))
    }

    /// Gives what lies in a window its exact distance.
    fn measure(&self, queries: &RowBlock, found: &mut Measured, window: &Range<u64>, near: &Near) {
        let (first, width, pairs) = (found.first, found.width, Measure::of(self.metric));
        let rows = found.distances.par_chunks_mut(width).zip(found.ids.par_chunks(width));
        rows.enumerate().for_each(|(row, (distances, ids))| {
            for (distance, id) in distances.iter_mut().zip(ids).filter(|(_, id)| window.contains(id)) {
                *distance = pairs.distance(queries.row(first + row), near.row(*id));
            }
        });
    }
}

/// The nearest of each row, in order, so many of them.
fn nearest(found: &Measured, k: usize) -> Result<TopK, Error> {
    let rows = found.ids.len() / found.width;
    let (mut ids, mut distances) = (vec![PADDING; rows * k], vec![f32::INFINITY; rows * k]);
    let kept = ids.par_chunks_mut(k).zip(distances.par_chunks_mut(k));
    let candidates = found.ids.par_chunks(found.width).zip(found.distances.par_chunks(found.width));
    kept.zip(candidates).for_each_init(Vec::new, |order: &mut Vec<(f32, u64)>, (kept, candidates)| {
        sort(order, candidates);
        put(order, kept);
    });
    top(k, ids, distances)
}

/// All candidates of each row, in order, where they are: the plan has no room for a copy.
fn in_order(mut found: Measured) -> Result<TopK, Error> {
    let width = found.width;
    let rows = found.ids.par_chunks_mut(width).zip(found.distances.par_chunks_mut(width));
    rows.for_each_init(Vec::new, |order: &mut Vec<(f32, u64)>, (ids, distances)| {
        // Padding is behind them, and stays there.
        sort(order, (ids, distances));
        put(order, (ids, distances));
    });
    top(width, found.ids, found.distances)
}

/// Candidates of a row, nearest first.
fn sort(order: &mut Vec<(f32, u64)>, (ids, distances): (&[u64], &[f32])) {
    order.clear();
    let there = distances.iter().copied().zip(ids.iter().copied());
    order.extend(there.filter(|(_, id)| *id != PADDING));
    order.sort_unstable_by(|a, b| nearer(*a, *b));
}

/// Puts as many of them as there is room for.
fn put(order: &[(f32, u64)], (ids, distances): (&mut [u64], &mut [f32])) {
    for ((id, distance), nearest) in ids.iter_mut().zip(distances).zip(order) {
        (*distance, *id) = *nearest;
    }
}

fn top(k: usize, ids: Vec<u64>, distances: Vec<f32>) -> Result<TopK, Error> {
    let wrong = || JobError::Unfit("neighbours got a distance that is no number".to_owned());
    let k = u32::try_from(k).ok().and_then(|k| K::new(k).ok()).ok_or_else(wrong)?;
    Ok(TopK::from_parts(k, ids, distances).ok_or_else(wrong)?)
}

/// Units and what was found for their queries.
pub(super) type Units = Vec<(u64, TopK)>;

/// Units as they are handed on, and behind them those that are not refined because the run was asked to stop. Those that lie
/// in the block in hand are refined together, and others as many at a time as the plan has room for the queries of: so that
/// the references are gone through once for all of them.
pub(super) fn refined(
    search: &Search<'_>,
    units: Units,
    block: Option<(&Range<u64>, &RowBlock)>,
    stop: &Stop,
) -> Result<(Units, Units), Error> {
    let Some(refine) = &search.refine else { return Ok((units, Vec::new())) };
    let means = Means { pool: search.pool, clock: search.clock, stop };
    let rows_of = |unit: u64| unit_rows(unit, search.queries.rows());
    let covers = block.map_or(0..0, |(rows, _)| rows.clone());
    let inside = |unit: u64| covers.start <= rows_of(unit).start && rows_of(unit).end <= covers.end;
    let (together, others): (Units, Units) = units.into_iter().partition(|(unit, _)| inside(*unit));
    let (mut done, mut left) = (Vec::new(), Vec::new());
    let mut refine = |units: Units, start: u64, queries: &RowBlock| {
        let first = |unit: u64| usize::try_from(rows_of(unit).start - start).unwrap_or(usize::MAX);
        let numbers: Vec<u64> = units.iter().map(|(unit, _)| *unit).collect();
        let found = units.into_iter().map(|(unit, top)| Candidates { first: first(unit), top }).collect();
        match refine.run(queries, found, means)? {
            Refined::Done(tops) => done.extend(numbers.into_iter().zip(tops)),
            Refined::Stopped(tops) => left.extend(numbers.into_iter().zip(tops)),
        }
        Ok::<_, Error>(())
    };
    for (rows, units) in groups(others, rows_of, search.block_rows) {
        let (queries, _) = read_queries(search, &rows)?;
        refine(units, rows.start, &queries)?;
    }
    if let Some((rows, queries)) = block.filter(|_| !together.is_empty()) {
        refine(together, rows.start, queries)?;
    }
    Ok((done, left))
}

/// Units that follow each other, as many at a time as a block may have, and at least one; with their rows.
fn groups(units: Units, rows_of: impl Fn(u64) -> Range<u64>, block_rows: u64) -> Vec<(Range<u64>, Units)> {
    let mut groups: Vec<(Range<u64>, Units)> = Vec::new();
    for (unit, top) in units {
        let rows = rows_of(unit);
        match groups.last_mut() {
            Some((all, group)) if all.end == rows.start && rows.end - all.start <= block_rows => {
                all.end = rows.end;
                group.push((unit, top));
            }
            _ => groups.push((rows, vec![(unit, top)])),
        }
    }
    groups
}

/// Rows of a window that were read.
struct Near {
    runs: Vec<Range<u64>>,
    /// Where each run begins in the block.
    places: Vec<u64>,
    block: RowBlock,
}

impl Near {
    fn new(runs: Vec<Range<u64>>, block: RowBlock) -> Self {
        let mut places = vec![0];
        for run in &runs {
            places.push(places[places.len() - 1] + run.end - run.start);
        }
        Self { runs, places, block }
    }

    /// A row that is among them.
    fn row(&self, id: u64) -> &[f32] {
        // A search among runs costs less than the distance that follows.
        let at = self.runs.partition_point(|run| run.end <= id);
        self.block.row(usize::try_from(self.places[at] + id - self.runs[at].start).unwrap_or(usize::MAX))
    }
}

/// The rows of a window that somebody found, as runs.
fn needed(found: &[Measured], window: &Range<u64>) -> Vec<Range<u64>> {
    let words: Vec<AtomicU64> = (window.start / WORD..window.end.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect();
    let first = window.start / WORD;
    let word = |id: u64| &words[usize::try_from(id / WORD - first).unwrap_or(usize::MAX)];
    for found in found {
        found.ids.par_iter().filter(|id| window.contains(id)).for_each(|id| {
            word(*id).fetch_or(1 << (id % WORD), Ordering::Relaxed);
        });
    }
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (base, word) in (first * WORD..).step_by(64).zip(words) {
        let mut word = word.into_inner();
        while word != 0 {
            let id = base + u64::from(word.trailing_zeros());
            word &= word - 1;
            match runs.last_mut() {
                Some(run) if id <= run.end + GAP_ROWS => run.end = id + 1,
                _ => runs.push(id..id + 1),
            }
        }
    }
    runs
}

#[cfg(test)]
#[path = "refine_tests.rs"]
mod tests;
