//! The candidates of the queries of one task: exact distances, few more than k of each, cut back when full.

use std::cmp::Ordering;

use crate::topk::{PADDING, TopK, nearer};

/// A distance and an id.
pub(super) type Pair = (f32, u64);

/// Behind every neighbour.
const END: Pair = (f32::INFINITY, PADDING);

/// Candidates of some queries, `capacity` slots each, in no order.
#[derive(Debug, Default)]
pub(super) struct Nearest {
    k: usize,
    capacity: usize,
    slots: Vec<Pair>,
    lengths: Vec<usize>,
    /// What a candidate must be nearer than.
    limits: Vec<Pair>,
}

impl Nearest {
    /// Slots per query: room for as many again as are kept, so that cutting back costs little per candidate.
    pub fn capacity(k: usize) -> usize {
        2 * k + 16
    }

    /// Makes room for queries that already have neighbours behind these limits, and forgets everything else.
    pub fn reset(&mut self, k: usize, limits: impl Iterator<Item = Pair>) {
        self.k = k;
        self.capacity = Self::capacity(k);
        self.limits.clear();
        self.limits.extend(limits);
        self.lengths.clear();
        self.lengths.resize(self.limits.len(), 0);
        self.slots.resize(self.slots.len().max(self.limits.len() * self.capacity), END);
    }

    /// What a candidate of this query must be nearer than.
    #[inline]
    pub fn limit(&self, query: usize) -> Pair {
        self.limits[query]
    }

    /// Takes a candidate, if it is nearer than the limit.
    #[inline]
    pub fn push(&mut self, query: usize, pair: Pair) {
        if nearer(pair, self.limits[query]) != Ordering::Less {
            return;
        }
        let length = self.lengths[query];
        self.slots[query * self.capacity + length] = pair;
        self.lengths[query] = length + 1;
        // At k there is a limit for the first time; after that only a full buffer is worth sorting out.
        if length + 1 == self.k || length + 1 == self.capacity {
            self.cut(query);
        }
    }

    /// Keeps the k nearest.
    #[inline(never)]
    fn cut(&mut self, query: usize) {
        let slots = &mut self.slots[query * self.capacity..][..self.lengths[query]];
        let kth = *slots.select_nth_unstable_by(self.k - 1, |a, b| nearer(*a, *b)).1;
        self.lengths[query] = self.k;
        if nearer(kth, self.limits[query]) == Ordering::Less {
            self.limits[query] = kth;
        }
    }

    /// Merges a query's candidates into its row of a top-k; `merged` is room to work in.
    pub fn merge_into(&mut self, query: usize, top: &mut TopK, row: usize, merged: &mut Vec<Pair>) {
        let found = &mut self.slots[query * self.capacity..][..self.lengths[query]];
        if found.is_empty() {
            return;
        }
        found.sort_unstable_by(|a, b| nearer(*a, *b));
        merged.clear();
        let (ids, distances) = top.neighbours(row);
        let (mut old, mut new) = (0, 0);
        while merged.len() < self.k && (old < ids.len() || new < found.len()) {
            let a = ids.get(old).map_or(END, |&id| (distances[old], id));
            let b = found.get(new).copied().unwrap_or(END);
            let order = nearer(a, b);
            // The same row at the same distance was visited twice and counts once.
            old += usize::from(order != Ordering::Greater);
            new += usize::from(order != Ordering::Less);
            merged.push(if order == Ordering::Greater { b } else { a });
        }
        top.set_row(row, merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::K;

    fn found(limit: Pair, k: u32, pairs: &[Pair]) -> Vec<Pair> {
        let mut nearest = Nearest::default();
        nearest.reset(k as usize, std::iter::once(limit));
        for &pair in pairs {
            nearest.push(0, pair);
        }
        let mut top = TopK::empty(1, K::new(k).expect("k"));
        nearest.merge_into(0, &mut top, 0, &mut Vec::new());
        let (ids, distances) = top.neighbours(0);
        distances.iter().copied().zip(ids.iter().copied()).collect()
    }

    #[test]
    fn the_nearest_stay_in_whatever_order_they_come() {
        let ascending: Vec<Pair> = (0..200_u8).map(|i| (f32::from(i / 2), u64::from(i))).collect();
        let descending: Vec<Pair> = ascending.iter().rev().copied().collect();
        for k in [1, 3, 30, 256] {
            let expected = &ascending[..ascending.len().min(k as usize)];
            assert_eq!(found(END, k, &ascending), expected, "k = {k}");
            assert_eq!(found(END, k, &descending), expected, "k = {k}");
        }
    }

    #[test]
    fn a_limit_keeps_out_what_is_not_nearer() {
        assert_eq!(found((1.0, 5), 3, &[(1.0, 5), (1.0, 6), (1.0, 4), (2.0, 0)]), [(1.0, 4)]);
    }

    #[test]
    fn a_row_that_was_there_counts_once() {
        let mut top = TopK::empty(1, K::new(3).expect("k"));
        top.set_row(0, &[(1.0, 1), (2.0, 2)]);
        let mut nearest = Nearest::default();
        nearest.reset(3, std::iter::once(END));
        for pair in [(2.0, 2), (1.5, 7)] {
            nearest.push(0, pair);
        }
        nearest.merge_into(0, &mut top, 0, &mut Vec::new());
        assert_eq!(top.ids(), [1, 7, 2]);
    }
}
