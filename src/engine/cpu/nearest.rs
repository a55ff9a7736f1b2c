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

/// Merges neighbours, in any order, into a row; `merged` is room to work in. One that is there already counts once.
pub(super) fn merge(found: &mut [Pair], top: &mut TopK, row: usize, merged: &mut Vec<Pair>) {
    found.sort_unstable_by(|a, b| nearer(*a, *b));
    merged.clear();
    let (ids, distances) = top.neighbours(row);
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
                let mut order: Vec<Pair> = (0..200).map(|i| all[i * step % 200]).collect();
                for part in order.chunks_mut(23) {
                    merge(part, &mut top, 1, &mut Vec::new());
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
    fn a_neighbour_that_was_there_counts_once() {
        let mut top = TopK::empty(1, K::new(3).expect("k"));
        top.set_row(0, &[(1.0, 1), (2.0, 2)]);
        merge(&mut [(2.0, 2), (1.5, 7)], &mut top, 0, &mut Vec::new());
        assert_eq!(top.ids(), [1, 7, 2]);
    }
}
