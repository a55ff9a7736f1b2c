//! Each row's list, in one pass over the reference: rows are put aside in buckets, each of the rows of some lists.

use std::time::{Duration, Instant};

use super::Planned;
use super::arrange::{STAGE, too_large};
use super::nearest::Nearest;
use super::state::{SPILL, State};
use super::train::{Trained, place};
use crate::block::RowBlock;
use crate::error::{EngineError, Error, JobError, StoreError};
use crate::job::manifest::both;
use crate::job::output::Output;
use crate::job::run::Run;
use crate::plan::index::RECORD_WORDS;
use crate::route::kmeans::index;
use crate::route::space::ListSpace;
use crate::schedule::Part;
use crate::schedule::progress::{Stage, Step};
use crate::schedule::stream::stream;
use crate::schedule::units::write_behind;
use crate::store::Source;
use crate::store::index::{Codec, Encoding};
use crate::store::spill::Spill;

/// Puts aside every row that is not yet. Returns the state of all being done, and the buckets. What was put aside since
/// the last checkpoint is not saved: a run that ends early loses no more than the time between two.
///
/// # Errors
/// Any of reading, searching or writing; [`JobError::Interrupted`] and [`EngineError::DeviceLost`] with what is done saved.
pub fn assign(
    planned: &mut Planned<'_>,
    trained: &Trained,
    output: &Output,
    run: &Run<'_>,
) -> Result<(State, Spill), Error> {
    let (mut state, mut spill) = begin(planned, trained, output, run)?;
    let source = std::sync::Arc::clone(&planned.indexed.source);
    let rows = source.rows();
    let (dim, space, plan) = (planned.dim(), planned.space, planned.plan.clone());
    let pairs = |rows: u64| Step { rows, pairs: rows.saturating_mul(planned.lists), bytes: 0 };
    run.observer.begin(Stage::Assign, pairs(rows), pairs(state.rows_done));
    if state.rows_done < rows {
        state.engines = both(&state.engines, std::slice::from_ref(&planned.opened.record));
    }
    let mut nearest = Nearest::new(&mut planned.opened, run)?;
    nearest.among(&trained.centroids, dim, plan.part_rows)?;
    let rows_done = state.rows_done;
    let mut aside = Aside {
        scatter: Scatter::new(&state.bounds, trained.counts.len(), dim),
        state: &mut state,
        spill: &mut spill,
        output,
        encoding: planned.request.encoding,
        every: Duration::from_secs(planned.request.run.checkpoint_seconds),
        saved_at: Instant::now(),
    };
    let commit = |_, (block, lists): (RowBlock, Vec<u32>)| {
        run.clock.time(Part::Write, || aside.put(&block, &lists))?;
        let pairs = block.rows() as u64 * trained.counts.len() as u64;
        run.observer.advance(Stage::Assign, Step { rows: block.rows() as u64, pairs, bytes: 0 });
        Ok(())
    };
    let done = write_behind(commit, |send| {
        stream(&*source, rows_done..rows, plan.block_rows, &run.pool, &run.clock, |block| {
            let lists = match placed(space, &block, &*source, run)? {
                Some(placed) => nearest.of(&placed)?.lists,
                None => nearest.of(&block)?.lists,
            };
            // Nobody takes it where writing has failed, which is the error that will be told.
            if !send(0, (block, lists)) || run.stop.asked() {
                return Err(JobError::Interrupted.into());
            }
            Ok(())
        })
    });
    match done {
        Err(Error::Job(JobError::Interrupted)) if aside.state.rows_done == rows => {}
        Err(error @ (Error::Job(JobError::Interrupted) | Error::Engine(EngineError::DeviceLost { .. }))) => {
            aside.save()?;
            return Err(error);
        }
        done => done?,
    }
    run.observer.end(Stage::Assign);
    source.release();
    Ok((state, spill))
}

/// Where rows go, and when that is saved.
struct Aside<'a> {
    scatter: Scatter,
    state: &'a mut State,
    spill: &'a mut Spill,
    output: &'a Output,
    encoding: Encoding,
    every: Duration,
    saved_at: Instant,
}

impl Aside<'_> {
    fn put(&mut self, block: &RowBlock, lists: &[u32]) -> Result<(), Error> {
        // Rows are encoded at the very end, which may be hours from now.
        if let Some(at) = block.values().iter().position(|&value| !Codec::holds(self.encoding, value)) {
            return Err(too_large(block.ids().get(at / block.dim()).0, block.values()[at]).into());
        }
        for &list in lists {
            self.state.counts[index(list)] += 1;
        }
        widen(&mut self.state.limits, block.values());
        self.scatter.append(block, lists, self.spill)?;
        self.state.rows_done += block.rows() as u64;
        if self.saved_at.elapsed() >= self.every { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<(), Error> {
        self.state.save(self.output, self.spill)?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// Where an earlier run stopped, or the beginning.
fn begin(planned: &Planned<'_>, trained: &Trained, output: &Output, run: &Run<'_>) -> Result<(State, Spill), Error> {
    let folder = output.folder.root().join(SPILL);
    let lists = trained.counts.len();
    if let Some(state) = State::load(output)? {
        let fits = state.counts.len() == lists && state.limits.len() == planned.limits_needed();
        if fits && let Some(spill) = Spill::open(&folder, state.extents(), &run.io)? {
            planned.check_engines(output, &state.engines)?;
            return Ok((state, spill));
        }
    }
    // Shards that are written follow from another pass over the rows, perhaps of another engine: a row that went to
    // another list in that would be in both, or in none.
    output.unmark(STAGE)?;
    let bounds = bounds(&trained.counts, planned.plan.buckets);
    let mut state = State::new(bounds, lists, planned.limits_needed());
    let begun = Spill::open(&folder, state.extents(), &run.io)?;
    let mut spill = begun.ok_or(StoreError::Missing { path: folder })?;
    state.save(output, &mut spill)?;
    Ok((state, spill))
}

/// The first list of each bucket, so that all have about as many rows.
fn bounds(counts: &[u64], buckets: u64) -> Vec<u64> {
    let total: u64 = counts.iter().sum::<u64>().max(1);
    let (mut bounds, mut seen) = (vec![0], 0_u64);
    for (list, count) in counts.iter().enumerate() {
        let wanted = u128::from(seen) * u128::from(buckets) / u128::from(total);
        if wanted >= bounds.len() as u128 && list > 0 {
            bounds.push(list as u64);
        }
        seen += count;
    }
    bounds
}

/// The block in the space that lists are made in, where that is another one.
fn placed(space: ListSpace, block: &RowBlock, source: &dyn Source, run: &Run<'_>) -> Result<Option<RowBlock>, Error> {
    if space == ListSpace::Rows {
        return Ok(None);
    }
    let mut values = block.values().to_vec();
    place(space, &mut values, block.dim(), run)
        .map_err(|at| StoreError::ConstantRow { array: source.name().to_owned(), row: block.ids().get(at).0 })?;
    Ok(Some(RowBlock::new(block.ids().clone(), block.dim(), values)?))
}

/// Takes the values of rows into the limits of each dimension; there are none where nobody needs them.
fn widen(limits: &mut [(f32, f32)], values: &[f32]) {
    if limits.is_empty() {
        return;
    }
    for row in values.chunks_exact(limits.len()) {
        for ((low, high), value) in limits.iter_mut().zip(row) {
            *low = low.min(*value);
            *high = high.max(*value);
        }
    }
}

/// Sorts the rows of a block by bucket. A record is a row's id, its list, and the row.
struct Scatter {
    /// The bucket of each list.
    bucket_of: Vec<usize>,
    buckets: usize,
    dim: usize,
    words: Vec<u32>,
}

impl Scatter {
    fn new(bounds: &[u64], lists: usize, dim: usize) -> Self {
        let bucket = |list: usize| bounds.partition_point(|&first| first <= list as u64) - 1;
        Self { bucket_of: (0..lists).map(bucket).collect(), buckets: bounds.len(), dim, words: Vec::new() }
    }

    fn append(&mut self, block: &RowBlock, lists: &[u32], spill: &mut Spill) -> Result<(), StoreError> {
        let record = record_words(self.dim);
        let bucket_of = |list: &u32| self.bucket_of[index(*list)];
        let mut ends = vec![0; self.buckets];
        for list in lists {
            ends[bucket_of(list)] += record;
        }
        let mut at: Vec<usize> = Vec::with_capacity(self.buckets);
        let mut sum = 0;
        for end in &mut ends {
            at.push(sum);
            sum += *end;
            *end = sum;
        }
        let starts = at.clone();
        self.words.resize(sum, 0);
        for (row, list) in lists.iter().enumerate() {
            let at = &mut at[bucket_of(list)];
            let to = &mut self.words[*at..*at + record];
            let [low, high] = halves(block.ids().get(row).0);
            to[..3].copy_from_slice(&[low, high, *list]);
            to[3..].copy_from_slice(bytemuck::cast_slice(block.row(row)));
            *at += record;
        }
        for (bucket, (start, end)) in starts.into_iter().zip(ends).enumerate() {
            spill.append(bucket, &self.words[start..end])?;
        }
        Ok(())
    }
}

/// Words of a record.
pub fn record_words(dim: usize) -> usize {
    dim + usize::try_from(RECORD_WORDS).unwrap_or(3)
}

/// The low and the high half of an id.
fn halves(id: u64) -> [u32; 2] {
    bytemuck::cast(id.to_le_bytes())
}

/// The id, the list and the row of a record.
pub fn parts(record: &[u32]) -> (u64, u32, &[f32]) {
    let id = u64::from_le_bytes(bytemuck::cast([record[0], record[1]]));
    (id, record[2], bytemuck::cast_slice(&record[3..]))
}
