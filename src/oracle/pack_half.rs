//! Twin of `pack_half.wgsl`: a packed row in f16, its share of what that rounding does, and a reference's columns.
//!
//! |q·r − q̂·r̂| ≤ εq·‖r‖ + ‖q̂‖·εr with ε = ‖y − ŷ‖, and each product is at most the mean of ε²/U and U‖·‖². So a row's
//! share is 1.01 · ½(U‖y‖² + ε²/U) + γ‖y‖² + 2e-7; U = 2⁻¹² is about the size of ε beside ‖y‖.
//!
//! Norms are below 181, so products are within ±32,768, biases within 20,000 and thresholds within ±60,000: a threshold at
//! its end lets every bias through. Rows and biases beyond that always pass.

use half::f16;

use super::numbers::{OPEN, kept16, raised16};

const U: f32 = 1.0 / 4096.0;
/// Half the square of the largest norm.
const HALF_MAX: f32 = 16_384.0;
/// The largest bias.
const BIAS_MAX: f32 = 20_000.0;

/// A row in f16.
#[derive(Clone, Debug, PartialEq)]
pub struct Half {
    /// `dim` values; zeros where it is too far out.
    pub values: Vec<f16>,
    /// Its share of the error; [`OPEN`] where it is too far out.
    pub share: f32,
}

/// A row of packed values, in f16.
#[must_use]
pub fn half(values: &[f32], gamma: f32) -> Half {
    let kept: Vec<f16> = values.iter().map(|y| f16::from_f32(kept16(y.clamp(-60_000.0, 60_000.0)))).collect();
    let sum = values.iter().fold(0.0, |sum, y| sum + y * y);
    let lost = values.iter().zip(&kept).fold(0.0, |sum, (y, kept)| sum + (y - kept.to_f32()).powi(2));
    if 0.5 * sum >= HALF_MAX {
        return Half { values: vec![f16::ZERO; values.len()], share: OPEN };
    }
    Half { values: kept, share: (0.5 * (U * sum + lost / U)) * 1.01 + gamma * sum + 0.000_000_2 }
}

/// A value in two parts, raised by more than what they lose.
pub(super) fn split(value: f32) -> [f16; 2] {
    let raised = (value + 0.000_002 * value.abs() + 0.000_000_2).clamp(-60_000.0, 60_000.0);
    let high = kept16(raised);
    [f16::from_f32(high), f16::from_f32(raised16(raised - high))]
}

/// A reference's columns: −bias, raised by its share, in two parts, and 1, 1. Rows that always pass have no values left.
#[must_use]
pub fn reference_columns(row: &mut Half, bias: f32) -> [f16; 4] {
    let absent = bias >= OPEN;
    let always = !absent && (row.share >= OPEN || !(-OPEN..=BIAS_MAX).contains(&bias));
    if absent || always {
        row.values.fill(f16::ZERO);
    }
    let [high, low] = match (absent, always) {
        (true, _) => [f16::MIN; 2],
        (_, true) => [f16::MAX; 2],
        _ => split(row.share - bias),
    };
    [high, low, f16::ONE, f16::ONE]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_parts_are_never_below_the_value() {
        for value in [0.0_f32, 1e-9, -1e-9, 3e-5, 0.1, -0.1, 1.234_567, -1.234_567, 777.7, -16_000.123, 59_000.9] {
            let [high, low] = split(value);
            let kept = f64::from(high.to_f32()) + f64::from(low.to_f32());
            assert!(kept >= f64::from(value), "{value} became {kept}");
            // What would be subnormal is raised to 2^-14.
            assert!(kept <= f64::from(value) + 4e-6 * f64::from(value.abs()) + 6.2e-5, "{value} became {kept}");
        }
    }

    #[test]
    fn a_share_covers_what_rounding_does_to_any_product() {
        let row = |seed: u32, dim: u32, scale: f32| -> Vec<f32> {
            (0..dim)
                .map(|k| (((seed + 7 * k).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * scale)
                .collect()
        };
        for dim in [1, 2, 17, 130] {
            for (a, b) in [(1e-6, 1e-6), (1e-3, 1.0), (1.0, 1.0), (0.1, 9.0), (9.0, 9.0)] {
                let (q, r) = (row(1, dim, a), row(99, dim, b));
                let (half_q, half_r) = (half(&q, 0.0), half(&r, 0.0));
                let product =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let wide = |half: &Half| half.values.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
                let off = (product(&q, &r) - product(&wide(&half_q), &wide(&half_r))).abs();
                assert!(off <= f64::from(half_q.share + half_r.share), "{dim} dimensions, {a} and {b}: {off}");
            }
        }
    }
}
