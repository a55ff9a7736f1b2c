//! One task: some queries against some panels of one partition. Tasks share nothing but the top-k they merge into, and
//! merging gives the same rows in any order, so neither threads nor splits show in the result.

use std::cmp::Ordering;
use std::ops::Range;

use super::exact::{Norm, distance};
use super::filter::halve;
use super::nearest::{self, Pair};
use super::panel_order::in_blocks;
use super::panels::{Packed, TWINS};
use super::pending::Pending;
use super::queries::Queries;
use super::simd::Simd;
use super::space::QueryFilter;
use super::tile::{Form, Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::block::EachRow;
use crate::engine::{NO_GROUP, Partition};
use crate::metric::Metric;
use crate::topk::nearer;

/// Most queries in a task: enough that reading a panel from memory is paid for, few enough for their candidates to stay
/// in the cache.
const QUERIES_MAX: usize = 96;
/// Bytes of queries in the filter's space that stay in the cache beside the panels.
const QUERY_BYTES: usize = 384 << 10;
/// Bytes of panels that all queries of a task pass before the next ones are read: half of a small L2 cache.
const BLOCK_BYTES: usize = 24 << 10;
/// Queries that were halved so much more often than others do not share a tile: all would have the error of the worst.
const HALVINGS_APART: u32 = 4;

/// What all tasks of a visit share.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub metric: Metric,
    pub simd: &'a Simd,
    pub queries: &'a Queries,
    pub part: &'a Partition,
    pub packed: &'a Packed,
}

/// Rows of the query block.
#[derive(Clone, Debug)]
pub(super) enum QueryRows<'a> {
    Run(Range<usize>),
    List(&'a [u32]),
}

/// These queries against these rows of the partition.
#[derive(Clone, Debug)]
pub(super) struct Task<'a> {
    pub queries: QueryRows<'a>,
    pub rows: Range<usize>,
}

/// Queries that share a tile.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Index into the tile widths.
    width: usize,
    /// First of its queries, in the task.
    first: usize,
    count: usize,
    /// Where its queries begin in the packed ones, and its τ in `tau`.
    values: usize,
    tau: usize,
    /// How often all of its queries were halved.
    halvings: u32,
}

/// What a task works in; kept from one task to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<usize>,
    groups: Vec<Group>,
    /// All queries as they are packed, `queries × words`.
    placed: Vec<i32>,
    /// Each group's queries, `words × width`.
    values: Vec<i32>,
    /// One per slot of a tile; what nothing passes where the tile is wider than its queries.
    tau: Vec<i32>,
    /// Biases for queries that were halved.
    halved: Vec<i32>,
    filters: Vec<QueryFilter>,
    norms: Vec<Norm>,
    pending: Pending,
    /// What a neighbour of each query must be nearer than.
    limits: Vec<Pair>,
    found: Vec<Pair>,
    merged: Vec<Pair>,
    /// A reference that is kept as codes.
    decoded: Vec<f32>,
    /// Pairs that were computed exactly and were not near enough.
    in_vain: usize,
}

/// How many queries a task may have.
fn queries_max(words: usize, simd: &Simd) -> usize {
    let widest = simd.widths.last().copied().unwrap_or(1);
    let fit = (QUERY_BYTES / (size_of::<i32>() * words)).clamp(widest, QUERIES_MAX);
    fit - fit % widest
}

/// How many queries a task should have, of so many: as many as it may, or up to half of that where it leaves every thread
/// the same number of tasks.
pub(super) fn queries_per_task(words: usize, simd: &Simd, queries: usize, threads: usize) -> usize {
    let most = queries_max(words, simd);
    let widest = simd.widths.last().copied().unwrap_or(1);
    let tasks = queries.div_ceil(most).next_multiple_of(threads).max(1);
    let even = queries.div_ceil(tasks).next_multiple_of(widest);
    if queries > most && 2 * even >= most { even } else { most }
}

/// Bytes that one thread's scratch takes.
pub(super) fn scratch_bytes(dim: usize, k: usize, simd: &Simd) -> usize {
    // A grid's queries take half the words each, and there may be more of them.
    let words = Form::Pairs.words(dim);
    let queries = queries_max(words, simd) + WIDTH_MAX;
    let pending = Pending::room(k) * size_of::<u64>();
    let query = 2 * dim * size_of::<i32>() + pending + size_of::<QueryFilter>() + size_of::<Norm>() + 64;
    let found = (Pending::room(k) + TWINS + k) * size_of::<Pair>();
    let halved = BLOCK_BYTES.max(ROWS_MAX * size_of::<i32>());
    queries * query + found + halved + dim * size_of::<f32>() + size_of::<Hits>()
}

impl Search<'_> {
    /// Searches and merges what is found into the queries' top-k.
    pub fn run(&self, task: &Task<'_>, scratch: &mut Scratch) {
        scratch.rows.clear();
        scratch.in_vain = 0;
        match &task.queries {
            QueryRows::Run(range) => scratch.rows.extend(range.clone()),
            QueryRows::List(list) => scratch.rows.extend(list.iter().map(|&row| index(row))),
        }
        self.place(scratch);
        self.group(scratch);
        self.add_first_repeats(scratch, &task.rows);
        let rows = self.simd.rows;
        let panels = task.rows.start / rows..task.rows.end.div_ceil(rows);
        let block = (BLOCK_BYTES / (size_of::<i32>() * rows * self.words())).max(1);
        let mut hits = Hits::NONE;
        in_blocks(panels, block, |runs| {
            for group in 0..scratch.groups.len() {
                let group = scratch.groups[group];
                for run in runs {
                    self.scan(scratch, group, run, &task.rows, &mut hits);
                }
            }
        });
        for group in 0..scratch.groups.len() {
            let group = scratch.groups[group];
            for slot in 0..group.count {
                self.sift(scratch, group, slot);
                self.resolve(scratch, group.first + slot);
            }
        }
        // A few for every query are what any filter lets pass.
        let few = self.queries.k.get() * scratch.rows.len();
        self.packed.note(scratch.rows.len() * task.rows.len(), scratch.in_vain.saturating_sub(few));
    }

    fn words(&self) -> usize {
        self.packed.filter.form().words(self.part.block.dim())
    }

    /// Packs the task's queries, each by itself.
    fn place(&self, scratch: &mut Scratch) {
        let words = self.words();
        let Scratch { rows, placed, filters, norms, pending, limits, .. } = scratch;
        pending.reset(self.queries.k.get(), rows.len());
        limits.clear();
        limits.extend(rows.iter().map(|&row| self.queries.with_top(row, |top, at| nearest::limit(top, at))));
        norms.clear();
        norms.extend(rows.iter().map(|&row| Norm::of(self.metric, self.queries.block.row(row))));
        placed.resize(rows.len() * words, 0);
        filters.clear();
        for ((&row, &norm), placed) in rows.iter().zip(norms.iter()).zip(placed.chunks_mut(words)) {
            filters.push(self.packed.filter.query(self.queries.block.row(row), norm, 0, placed));
        }
    }

    /// Groups them to one tile each.
    fn group(&self, scratch: &mut Scratch) {
        let (words, filter, widths) = (self.words(), &self.packed.filter, self.simd.widths);
        let Scratch { rows, groups, values, placed, tau, filters, norms, limits, .. } = scratch;
        groups.clear();
        tau.clear();
        let (mut first, mut used) = (0, 0);
        while first < rows.len() {
            let own = filters[first].halvings;
            let most = widths[widths.len() - 1].min(rows.len() - first);
            let alike = filters[first..first + most].iter().take_while(|f| f.halvings.abs_diff(own) < HALVINGS_APART);
            let count = alike.count();
            let halvings = filters[first..first + count].iter().map(|f| f.halvings).max().unwrap_or(0);
            let width = widths.iter().position(|&w| w >= count).unwrap_or(widths.len() - 1);
            let slots = widths[width];
            groups.push(Group { width, first, count, values: used, tau: tau.len(), halvings });
            values.resize(values.len().max(used + words * slots), 0);
            let group = &mut values[used..used + words * slots];
            group.fill(0);
            for (slot, query) in (first..first + count).enumerate() {
                let placed = &mut placed[query * words..(query + 1) * words];
                if filters[query].halvings < halvings {
                    let row = self.queries.block.row(rows[query]);
                    filters[query] = filter.query(row, norms[query], halvings, placed);
                }
                for (value, &placed) in group[slot..].iter_mut().step_by(slots).zip(placed.iter()) {
                    *value = placed;
                }
                tau.push(filter.tau(filters[query], limits[query].0));
            }
            tau.resize(tau.len() + slots - count, filter.form().always());
            first += count;
            used += words * slots;
        }
    }

    /// Measures the repeats whose twins lie, in part, before the rows of this task.
    fn add_first_repeats(&self, scratch: &mut Scratch, rows: &Range<usize>) {
        let end = rows.end.min(rows.start + TWINS);
        let repeats = &self.packed.repeats;
        for run in &repeats[repeats.partition_point(|run| run.end <= rows.start)..] {
            let run = run.start.max(rows.start)..run.end.min(end);
            for query in 0..if run.is_empty() { 0 } else { scratch.rows.len() } {
                let row = scratch.rows[query];
                for reference in run.clone().filter(|&reference| self.allowed(row, reference)) {
                    self.measure(scratch, query, reference);
                }
                self.merge(scratch, query);
            }
        }
    }

    /// One group of queries against one run of panels.
    fn scan(&self, scratch: &mut Scratch, group: Group, run: &Range<usize>, rows: &Range<usize>, hits: &mut Hits) {
        let (words, lanes) = (self.words(), self.simd.rows);
        let width = self.simd.widths[group.width];
        let bias = &self.packed.bias[run.start * lanes..run.end * lanes];
        if group.halvings > 0 {
            halve(bias, group.halvings, &mut scratch.halved);
        }
        let mut from = 0;
        loop {
            let job = Scan {
                form: self.packed.filter.form(),
                panels: &self.packed.values.as_slice()[run.start * words * lanes..run.end * words * lanes],
                bias: if group.halvings > 0 { &scratch.halved } else { bias },
                queries: &scratch.values[group.values..group.values + words * width],
                tau: &scratch.tau[group.tau..group.tau + width],
                words,
            };
            from = self.simd.scan(group.width, &job, from, hits);
            if from == run.len() {
                return;
            }
            let first = (run.start + from) * lanes;
            for slot in bits(hits.queries).take_while(|&slot| slot < group.count) {
                for lane in bits(hits.masks[slot]) {
                    if rows.contains(&(first + lane)) {
                        self.take(scratch, group, slot, first + lane, hits.sums[slot][lane]);
                    }
                }
            }
            from += 1;
        }
    }

    /// Takes a reference that passed the filter.
    #[inline]
    fn take(&self, scratch: &mut Scratch, group: Group, slot: usize, reference: usize, sum: i32) {
        let query = group.first + slot;
        if !self.allowed(scratch.rows[query], reference) {
            return;
        }
        let form = self.packed.filter.form();
        if sum == form.always() {
            // Too far out for the filter, so its sum says nothing.
            self.measure(scratch, query, reference);
            self.merge(scratch, query);
        } else if scratch.pending.push(query, form.order(sum), u32::try_from(reference).unwrap_or(u32::MAX)) {
            self.sift(scratch, group, slot);
            if 2 * scratch.pending.len(query) > Pending::room(self.queries.k.get()) {
                // Equal or nearly so: only exact distances, and ids, tell them apart.
                self.resolve(scratch, query);
                self.tighten(scratch, group, slot, f32::INFINITY);
            }
        }
    }

    /// Drops what k others, by their sums alone, are certain to be nearer than.
    fn sift(&self, scratch: &mut Scratch, group: Group, slot: usize) {
        let (query, k) = (group.first + slot, self.queries.k.get());
        if scratch.pending.len(query) <= k {
            return;
        }
        let form = self.packed.filter.form();
        let highest = |(order, row): (i32, u32)| form.value(order) + f64::from(self.packed.slack(index(row)));
        let worst = scratch.pending.smallest(query, k).map(highest).fold(f64::NEG_INFINITY, f64::max);
        let bound = self.packed.filter.bound(scratch.filters[query], worst);
        self.tighten(scratch, group, slot, bound);
        scratch.pending.drop_above(query, form.order(scratch.tau[group.tau + slot]));
    }

    /// Lowers a query's τ to what its k-th distance, or a bound of it, allows.
    fn tighten(&self, scratch: &mut Scratch, group: Group, slot: usize, bound: f32) {
        let query = group.first + slot;
        let bound = bound.min(scratch.limits[query].0);
        let (form, tau) = (self.packed.filter.form(), &mut scratch.tau[group.tau + slot]);
        let lower = self.packed.filter.tau(scratch.filters[query], bound);
        if form.order(lower) < form.order(*tau) {
            *tau = lower;
        }
    }

    /// Measures everything that is pending.
    fn resolve(&self, scratch: &mut Scratch, query: usize) {
        let block = &self.part.block;
        for reference in scratch.pending.rows(query) {
            Simd::prefetch(block.bytes(index(reference)));
        }
        while let Some(reference) = scratch.pending.pop(query) {
            self.measure(scratch, query, index(reference));
        }
        self.merge(scratch, query);
    }

    /// Gives a reference its exact distance and notes it where it is near enough.
    fn measure(&self, scratch: &mut Scratch, query: usize, reference: usize) {
        let block = &self.part.block;
        let values = self.queries.block.row(scratch.rows[query]);
        let (norm, norm_r) = (scratch.norms[query], self.packed.norm(reference));
        let sum = self.simd.sum(values, block.row_in(reference, &mut scratch.decoded), norm, norm_r);
        let pair = (distance(self.metric, sum, norm, norm_r), block.ids().get(reference).0);
        if nearer(pair, scratch.limits[query]) == Ordering::Less {
            scratch.found.push(pair);
        } else {
            scratch.in_vain += 1;
        }
    }

    /// Merges what was noted into the query's top-k, which other tasks may be doing as well.
    fn merge(&self, scratch: &mut Scratch, query: usize) {
        let Scratch { rows, limits, found, merged, .. } = scratch;
        if !found.is_empty() {
            limits[query] = self.queries.with_top(rows[query], |top, at| {
                nearest::merge(found, top, at, merged);
                nearest::limit(top, at)
            });
            found.clear();
        }
    }

    /// Whether a query may have a reference. Masked rows never pass the filter.
    #[inline]
    fn allowed(&self, query: usize, reference: usize) -> bool {
        let queries = self.queries;
        let own = queries.own_row && queries.block.ids().get(query) == self.part.block.ids().get(reference);
        let same = match (&queries.groups, &self.part.groups) {
            (Some(of_query), Some(of_part)) => of_query[query] != NO_GROUP && of_query[query] == of_part[reference],
            _ => false,
        };
        !own && !same
    }
}

/// Where a mask's bits are, ascending.
#[inline]
fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (mask != 0).then(|| index(mask.trailing_zeros()));
        mask &= mask.wrapping_sub(1);
        at
    })
}

/// A u32 as an index.
#[inline]
pub(super) fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
