//! Centroids, learned from a sample.

use rayon::prelude::*;

use super::Planned;
use super::nearest::Nearest;
use crate::block::patterns::Patterns;
use crate::block::{RowBlock, RowIds};
use crate::error::{Error, JobError, StoreError};
use crate::job::run::Run;
use crate::plan::index::{rounds, settling_rounds, training_pairs};
use crate::plan::sample::{Random, sample};
use crate::route::kmeans::{Assignment, Sample, first_centroids, index, means, neighbourly_order, rebalance};
use crate::route::patterns::learn;
use crate::route::space::ListSpace;
use crate::schedule::Part;
use crate::schedule::progress::{Stage, Step};
use crate::store::index::Encoding;

/// Keeps the choice of centroids apart from that of the sample.
const SEED: u64 = 0x6365_6e74_726f_6964;
/// Rows that patterns are learned from, about.
pub const PATTERN_ROWS: u64 = 16_384;
/// Rows that a thread puts in place at a time.
const TASK_ROWS: usize = 1_024;

/// What was learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The centroids, `lists × dim`, those near each other together.
    pub centroids: Vec<f32>,
    /// Rows of the sample that each was the nearest one of.
    pub counts: Vec<u64>,
    /// Patterns of what is left of rows beside their centroids, for encodings that need them.
    pub patterns: Vec<f32>,
}

/// Rows in memory, or every so many of them.
struct Rows<'a> {
    values: &'a [f32],
    dim: usize,
    stride: usize,
}

impl Sample for Rows<'_> {
    fn rows(&self) -> usize {
        (self.values.len() / self.dim).div_ceil(self.stride)
    }

    fn row(&self, row: usize) -> &[f32] {
        let row = row * self.stride;
        &self.values[row * self.dim..(row + 1) * self.dim]
    }
}

/// Learns the centroids.
///
/// # Errors
/// Any of reading or searching; [`JobError::Interrupted`].
pub fn train(planned: &mut Planned<'_>, run: &Run<'_>) -> Result<Trained, Error> {
    let dim = planned.dim();
    let lists = usize::try_from(planned.lists).unwrap_or(usize::MAX);
    let values = read(planned, run)?;
    let every = |stride: u64| Rows { values: &values, dim, stride: usize::try_from(stride).unwrap_or(usize::MAX) };
    let sample_rows = every(1).rows() as u64;
    let mut random = Random::new(planned.request.run.seed ^ SEED);
    let mut centroids = first_centroids(&every(1), lists, &mut random);
    let total = Step { pairs: training_pairs(sample_rows, planned.lists), ..Step::default() };
    run.observer.begin(Stage::Train, total, Step::default());
    let (block_rows, part_rows) = (planned.plan.block_rows, planned.plan.part_rows);
    let mut nearest = Nearest::new(&mut planned.opened, run)?;
    let mut counts = Vec::new();
    let rounds = rounds(sample_rows, planned.lists);
    for (round, &stride) in rounds.iter().enumerate() {
        let rows = every(stride);
        nearest.among(&centroids, dim, part_rows)?;
        let assignment = assign(&mut nearest, &rows, block_rows, run)?;
        (centroids, counts) = means(&rows, &assignment.lists, &centroids, dim);
        if round + settling_rounds() < rounds.len() {
            rebalance(&rows, &assignment, &counts, &mut centroids, &mut random);
        }
    }
    let order = neighbourly_order(&centroids, dim);
    let centroids: Vec<f32> =
        order.iter().flat_map(|&list| &centroids[list * dim..(list + 1) * dim]).copied().collect();
    let patterns = if planned.request.encoding == Encoding::Pq {
        nearest.among(&centroids, dim, part_rows)?;
        let stride = sample_rows.div_ceil(PATTERN_ROWS).max(1);
        learn_patterns(&mut nearest, &every(stride), &centroids, block_rows, planned.request.run.seed, run)?
    } else {
        Vec::new()
    };
    if patterns.iter().any(|value| !value.is_finite()) {
        return Err(JobError::Unfit(format!(
            "{} has values so large that differences of them are no float32, which pq needs; use --encoding f32, or \
             scale the data down",
            planned.indexed.source.name()
        ))
        .into());
    }
    run.observer.end(Stage::Train);
    Ok(Trained { centroids, counts: order.iter().map(|&list| counts[list]).collect(), patterns })
}

/// Learns the patterns of what is left of rows beside their centroids.
fn learn_patterns(
    nearest: &mut Nearest<'_>,
    rows: &Rows<'_>,
    centroids: &[f32],
    block_rows: u64,
    seed: u64,
    run: &Run<'_>,
) -> Result<Vec<f32>, Error> {
    let dim = rows.dim;
    let lists = assign(nearest, rows, block_rows, run)?.lists;
    let mut left = Vec::with_capacity(rows.rows() * dim);
    for (row, list) in lists.into_iter().enumerate() {
        let centroid = &centroids[index(list) * dim..(index(list) + 1) * dim];
        left.extend(rows.row(row).iter().zip(centroid).map(|(value, centre)| value - centre));
    }
    let codes = dim.div_ceil(Patterns::width());
    Ok(run.pool.install(|| (0..codes).into_par_iter().flat_map_iter(|code| learn(&left, dim, code, seed)).collect()))
}

fn assign(nearest: &mut Nearest<'_>, rows: &Rows<'_>, block_rows: u64, run: &Run<'_>) -> Result<Assignment, Error> {
    let mut all = Assignment::default();
    let step = usize::try_from(block_rows).unwrap_or(usize::MAX);
    for first in (0..rows.rows()).step_by(step) {
        if run.stop.asked() {
            return Err(JobError::Interrupted.into());
        }
        let n = step.min(rows.rows() - first);
        let mut values = Vec::with_capacity(n * rows.dim);
        (first..first + n).for_each(|row| values.extend_from_slice(rows.row(row)));
        let block = RowBlock::new(RowIds::Range(0..n as u64), rows.dim, values)?;
        let part = nearest.of(&block)?;
        all.lists.extend(part.lists);
        all.distances.extend(part.distances);
        run.observer.advance(Stage::Train, Step { pairs: nearest.pairs(n), ..Step::default() });
    }
    Ok(all)
}

/// The sample, in the space that lists are made in.
fn read(planned: &Planned<'_>, run: &Run<'_>) -> Result<Vec<f32>, Error> {
    let source = &*planned.indexed.source;
    let dim = source.dim();
    let runs = sample(source.rows(), planned.lists, planned.request.run.seed);
    let rows: u64 = runs.iter().map(|run| run.end - run.start).sum();
    let mut values = vec![0.0; usize::try_from(rows).unwrap_or(usize::MAX) * dim];
    run.clock.time(Part::Read, || run.pool.install(|| source.read(&runs, &mut values)))?;
    source.release();
    place(planned.space, &mut values, dim, run).map_err(|at| {
        let mut at = at as u64;
        let row = runs.iter().find_map(|run| {
            let inside = at < run.end - run.start;
            let row = run.start + at;
            at = at.saturating_sub(run.end - run.start);
            inside.then_some(row)
        });
        StoreError::ConstantRow { array: source.name().to_owned(), row: row.unwrap_or(0) }
    })?;
    Ok(values)
}

/// Puts rows into the space that lists are made in.
///
/// # Errors
/// The number of the first row among these that has no place there.
pub fn place(space: ListSpace, values: &mut [f32], dim: usize, run: &Run<'_>) -> Result<(), usize> {
    let failed: Vec<usize> = run.pool.install(|| {
        let tasks = values.par_chunks_mut(TASK_ROWS * dim).enumerate();
        tasks.filter_map(|(task, rows)| space.place_all(rows, dim).err().map(|at| task * TASK_ROWS + at)).collect()
    });
    failed.into_iter().min().map_or(Ok(()), Err)
}
