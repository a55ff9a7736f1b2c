//! Rows as an index keeps them, and back.

use half::f16;
use rayon::prelude::*;

use super::Encoding;
use crate::block::codes::halves_to_floats;
use crate::block::patterns::{Patterns, codes_per_row};
use crate::block::scale::Scale;
use crate::store::results::Values;

/// An encoding with what it needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Codec {
    /// [`Encoding::F32`].
    F32,
    /// [`Encoding::F16`].
    F16,
    /// [`Encoding::Sq8`].
    Sq8(Scale),
    /// [`Encoding::Pq`]: patterns of what is left of a row beside the centroid of its list.
    Pq(Patterns),
}

impl Codec {
    /// Codes per row.
    #[must_use]
    pub fn width(encoding: Encoding, dim: u64) -> u64 {
        match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Sq8 => dim,
            Encoding::Pq => codes_per_row(dim),
        }
    }

    /// Bytes of a row.
    #[must_use]
    pub fn row_bytes(encoding: Encoding, dim: u64) -> u64 {
        let bytes = match encoding {
            Encoding::F32 => 4,
            Encoding::F16 => 2,
            Encoding::Sq8 | Encoding::Pq => 1,
        };
        Self::width(encoding, dim) * bytes
    }

    /// Whether a value can be kept.
    #[must_use]
    pub fn holds(encoding: Encoding, value: f32) -> bool {
        encoding != Encoding::F16 || f16::from_f32(value).is_finite()
    }

    /// The codes of rows. Patterns are of rows in the space that lists are made in, whose centroids `centroid` knows.
    ///
    /// # Errors
    /// The place of the first value that cannot be kept.
    pub fn encode<'c>(
        &self,
        rows: &[f32],
        dim: usize,
        centroid: impl Fn(usize) -> &'c [f32] + Sync,
    ) -> Result<Values, usize> {
        match self {
            Self::F32 => Ok(Values::F32(rows.to_vec())),
            Self::F16 => {
                let codes: Vec<f16> = rows.par_iter().map(|value| f16::from_f32(*value)).collect();
                match codes.iter().position(|code| !code.is_finite()) {
                    Some(at) => Err(at),
                    None => Ok(Values::F16(codes)),
                }
            }
            Self::Sq8(scale) => {
                let mut bytes = vec![0; rows.len()];
                let both = bytes.par_chunks_exact_mut(dim).zip(rows.par_chunks_exact(dim));
                both.for_each(|(bytes, row)| scale.encode(row, bytes));
                Ok(Values::U8(bytes))
            }
            Self::Pq(patterns) => {
                let mut bytes = vec![0; rows.len() / dim * patterns.codes()];
                let both = bytes.par_chunks_exact_mut(patterns.codes()).zip(rows.par_chunks_exact(dim)).enumerate();
                both.for_each(|(at, (bytes, row))| patterns.encode(row, centroid(at), bytes));
                Ok(Values::U8(bytes))
            }
        }
    }

    /// One of the rows that codes are of.
    pub fn decode(&self, codes: &Values, row: usize, centroid: &[f32], out: &mut [f32]) {
        let dim = out.len();
        match (self, codes) {
            (_, Values::F32(values)) => out.copy_from_slice(&values[row * dim..(row + 1) * dim]),
            (_, Values::F16(values)) => halves_to_floats(&values[row * dim..(row + 1) * dim], out),
            (Self::Sq8(scale), Values::U8(bytes)) => scale.decode(&bytes[row * dim..(row + 1) * dim], out),
            (Self::Pq(patterns), Values::U8(bytes)) => {
                let n = patterns.codes();
                patterns.decode(&bytes[row * n..(row + 1) * n], centroid, out);
            }
            _ => out.fill(f32::NAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(codec: &Codec, rows: &[f32], dim: usize) -> Vec<f32> {
        let centroid = vec![0.0; dim];
        let codes = codec.encode(rows, dim, |_| centroid.as_slice()).unwrap();
        let mut out = vec![0.0; rows.len()];
        out.chunks_exact_mut(dim).enumerate().for_each(|(row, out)| codec.decode(&codes, row, &centroid, out));
        out
    }

    #[test]
    fn values_come_back_within_half_a_step() {
        let rows = [-3.0, 7.0, 0.5, 7.0, 9.0, 7.0, 8.999, 7.0];
        assert_eq!(round_trip(&Codec::F32, &rows, 2), rows);
        let halves = round_trip(&Codec::F16, &rows, 2);
        assert!(rows.iter().zip(&halves).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0));
        let scale = Scale::between(&[(-3.0, 9.0), (7.0, 7.0)]);
        let bytes = round_trip(&Codec::Sq8(scale), &rows, 2);
        assert!(rows.iter().zip(&bytes).all(|(a, b)| (a - b).abs() <= 12.0 / 255.0 * 0.5001), "{bytes:?}");
        assert_eq!((bytes[0], bytes[4], bytes[7]), (-3.0, 9.0, 7.0));
    }

    #[test]
    fn the_largest_numbers_stay_numbers() {
        let rows = [f32::MIN, f32::MAX, 0.0];
        let scale = Scale::between(&[(f32::MIN, f32::MAX)]);
        assert!(round_trip(&Codec::Sq8(scale), &rows, 1).iter().all(|value| value.is_finite()));
        assert_eq!(Codec::F16.encode(&[1.0, 65_504.0, 65_520.0], 1, |_| &[0.0]), Err(2));
        assert!(Codec::holds(Encoding::F16, -65_519.0) && !Codec::holds(Encoding::F16, -65_520.0));
        assert!(Codec::holds(Encoding::Sq8, f32::MAX));
    }
}
