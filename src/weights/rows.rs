//! Rows of the mapping matrix from rows of neighbours. Rows are independent, so the bytes do not depend on threads.

use std::ops::Range;

use rayon::prelude::*;

use super::WeightKernel;
use super::stats::{DistanceStatistics, is_neighbour};
use crate::matrix::MatrixRows;
use crate::topk::TopK;

/// Rows that one task weighs: enough to hide the cost of a task and of its one scratch row.
const TASK_ROWS: usize = 1024;

/// Rows of the mapping matrix for these neighbours: columns ascending, each row summing to 1.
///
/// With `self_edges`, the rows' own ids, each row also gets itself at distance 0 (`statistics` must then be those
/// [`with_zeros`](DistanceStatistics::with_zeros)); where it is among its neighbours already, the two weights add up,
/// as in CellMapper. Weights and row sums are f64; each entry is weight × (1 / row sum), rounded once. A row whose
/// weights all underflow stays zero. Padding and infinite distances have no entry.
///
/// # Panics
/// When `self_edges` is not one id per row.
#[must_use]
pub fn weigh(
    kernel: WeightKernel,
    statistics: &DistanceStatistics,
    top: &TopK,
    self_edges: Option<Range<u64>>,
) -> MatrixRows {
    let first = self_edges.map(|ids| {
        assert_eq!(ids.end.checked_sub(ids.start), Some(top.rows() as u64), "one own id per row");
        ids.start
    });
    let own = |row: usize| first.map(|first| first + row as u64);
    let offsets = offsets(top, own);
    let entries = offsets[top.rows()];
    let (mut columns, mut weights) = (vec![0; entries], vec![0.0; entries]);
    let function = kernel.function(statistics);
    tasks(&offsets, &mut columns, &mut weights).into_par_iter().for_each(|task| {
        let mut row = Vec::with_capacity(top.k() + 1);
        for r in task.rows.clone() {
            row.clear();
            row.extend(found(top, r).map(|(id, d)| (id, function.at(f64::from(d)))));
            if let Some(own) = own(r) {
                match row.iter_mut().find(|entry| entry.0 == own) {
                    Some(entry) => entry.1 += function.at(0.0),
                    None => row.push((own, function.at(0.0))),
                }
            }
            row.sort_unstable_by_key(|entry| entry.0);
            let sum: f64 = row.iter().map(|entry| entry.1).sum();
            let scale = if sum > 0.0 { 1.0 / sum } else { 1.0 };
            let start = offsets[r] - offsets[task.rows.start];
            for (slot, &(column, weight)) in (start..).zip(&row) {
                task.columns[slot] = column;
                task.weights[slot] = narrow(weight * scale);
            }
        }
    });
    MatrixRows { offsets, columns, weights }
}

/// Un-normalised gauss weights, one per slot of `top`, 0 in slots without a neighbour: what presence scores add up.
///
/// CellMapper's presence never has self edges, so `statistics` must be without their zeros.
#[must_use]
pub fn gauss_weights(statistics: &DistanceStatistics, top: &TopK) -> Vec<f64> {
    let function = WeightKernel::Gauss.function(statistics);
    let weight = |(&id, &d): (&u64, &f32)| if is_neighbour(id, d) { function.at(f64::from(d)) } else { 0.0 };
    top.ids().par_iter().zip(top.distances()).with_min_len(TASK_ROWS * top.k()).map(weight).collect()
}

/// Some rows, and their part of the matrix.
struct Task<'a> {
    rows: Range<usize>,
    columns: &'a mut [u64],
    weights: &'a mut [f32],
}

fn tasks<'a>(offsets: &[usize], mut columns: &'a mut [u64], mut weights: &'a mut [f32]) -> Vec<Task<'a>> {
    let rows = offsets.len() - 1;
    let mut tasks = Vec::with_capacity(rows.div_ceil(TASK_ROWS));
    for start in (0..rows).step_by(TASK_ROWS) {
        let end = rows.min(start + TASK_ROWS);
        let (mine, rest) = columns.split_at_mut(offsets[end] - offsets[start]);
        columns = rest;
        let (my_weights, rest) = weights.split_at_mut(mine.len());
        weights = rest;
        tasks.push(Task { rows: start..end, columns: mine, weights: my_weights });
    }
    tasks
}

/// `rows + 1` offsets of the rows' entries.
fn offsets(top: &TopK, own: impl Fn(usize) -> Option<u64>) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(top.rows() + 1);
    let mut end = 0;
    offsets.push(end);
    for row in 0..top.rows() {
        let added = own(row).is_some_and(|own| found(top, row).all(|(id, _)| id != own));
        end += found(top, row).count() + usize::from(added);
        offsets.push(end);
    }
    offsets
}

fn found(top: &TopK, row: usize) -> impl Iterator<Item = (u64, f32)> {
    let (ids, distances) = top.row(row);
    ids.iter().copied().zip(distances.iter().copied()).filter(|&(id, d)| is_neighbour(id, d))
}

/// The nearest float32: M is float32 by definition.
#[allow(clippy::cast_possible_truncation)]
fn narrow(weight: f64) -> f32 {
    weight as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topk::nearer;
    use crate::units::K;
    use proptest::prelude::*;

    fn top(k: u32, rows: &[Vec<(f32, u64)>]) -> TopK {
        let mut top = TopK::empty(rows.len(), K::new(k).expect("k"));
        for (r, row) in rows.iter().enumerate() {
            let mut row = row.clone();
            row.sort_by(|a, b| nearer(*a, *b));
            top.set_row(r, &row);
        }
        top
    }

    fn statistics(top: &TopK) -> DistanceStatistics {
        let mut statistics = DistanceStatistics::default();
        statistics.extend(top);
        statistics
    }

    /// Neighbours with distances over many orders of magnitude, 0 included, rows of 0 to 6.
    fn any_rows() -> impl Strategy<Value = Vec<Vec<(f32, u64)>>> {
        let distance = prop_oneof![Just(0.0_f32), 1e-6_f32..1e3, 1e3_f32..1e8];
        let row = prop::collection::btree_map(0_u64..30, distance, 0..=6);
        prop::collection::vec(row.prop_map(|row| row.into_iter().map(|(id, d)| (d, id)).collect()), 0..40)
    }

    proptest! {
        #[test]
        fn rows_sum_to_one_or_are_zero_and_columns_ascend(rows in any_rows(), edges in any::<bool>()) {
            let top = top(6, &rows);
            let n = top.rows() as u64;
            let statistics = statistics(&top).with_zeros(if edges { n } else { 0 });
            for kernel in WeightKernel::ALL {
                let matrix = weigh(kernel, &statistics, &top, edges.then_some(0..n));
                prop_assert_eq!(matrix.rows(), top.rows());
                for r in 0..top.rows() {
                    let (columns, weights) = matrix.row(r);
                    prop_assert!(columns.is_sorted_by(|a, b| a < b));
                    let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
                    prop_assert!((sum - 1.0).abs() <= 3e-7 || weights.iter().all(|&w| w == 0.0), "{} {}", kernel, sum);
                    prop_assert!(!edges || columns.contains(&(r as u64)));
                }
            }
        }

        #[test]
        fn block_after_block_gives_the_rows_of_the_whole(rows in any_rows(), cut in 0_usize..40) {
            let cut = cut.min(rows.len());
            let (n, whole) = (rows.len() as u64, top(6, &rows));
            let statistics = statistics(&whole).with_zeros(n);
            let all = weigh(WeightKernel::Gauss, &statistics, &whole, Some(0..n));
            let (a, b) = (top(6, &rows[..cut]), top(6, &rows[cut..]));
            let parts = [(a, 0..cut as u64), (b, cut as u64..n)];
            let parts = parts.map(|(top, ids)| weigh(WeightKernel::Gauss, &statistics, &top, Some(ids)));
            prop_assert_eq!(&all.columns, &[parts[0].columns.clone(), parts[1].columns.clone()].concat());
            prop_assert_eq!(&all.weights, &[parts[0].weights.clone(), parts[1].weights.clone()].concat());
        }
    }

    #[test]
    fn more_rows_than_a_task_are_weighed_alike() {
        let row = vec![(1.0, 5), (2.0, 3)];
        let many = top(2, &vec![row.clone(); 2 * TASK_ROWS + 1]);
        let one = weigh(WeightKernel::InverseDistance, &DistanceStatistics::default(), &top(2, &[row]), None);
        let all = weigh(WeightKernel::InverseDistance, &DistanceStatistics::default(), &many, None);
        assert_eq!(one.columns, [3, 5]);
        assert!((0..many.rows()).all(|r| all.row(r) == one.row(0)));
    }

    #[test]
    fn a_self_edge_that_is_there_already_counts_twice() {
        let top = top(2, &[vec![(0.0, 7), (1.0, 9)]]);
        let matrix = weigh(WeightKernel::Equal, &DistanceStatistics::default(), &top, Some(7..8));
        assert_eq!((matrix.columns, matrix.weights), (vec![7, 9], vec![2.0 / 3.0, 1.0 / 3.0]));
    }

    #[test]
    fn a_row_that_underflows_stays_zero() {
        let top = top(1, &[vec![(1e-3, 0)], vec![(1e6, 1)]]);
        let far = DistanceStatistics { count: 2.0, mean: 1e-3, ..DistanceStatistics::default() };
        let matrix = weigh(WeightKernel::Gauss, &far, &top, None);
        assert_eq!(matrix.weights, [1.0, 0.0]);
    }

    #[test]
    fn padding_and_infinite_distances_have_no_entry() {
        let top = top(3, &[vec![], vec![(f32::INFINITY, 1), (2.0, 4)]]);
        let matrix = weigh(WeightKernel::Equal, &DistanceStatistics::default(), &top, None);
        assert_eq!((matrix.offsets, matrix.columns, matrix.weights), (vec![0, 0, 1], vec![4], vec![1.0]));
        assert_eq!(gauss_weights(&statistics(&top), &top), [0.0, 0.0, 0.0, (-0.5_f64).exp(), 0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "one own id per row")]
    fn self_edges_of_other_rows_are_refused() {
        let _ = weigh(WeightKernel::Equal, &DistanceStatistics::default(), &top(1, &[vec![]]), Some(0..2));
    }
}
