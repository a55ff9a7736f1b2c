//! The exact form of each metric: in f64, from the rows as they were given, in one fixed order of summation.
//!
//! Sums run in 8 lanes that end in a tree, with multiplication and addition rounded apart, so every instruction set
//! gives the same bytes. The bodies are inlined into [`super::simd`], which compiles them once per instruction set.

// The sums must end up inside the functions of `simd` that are compiled for an instruction set.
#![allow(clippy::inline_always)]

use rayon::prelude::*;

use crate::block::EachRow;
use crate::error::EngineError;
use crate::metric::Metric;

/// What turns a row into the direction that cosine and correlation compare: (x − mean) · inverse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Norm {
    pub mean: f64,
    /// 1 / ‖x − mean‖, or 0 for a zero vector, whose cosine distance is 1 to everything.
    pub inverse: f64,
}

impl Norm {
    /// Leaves a row as it is.
    pub const IDENTITY: Self = Self { mean: 0.0, inverse: 1.0 };

    /// The norm of a row, which is not a constant one under correlation.
    pub fn of(metric: Metric, row: &[f32]) -> Self {
        let mean = match metric {
            Metric::Cosine => 0.0,
            Metric::Correlation => lane_sum(row, row, |x, _| x) / row.len() as f64,
            _ => return Self::IDENTITY,
        };
        let norm = lane_sum(row, row, |x, _| (x - mean) * (x - mean)).sqrt();
        Self { mean, inverse: if norm == 0.0 { 0.0 } else { 1.0 / norm } }
    }

    pub fn is_zero_vector(self) -> bool {
        self.inverse == 0.0
    }
}

/// Whether the metric compares directions, so that rows are normalised first.
pub(in crate::engine) fn is_directional(metric: Metric) -> bool {
    matches!(metric, Metric::Cosine | Metric::Correlation)
}

/// Checks that all rows have a distance: under correlation, that none is constant.
///
/// # Errors
/// [`EngineError::ConstantRow`] with the first one's id, whatever the number of threads.
pub(in crate::engine) fn check_rows(metric: Metric, rows: &dyn EachRow, side: &'static str) -> Result<(), EngineError> {
    if metric != Metric::Correlation {
        return Ok(());
    }
    let is_constant = |room: &mut Vec<f32>, row: usize| {
        let row = rows.row_in(row, room);
        row.iter().all(|x| *x == row[0])
    };
    match (0..rows.rows()).into_par_iter().map_init(Vec::new, is_constant).position_first(|constant| constant) {
        Some(row) => Err(EngineError::ConstantRow { side, row: rows.ids().get(row).0 }),
        None => Ok(()),
    }
}

/// Σ term(q, r) in 8 lanes.
#[inline(always)]
pub(super) fn lane_sum(q: &[f32], r: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (q_chunks, r_chunks) = (q.chunks_exact(8), r.chunks_exact(8));
    let (q_rest, r_rest) = (q_chunks.remainder(), r_chunks.remainder());
    for (q, r) in q_chunks.zip(r_chunks) {
        for (lane, (&q, &r)) in lanes.iter_mut().zip(q.iter().zip(r)) {
            *lane += term(f64::from(q), f64::from(r));
        }
    }
    for (lane, (&q, &r)) in lanes.iter_mut().zip(q_rest.iter().zip(r_rest)) {
        *lane += term(f64::from(q), f64::from(r));
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Σ(q−r)²
#[inline(always)]
pub(super) fn squares(q: &[f32], r: &[f32], _: Norm, _: Norm) -> f64 {
    lane_sum(q, r, |q, r| (q - r) * (q - r))
}

/// Σ(q̂−r̂)²
#[inline(always)]
pub(super) fn unit_squares(q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
    lane_sum(q, r, |q, r| {
        let difference = (q - norm_q.mean) * norm_q.inverse - (r - norm_r.mean) * norm_r.inverse;
        difference * difference
    })
}

/// q·r
#[inline(always)]
pub(super) fn product(q: &[f32], r: &[f32], _: Norm, _: Norm) -> f64 {
    lane_sum(q, r, |q, r| q * r)
}

/// Σ|q−r|
#[inline(always)]
pub(super) fn absolute(q: &[f32], r: &[f32], _: Norm, _: Norm) -> f64 {
    lane_sum(q, r, |q, r| (q - r).abs())
}

/// max|q−r|
#[inline(always)]
pub(super) fn largest(q: &[f32], r: &[f32], _: Norm, _: Norm) -> f64 {
    // The largest of f32 values widened is exact, so its order does not matter.
    q.iter().zip(r).map(|(&q, &r)| (f64::from(q) - f64::from(r)).abs()).fold(0.0, f64::max)
}

/// The distance that is written, from the sum its metric is made of.
#[inline]
pub(super) fn distance(metric: Metric, sum: f64, norm_q: Norm, norm_r: Norm) -> f32 {
    let value = match metric {
        Metric::Euclidean => sum.sqrt(),
        Metric::SqEuclidean | Metric::Manhattan | Metric::Chebyshev => sum,
        Metric::InnerProduct => -sum,
        Metric::Cosine | Metric::Correlation if norm_q.is_zero_vector() || norm_r.is_zero_vector() => 1.0,
        Metric::Cosine | Metric::Correlation => 0.5 * sum,
    };
    // Adding 0 makes −0 into 0.
    round(value) + 0.0
}

/// The nearest f32: the one rounding of an exact distance.
#[allow(clippy::cast_possible_truncation)]
#[inline]
pub(in crate::engine) fn round(value: f64) -> f32 {
    value as f32
}
