//! One task: some queries against some panels of one partition. Tasks share nothing but the top-k they merge into, and
//! merging gives the same rows in any order, so neither threads nor splits show in the result.
//!
//! What passes the filter in one leg of a task waits with what passes in the next: the sums of a partition are comparable,
//! so a query's exact distances are taken once, of what is left after all of its legs.

use std::cmp::Ordering;
use std::ops::Range;

use super::bounds::first_words;
use super::exact::{Norm, distance};
use super::filter::halve;
use super::nearest::{self, Pair, Room};
use super::panel_order::in_blocks;
use super::panels::{Packed, TWINS};
use super::pending::Pending;
use super::queries::Queries;
use super::simd::Simd;
use super::space::QueryFilter;
use super::tasks::{Leg, QueryRows, Task, index, queries_max, together_max};
use super::tile::{Form, Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::block::{EachRow, RowIds};
use crate::engine::{NO_GROUP, Partition};
use crate::metric::Metric;
use crate::topk::nearer;

/// Bytes of panels that all queries of a task pass before the next ones are read: half of a small L2 cache.
const BLOCK_BYTES: usize = 24 << 10;
/// Queries that are asked for before they are packed: their rows may lie anywhere in the block.
const PLACED_AHEAD: usize = 8;
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
pub(super) struct Group {
    /// Index into the tile widths.
    pub width: usize,
    /// First of its queries, among those of the leg.
    pub first: usize,
    pub count: usize,
    /// Where its queries begin in the packed ones, and its τ in `tile_tau`.
    values: usize,
    pub tau: usize,
    /// How often each of its queries was halved.
    halvings: u32,
}

/// What a task works in; kept from one task to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<usize>,
    /// Which of the task's queries a leg is of.
    pub members: Vec<usize>,
    pub groups: Vec<Group>,
    /// All queries as they are packed, `queries × words`.
    placed: Vec<i32>,
    /// Each group's queries, `words × width`.
    values: Vec<i32>,
    /// One per slot of a tile; what nothing passes where the tile is wider than its queries.
    pub tile_tau: Vec<i32>,
    /// Each query's.
    pub tau: Vec<i32>,
    /// The least sums of some references with each query of a tile; and their orders, of one query.
    pub least: Vec<i32>,
    pub orders: Vec<i32>,
    /// Biases for queries that were halved.
    halved: Vec<i32>,
    pub filters: Vec<QueryFilter>,
    norms: Vec<Norm>,
    pub pending: Pending,
    /// What a neighbour of each query must be nearer than.
    pub limits: Vec<Pair>,
    found: Vec<Pair>,
    room: Room,
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
    let (per_found, per_kept) = Room::BYTES;
    let found = (Pending::room(k) + TWINS) * (size_of::<Pair>() + per_found) + k * per_kept;
    let halved = BLOCK_BYTES.max(ROWS_MAX * size_of::<i32>());
    let least = first_words(k, simd.rows, WIDTH_MAX + 1) * size_of::<i32>();
    queries * query + found + halved + least + dim * size_of::<f32>() + size_of::<Hits>()
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
            // The first panel of what comes next is on its way meanwhile; those behind it are asked for as scans come near them.
            if let Some(next) = task.legs.get(at + 1) {
                let panel = self.words() * self.simd.rows;
                let values = &self.packed.values.as_slice()[index(next.rows.start) / self.simd.rows * panel..];
                Simd::prefetch(bytemuck::cast_slice(&values[..panel.min(values.len())]));
            }
            self.pass(leg, scratch, &mut hits);
            if at + 1 < task.legs.len() {
                self.narrow(scratch);
            }
        }
        // Rows of one query are on their way while those of the query before are measured.
        for query in 0..=scratch.rows.len() {
            if query < scratch.rows.len() {
                self.sift(scratch, query);
                self.prefetch(scratch, query);
            }
            if let Some(before) = query.checked_sub(1) {
                self.resolve(scratch, before);
            }
        }
        // A few for every query are what any filter lets pass.
        let few = self.queries.k.get() * scratch.rows.len();
        self.packed.note(searched, scratch.in_vain.saturating_sub(few));
    }

    /// Takes the queries of a leg past its panels.
    fn pass(&self, leg: &Leg, scratch: &mut Scratch, hits: &mut Hits) {
        self.group(scratch);
        let leg = index(leg.rows.start)..index(leg.rows.end);
        self.bound_first(scratch, &leg);
        self.add_first_repeats(scratch, &leg);
        let rows = self.simd.rows;
        let panels = leg.start / rows..leg.end.div_ceil(rows);
        let block = match scratch.groups.len() {
            // Nobody reads them again; a list of all runs would be long.
            0 | 1 => 1_024,
            _ => (BLOCK_BYTES / (size_of::<i32>() * rows * self.words())).max(1),
        };
        in_blocks(panels, block, |runs| {
            for group in 0..scratch.groups.len() {
                let group = scratch.groups[group];
                for run in runs {
                    self.scan(scratch, group, run, &leg, hits);
                }
            }
        });
    }

    fn words(&self) -> usize {
        self.packed.filter.form().words(self.part.block.dim())
    }

    /// Packs the task's queries, each by itself.
    pub(super) fn place(&self, queries: &QueryRows<'_>, scratch: &mut Scratch) {
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
            if let Some(&ahead) = rows.get(query + PLACED_AHEAD) {
                Simd::prefetch(bytemuck::cast_slice(self.queries.block.row(ahead)));
            }
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
    pub(super) fn group(&self, scratch: &mut Scratch) {
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
                for reference in run.clone().filter(|&reference| !self.same_group(row, reference)) {
                    self.measure(scratch, query, reference);
                }
                self.merge(scratch, query);
            }
        }
    }

    /// Makes the biases that queries of a group meet in these panels, where they were halved.
    pub(super) fn halve(&self, scratch: &mut Scratch, group: Group, run: &Range<usize>) {
        if group.halvings > 0 {
            halve(self.biases(run), group.halvings, &mut scratch.halved);
        }
    }

    fn biases(&self, run: &Range<usize>) -> &[i32] {
        &self.packed.bias[run.start * self.simd.rows..run.end * self.simd.rows]
    }

    /// One group of queries and one run of panels, whose biases are halved where they must be.
    pub(super) fn job<'s>(&'s self, scratch: &'s Scratch, group: Group, run: &Range<usize>) -> Scan<'s> {
        let (words, width) = (self.words(), self.simd.widths[group.width]);
        let panel = words * self.simd.rows;
        Scan {
            form: self.packed.filter.form(),
            panels: &self.packed.values.as_slice()[run.start * panel..run.end * panel],
            bias: if group.halvings > 0 { &scratch.halved } else { self.biases(run) },
            queries: &scratch.values[group.values..group.values + words * width],
            tau: &scratch.tile_tau[group.tau..group.tau + width],
            words,
        }
    }

    /// One group of queries against one run of panels.
    fn scan(&self, scratch: &mut Scratch, group: Group, run: &Range<usize>, rows: &Range<usize>, hits: &mut Hits) {
        let lanes = self.simd.rows;
        self.halve(scratch, group, run);
        let mut from = 0;
        loop {
            from = self.simd.scan(group.width, &self.job(scratch, group, run), from, hits);
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
        if self.same_group(scratch.rows[query], reference) {
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
                self.prefetch(scratch, query);
                self.resolve(scratch, query);
                self.tighten(scratch, query, f32::INFINITY);
            }
            scratch.tile_tau[group.tau + slot] = scratch.tau[query];
        }
    }

    /// Asks for the rows of what is pending, and for their ids.
    fn prefetch(&self, scratch: &Scratch, query: usize) {
        let block = &self.part.block;
        for reference in scratch.pending.rows(query).map(index) {
            Simd::prefetch(block.bytes(reference));
            if let RowIds::List(ids) = block.ids() {
                Simd::prefetch(bytemuck::bytes_of(&ids[reference]));
            }
        }
    }

    /// Measures everything that is pending.
    fn resolve(&self, scratch: &mut Scratch, query: usize) {
        while let Some(reference) = scratch.pending.pop(query) {
            self.measure(scratch, query, index(reference));
        }
        self.merge(scratch, query);
    }

    /// Gives a reference its exact distance and notes it where it is near enough, and not the query itself if that is excluded.
    fn measure(&self, scratch: &mut Scratch, query: usize, reference: usize) {
        let (block, row) = (&self.part.block, scratch.rows[query]);
        let id = block.ids().get(reference);
        if self.queries.own_row && self.queries.block.ids().get(row) == id {
            return;
        }
        let (norm, norm_r) = (scratch.norms[query], self.packed.norm(reference));
        let values = self.queries.block.row(row);
        let sum = self.simd.sum(values, block.row_in(reference, &mut scratch.decoded), norm, norm_r);
        let pair = (distance(self.metric, sum, norm, norm_r), id.0);
        if nearer(pair, scratch.limits[query]) == Ordering::Less {
            scratch.found.push(pair);
        } else {
            scratch.in_vain += 1;
        }
    }

    /// Merges what was noted into the query's top-k, which other tasks may be doing as well.
    fn merge(&self, scratch: &mut Scratch, query: usize) {
        let Scratch { rows, limits, found, room, .. } = scratch;
        if !found.is_empty() {
            limits[query] = self.queries.with_top(rows[query], |top, at| {
                nearest::merge(found, top, at, room);
                nearest::limit(top, at)
            });
            found.clear();
        }
    }

    /// Whether a query may not have a reference because of their group.
    #[inline]
    fn same_group(&self, query: usize, reference: usize) -> bool {
        match (&self.queries.groups, &self.part.groups) {
            (Some(of_query), Some(of_part)) => of_query[query] != NO_GROUP && of_query[query] == of_part[reference],
            _ => false,
        }
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
