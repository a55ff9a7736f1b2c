//! Twin of `exact.wgsl`: the exact form of a metric for one pair, in f32, as an **order**: bits that compare as the
//! distances do.
//!
//! Σ over groups of 256 dimensions, of Σ over blocks of 16, of four lanes of four: the error grows with the logarithm of
//! the dimension, as [`crate::metric::tie_band`] says.

use super::numbers::{Kept, ZERO_VECTOR, exponent_f32, scaled};
use crate::metric::Metric;

/// The order of 0.
const ZERO: u32 = 1 << 31;

/// The order of value · 2^e, rounded once to f32, subnormals included.
#[must_use]
pub fn order_of(value: f32, e: i32) -> u32 {
    #[allow(clippy::cast_possible_truncation)]
    let rounded = (f64::from(value) * 2f64.powi(e)) as f32;
    match rounded.to_bits() {
        _ if rounded == 0.0 => ZERO,
        bits if bits >> 31 == 1 => !bits,
        bits => bits | ZERO,
    }
}

/// The distance of an order.
#[must_use]
pub fn distance_of(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 1 { order & !ZERO } else { !order })
}

/// Σ term(q, r), blocked.
fn total(q: &[f32], r: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    q.chunks(256).zip(r.chunks(256)).fold(0.0, |sum, (q, r)| {
        sum + q.chunks(16).zip(r.chunks(16)).fold(0.0, |inner, (q, r)| {
            let mut lanes = [0.0_f32; 4];
            q.iter().zip(r).enumerate().for_each(|(i, (&q, &r))| lanes[i % 4] += term(q, r));
            inner + ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
        })
    })
}

fn largest_difference(q: &[f32], r: &[f32]) -> f32 {
    q.iter().zip(r).fold(0.0, |most, (q, r)| most.max((q - r).abs()))
}

/// The order of the distance of two rows of the same number of values.
#[must_use]
pub fn exact(metric: Metric, q: Kept<'_>, r: Kept<'_>) -> u32 {
    let directional = matches!(metric, Metric::Cosine | Metric::Correlation);
    if metric == Metric::InnerProduct {
        return order_of(-total(q.values, r.values, |q, r| q * r), q.exponent() + r.exponent());
    }
    if directional && (q.has(ZERO_VECTOR) || r.has(ZERO_VECTOR)) {
        return order_of(1.0, 0);
    }
    let e = q.exponent().max(r.exponent());
    let level = |row: Kept<'_>| row.values.iter().map(|&x| scaled(x, row.exponent() - e)).collect::<Vec<_>>();
    let (q, r) = (level(q), level(r));
    match metric {
        Metric::Manhattan => return order_of(total(&q, &r, |q, r| (q - r).abs()), e),
        Metric::Chebyshev => return order_of(largest_difference(&q, &r), e),
        _ => {}
    }
    let mut sum = total(&q, &r, |q, r| (q - r) * (q - r));
    let mut up = 0;
    // Squares may have been flushed: once more with the largest difference in 1..2.
    if sum < 8.0e-19 {
        let most = largest_difference(&q, &r);
        if most == 0.0 {
            return ZERO;
        }
        up = -exponent_f32(most);
        sum = total(&q, &r, |q, r| scaled(q - r, up).powi(2));
    }
    match metric {
        Metric::Euclidean => order_of(sum.sqrt(), e - up),
        Metric::SqEuclidean => order_of(sum, 2 * (e - up)),
        _ => order_of(0.5 * sum, 2 * (e - up)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metric::{EngineKind, tie_band};
    use crate::oracle::search;

    const PLAIN: u32 = 512;

    #[test]
    fn orders_compare_as_distances_and_round_once() {
        let distances = [f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 2.5, f32::MAX, f32::INFINITY];
        assert!(distances.is_sorted_by(|&a, &b| order_of(a, 0) < order_of(b, 0)));
        assert!(distances.iter().all(|&d| distance_of(order_of(d, 0)) == d));
        assert_eq!(order_of(-0.0, 0), order_of(0.0, 0));
        assert_eq!(distance_of(order_of(1.5, -149)), 2.0 * f32::from_bits(1), "ties to even");
        assert_eq!(distance_of(order_of(1.0, 200)), f32::INFINITY);
    }

    proptest! {
        #[test]
        fn the_blocked_sum_is_within_the_tie_band(dim in 1_usize..1200, seed: u64, offset in prop::sample::select(vec![0.0, 1.0, 1000.0])) {
            use rand::{RngExt, SeedableRng};
            let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut row = || (0..dim).map(|_| random.random_range(-1.0_f32..1.0) + offset).collect::<Vec<f32>>();
            let (q, r) = (row(), row());
            for metric in [Metric::Euclidean, Metric::SqEuclidean, Metric::Manhattan, Metric::Chebyshev, Metric::InnerProduct] {
                let kept = |values| Kept { values, flags: PLAIN };
                let found = f64::from(distance_of(exact(metric, kept(&q), kept(&r))));
                let expected = search::distance(metric, &q, &r);
                let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let band = tie_band(metric, dim, EngineKind::Gpu);
                prop_assert!(band.is_tie(found, expected, norm(&q) * norm(&r)), "{metric}: {found}, not {expected}");
            }
        }
    }
}
