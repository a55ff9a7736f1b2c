//! Twin of `tile_half.wgsl`: the sum of one pair from f16 products, exact in f32. q·r − bias + threshold with the bounds of
//! both: its sign is the test, and zero passes.

use half::f16;

/// Σ of the products of all values and columns, in f32.
#[must_use]
pub fn sum(query: (&[f16], [f16; 4]), reference: (&[f16], [f16; 4])) -> f32 {
    let values = query.0.iter().zip(reference.0);
    let columns = query.1.iter().zip(&reference.1);
    values.chain(columns).fold(0.0, |sum, (q, r)| sum + q.to_f32() * r.to_f32())
}
