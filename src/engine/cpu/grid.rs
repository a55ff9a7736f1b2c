//! Rows on a grid: rounded to whole numbers of 16 bits, whose products are summed exactly in 32.
//!
//! Two dimensions go where the float filter has one, so it passes twice the pairs in the same time. A row y = s(x − c)
//! becomes a row ŷ of whole numbers with an error of ‖y − ŷ‖, measured for every row: about 0.29√dim, whatever its size.
//! Then acc = ½‖r̂‖² − q̂·r̂ has no error but the half that ½‖r̂‖² is rounded down by, and for a k-th distance D a pair may
//! be dropped if
//!   ‖q̂ − r̂‖ > sD + ‖q − q̂‖ + max‖r − r̂‖,   that is   acc > ½((sD + errors)² − ‖q̂‖²) = τ.
//! Nothing overflows: norms are at most 2¹⁵ − 1, so by Cauchy and Schwarz every partial sum of q̂·r̂ stays within 2³⁰, and
//! with the bias within 1.5 · 2³⁰. References that are too long for that always pass. Queries that are too long are halved,
//! and the biases they meet with them, until they fit: their error doubles each time, but what they are compared with is far.
//!
//! Rows so close together that the grid does not tell them apart, beside others far away, are not for this filter:
//! [`Grid::of`] tries it on a sample and says so.

// Placing must end up inside the functions of `simd` that are compiled for an instruction set.
#![allow(clippy::inline_always)]

use rayon::prelude::*;

use super::exact::{Norm, is_directional};
use super::simd::Simd;
use super::space::{QueryFilter, Space, round_up};
use super::tile::Form;
use crate::block::EachRow;
use crate::metric::Metric;

/// The largest norm of a row of whole numbers.
const NORM_MAX: f64 = 32_767.0;
/// What the longest row that is meant to fit is scaled to: a little less, for rounding.
const LONGEST: f64 = 32_000.0;
/// Rows longer than so many times the median are left out of the scale: with them, the grid would be coarse for the rest.
const OUTLIER: f64 = 32.0;
/// One row, and one in so many, may be left out. They are computed exactly for every query.
const OUTLIERS: usize = 4096;
/// How often a query is halved at most; then it is as far away as to meet every reference exactly.
const HALVINGS_MAX: u32 = 16;
/// Covers the rounding of everything that is computed in f64 here.
const MORE: f64 = 1e-12;
/// Values of a row that are placed together.
const LANES: usize = 8;
/// 1.5 · 2⁵²: what is added to it is rounded to a whole number, which then is in the lowest bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Where one partition's rows live on the grid.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    metric: Metric,
    /// The path that rows are placed by.
    simd: Simd,
    centre: Vec<f64>,
    /// ‖c‖
    offset: f64,
    scale: f64,
    /// The largest error of a reference.
    pub error: f64,
}

/// A row that was put onto the grid.
struct Placed {
    /// ‖ŷ‖²
    square: f64,
    /// At least ‖y − ŷ‖.
    error: f64,
}

impl Grid {
    /// A grid for these rows, centred as `space` is, or `None` where too many would be outliers. Its `error` is that of
    /// whatever is placed after, and set by who does it.
    pub fn of(simd: &Simd, block: &dyn EachRow, space: &Space, norm: impl Fn(usize) -> Norm + Sync) -> Option<Self> {
        let size = |room: &mut Vec<f32>, row: usize| match norm(row) {
            // At distance 1 from everything, which no place on the grid is.
            norm if norm.is_zero_vector() => f32::INFINITY,
            norm => super::exact::round(space.size_of(block.row_in(row, room), norm)),
        };
        let mut sizes: Vec<f32> = (0..block.rows()).into_par_iter().map_init(Vec::new, size).collect();
        if sizes.is_empty() {
            return None;
        }
        let middle = sizes.len() / 2;
        let (_, &mut median, longer) = sizes.select_nth_unstable_by(middle, f32::total_cmp);
        let longest = longer.iter().copied().fold(median, f32::max);
        let most =
            if median > 0.0 { (OUTLIER * f64::from(median)).min(f64::from(longest)) } else { f64::from(longest) };
        let outliers = sizes.iter().filter(|&&size| f64::from(size) > most || size.is_infinite()).count();
        let scale = LONGEST / most;
        let suits = most > 0.0 && scale.is_normal() && outliers <= 1 + sizes.len() / OUTLIERS;
        let offset = space.centre.iter().map(|c| c * c).sum::<f64>().sqrt();
        let (metric, centre) = (space.metric, space.centre.clone());
        suits.then_some(Self { metric, simd: *simd, centre, offset, scale, error: 0.0 })
    }

    /// Puts a row onto the grid, times `factor`; `None` where it does not fit.
    fn place(&self, row: &[f32], norm: Norm, factor: f64, out: &mut [i32]) -> Option<Placed> {
        let (square, error) = self.simd.place(row, norm, (&self.centre, factor), out);
        // No comparison holds of NaN, which is what became of rows that are too large for f64.
        if square <= NORM_MAX * NORM_MAX {
            let error = error.sqrt();
            let moved = 16.0 * f64::EPSILON * (square.sqrt() + error + self.offset * factor.abs());
            Some(Placed { square, error: error * (1.0 + 1e-9) + moved })
        } else {
            out.fill(0);
            None
        }
    }

    /// Puts a reference onto the grid and returns its bias and error. One that does not fit always passes.
    pub fn reference(&self, row: &[f32], norm: Norm, out: &mut [i32]) -> (i32, f32) {
        match self.place(row, norm, self.scale, out) {
            Some(placed) if !norm.is_zero_vector() => (whole((0.5 * placed.square).floor()), round_up(placed.error)),
            _ => {
                out.fill(0);
                (Form::Pairs.always(), 0.0)
            }
        }
    }

    /// Puts a query onto the grid, negated, halved `halvings` times or as often as it takes to fit, and returns what its τ
    /// follows from: `gain` is the scale, `slack` the errors of both sides, `offset` ‖q̂‖².
    pub fn query(&self, row: &[f32], norm: Norm, halvings: u32, out: &mut [i32]) -> QueryFilter {
        for halvings in halvings..=HALVINGS_MAX {
            let unit = f64::from(1_u32 << halvings);
            if let Some(placed) = self.place(row, norm, -self.scale / unit, out) {
                let slack = placed.error * unit + self.error;
                if norm.is_zero_vector() {
                    break;
                }
                return QueryFilter { gain: self.scale, offset: placed.square * unit * unit, slack, halvings };
            }
        }
        out.fill(0);
        QueryFilter { gain: self.scale, offset: 0.0, slack: f64::INFINITY, halvings }
    }

    /// The largest acc of any pair whose f32 distance could be `bound` or less.
    pub fn tau(&self, filter: QueryFilter, bound: f32) -> i32 {
        // Whatever rounds to `bound` lies below the next f32.
        let edge = f64::from(bound.next_up());
        let edge = match self.metric {
            Metric::Euclidean => edge,
            metric if is_directional(metric) => (2.0 * edge).sqrt(),
            _ => edge.sqrt(),
        };
        let reach = edge * filter.gain * (1.0 + MORE) + filter.slack;
        let reach = reach * reach;
        let acc = 0.5 * (reach - filter.offset + MORE * (reach + filter.offset));
        // One row that may never pass has the largest of all sums.
        whole((acc / f64::from(1_u32 << filter.halvings)).clamp(-BIAS_LEAST, BIAS_LEAST).floor())
    }

    /// A distance that no pair exceeds whose acc is this or less: the other direction of [`Self::tau`].
    pub fn bound(&self, filter: QueryFilter, acc: f64) -> f32 {
        // Both the bias and its halves were rounded down.
        let square = 2.0 * (acc + 1.0) * f64::from(1_u32 << filter.halvings) + filter.offset;
        let distance = (square.max(0.0) * (1.0 + MORE) + MORE * filter.offset).sqrt() + filter.slack;
        let distance = distance / filter.gain * (1.0 + MORE);
        let bound = match self.metric {
            Metric::Euclidean => distance,
            metric if is_directional(metric) => 0.5 * distance * distance,
            _ => distance * distance,
        };
        if bound.is_finite() { round_up(bound).next_up() } else { f32::INFINITY }
    }
}

/// Rounds ((x − mean) · inverse − c) · factor to whole numbers, two to a word, and returns the sum of their squares, which is
/// exact, and of the squares of what rounding left. In 8 lanes, of which [`super::simd`] makes what each path has.
#[inline(always)]
pub(super) fn place(row: &[f32], norm: Norm, (centre, factor): (&[f64], f64), out: &mut [i32]) -> (f64, f64) {
    let (mut squares, mut errors) = ([0.0; LANES], [0.0; LANES]);
    for ((row, centre), out) in row.chunks(LANES).zip(centre.chunks(LANES)).zip(out.chunks_mut(LANES / 2)) {
        let mut bits = [0; LANES];
        let mut lane = |lane: usize, x: f32, centre: f64| {
            let value = ((f64::from(x) - norm.mean) * norm.inverse - centre) * factor;
            let rounded = value + ROUNDER;
            bits[lane] = rounded.to_bits();
            let rounded = rounded - ROUNDER;
            squares[lane] += rounded * rounded;
            errors[lane] += (value - rounded) * (value - rounded);
        };
        if let (Ok(row), Ok(centre)) = (<&[f32; LANES]>::try_from(row), <&[f64; LANES]>::try_from(centre)) {
            // A loop and nothing else is what ends up in registers.
            for at in 0..LANES {
                lane(at, row[at], centre[at]);
            }
        } else {
            row.iter().zip(centre).enumerate().for_each(|(at, (&x, &centre))| lane(at, x, centre));
        }
        for (out, pair) in out.iter_mut().zip(bits.chunks_exact(2)) {
            *out = halves(pair[0], pair[1]);
        }
    }
    (squares.iter().sum(), errors.iter().sum())
}

/// The lowest 16 bits of two numbers as one word.
#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
fn halves(low: u64, high: u64) -> i32 {
    ((low & 0xFFFF) as u32 | (high as u32) << 16).cast_signed()
}

/// acc of one pair, as a scan sums it for a query that was halved so many times.
pub(super) fn sum(query: &[i32], reference: &[i32], bias: i32, halvings: u32) -> i32 {
    let half = |word: i32, shift: u32| (word << shift) >> 16;
    let product = |(&q, &r): (&i32, &i32)| half(q, 16) * half(r, 16) + half(q, 0) * half(r, 0);
    let bias = if bias == Form::Pairs.always() { bias } else { bias >> halvings };
    query.iter().zip(reference).map(product).fold(bias, i32::wrapping_add)
}

/// τ stays within this, above every sum of rows that fit and below the bias of one that must not pass.
const BIAS_LEAST: f64 = 2_147_483_646.0;

/// A whole number that was made to fit, as an i32.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i32 {
    value as i32
}
