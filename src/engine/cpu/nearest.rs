//! Exact neighbours on their way into a query's top-k.

use std::cmp::Ordering;

use crate::topk::{PADDING, TopK, nearer};

/// A distance and an id.
pub(super) type Pair = (f32, u64);

/// Behind every neighbour.
const END: Pair = (f32::INFINITY, PADDING);

/// What a new neighbour of this row must be nearer than: its k-th, or the end.
pub(super) fn limit(top: &TopK, row: usize) -> Pair {
    let (ids, distances) = top.row(row);
    ids.last().zip(distances.last()).map_or(END, |(&id, &distance)| (distance, id))
}

/// Room to merge in.
#[derive(Debug, Default)]
pub(super) struct Room {
    keys: Vec<u64>,
    sorted: Vec<Pair>,
    merged: Vec<Pair>,
}

impl Room {
    /// Bytes per neighbour that is found, and per one that is kept.
    pub const BYTES: (usize, usize) = (size_of::<u64>() + size_of::<Pair>(), size_of::<Pair>());
}

/// Merges neighbours, in any order, into a row. One that is there already counts once.
pub(super) fn merge(found: &[Pair], top: &mut TopK, row: usize, room: &mut Room) {
    let Room { keys, sorted, merged } = room;
    sort(found, keys, sorted);
    let (ids, distances) = top.neighbours(row);
    if ids.is_empty() {
        top.set_row(row, &sorted[..sorted.len().min(top.k())]);
        return;
    }
    let found = &*sorted;
    merged.clear();
    let (mut old, mut new) = (0, 0);
    while merged.len() < top.k() && (old < ids.len() || new < found.len()) {
        let a = ids.get(old).map_or(END, |&id| (distances[old], id));
        let b = found.get(new).copied().unwrap_or(END);
        let order = nearer(a, b);
        old += usize::from(order != Ordering::Greater);
        new += usize::from(order != Ordering::Less);
        merged.push(if order == Ordering::Greater { b } else { a });
    }
    top.set_row(row, merged);
}

/// Sorts neighbours by one number each, which is faster than by two; where distances are equal, by both.
fn sort(found: &[Pair], keys: &mut Vec<u64>, sorted: &mut Vec<Pair>) {
    // As `f32::total_cmp` orders them.
    let order = |distance: f32| {
        let bits = distance.to_bits();
        bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
    };
    keys.clear();
    keys.extend(found.iter().zip(0_u64..).map(|(pair, at)| u64::from(order(pair.0)) << 32 | at));
    keys.sort_unstable();
    let at = |key: &u64| usize::try_from(key & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    sorted.clear();
    sorted.extend(keys.iter().map(|key| found[at(key)]));
    if keys.windows(2).any(|pair| pair[0] >> 32 == pair[1] >> 32) {
        sorted.sort_unstable_by(|a, b| nearer(*a, *b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::K;

    #[test]
    fn the_nearest_stay_in_whatever_order_they_come() {
        let all: Vec<Pair> = (0..200_u8).map(|i| (f32::from(i / 2), u64::from(i))).collect();
        for k in [1, 3, 30, 256] {
            for step in [1, 7, 199] {
                let mut top = TopK::empty(2, K::new(k).expect("k"));
                let order: Vec<Pair> = (0..200).map(|i| all[i * step % 200]).collect();
                for part in order.chunks(23) {
                    merge(part, &mut top, 1, &mut Room::default());
                }
                let width = all.len().min(top.k());
                let (ids, distances) = top.neighbours(1);
                assert!(distances.iter().copied().zip(ids.iter().copied()).eq(all[..width].iter().copied()));
                assert_eq!(limit(&top, 1), if all.len() < top.k() { END } else { all[width - 1] });
                assert_eq!(limit(&top, 0), END);
            }
        }
    }

    #[test]
    fn sorting_by_one_number_is_sorting_by_both() {
        let distances = [2.5, -1.0, 0.0, f32::MAX, -f32::MAX, 1e-45, 2.5, f32::NEG_INFINITY, -1.0, 0.5];
        let found: Vec<Pair> = distances.into_iter().zip((0..10_u64).rev()).collect();
        let (mut keys, mut sorted) = (Vec::new(), Vec::new());
        sort(&found, &mut keys, &mut sorted);
        let mut expected = found.clone();
        expected.sort_by(|a, b| nearer(*a, *b));
        assert_eq!(sorted, expected);
        sort(&[], &mut keys, &mut sorted);
        assert!(sorted.is_empty());
    }

    #[test]
    fn a_neighbour_that_was_there_counts_once() {
        let mut top = TopK::empty(1, K::new(3).expect("k"));
        top.set_row(0, &[(1.0, 1), (2.0, 2)]);
        merge(&[(2.0, 2), (1.5, 7)], &mut top, 0, &mut Room::default());
        assert_eq!(top.ids(), [1, 7, 2]);
    }
}
