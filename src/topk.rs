//! The k nearest of each query: one order for everyone, (distance by `total_cmp`, then id), −0 made 0.

use std::cmp::Ordering;
use std::ops::Range;

use crate::units::K;

/// The id in slots where a query has fewer than k neighbours; its distance is +∞.
pub const PADDING: u64 = u64::MAX;

/// What padding reads as: behind every neighbour.
const END: (f32, u64) = (f32::INFINITY, PADDING);

/// The one order of neighbours: by distance, then by id.
#[must_use]
pub fn nearer(a: (f32, u64), b: (f32, u64)) -> Ordering {
    // Adding 0 turns −0 into 0 and leaves everything else alone.
    (a.0 + 0.0).total_cmp(&(b.0 + 0.0)).then(a.1.cmp(&b.1))
}

/// Neighbours, `rows × k`: ids and distances ascending by [`nearer`], padded with ([`PADDING`], +∞).
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    rows: usize,
    k: usize,
    ids: Vec<u64>,
    distances: Vec<f32>,
}

/// Some rows of a [`TopK`], where they are: ids and distances, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TopRows<'a> {
    /// The ids.
    pub ids: &'a [u64],
    /// The distances.
    pub distances: &'a [f32],
}

impl TopK {
    /// `rows` queries that have no neighbours yet.
    #[must_use]
    pub fn empty(rows: usize, k: K) -> Self {
        let slots = rows * k.get();
        Self { rows, k: k.get(), ids: vec![PADDING; slots], distances: vec![f32::INFINITY; slots] }
    }

    /// Takes rows that are already in order, `rows × k` each. `None` when the lengths do not fit or a row is not
    /// ascending, repeats an id, or holds a NaN.
    #[must_use]
    pub fn from_parts(k: K, ids: Vec<u64>, distances: Vec<f32>) -> Option<Self> {
        let width = k.get();
        if ids.len() != distances.len() || !ids.len().is_multiple_of(width) {
            return None;
        }
        let in_order = ids.chunks_exact(width).zip(distances.chunks_exact(width)).all(|(ids, distances)| {
            distances.iter().all(|d| !d.is_nan())
                && (1..width).all(|j| {
                    let (a, b) = ((distances[j - 1], ids[j - 1]), (distances[j], ids[j]));
                    nearer(a, b) == Ordering::Less || (ids[j - 1] == PADDING && ids[j] == PADDING)
                })
        });
        in_order.then(|| Self { rows: ids.len() / width, k: width, ids, distances })
    }

    /// Takes rows that an engine keeps in order, which is looked at in tests only.
    #[must_use]
    pub(crate) fn from_sorted(k: K, ids: Vec<u64>, distances: Vec<f32>) -> Self {
        debug_assert!(Self::from_parts(k, ids.clone(), distances.clone()).is_some(), "rows are whole and in order");
        Self { rows: ids.len() / k.get(), k: k.get(), ids, distances }
    }

    /// How many queries.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Slots per query.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// All ids, row-major.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// All distances, row-major.
    #[must_use]
    pub fn distances(&self) -> &[f32] {
        &self.distances
    }

    /// All ids and all distances, row-major.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u64>, Vec<f32>) {
        (self.ids, self.distances)
    }

    /// One query's ids and distances, padding included.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u64], &[f32]) {
        let slots = row * self.k..(row + 1) * self.k;
        (&self.ids[slots.clone()], &self.distances[slots])
    }

    /// One query's neighbours without the padding.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn neighbours(&self, row: usize) -> (&[u64], &[f32]) {
        let (ids, distances) = self.row(row);
        let found = ids.iter().position(|&id| id == PADDING).unwrap_or(ids.len());
        (&ids[..found], &distances[..found])
    }

    /// Puts one query's neighbours, in order and at most k of them; the rest of its slots become padding.
    ///
    /// # Panics
    /// When there is no such row or there are more than k neighbours.
    pub fn set_row(&mut self, row: usize, neighbours: &[(f32, u64)]) {
        let start = row * self.k;
        assert!(neighbours.len() <= self.k, "{} neighbours for k = {}", neighbours.len(), self.k);
        for slot in 0..self.k {
            let (distance, id) = neighbours.get(slot).copied().unwrap_or((f32::INFINITY, PADDING));
            self.distances[start + slot] = distance + 0.0;
            self.ids[start + slot] = id;
        }
    }

    /// So many rows after the other, in order: all of their slots, to be written to.
    pub fn chunks_mut(&mut self, rows: usize) -> impl Iterator<Item = (&mut [u64], &mut [f32])> {
        let slots = rows.max(1) * self.k;
        self.ids.chunks_mut(slots).zip(self.distances.chunks_mut(slots))
    }

    /// These rows, where they are.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> TopRows<'_> {
        let slots = rows.start * self.k..rows.end * self.k;
        TopRows { ids: &self.ids[slots.clone()], distances: &self.distances[slots] }
    }

    /// These rows, on their own.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let TopRows { ids, distances } = self.part(rows.clone());
        Self { rows: rows.len(), k: self.k, ids: ids.to_vec(), distances: distances.to_vec() }
    }

    /// Drops all rows but these, in place: no memory is taken, and none is given back.
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn keep_rows(&mut self, rows: Range<usize>) {
        let slots = rows.start * self.k..rows.end * self.k;
        self.ids.truncate(slots.end);
        self.ids.drain(..slots.start);
        self.distances.truncate(slots.end);
        self.distances.drain(..slots.start);
        self.rows = rows.len();
        assert_eq!(self.ids.len(), self.rows * self.k, "these rows are there");
    }

    /// Every row without its first neighbour, `k` wide.
    ///
    /// # Panics
    /// When `k` is not one less than this.
    #[must_use]
    pub fn without_first(&self, k: K) -> Self {
        assert_eq!(k.get() + 1, self.k, "one column is dropped");
        let rest = |slots: usize| !slots.is_multiple_of(self.k);
        Self {
            rows: self.rows,
            k: k.get(),
            ids: self.ids.iter().enumerate().filter(|(slot, _)| rest(*slot)).map(|(_, &id)| id).collect(),
            distances: self.distances.iter().enumerate().filter(|(slot, _)| rest(*slot)).map(|(_, &d)| d).collect(),
        }
    }

    /// These rows and then the other's.
    ///
    /// # Panics
    /// When the two have different k.
    #[must_use]
    pub fn followed_by(mut self, other: &Self) -> Self {
        assert_eq!(self.k, other.k, "top-k of different k");
        self.rows += other.rows;
        self.ids.extend_from_slice(&other.ids);
        self.distances.extend_from_slice(&other.distances);
        self
    }

    /// Replaces `rows` rows from `at` on by those of `from`, beginning at its row `first`.
    ///
    /// # Panics
    /// When there are no such rows or the two have different k.
    pub fn copy_rows(&mut self, at: usize, from: &Self, first: usize, rows: usize) {
        assert_eq!(self.k, from.k, "top-k of different k");
        let target = at * self.k..(at + rows) * self.k;
        let source = first * self.k..(first + rows) * self.k;
        self.ids[target.clone()].copy_from_slice(&from.ids[source.clone()]);
        self.distances[target].copy_from_slice(&from.distances[source]);
    }

    /// Keeps, for each query, the k nearest of both; an id in both counts once. Associative, commutative, idempotent.
    ///
    /// # Panics
    /// When the two do not have the same rows and k.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.rows, self.k), (other.rows, other.k), "top-k of different shapes");
        let mut merged = Vec::with_capacity(self.k);
        for row in 0..self.rows {
            merged.clear();
            let (left, right) = (self.row(row), other.row(row));
            let (mut i, mut j) = (0, 0);
            while merged.len() < self.k && (i < self.k || j < self.k) {
                let a = left.1.get(i).map_or(END, |&distance| (distance, left.0[i]));
                let b = right.1.get(j).map_or(END, |&distance| (distance, right.0[j]));
                let order = nearer(a, b);
                i += usize::from(order != Ordering::Greater);
                j += usize::from(order != Ordering::Less);
                let next = if order == Ordering::Greater { b } else { a };
                if next.1 == PADDING {
                    break;
                }
                merged.push(next);
            }
            self.set_row(row, &merged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn k(k: u32) -> K {
        K::new(k).expect("small k")
    }

    fn top(width: u32, mut row: Vec<(f32, u64)>) -> TopK {
        row.sort_by(|a, b| nearer(*a, *b));
        row.dedup_by_key(|n| n.1);
        row.truncate(width as usize);
        let mut top = TopK::empty(1, k(width));
        top.set_row(0, &row);
        top
    }

    /// Rows whose distance is a function of the id, as in a search: the same pair never has two distances.
    fn rows() -> impl Strategy<Value = TopK> {
        prop::collection::btree_set(0_u64..40, 0..12)
            .prop_map(|ids| top(5, ids.into_iter().map(|id| ((id % 4) as f32 - 0.0, id)).collect()))
    }

    fn merged(a: &TopK, b: &TopK) -> TopK {
        let mut out = a.clone();
        out.merge(b);
        out
    }

    proptest! {
        #[test]
        fn merging_in_any_order_gives_the_same_rows(a in rows(), b in rows(), c in rows()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }
    }

    #[test]
    fn kept_rows_are_those_of_a_slice() {
        let mut all = TopK::empty(6, k(2));
        (0..6_u8).for_each(|row| all.set_row(usize::from(row), &[(f32::from(row), u64::from(row))]));
        for rows in [0..6, 0..0, 2..5, 5..6, 6..6, 0..1] {
            let mut kept = all.clone();
            kept.keep_rows(rows.clone());
            assert_eq!(kept, all.slice(rows));
        }
    }

    #[test]
    fn equal_distances_are_ordered_by_id_and_minus_zero_is_zero() {
        assert_eq!(nearer((-0.0, 1), (0.0, 2)), Ordering::Less);
        assert_eq!(nearer((0.0, 3), (-0.0, 2)), Ordering::Greater);
        let mut a = top(2, vec![(1.0, 9)]);
        a.merge(&top(2, vec![(1.0, 4), (1.0, 6)]));
        assert_eq!(a.ids(), [4, 6]);
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        assert!(TopK::from_parts(k(2), vec![1, 2], vec![2.0, 1.0]).is_none());
        assert!(TopK::from_parts(k(2), vec![2, 1], vec![1.0, 1.0]).is_none());
        assert!(TopK::from_parts(k(2), vec![1, PADDING], vec![1.0, f32::INFINITY]).is_some());
    }
}
