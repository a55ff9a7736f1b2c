//! One task: some queries against some panels of one partition. Tasks share nothing but the top-k they merge into, and
//! merging gives the same rows in any order, so neither threads nor splits show in the result.

use std::cmp::Ordering;
use std::ops::Range;

use super::exact::{Norm, distance};
use super::nearest::{self, Pair};
use super::panel_order::in_blocks;
use super::panels::{Packed, TWINS};
use super::pending::Pending;
use super::queries::Queries;
use super::simd::Simd;
use super::space::QueryFilter;
use super::tile::{Hits, Scan, WIDTH_MAX};
use crate::engine::{NO_GROUP, Partition};
use crate::metric::Metric;
use crate::topk::nearer;

/// Most queries in a task: enough that reading a panel from memory is paid for, few enough for their candidates to stay
/// in the cache.
const QUERIES_MAX: usize = 48;
/// Bytes of queries in the filter's space that stay in the cache beside the panels.
const QUERY_BYTES: usize = 96 << 10;
/// Bytes of panels that all queries of a task pass before the next ones are read: half of a small L2 cache.
const BLOCK_BYTES: usize = 24 << 10;
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
}

/// What a task works in; kept from one task to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<usize>,
    groups: Vec<Group>,
    /// Each group's queries, `dim × width`.
    values: Vec<f32>,
    placed: Vec<f32>,
    /// One per slot of a tile; −∞ where the tile is wider than its queries.
    tau: Vec<f32>,
    filters: Vec<QueryFilter>,
    norms: Vec<Norm>,
    pending: Pending,
    /// What a neighbour of each query must be nearer than.
    limits: Vec<Pair>,
    found: Vec<Pair>,
    merged: Vec<Pair>,
}

/// How many queries a task should have.
pub(super) fn queries_per_task(dim: usize, simd: &Simd) -> usize {
    let widest = simd.widths.last().copied().unwrap_or(1);
    let fit = (QUERY_BYTES / (size_of::<f32>() * dim)).clamp(widest, QUERIES_MAX);
    fit - fit % widest
}

/// Bytes that one thread's scratch takes.
pub(super) fn scratch_bytes(dim: usize, k: usize, simd: &Simd) -> usize {
    let queries = queries_per_task(dim, simd) + WIDTH_MAX;
    let pending = Pending::room(k) * size_of::<u64>();
    let query = dim * size_of::<f32>() + pending + size_of::<QueryFilter>() + size_of::<Norm>() + 64;
    let found = (Pending::room(k) + TWINS + k) * size_of::<Pair>();
    queries * query + found + dim * size_of::<f32>() + size_of::<Hits>()
}

impl Search<'_> {
    /// Searches and merges what is found into the queries' top-k.
    pub fn run(&self, task: &Task<'_>, scratch: &mut Scratch) {
        scratch.rows.clear();
        match &task.queries {
            QueryRows::Run(range) => scratch.rows.extend(range.clone()),
            QueryRows::List(list) => scratch.rows.extend(list.iter().map(|&row| index(row))),
        }
        self.load(scratch);
        self.add_first_repeats(scratch, &task.rows);
        let rows = self.simd.rows;
        let panels = task.rows.start / rows..task.rows.end.div_ceil(rows);
        let block = (BLOCK_BYTES / (size_of::<f32>() * rows * self.part.block.dim())).max(1);
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
    }

    /// Puts the task's queries into the partition's space, in groups of one tile each.
    fn load(&self, scratch: &mut Scratch) {
        let (dim, k) = (self.part.block.dim(), self.queries.k.get());
        let Scratch { rows, groups, values, placed, tau, filters, norms, pending, limits, .. } = scratch;
        groups.clear();
        tau.clear();
        filters.clear();
        norms.clear();
        placed.resize(dim, 0.0);
        pending.reset(k, rows.len());
        limits.clear();
        limits.extend(rows.iter().map(|&row| self.queries.with_top(row, |top, at| nearest::limit(top, at))));
        let (mut first, mut used) = (0, 0);
        while first < rows.len() {
            let left = rows.len() - first;
            let widths = self.simd.widths;
            let width = widths.iter().position(|&w| w >= left).unwrap_or(widths.len() - 1);
            let slots = widths[width];
            let count = left.min(slots);
            groups.push(Group { width, first, count, values: used, tau: tau.len() });
            values.resize(values.len().max(used + dim * slots), 0.0);
            let group = &mut values[used..used + dim * slots];
            group.fill(0.0);
            for (slot, &row) in rows[first..first + count].iter().enumerate() {
                let values = self.queries.block.row(row);
                let norm = Norm::of(self.metric, values);
                let filter = self.packed.space.query(values, norm, placed);
                for (value, &placed) in group[slot..].iter_mut().step_by(slots).zip(placed.iter()) {
                    *value = placed;
                }
                tau.push(self.packed.space.tau(filter, limits[first + slot].0));
                filters.push(filter);
                norms.push(norm);
            }
            tau.resize(tau.len() + slots - count, f32::NEG_INFINITY);
            first += count;
            used += dim * slots;
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
        let (dim, lanes) = (self.part.block.dim(), self.simd.rows);
        let width = self.simd.widths[group.width];
        let mut from = 0;
        loop {
            let job = Scan {
                panels: &self.packed.values.as_slice()[run.start * dim * lanes..run.end * dim * lanes],
                bias: &self.packed.bias[run.start * lanes..run.end * lanes],
                queries: &scratch.values[group.values..group.values + dim * width],
                tau: &scratch.tau[group.tau..group.tau + width],
                dim,
            };
            from = self.simd.scan(group.width, &job, from, hits);
            if from == run.len() {
                return;
            }
            let first = (run.start + from) * lanes;
            for slot in 0..group.count {
                let mut mask = hits.masks[slot];
                while mask != 0 {
                    let lane = index(mask.trailing_zeros());
                    mask &= mask - 1;
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
    fn take(&self, scratch: &mut Scratch, group: Group, slot: usize, reference: usize, acc: f32) {
        let query = group.first + slot;
        if !self.allowed(scratch.rows[query], reference) {
            return;
        }
        if acc == f32::NEG_INFINITY {
            // Too far out for the filter, so its sum says nothing.
            self.measure(scratch, query, reference);
            self.merge(scratch, query);
        } else if scratch.pending.push(query, acc, u32::try_from(reference).unwrap_or(u32::MAX)) {
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
        let highest = |(acc, row): (f32, u32)| f64::from(acc) + f64::from(self.packed.slack(index(row)));
        let worst = scratch.pending.smallest(query, k).map(highest).fold(f64::NEG_INFINITY, f64::max);
        let bound = self.packed.space.bound(scratch.filters[query], worst);
        self.tighten(scratch, group, slot, bound);
        scratch.pending.drop_above(query, scratch.tau[group.tau + slot]);
    }

    /// Lowers a query's τ to what its k-th distance, or a bound of it, allows.
    fn tighten(&self, scratch: &mut Scratch, group: Group, slot: usize, bound: f32) {
        let query = group.first + slot;
        let bound = bound.min(scratch.limits[query].0);
        let tau = &mut scratch.tau[group.tau + slot];
        *tau = tau.min(self.packed.space.tau(scratch.filters[query], bound));
    }

    /// Measures everything that is pending.
    fn resolve(&self, scratch: &mut Scratch, query: usize) {
        let block = &self.part.block;
        for reference in scratch.pending.rows(query) {
            Simd::prefetch(block.row(index(reference)));
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
        let sum = self.simd.sum(values, block.row(reference), norm, norm_r);
        let pair = (distance(self.metric, sum, norm, norm_r), block.ids().get(reference).0);
        if nearer(pair, scratch.limits[query]) == Ordering::Less {
            scratch.found.push(pair);
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

/// A u32 as an index.
#[inline]
pub(super) fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
