//! Twin of `decode.wgsl`: the values of a row that came as codes.

/// What codes are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    /// Halves, as their bits, the lower byte first.
    Halves,
    /// A byte per value: the values of all bytes, `dim × 256`.
    Scaled(&'a [f32]),
    /// A byte for two values: patterns, `codes × 256 × 2`, and the centroid that they stand beside.
    Patterns(&'a [f32], &'a [f32]),
}

/// Bytes are one of so many.
pub const BYTES: usize = 256;

/// The `dim` values of a row.
#[must_use]
pub fn decode(kind: Kind<'_>, codes: &[u8], dim: usize) -> Vec<f32> {
    let byte = |at: usize| usize::from(codes[at]);
    let value = |k: usize| match kind {
        Kind::Halves => half(u16::from_le_bytes([codes[2 * k], codes[2 * k + 1]])),
        Kind::Scaled(table) => table[BYTES * k + byte(k)],
        Kind::Patterns(patterns, centroid) => centroid[k] + patterns[2 * (BYTES * (k / 2) + byte(k / 2)) + k % 2],
    };
    (0..dim).map(value).collect()
}

/// The value of a half by its definition: ±m · 2^(e − 25) with m of 11 bits, or of 10 and e = 1 where it is subnormal.
#[must_use]
pub fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let (m, e) = if exponent == 0 { (fraction, 1) } else { (fraction + 1024.0, exponent) };
    let size = m * 2f32.powi(e - 25);
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RowIds;
    use crate::block::codes::{CodedRows, Codes};

    #[test]
    fn every_finite_half_is_what_the_host_makes_of_it() {
        let all: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).filter(|half| half.is_finite()).collect();
        let (n, dim) = (all.len() as u64 / 4, 4);
        let rows = CodedRows::new(RowIds::Range(0..n), &[0..n], dim, Codes::Halves(all.clone())).unwrap();
        let mut decoded = vec![0.0; dim];
        for (row, halves) in all.chunks_exact(dim).enumerate() {
            rows.decode(row, &mut decoded);
            let codes: Vec<u8> = halves.iter().flat_map(|half| half.to_bits().to_le_bytes()).collect();
            let twin = decode(Kind::Halves, &codes, dim);
            assert!(twin.iter().zip(&decoded).all(|(a, b)| a.to_bits() == b.to_bits()), "{halves:?}: {twin:?}");
        }
    }
}
