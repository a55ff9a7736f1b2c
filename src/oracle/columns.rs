//! Twin of `columns.wgsl`: the columns of a query's fragments.

use half::f16;

use super::pack_half::split;

/// 1, 1, and the threshold, raised by the query's share of the error, in two parts.
#[must_use]
pub fn query_columns(threshold: f32, share: f32) -> [f16; 4] {
    let is_open = threshold >= 1.0e38 || share >= 1.0e38;
    let [high, low] = split(if is_open { 60_000.0 } else { threshold + share });
    [f16::ONE, f16::ONE, high, low]
}
