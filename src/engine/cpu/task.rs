//! One task: some queries against some panels of one partition. Tasks share nothing but the top-k they merge into at
//! their end, and that merge gives the same rows in any order, so neither threads nor splits show in the result.

use std::ops::Range;

use super::exact::{Norm, distance};
use super::nearest::{Nearest, Pair};
use super::panels::Packed;
use super::queries::Queries;
use super::simd::{Masks, Scan, Simd, WIDTH_MAX};
use super::space::QueryFilter;
use crate::engine::{NO_GROUP, Partition};
use crate::metric::Metric;

/// Most queries in a task: enough that reading a panel from memory is paid for, few enough for their candidates to stay
/// in the cache.
const QUERIES_MAX: usize = 48;
/// Bytes of queries in the filter's space that stay in the cache beside the panels.
const QUERY_BYTES: usize = 96 << 10;
/// Bytes of panels that all queries of a task pass before the next ones are read: half of a small L2 cache.
const BLOCK_BYTES: usize = 192 << 10;
/// Panels are searched at these distances from each other first. References are often stored by cluster; a sample of
/// all of them brings τ near its end before most rows are met, whatever their order.
const STRIDES: [usize; 3] = [64, 8, 1];

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
    nearest: Nearest,
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
    let candidates = Nearest::capacity(k) * size_of::<Pair>();
    let query = dim * size_of::<f32>() + candidates + size_of::<QueryFilter>() + size_of::<Norm>() + 64;
    queries * query + k * size_of::<Pair>() + dim * size_of::<f32>()
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
        let rows = self.simd.rows;
        let panels = task.rows.start / rows..task.rows.end.div_ceil(rows);
        let block = (BLOCK_BYTES / (size_of::<f32>() * rows * self.part.block.dim())).max(1);
        in_blocks(panels, block, |runs| {
            for group in 0..scratch.groups.len() {
                for run in runs {
                    self.scan(scratch, group, run, &task.rows);
                }
            }
        });
        let Scratch { rows, nearest, merged, .. } = scratch;
        for (query, &row) in rows.iter().enumerate() {
            self.queries.with_top(row, |top, at| nearest.merge_into(query, top, at, merged));
        }
    }

    /// Puts the task's queries into the partition's space, in groups of one tile each.
    fn load(&self, scratch: &mut Scratch) {
        let (dim, k) = (self.part.block.dim(), self.queries.k.get());
        let Scratch { rows, groups, values, placed, tau, filters, norms, nearest, .. } = scratch;
        groups.clear();
        tau.clear();
        filters.clear();
        norms.clear();
        placed.resize(dim, 0.0);
        nearest.reset(k, rows.iter().map(|&row| self.queries.limit(row)));
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
                // Constant rows were refused in `begin`.
                let norm = Norm::of(self.metric, values).unwrap_or(Norm::IDENTITY);
                let filter = self.packed.space.query(values, norm, placed);
                for (value, &placed) in group[slot..].iter_mut().step_by(slots).zip(placed.iter()) {
                    *value = placed;
                }
                tau.push(self.packed.space.tau(filter, nearest.limit(first + slot).0));
                filters.push(filter);
                norms.push(norm);
            }
            tau.resize(tau.len() + slots - count, f32::NEG_INFINITY);
            first += count;
            used += dim * slots;
        }
    }

    /// One group of queries against one run of panels.
    fn scan(&self, scratch: &mut Scratch, group: usize, run: &Range<usize>, rows: &Range<usize>) {
        let (dim, lanes) = (self.part.block.dim(), self.simd.rows);
        let group = scratch.groups[group];
        let width = self.simd.widths[group.width];
        let mut masks: Masks = [0; WIDTH_MAX];
        let mut from = 0;
        loop {
            let job = Scan {
                panels: &self.packed.values[run.start * dim * lanes..run.end * dim * lanes],
                bias: &self.packed.bias[run.start * lanes..run.end * lanes],
                queries: &scratch.values[group.values..group.values + dim * width],
                tau: &scratch.tau[group.tau..group.tau + width],
                dim,
            };
            from = self.simd.scan(group.width, &job, from, &mut masks);
            if from == run.len() {
                return;
            }
            let first_row = (run.start + from) * lanes;
            for (slot, &mask) in masks[..group.count].iter().enumerate() {
                if mask != 0 {
                    self.take(scratch, group, slot, mask, first_row, rows);
                }
            }
            from += 1;
        }
    }

    /// Gives the references that passed the filter their exact distance.
    fn take(&self, scratch: &mut Scratch, group: Group, slot: usize, mut mask: u32, first: usize, rows: &Range<usize>) {
        let query = group.first + slot;
        let row = scratch.rows[query];
        let (values, norm) = (self.queries.block.row(row), scratch.norms[query]);
        let block = &self.part.block;
        let mut closer = false;
        while mask != 0 {
            let reference = first + index(mask.trailing_zeros());
            mask &= mask - 1;
            if !rows.contains(&reference) || !self.allowed(row, reference) {
                continue;
            }
            let norm_r = self.packed.norm(reference);
            let sum = self.simd.sum(values, block.row(reference), norm, norm_r);
            let found = distance(self.metric, sum, norm, norm_r);
            closer |= scratch.nearest.push(query, (found, block.ids().get(reference).0));
        }
        if closer {
            let limit = scratch.nearest.limit(query).0;
            scratch.tau[group.tau + slot] = self.packed.space.tau(scratch.filters[query], limit);
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

/// Hands out all panels once, in runs of consecutive ones, as many runs at a time as make a block: first a sample at
/// wide strides, then what lies between.
fn in_blocks(panels: Range<usize>, per_block: usize, mut visit: impl FnMut(&[Range<usize>])) {
    let n = panels.len();
    // A sample only pays where it is a small part.
    let first = STRIDES.iter().position(|stride| 4 * stride <= n).unwrap_or(STRIDES.len() - 1);
    let mut runs = Vec::new();
    let mut held = 0;
    for (level, &stride) in STRIDES.iter().enumerate().skip(first) {
        let done = if level == first { None } else { Some(STRIDES[level - 1]) };
        let mut at = 0;
        while at < n {
            if done.is_some_and(|done| at.is_multiple_of(done)) {
                at += stride;
                continue;
            }
            let end = match (stride, done) {
                (1, Some(done)) => at.next_multiple_of(done),
                (1, None) => at + per_block,
                _ => at + 1,
            };
            let end = end.min(n);
            runs.push(panels.start + at..panels.start + end);
            held += end - at;
            at = if stride == 1 { end } else { at + stride };
            if held >= per_block {
                visit(&runs);
                runs.clear();
                held = 0;
            }
        }
    }
    if !runs.is_empty() {
        visit(&runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_searched_once() {
        for (panels, per_block) in
            [(0..0, 4), (0..1, 1), (3..10, 4), (5..36, 7), (0..33, 100), (7..300, 5), (1..2000, 80)]
        {
            let mut seen = vec![0; panels.end];
            in_blocks(panels.clone(), per_block, |runs| {
                for panel in runs.iter().cloned().flatten() {
                    seen[panel] += 1;
                }
            });
            let expected: Vec<i32> = (0..panels.end).map(|p| i32::from(panels.contains(&p))).collect();
            assert_eq!(seen, expected, "{panels:?} by {per_block}");
        }
    }
}
