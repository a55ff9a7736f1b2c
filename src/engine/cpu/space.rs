//! The filter's space: rows centred, scaled and rounded to f32, and the bounds that make dropping a pair safe.
//!
//! For squared distances acc = ½‖r‖² − q·r on rows y = s(x − c), so ½‖q − r‖² = acc + ½‖q‖². With Q = ‖q‖, R = ‖r‖ and
//! u = 2⁻²⁴, rounding moves ½‖q − r‖² by at most
//!   2u(Q² + R²) + 2a(Q + R + a)    rows rounded to f32: each moves by u‖y‖ + a, a for underflow and f64 norms,
//!   γ(|bias| + ½(Q² + R²))         d fused or separate steps, γ ≈ (d + 4)u, since Σ|qᵢrᵢ| ≤ ½(Q² + R²).
//! What belongs to r lowers its bias and what belongs to q raises its τ, so each pair pays for its own size only. The
//! centre and scale change how tight this is, never what is found: everything that passes is computed exactly.

use super::exact::{Norm, is_directional, lane_sum, round};
use crate::block::EachRow;
use crate::metric::Metric;

/// The relative error of rounding to f32: 2⁻²⁴.
const U: f64 = f64::EPSILON * 268_435_456.0;
/// The smallest f32 step.
const TINY: f64 = 1.5e-45;
/// Rows farther than this from the centre, in median distances, would overflow; they are always computed exactly.
const FAR: f64 = 1e15;
/// A little more than 1: covers the rounding of the bounds themselves.
const MORE: f64 = 1.01;
/// How many rows the centre and scale are taken from.
const SAMPLE: usize = 128;

/// Where one partition's rows live for the filter.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub metric: Metric,
    pub centre: Vec<f64>,
    /// A power of two, so scaling rounds nothing.
    scale: f64,
    /// γ: the relative error of a sum over all dimensions.
    gamma: f64,
    /// a: how far rounding may move a row whatever its size.
    shift: f64,
}

/// What turns a query's k-th distance into its τ: gain × reach + offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryFilter {
    pub gain: f64,
    pub offset: f64,
    /// The query's own share of the error, included in `offset`.
    pub slack: f64,
    /// How often the query was halved to fit. Always 0 here; a `Grid` reads the other fields in its own way.
    pub halvings: u32,
}

impl Space {
    /// A space for these rows: centred on the medians of a sample and scaled so that its median norm is about 1, which
    /// outliers do not move.
    pub fn of(metric: Metric, block: &dyn EachRow, norm: impl Fn(usize) -> Norm) -> Self {
        let dim = block.dim();
        let n = block.rows().min(SAMPLE);
        let sample: Vec<(Vec<f32>, Norm)> = (0..n)
            .map(|i| i * block.rows() / n)
            .map(|row| (block.row_in(row, &mut Vec::new()).to_vec(), norm(row)))
            .collect();
        let steps = (dim + 4) as f64 * U;
        let gamma = if metric == Metric::Chebyshev { 4.0 * U } else { steps / (1.0 - steps) };
        let mut space = Self { metric, centre: vec![0.0; dim], scale: 1.0, gamma, shift: 0.0 };
        if n == 0 {
            return space;
        }
        if metric != Metric::InnerProduct {
            let mut column = vec![0.0; n];
            for (j, centre) in space.centre.iter_mut().enumerate() {
                for (value, (row, norm)) in column.iter_mut().zip(&sample) {
                    *value = (f64::from(row[j]) - norm.mean) * norm.inverse;
                }
                *centre = *column.select_nth_unstable_by(n / 2, f64::total_cmp).1;
            }
        }
        let mut sizes: Vec<f64> = sample.iter().map(|(row, norm)| space.size_of(row, *norm)).collect();
        sizes.sort_by(f64::total_cmp);
        let typical = if sizes[n / 2] > 0.0 { sizes[n / 2] } else { sizes[n - 1] };
        space.scale = reciprocal_power_of_two(typical);
        let underflow = (dim as f64).sqrt() * TINY;
        space.shift = if is_directional(metric) {
            // Beyond this the f64 rounding of the norms is all there is to see.
            space.scale = space.scale.min(2f64.powi(40));
            underflow + space.scale * (dim + 16) as f64 * 4.0 * f64::EPSILON
        } else {
            underflow
        };
        space
    }

    /// Puts a row into the space, times `extra`, and says how large it is: its norm (1-norm for manhattan, largest value
    /// for chebyshev).
    pub fn place(&self, row: &[f32], norm: Norm, extra: f64, out: &mut [f32]) -> f64 {
        let scale = self.scale * extra;
        for ((out, &x), &centre) in out.iter_mut().zip(row).zip(&self.centre) {
            *out = round(((f64::from(x) - norm.mean) * norm.inverse - centre) * scale);
        }
        match self.metric {
            Metric::Manhattan => lane_sum(out, out, |y, _| y.abs()),
            Metric::Chebyshev => out.iter().map(|&y| f64::from(y).abs()).fold(0.0, f64::max),
            _ => lane_sum(out, out, |y, _| y * y).sqrt(),
        }
    }

    /// How large a row is about the centre, before scaling.
    pub fn size_of(&self, row: &[f32], norm: Norm) -> f64 {
        let values = row.iter().zip(&self.centre).map(|(&x, c)| (f64::from(x) - norm.mean) * norm.inverse - c);
        match self.metric {
            Metric::Manhattan => values.map(f64::abs).sum(),
            Metric::Chebyshev => values.map(f64::abs).fold(0.0, f64::max),
            _ => values.map(|y| y * y).sum::<f64>().sqrt(),
        }
    }

    /// Puts a reference into the space and returns its bias and slack: how much higher its acc might have been. A
    /// reference that is too far out gets a bias of −∞, so that it always passes.
    pub fn reference(&self, row: &[f32], norm: Norm, out: &mut [f32]) -> (f32, f32) {
        let size = self.place(row, norm, 1.0, out);
        if size.is_nan() || size > FAR {
            out.fill(0.0);
            return (f32::NEG_INFINITY, f32::INFINITY);
        }
        let (start, slack) = match self.metric {
            Metric::InnerProduct => (0.0, 2.0 * MORE * (self.gamma + 2.0 * U) * size + 4.0 * (size + 2.0) * self.shift),
            Metric::Manhattan | Metric::Chebyshev => (0.0, self.linear_slack(size) * (1.0 + 4.0 * self.gamma)),
            _ => {
                let half = 0.5 * size * size;
                let start = half + self.zero_vector_share(norm);
                (start, MORE * self.gamma * (start + half) + self.rounding_slack(size))
            }
        };
        // Lowered by its share of the error; off by that much again, and by rounding the bias, the other way.
        (-round_up(slack - start), round_up(2.0 * slack + 4.0 * U * (start + slack) + TINY))
    }

    /// Puts a query into the space and returns what its τ follows from.
    pub fn query(&self, row: &[f32], norm: Norm, out: &mut [f32]) -> QueryFilter {
        // For inner products a factor per query changes no order, and a norm in 1..2 leaves the bound to the references.
        let own = match self.metric {
            Metric::InnerProduct => reciprocal_power_of_two(lane_sum(row, row, |x, _| x * x).sqrt()) / self.scale,
            _ => 1.0,
        };
        let size = self.place(row, norm, own, out);
        if size.is_nan() || size > FAR {
            out.fill(0.0);
            return QueryFilter { gain: 0.0, offset: f64::INFINITY, slack: f64::INFINITY, halvings: 0 };
        }
        let underflow = TINY * self.centre.len() as f64;
        match self.metric {
            Metric::InnerProduct => {
                QueryFilter { gain: self.scale * self.scale * own, offset: underflow, slack: underflow, halvings: 0 }
            }
            Metric::Manhattan | Metric::Chebyshev => {
                let share = 1.0 + 4.0 * self.gamma;
                let slack = self.linear_slack(size) * share;
                QueryFilter { gain: self.scale * share, offset: slack, slack, halvings: 0 }
            }
            _ => {
                let half = 0.5 * size * size;
                let slack = MORE * self.gamma * half + self.rounding_slack(size) + underflow;
                let square = self.scale * self.scale;
                let gain = if is_directional(self.metric) { square } else { 0.5 * square };
                QueryFilter { gain, offset: slack - half - self.zero_vector_share(norm), slack, halvings: 0 }
            }
        }
    }

    /// One row's share of what rounding rows to f32 does to ½‖q − r‖².
    fn rounding_slack(&self, size: f64) -> f64 {
        let moved = 2.0 * (U * size + self.shift);
        MORE * moved * (size + moved)
    }

    /// A zero vector stands ½ away from the unit sphere and must seem at 1.
    fn zero_vector_share(&self, norm: Norm) -> f64 {
        if norm.is_zero_vector() { 0.5 * self.scale * self.scale } else { 0.0 }
    }

    /// How much rounding a row of this size adds to a sum, or largest, of absolute differences.
    fn linear_slack(&self, size: f64) -> f64 {
        MORE * (2.0 * U * size + self.centre.len() as f64 * TINY)
    }

    /// The largest acc of any pair whose f32 distance could be `bound` or less.
    pub fn tau(&self, filter: QueryFilter, bound: f32) -> f32 {
        // Whatever rounds to `bound` lies below the next f32.
        let edge = f64::from(bound.next_up());
        let reach = if self.metric == Metric::Euclidean { edge * edge } else { edge };
        let reach = filter.gain * reach;
        round_up(reach + reach.abs() * 1e-12 + filter.offset)
    }

    /// A distance that no pair exceeds whose acc plus slack is this or less: the other direction of [`Self::tau`].
    pub fn bound(&self, filter: QueryFilter, acc: f64) -> f32 {
        let acc = match self.metric {
            // Their errors are relative to the sum.
            Metric::Manhattan | Metric::Chebyshev => acc * (1.0 + 12.0 * self.gamma),
            _ => acc,
        };
        let reach = (acc - filter.offset + 2.0 * filter.slack) / filter.gain;
        let reach = reach + reach.abs() * 1e-12;
        let bound = if self.metric == Metric::Euclidean { reach.max(0.0).sqrt() } else { reach };
        // Infinite or undefined where the query is too far out: then acc says nothing.
        if bound.is_finite() { round_up(bound).next_up() } else { f32::INFINITY }
    }
}

/// The next f32 at or above a value, within the finite ones, so that a bias of +∞ is above every τ.
pub(super) fn round_up(value: f64) -> f32 {
    let rounded = round(value);
    let up = if f64::from(rounded) < value { rounded.next_up() } else { rounded };
    if up.is_nan() { f32::MAX } else { up.clamp(f32::MIN, f32::MAX) }
}

/// The power of two that brings a norm to 1..2; 1 for 0 and what is not finite.
fn reciprocal_power_of_two(norm: f64) -> f64 {
    if norm > 0.0 && norm.is_finite() {
        let exponent = norm.to_bits() >> 52;
        f64::from_bits((2046 - exponent) << 52)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_bring_norms_near_one() {
        for norm in [1e-44, 0.3, 1.0, 1.999, 2.0, 7e41] {
            let scaled = norm * reciprocal_power_of_two(norm);
            assert!((1.0..2.0).contains(&scaled), "{norm} became {scaled}");
        }
        assert_eq!(reciprocal_power_of_two(0.0), 1.0);
    }

    #[test]
    fn rounding_up_never_goes_below() {
        for value in [0.1, -0.1, 1e-50, -1e-50, 1e60, -1e60, 16_777_217.0] {
            let up = f64::from(round_up(value));
            assert!(up >= value.min(f64::from(f32::MAX)), "{value} became {up}");
        }
        assert_eq!(round_up(f64::NAN), f32::MAX);
    }
}
