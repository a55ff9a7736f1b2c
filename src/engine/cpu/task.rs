//! One task: some queries against some panels of one partition. Tasks share nothing but the top-k they merge into, and
//! merging gives the same rows in any order, so neither threads nor splits show in the result.
//!
//! What passes the filter in one leg of a task waits with what passes in the next: the sums of a partition are comparable,
//! so a query's exact distances are taken once, of what is left after all of its legs.

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
use super::tasks::{Leg, QueryRows, Task, index, queries_max, together_max};
use super::tile::{Form, Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::block::EachRow;
use crate::engine::{NO_GROUP, Partition};
use crate::metric::Metric;
use crate::topk::nearer;
use crate::visit::Horizon;

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

/// Queries that share a tile.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Index into the tile widths.
    width: usize,
    /// First of its queries, among those of the leg.
    first: usize,
    count: usize,
    /// Where its queries begin in the packed ones, and its τ in `tile_tau`.
    values: usize,
    tau: usize,
    /// How often each of its queries was halved.
    halvings: u32,
}

/// What a task works in; kept from one task to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<usize>,
    /// Which of the task's queries a leg is of.
    members: Vec<usize>,
    groups: Vec<Group>,
    /// All queries as they are packed, `queries × words`.
    placed: Vec<i32>,
    /// Each group's queries, `words × width`.
    values: Vec<i32>,
    /// One per slot of a tile; what nothing passes where the tile is wider than its queries.
    tile_tau: Vec<i32>,
    /// Each query's.
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

/// Bytes that one thread's scratch takes.
pub(super) fn scratch_bytes(dim: usize, k: usize, simd: &Simd) -> usize {
    // A grid's queries take half the words each, and there may be more of them.
    let words = Form::Pairs.words(dim);
    let queries = queries_max(words, simd).max(together_max(words, Pending::room(k), simd)) + WIDTH_MAX;
    let pending = Pending::room(k) * size_of::<u64>();
    let query = 2 * dim * size_of::<i32>() + pending + size_of::<QueryFilter>() + size_of::<Norm>() + 80;
    let found = (Pending::room(k) + TWINS + k) * size_of::<Pair>();
    let halved = BLOCK_BYTES.max(ROWS_MAX * size_of::<i32>());
    queries * query + found + halved + dim * size_of::<f32>() + size_of::<Hits>()
}

impl Search<'_> {
    /// Searches and merges what is found into the queries' top-k.
    pub fn run(&self, task: &Task<'_>, scratch: &mut Scratch) {
        self.place(&task.queries, scratch);
        let mut hits = Hits::NONE;
        let mut searched = 0;
        for (at, leg) in task.legs.iter().enumerate() {
            scratch.members.clear();
            match leg.slots(task.slots) {
                Some(slots) => scratch.members.extend(slots.iter().map(|&slot| usize::from(slot))),
                None => scratch.members.extend(0..scratch.rows.len()),
            }
            searched += scratch.members.len() * leg.rows.len();
            self.pass(leg, scratch, &mut hits);
            if at + 1 < task.legs.len() {
                self.narrow(scratch);
            }
        }
        for query in 0..scratch.rows.len() {
            self.sift(scratch, query);
            self.resolve(scratch, query);
        }
        // A few for every query are what any filter lets pass.
        let few = self.queries.k.get() * scratch.rows.len();
        self.packed.note(searched, scratch.in_vain.saturating_sub(few));
    }

    /// Takes the queries of a leg past its panels.
    fn pass(&self, leg: &Leg, scratch: &mut Scratch, hits: &mut Hits) {
        self.group(scratch);
        let leg = index(leg.rows.start)..index(leg.rows.end);
        self.add_first_repeats(scratch, &leg);
        let rows = self.simd.rows;
        let panels = leg.start / rows..leg.end.div_ceil(rows);
        let block = (BLOCK_BYTES / (size_of::<i32>() * rows * self.words())).max(1);
        in_blocks(panels, block, |runs| {
            for group in 0..scratch.groups.len() {
                let group = scratch.groups[group];
                for run in runs {
                    self.scan(scratch, group, run, &leg, hits);
                }
            }
        });
    }

    /// Lowers τ before the next leg, of queries of which enough is pending: of those that have no bound yet, and of others
    /// as soon as sorting out is worth it.
    fn narrow(&self, scratch: &mut Scratch) {
        let k = self.queries.k.get();
        for member in 0..scratch.members.len() {
            let query = scratch.members[member];
            let waits = scratch.pending.len(query);
            let unbounded = || self.packed.filter.tau(scratch.filters[query], f32::INFINITY) == scratch.tau[query];
            if waits > 2 * k || (waits > k && unbounded()) {
                self.sift(scratch, query);
            }
        }
    }

    fn words(&self) -> usize {
        self.packed.filter.form().words(self.part.block.dim())
    }

    /// Packs the task's queries, each by itself.
    fn place(&self, queries: &QueryRows<'_>, scratch: &mut Scratch) {
        let (words, filter) = (self.words(), &self.packed.filter);
        let Scratch { rows, placed, filters, norms, pending, limits, tau, in_vain, .. } = scratch;
        *in_vain = 0;
        rows.clear();
        match queries {
            QueryRows::Run(range) => rows.extend(range.clone()),
            QueryRows::List(list) => rows.extend(list.iter().map(|&row| index(row))),
        }
        pending.reset(self.queries.room(), rows.len());
        limits.clear();
        limits.extend(rows.iter().map(|&row| self.queries.with_top(row, |top, at| nearest::limit(top, at))));
        norms.clear();
        norms.extend(rows.iter().map(|&row| Norm::of(self.metric, self.queries.block.row(row))));
        placed.resize(rows.len() * words, 0);
        filters.clear();
        tau.clear();
        for (query, placed) in placed.chunks_mut(words).enumerate() {
            let row = self.queries.block.row(rows[query]);
            let mut own = filter.query(row, norms[query], 0, placed);
            // Queries of one tile are halved alike, so few ways of it make full tiles.
            let halvings = if own.halvings > 0 { own.halvings.next_power_of_two() } else { 0 };
            if own.halvings < halvings {
                own = filter.query(row, norms[query], halvings, placed);
            }
            tau.push(filter.tau(own, limits[query].0));
            filters.push(own);
        }
    }

    /// Groups the queries of a leg to one tile each.
    fn group(&self, scratch: &mut Scratch) {
        let (words, widths) = (self.words(), self.simd.widths);
        let Scratch { members, groups, values, placed, tile_tau, tau, filters, .. } = scratch;
        groups.clear();
        tile_tau.clear();
        let (mut first, mut used) = (0, 0);
        while first < members.len() {
            let halvings = filters[members[first]].halvings;
            let most = widths[widths.len() - 1].min(members.len() - first);
            let alike = members[first..first + most].iter().take_while(|query| filters[**query].halvings == halvings);
            let count = alike.count();
            let width = widths.iter().position(|&w| w >= count).unwrap_or(widths.len() - 1);
            let slots = widths[width];
            groups.push(Group { width, first, count, values: used, tau: tile_tau.len(), halvings });
            values.resize(values.len().max(used + words * slots), 0);
            let group = &mut values[used..used + words * slots];
            for (slot, &query) in members[first..first + count].iter().enumerate() {
                let placed = &placed[query * words..(query + 1) * words];
                for (value, &placed) in group[slot..].iter_mut().step_by(slots).zip(placed) {
                    *value = placed;
                }
                tile_tau.push(tau[query]);
            }
            for slot in count..slots {
                group[slot..].iter_mut().step_by(slots).for_each(|value| *value = 0);
                tile_tau.push(self.packed.filter.form().always());
            }
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
            for member in 0..if run.is_empty() { 0 } else { scratch.members.len() } {
                let query = scratch.members[member];
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
                tau: &scratch.tile_tau[group.tau..group.tau + width],
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
        let query = scratch.members[group.first + slot];
        if !self.allowed(scratch.rows[query], reference) {
            return;
        }
        let form = self.packed.filter.form();
        if sum == form.always() {
            // Too far out for the filter, so its sum says nothing.
            self.measure(scratch, query, reference);
            self.merge(scratch, query);
        } else if scratch.pending.push(query, form.order(sum), u32::try_from(reference).unwrap_or(u32::MAX)) {
            self.sift(scratch, query);
            if 2 * scratch.pending.len(query) > self.queries.room() {
                // Equal or nearly so: only exact distances, and ids, tell them apart.
                self.resolve(scratch, query);
                self.tighten(scratch, query, f32::INFINITY);
            }
            scratch.tile_tau[group.tau + slot] = scratch.tau[query];
        }
    }

    /// Drops what is certainly beyond the horizon, and what k others, by their sums alone, are certain to be nearer than.
    fn sift(&self, scratch: &mut Scratch, query: usize) {
        let (k, filter) = (self.queries.k.get(), &self.packed.filter);
        let highest = |(order, row): (i32, u32)| filter.form().value(order) + f64::from(self.packed.slack(index(row)));
        if let Some(horizon) = self.queries.horizon {
            let mut nearest = [f32::INFINITY; Horizon::NEAREST];
            let nearest = &mut nearest[..Horizon::NEAREST.min(k)];
            if scratch.pending.len(query) > nearest.len() {
                let n = nearest.len();
                for (bound, slot) in nearest.iter_mut().zip(scratch.pending.smallest(query, n)) {
                    *bound = filter.bound(scratch.filters[query], highest(slot));
                }
                self.drop_beyond(scratch, query, horizon.reach(nearest));
            }
        }
        if scratch.pending.len(query) > k {
            let worst = scratch.pending.smallest(query, k).map(highest).fold(f64::NEG_INFINITY, f64::max);
            self.drop_beyond(scratch, query, filter.bound(scratch.filters[query], worst));
        }
    }

    /// Drops what is certain to be farther than this.
    fn drop_beyond(&self, scratch: &mut Scratch, query: usize, bound: f32) {
        self.tighten(scratch, query, bound);
        scratch.pending.drop_above(query, self.packed.filter.form().order(scratch.tau[query]));
    }

    /// Lowers a query's τ to what its k-th distance, or a bound of it, allows.
    fn tighten(&self, scratch: &mut Scratch, query: usize, bound: f32) {
        let bound = bound.min(scratch.limits[query].0);
        let (form, tau) = (self.packed.filter.form(), &mut scratch.tau[query]);
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
