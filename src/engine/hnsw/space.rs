//! The space that a graph is made in: rows as f32 in which one distance orders them as the metric does. Squares of
//! differences for all metrics that go by lengths, of directions where the metric compares those.
//!
//! Rows are scaled by a power of two so that the largest value of the references is about 1: no square is beyond f32, and no
//! distance is NaN, at which the graph would panic.

// What is compared millions of times a second must end up in one function.
#![allow(clippy::inline_always)]

use std::cell::Cell;

use hnsw_rs::anndists::dist::Distance;
use rayon::prelude::*;

use crate::block::EachRow;
use crate::engine::cpu::exact::Norm;
use crate::metric::Metric;

/// Values that are larger than this, beside references of about 1, are too far for sums of squares in f32.
const FAR: f64 = 1e15;
/// Sums run in so many lanes, which is what the compiler makes instructions for several values of.
const LANES: usize = 16;

thread_local! {
    static COMPARED: Cell<u64> = const { Cell::new(0) };
}

/// How many distances this thread computed since it was last asked.
pub fn take_compared() -> u64 {
    COMPARED.take()
}

/// Where rows are placed.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    metric: Metric,
    scale: f64,
}

impl Space {
    /// For these references.
    pub fn of(metric: Metric, references: &dyn EachRow) -> Self {
        let largest_of = |room: &mut Vec<f32>, row: usize| {
            references.row_in(row, room).iter().fold(0.0, |most: f32, x| most.max(x.abs()))
        };
        let rows = (0..references.rows()).into_par_iter();
        let largest = rows.map_init(Vec::new, largest_of).reduce(|| 0.0, f32::max);
        let directions = matches!(metric, Metric::Cosine | Metric::Correlation);
        let scale = if largest == 0.0 || directions { 1.0 } else { (-f64::from(largest).log2().ceil()).exp2() };
        Self { metric, scale }
    }

    /// How far apart placed rows are.
    pub fn apart(self) -> Apart {
        Apart(match self.metric {
            Metric::Manhattan => Form::Absolute,
            Metric::Chebyshev => Form::Largest,
            _ => Form::Squares,
        })
    }

    /// Places a row; false where it is too far from the references to be placed.
    pub fn place(self, row: &[f32], out: &mut Vec<f32>) -> bool {
        let norm = Norm::of(self.metric, row);
        let factor = norm.inverse * self.scale;
        out.clear();
        let mut near = true;
        out.extend(row.iter().map(|&x| {
            let placed = (f64::from(x) - norm.mean) * factor;
            near &= placed.abs() <= FAR;
            #[allow(clippy::cast_possible_truncation)] // a graph need not know more
            let rounded = placed as f32;
            rounded
        }));
        near
    }
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Squares,
    Absolute,
    Largest,
}

/// The distance of placed rows: never NaN, never negative.
#[derive(Clone, Copy, Debug)]
pub struct Apart(Form);

impl Distance<f32> for Apart {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        COMPARED.set(COMPARED.get() + 1);
        match self.0 {
            Form::Squares => fold(a, b, |sum, d| sum + d * d, |x, y| x + y),
            Form::Absolute => fold(a, b, |sum, d| sum + d.abs(), |x, y| x + y),
            Form::Largest => fold(a, b, |most, d| f32::max(most, d.abs()), f32::max),
        }
    }
}

/// Differences, taken into lanes and those together, in an order that is always the same.
#[inline(always)]
fn fold(a: &[f32], b: &[f32], take: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = take(lanes[lane], a[lane] - b[lane]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = take(*lane, a - b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RowBlock, RowIds};
    use crate::engine::cpu::Measure;

    fn value(i: usize) -> f32 {
        f32::from(u16::try_from(i * 7919 % 10_007).unwrap()) / 999.0 - 3.0
    }

    #[test]
    fn placed_rows_are_ordered_as_the_metric_orders_them() {
        for dim in [1, 2, 15, 16, 17, 50] {
            for metric in Metric::ALL.into_iter().filter(|metric| metric.is_distance()) {
                let values: Vec<f32> = (0..30 * dim).map(|i| value(i) * 1e-20).collect();
                let block = RowBlock::new(RowIds::Range(0..30), dim, values).unwrap();
                let space = Space::of(metric, &block);
                let placed = |row: usize| {
                    let mut out = Vec::new();
                    assert!(space.place(block.row(row), &mut out));
                    out
                };
                if metric == Metric::Correlation && dim == 1 {
                    continue;
                }
                for row in 1..29 {
                    let exact = |other| f64::from(Measure::of(metric).distance(block.row(0), block.row(other)));
                    let near = |other| f64::from(space.apart().eval(&placed(0), &placed(other)));
                    let (exact, near) = ((exact(row), exact(row + 1)), (near(row), near(row + 1)));
                    if exact.0 < exact.1 * 0.999 {
                        assert!(near.0 < near.1, "{metric}, {dim}: {exact:?} {near:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_distance_is_nan_and_far_queries_are_known() {
        let block = |values: Vec<f32>| RowBlock::new(RowIds::Range(0..2), 3, values).unwrap();
        let references = block(vec![f32::MAX, -f32::MAX, 0.0, -f32::MAX, f32::MAX, f32::MIN_POSITIVE]);
        for metric in Metric::ALL {
            let space = Space::of(metric, &references);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            assert!(space.place(references.row(0), &mut a) && space.place(references.row(1), &mut b));
            let apart = space.apart().eval(&a, &b);
            assert!(apart > 0.5 && apart.is_finite(), "{metric}: {apart}");
        }
        let space = Space::of(Metric::Euclidean, &block(vec![1e-30; 6]));
        assert!(!space.place(&[1.0, 0.0, 0.0], &mut Vec::new()));
    }
}
