//! Twin of `merge.wgsl`: candidates into a sorted top-k, and the threshold that follows from the last of it.

use super::numbers::{OPEN, scaled};
use crate::metric::Metric;

/// A neighbour. Smaller is nearer: by order, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// As [`super::exact::order_of`] gives it.
    pub order: u32,
    /// Row id.
    pub id: u64,
}

/// The k nearest of `top` and `candidates`, ascending; what is there twice counts once.
#[must_use]
pub fn merge(top: &[Neighbour], candidates: &[Neighbour], k: usize) -> Vec<Neighbour> {
    let mut all = [top, candidates].concat();
    all.sort_unstable();
    all.dedup();
    all.truncate(k);
    all
}

/// The largest sum of any pair whose distance could be of this order or less: reach + share · |reach| + offset, where
/// reach is what [`super::pack`] adds up without rounding: ½(d · 2^gain)² for euclidean, d · 2^gain for all others.
#[must_use]
pub fn threshold(metric: Metric, order: u32, gain: i32, offset: f32, share: f32) -> f32 {
    // Whatever rounds to a distance lies below the next one.
    let edge = super::exact::distance_of(order + 1);
    if !edge.is_finite() {
        return OPEN;
    }
    let (mut value, mut exponent) = (f32::from_bits(edge.to_bits() & 0x7f_ffff | 0x3f80_0000), 0);
    if edge.is_normal() {
        exponent = super::numbers::exponent_f32(edge);
    } else {
        // A subnormal is so many of the smallest steps.
        #[allow(clippy::cast_precision_loss)]
        let steps = (edge.to_bits() & 0x7f_ffff) as f32;
        (value, exponent) = (steps, exponent - 149);
    }
    let value = scaled(value, exponent + gain);
    let reach = match metric {
        Metric::Euclidean => 0.5 * value.min(1.0e19) * value.min(1.0e19),
        _ if edge.is_sign_negative() => -value.min(OPEN),
        _ => value.min(OPEN),
    };
    (reach + reach.abs() * share + offset).min(OPEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::exact::order_of;

    #[test]
    fn candidates_in_any_order_give_the_same_top() {
        let all: Vec<Neighbour> =
            (0..40_u32).map(|i| Neighbour { order: i * 7 % 5, id: u64::from(i * 11 % 37) << 30 }).collect();
        let expected = merge(&[], &all, 8);
        assert!(expected.is_sorted() && expected.len() == 8);
        for at in 0..40 {
            assert_eq!(merge(&merge(&[], &all[at..], 8), &all[..at.max(20)], 8), expected, "cut at {at}");
            assert_eq!(merge(&expected, &all, 8), expected);
        }
    }

    #[test]
    fn a_threshold_is_never_below_the_reach_of_its_distance() {
        for distance in [0.0_f32, 1e-45, 1e-40, 1e-20, 0.5, 3.0, 1e20, 1e38, f32::INFINITY] {
            for gain in [-130, -3, 0, 40, 200] {
                let found = threshold(Metric::Manhattan, order_of(distance, 0), gain, 0.0, 0.0);
                let reach = (f64::from(distance) * 2f64.powi(gain)).min(f64::from(OPEN));
                assert!(f64::from(found) >= reach - 1e-38, "{distance} · 2^{gain}: {found} for {reach}");
            }
        }
        let found = threshold(Metric::InnerProduct, order_of(-8.0, 0), -2, 0.0, 0.0);
        assert!((-2.0..-1.999).contains(&found), "{found}");
        assert_eq!(threshold(Metric::Euclidean, order_of(f32::MAX, 0), 0, 0.0, 0.0), OPEN);
    }
}
