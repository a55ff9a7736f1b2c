//! Rows in the order of their lists: buckets are read one after the other, sorted, and written a whole shard at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::Planned;
use super::assign::{parts, record_words};
use super::state::State;
use super::train::Trained;
use crate::error::{Error, JobError, StoreError};
use crate::job::manifest::Marker;
use crate::job::output::Output;
use crate::job::run::Run;
use crate::route::lists::{List, cut, farthest, offsets, rounded_up};
use crate::route::space::ListSpace;
use crate::schedule::Part;
use crate::schedule::progress::{Stage, Step};
use crate::schedule::units::write_behind;
use crate::store::index::{Codec, IndexWriter, Layout};
use crate::store::results::Values;
use crate::store::spill::Spill;

/// The stage's folder of markers.
pub const STAGE: &str = "rows";

/// What is known of an index once its rows are written.
pub struct Arranged {
    /// What wrote it.
    pub writer: IndexWriter,
    /// What its codes mean.
    pub codec: Codec,
    /// Where each list begins, and at the end where the last one ends.
    pub offsets: Vec<u64>,
    /// The centroid of each.
    pub centroids: Vec<f32>,
    /// How far its rows are from it at most.
    pub radii: Vec<f32>,
    /// How far encoding moved a row at most, in the space that lists are made in.
    pub largest_error: f64,
}

/// A shard's rows in list order.
struct Shard {
    ids: Vec<u64>,
    rows: Vec<f32>,
}

/// Writes all rows, those of shards that are written already excepted.
///
/// # Errors
/// Any of reading or writing; [`JobError::Interrupted`].
pub fn arrange(
    planned: &Planned<'_>,
    trained: &Trained,
    state: &State,
    spill: &Spill,
    output: &Output,
    run: &Run<'_>,
) -> Result<Arranged, Error> {
    let (layout, dim) = (planned.layout, planned.dim());
    let lists = cut(&state.counts);
    let codec = planned.codec(trained, state)?;
    let width = Codec::width(planned.request.encoding, dim as u64);
    let writer = IndexWriter::create(&output.folder, layout, planned.request.encoding, width)?;
    let done = output.done(STAGE)?;
    let mut work = Work {
        space: planned.space,
        layout,
        dim,
        codec: &codec,
        centroids: lists.iter().flat_map(|list| centroid(trained, list, dim)).copied().collect(),
        offsets: offsets(&lists),
        radii: vec![0.0; lists.len()],
        largest_error: 0.0,
    };
    run.observer.begin(Stage::Sort, Step { rows: layout.rows, ..Step::default() }, Step::default());
    let commit = |shard: u64, Shard { ids, rows }: Shard| -> Result<(), Error> {
        run.clock.time(Part::Write, || {
            let n = ids.len() as u64;
            run.pool.install(|| work.measure(shard, &rows));
            let codes = run.pool.install(|| work.encode(shard, &ids, rows))?;
            if !done.contains_key(&shard) {
                let files = run.pool.install(|| writer.write_shard(shard, codes, &ids))?;
                let files = files.into_iter().map(Into::into).collect();
                let engines = state.engines.clone();
                output.mark(STAGE, &Marker { unit: shard, files, engines, ..Marker::empty() })?;
            }
            run.observer.advance(Stage::Sort, Step { rows: n, ..Step::default() });
            Ok(())
        })
    };
    let sorted = write_behind(commit, |send| Sorter::new(planned, state, spill, run).all(send));
    if matches!(sorted, Err(Error::Store(StoreError::Damaged { .. }))) {
        // What was put aside is not what was written, and shards may have been made of it.
        output.unmark(STAGE)?;
        output.drop_checkpoint()?;
    }
    sorted?;
    run.observer.end(Stage::Sort);
    let radii = work.radii.iter().map(|radius| rounded_up(*radius, work.space)).collect();
    let Work { centroids, offsets, largest_error, .. } = work;
    Ok(Arranged { writer, codec, offsets, centroids, radii, largest_error })
}

fn centroid<'t>(trained: &'t Trained, list: &List, dim: usize) -> &'t [f32] {
    &trained.centroids[list.centroid * dim..(list.centroid + 1) * dim]
}

/// What is done with a shard.
struct Work<'a> {
    space: ListSpace,
    layout: Layout,
    dim: usize,
    codec: &'a Codec,
    centroids: Vec<f32>,
    offsets: Vec<u64>,
    radii: Vec<f64>,
    largest_error: f64,
}

impl Work<'_> {
    /// Takes the rows of a shard into the radii of their lists.
    fn measure(&mut self, shard: u64, rows: &[f32]) {
        let of = self.layout.shard(shard);
        let first = self.offsets.partition_point(|at| *at <= of.start) - 1;
        let last = self.offsets.partition_point(|at| *at < of.end);
        let inside = |list: usize| -> Range<usize> {
            let place = |row: u64| usize::try_from(row.clamp(of.start, of.end) - of.start).unwrap_or(usize::MAX);
            place(self.offsets[list])..place(self.offsets[list + 1])
        };
        let measured: Vec<f64> =
            (first..last).into_par_iter().map(|list| self.radius(list, rows, inside(list))).collect();
        for (radius, measured) in self.radii[first..last].iter_mut().zip(measured) {
            *radius = radius.max(measured);
        }
    }

    /// The largest distance between a list's centroid and some of its rows.
    fn radius(&self, list: usize, values: &[f32], rows: Range<usize>) -> f64 {
        let dim = self.dim;
        let centroid = &self.centroids[list * dim..(list + 1) * dim];
        farthest(self.space, &values[rows.start * dim..rows.end * dim], centroid)
    }

    /// The codes of a shard's rows. Notes how far from them they are.
    fn encode(&mut self, shard: u64, ids: &[u64], mut rows: Vec<f32>) -> Result<Values, Error> {
        if *self.codec == Codec::F32 {
            return Ok(Values::F32(rows));
        }
        let (dim, first) = (self.dim, self.layout.shard(shard).start);
        if matches!(self.codec, Codec::Pq(_)) {
            // Patterns are of rows in the space of the centroids. A row that has no place there was refused before.
            rows.par_chunks_mut(dim).for_each(|row| self.space.place_all(row, dim).unwrap_or_default());
        }
        let centroid = |at: usize| {
            let list = self.offsets.partition_point(|start| *start <= first + at as u64) - 1;
            &self.centroids[list * dim..(list + 1) * dim]
        };
        let codes = self.codec.encode(&rows, dim, centroid).map_err(|at| too_large(ids[at / dim], rows[at]))?;
        let scratch = || (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
        let error = |(decoded, truth, placed): &mut (Vec<f32>, Vec<f64>, Vec<f64>), (at, row): (usize, &[f32])| {
            self.codec.decode(&codes, at, centroid(at), decoded);
            let kept = !self.space.place(row, truth) | self.space.place(decoded, placed);
            let apart = truth.iter().zip(&*placed).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            (apart, if kept { usize::MAX } else { at })
        };
        let both = |a: (f64, usize), b: (f64, usize)| (a.0.max(b.0), a.1.min(b.1));
        let errors = rows.par_chunks_exact(dim).enumerate().map_init(scratch, error);
        let (largest, lost) = errors.reduce(|| (0.0, usize::MAX), both);
        if let Some(row) = ids.get(lost) {
            return Err(JobError::Unfit(format!(
                "row {row} loses its direction in the encoding, which leaves {} values; use --encoding f32",
                if self.space == ListSpace::Unit { "zero" } else { "equal" }
            ))
            .into());
        }
        self.largest_error = self.largest_error.max(largest);
        Ok(codes)
    }
}

/// Refuses a value that float16 has no number for.
pub fn too_large(row: u64, value: f32) -> JobError {
    JobError::Unfit(format!("row {row} holds {value}, which float16 can't; use --encoding sq8, or scale the data down"))
}

/// Hands on full shards. Says false when nobody takes them.
type Send<'a> = &'a mut dyn FnMut(u64, Shard) -> bool;

/// Reads buckets and puts their records in order.
struct Sorter<'a> {
    state: &'a State,
    spill: &'a Spill,
    run: &'a Run<'a>,
    layout: Layout,
    record: usize,
    /// Most rows sorted at a time.
    room: u64,
    shard: u64,
    ids: Vec<u64>,
    rows: Vec<f32>,
}

impl<'a> Sorter<'a> {
    fn new(planned: &Planned<'_>, state: &'a State, spill: &'a Spill, run: &'a Run<'a>) -> Self {
        let (layout, room) = (planned.layout, planned.plan.sorted_rows);
        let record = record_words(planned.dim());
        Self { state, spill, run, layout, record, room, shard: 0, ids: Vec::new(), rows: Vec::new() }
    }

    fn all(mut self, send: Send<'_>) -> Result<(), Error> {
        for bucket in 0..self.state.bounds.len() {
            let first = self.state.bounds[bucket];
            let end = self.state.bounds.get(bucket + 1).copied().unwrap_or(self.state.counts.len() as u64);
            for lists in self.groups(first..end) {
                if self.run.stop.asked() {
                    return Err(JobError::Interrupted.into());
                }
                if !self.group(bucket, &lists, send)? {
                    return Ok(());
                }
            }
        }
        if self.shard != self.layout.shards() || !self.ids.is_empty() {
            let why = "rows that were put aside are missing; build the index again with --overwrite".to_owned();
            return Err(StoreError::Damaged { array: "the unfinished index".to_owned(), why }.into());
        }
        Ok(())
    }

    /// Cuts the lists of a bucket into runs that memory holds; a list that it does not hold is a run by itself.
    fn groups(&self, lists: Range<u64>) -> Vec<Range<u64>> {
        let (mut groups, mut first, mut rows) = (Vec::new(), lists.start, 0);
        for list in lists.clone() {
            let count = self.count(list);
            if rows + count > self.room && list > first {
                groups.push(first..list);
                (first, rows) = (list, 0);
            }
            rows += count;
        }
        groups.push(first..lists.end);
        groups
    }

    fn count(&self, list: u64) -> u64 {
        usize::try_from(list).ok().and_then(|list| self.state.counts.get(list)).copied().unwrap_or(0)
    }

    /// Hands on the rows of some lists of a bucket, list by list, each in the order of ids.
    fn group(&mut self, bucket: usize, lists: &Range<u64>, send: Send<'_>) -> Result<bool, Error> {
        let (spill, record) = (self.spill, self.record);
        let rows: u64 = lists.clone().map(|list| self.count(list)).sum();
        let mut open = true;
        if rows > self.room {
            // One list, so its records are in order as they come.
            spill.scan(bucket, record, |records| -> Result<(), Error> {
                if self.run.stop.asked() {
                    return Err(JobError::Interrupted.into());
                }
                for record in records.chunks_exact(record) {
                    if lists.contains(&u64::from(record[2])) && open {
                        open = self.push(record, send);
                    }
                }
                Ok(())
            })?;
            return Ok(open);
        }
        let mut held = Vec::with_capacity(usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(record));
        self.run.clock.time(Part::Read, || {
            spill.scan(bucket, record, |records| -> Result<(), StoreError> {
                let of_them = records.chunks_exact(record).filter(|record| lists.contains(&u64::from(record[2])));
                of_them.for_each(|record| held.extend_from_slice(record));
                Ok(())
            })
        })?;
        for at in by_list(&held, record, lists) {
            if !self.push(&held[at * record..(at + 1) * record], send) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds a row to the shard being filled, and hands that on when it is full.
    fn push(&mut self, record: &[u32], send: Send<'_>) -> bool {
        let of = self.layout.shard(self.shard);
        let full = usize::try_from(of.end - of.start).unwrap_or(usize::MAX);
        if self.ids.is_empty() {
            self.ids.reserve_exact(full);
            self.rows.reserve_exact(full * (record.len() - 3));
        }
        let (id, _, row) = parts(record);
        self.ids.push(id);
        self.rows.extend_from_slice(row);
        if self.ids.len() < full {
            return true;
        }
        let shard = Shard { ids: std::mem::take(&mut self.ids), rows: std::mem::take(&mut self.rows) };
        self.shard += 1;
        send(self.shard - 1, shard)
    }
}

/// Records by list, and within a list in the order in which they are: the places of records of these lists (a counting sort).
fn by_list(records: &[u32], record: usize, lists: &Range<u64>) -> Vec<usize> {
    let list = |at: usize| usize::try_from(u64::from(records[at * record + 2]) - lists.start).unwrap_or(usize::MAX);
    let n = records.len() / record;
    let mut next = vec![0; usize::try_from(lists.end - lists.start).unwrap_or(usize::MAX) + 1];
    (0..n).for_each(|at| next[list(at) + 1] += 1);
    for i in 1..next.len() {
        next[i] += next[i - 1];
    }
    let mut places = vec![0; n];
    for at in 0..n {
        let place = &mut next[list(at)];
        places[*place] = at;
        *place += 1;
    }
    places
}
