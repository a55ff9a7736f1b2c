//! Twin of `tile.wgsl`: the sum of one pair, and which references a query lets through. Whatever has a sum above the
//! threshold is farther than the k-th best; equality passes, since a lower id must win.

use super::pack::Reference;
use crate::metric::Metric;

/// bias − q·r, Σ|q−r| + bias or max|q−r| + bias of packed rows.
#[must_use]
pub fn sum(metric: Metric, query: &[f32], reference: &Reference) -> f32 {
    let pairs = query.iter().zip(&reference.values);
    match metric {
        Metric::Manhattan => pairs.fold(0.0, |sum, (q, r)| sum + (q - r).abs()) + reference.bias(),
        Metric::Chebyshev => pairs.fold(0.0, |most: f32, (q, r)| most.max((q - r).abs())) + reference.bias(),
        _ => pairs.fold(reference.bias(), |sum, (q, r)| (-q).mul_add(*r, sum)),
    }
}

/// Rows of the references that a query with this threshold lets through.
#[must_use]
pub fn survivors(metric: Metric, query: &[f32], limit: f32, references: &[Reference]) -> Vec<usize> {
    (0..references.len()).filter(|&r| sum(metric, query, &references[r]) <= limit).collect()
}
