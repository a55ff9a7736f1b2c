//! What queries of a task are bounded by: what a neighbour's sum must not be above.

use std::ops::Range;

use super::task::{Scratch, Search};
use super::tasks::index;
use super::tile::Form;
use crate::visit::Horizon;

/// Least sums that are compared for each neighbour that is wanted: with so many, few of the nearest share one.
const LEAST_PER_NEIGHBOUR: usize = 2;
/// A first bound is of n references, n² being so many times k and all references: with more, comparing them takes longer than it
/// saves of those that pass, and with fewer it is the other way round.
const FIRST_SHARE: usize = 8;
/// And no more than so many, of as many references as there may be.
const FIRST_ROWS_MAX: usize = 4096;

/// Words that a first bound of a tile is worked out in.
pub(super) fn first_words(k: usize, lanes: usize, width: usize) -> usize {
    (LEAST_PER_NEIGHBOUR * (k + 1)).next_multiple_of(lanes) * width
}

impl Search<'_> {
    /// Bounds queries that have no bound, before any of these rows is looked at by itself: the least sums of k sets of rows that
    /// share none are those of k rows, and no k-th neighbour is farther than the farthest of those.
    ///
    /// Without this, rows pass until there are several times k, and wait until they are sorted out.
    pub(super) fn bound_first(&self, scratch: &mut Scratch, rows: &Range<usize>) {
        let (k, lanes) = (self.bounding(), self.simd.rows);
        let whole = rows.start.div_ceil(lanes)..rows.end / lanes;
        let sample = (FIRST_SHARE * k * rows.len()).isqrt().min(FIRST_ROWS_MAX).div_ceil(lanes).min(whole.len());
        let compared = LEAST_PER_NEIGHBOUR * self.wanted();
        let sets = compared.div_ceil(lanes).min(sample);
        // Rows of a query's group, which it does not get, may be the least of any number of sets, as its own is of one.
        if sets * lanes < compared || self.queries.groups.is_some() {
            return;
        }
        let runs =
            (0..sets).map(|set| whole.start + set * whole.len() / sets).map(|first| first..first + sample / sets);
        for group in 0..scratch.groups.len() {
            let group = scratch.groups[group];
            let members = group.first..group.first + group.count;
            let may_be_bounded =
                |query: usize| self.is_unbounded(scratch, query) && scratch.filters[query].slack.is_finite();
            if !members.clone().any(|member| may_be_bounded(scratch.members[member])) {
                continue;
            }
            let tile = self.simd.widths[group.width] * lanes;
            let mut least = std::mem::take(&mut scratch.least);
            least.resize(sets * tile, 0);
            for (run, least) in runs.clone().zip(least.chunks_mut(tile)) {
                self.halve(scratch, group, &run);
                self.simd.lowest(group.width, &self.job(scratch, group, &run), least);
            }
            for (slot, member) in members.enumerate() {
                let sums = least.chunks(tile).map(|least| &least[slot * lanes..(slot + 1) * lanes]);
                self.bound_by(scratch, scratch.members[member], sums);
                scratch.tile_tau[group.tau + slot] = scratch.tau[scratch.members[member]];
            }
            scratch.least = least;
        }
    }

    /// Bounds a query by sums that are no less than those of as many rows.
    fn bound_by<'s>(&self, scratch: &mut Scratch, query: usize, sums: impl Iterator<Item = &'s [i32]>) {
        let (filter, form) = (&self.packed.filter, self.packed.filter.form());
        let mut orders = std::mem::take(&mut scratch.orders);
        orders.clear();
        for least in sums {
            // One of these says nothing, and the other is of no row.
            let said = |&sum: &i32| if sum == form.always() { form.never() } else { sum };
            orders.extend(least.iter().map(said).map(|sum| form.order(sum)));
        }
        let (nearer, &mut last, _) = orders.select_nth_unstable(self.wanted() - 1);
        if last < form.order(form.never()) {
            let bound = |order: i32| {
                filter.bound(scratch.filters[query], form.value(order) + f64::from(self.packed.most_slack))
            };
            let last = bound(last);
            let reach = match self.horizon() {
                None => last,
                Some(horizon) => {
                    let mut nearest = [last; Horizon::NEAREST];
                    nearest.iter_mut().zip(&*nearer).for_each(|(nearest, &order)| *nearest = bound(order));
                    horizon.reach(&nearest[..self.wanted()])
                }
            };
            self.tighten(scratch, query, reach);
        }
        scratch.orders = orders;
    }

    /// How many of the nearest rows bound a query: k, or what a horizon is measured by.
    fn wanted(&self) -> usize {
        let k = self.bounding();
        if self.horizon().is_some() { k.min(Horizon::NEAREST) } else { k }
    }

    /// The horizon, where it shows in sums: a query's own row, which it does not get, would be among the nearest that a horizon
    /// is measured by.
    fn horizon(&self) -> Option<Horizon> {
        self.queries.horizon.filter(|_| !self.queries.own_row)
    }

    /// As many rows as bound a query: its own, which it may not get, can be one of them.
    fn bounding(&self) -> usize {
        self.queries.k.get() + usize::from(self.queries.own_row)
    }

    /// Whether a query has no bound yet.
    fn is_unbounded(&self, scratch: &Scratch, query: usize) -> bool {
        self.packed.filter.tau(scratch.filters[query], f32::INFINITY) == scratch.tau[query]
    }

    /// Lowers τ before the next leg, of queries of which enough is pending: of those that have no bound yet, and of others
    /// as soon as sorting out is worth it.
    pub(super) fn narrow(&self, scratch: &mut Scratch) {
        let k = self.bounding();
        for member in 0..scratch.members.len() {
            let query = scratch.members[member];
            let waits = scratch.pending.len(query);
            if waits > 2 * k || (waits > k && self.is_unbounded(scratch, query)) {
                self.sift(scratch, query);
            }
        }
    }

    /// Drops what is certainly beyond the horizon, and what k others, by their sums alone, are certain to be nearer than.
    pub(super) fn sift(&self, scratch: &mut Scratch, query: usize) {
        let (k, filter) = (self.bounding(), &self.packed.filter);
        let highest = |(order, row): (i32, u32)| filter.form().value(order) + f64::from(self.packed.slack(index(row)));
        if let Some(horizon) = self.horizon() {
            let mut nearest = [f32::INFINITY; Horizon::NEAREST];
            let nearest = &mut nearest[..self.wanted()];
            if scratch.pending.len(query) > nearest.len() {
                let n = nearest.len();
                for (bound, slot) in nearest.iter_mut().zip(scratch.pending.smallest(query, n)) {
                    *bound = filter.bound(scratch.filters[query], highest(slot));
                }
                self.drop_beyond(scratch, query, horizon.reach(nearest));
            }
        }
        if scratch.pending.len(query) > k {
            let smallest = scratch.pending.smallest(query, k);
            let worst = match filter.form() {
                // All are off by the same, and the k-th comes last.
                Form::Pairs => smallest.last().map_or(f64::INFINITY, highest),
                Form::Floats => smallest.map(highest).fold(f64::NEG_INFINITY, f64::max),
            };
            self.drop_beyond(scratch, query, filter.bound(scratch.filters[query], worst));
        }
    }

    /// Drops what is certain to be farther than this.
    fn drop_beyond(&self, scratch: &mut Scratch, query: usize, bound: f32) {
        self.tighten(scratch, query, bound);
        scratch.pending.drop_above(query, self.packed.filter.form().order(scratch.tau[query]));
    }

    /// Lowers a query's τ to what its k-th distance, or a bound of it, allows.
    pub(super) fn tighten(&self, scratch: &mut Scratch, query: usize, bound: f32) {
        let bound = bound.min(scratch.limits[query].0);
        let (form, tau) = (self.packed.filter.form(), &mut scratch.tau[query]);
        let lower = self.packed.filter.tau(scratch.filters[query], bound);
        if form.order(lower) < form.order(*tau) {
            *tau = lower;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance::{block, clustered, k};
    use crate::engine::cpu::panels::Packed;
    use crate::engine::cpu::queries::Queries;
    use crate::engine::cpu::simd::available;
    use crate::engine::cpu::tasks::QueryRows;
    use crate::engine::{Exclude, Partition};
    use crate::metric::Metric;
    use crate::oracle::search::distance;

    #[test]
    fn a_first_bound_keeps_what_is_wanted_and_little_else() {
        let (dim, n) = (20, 1_500);
        let k = k(15);
        let rows = block(0, dim, clustered(3, n, dim, 4));
        for (metric, own_row) in [(Metric::Euclidean, true), (Metric::Cosine, false), (Metric::Manhattan, true)] {
            let part = Partition::new(rows.clone());
            let exclude = if own_row { Exclude::OwnRow } else { Exclude::Nothing };
            for simd in available(metric) {
                for horizon in [None, Horizon::new(metric, 1.5)] {
                    let mut queries = Queries::new(metric, &rows.part(0..40), k, &exclude).expect("queries");
                    queries.horizon = horizon;
                    let packed = Packed::new(metric, &simd, &part, &queries, true).expect("packed");
                    let search = Search { metric, simd: &simd, queries: &queries, part: &part, packed: &packed };
                    let mut scratch = Scratch::default();
                    search.place(&QueryRows::Run(0..40), &mut scratch);
                    scratch.members.extend(0..40);
                    search.group(&mut scratch);
                    search.bound_first(&mut scratch, &(5..n - 3));
                    for query in 0..40 {
                        let to = |row: usize| distance(metric, rows.row(query), rows.row(row)).max(0.0);
                        let mut distances: Vec<f64> =
                            (5..n - 3).filter(|&row| !own_row || row != query).map(to).collect();
                        distances.sort_by(f64::total_cmp);
                        let within = |distance: f64| {
                            let tau = packed.filter.tau(scratch.filters[query], super::super::exact::round(distance));
                            packed.filter.form().order(tau) <= packed.filter.form().order(scratch.tau[query])
                        };
                        let kept = horizon.map_or(k.get(), |horizon| {
                            let nearest: Vec<f32> =
                                distances[..k.get()].iter().map(|&d| super::super::exact::round(d)).collect();
                            horizon.kept(&nearest)
                        });
                        let what = format!("{metric} on {}, {horizon:?}, query {query}", simd.name);
                        assert!(
                            distances[..kept].iter().all(|&distance| within(distance)),
                            "{what} loses some of {kept}"
                        );
                        assert!(!within(distances[n / 2]), "{what} lets half of all pass");
                    }
                }
            }
        }
    }
}
