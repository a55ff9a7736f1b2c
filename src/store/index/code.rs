//! Rows as an index keeps them, and back.

use half::f16;

use super::Encoding;
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
}

/// Where the byte 0 is in each dimension, and how far apart bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The value of byte 0.
    pub low: Vec<f32>,
    /// The distance between two bytes; 0 where all values are the same.
    pub step: Vec<f32>,
}

impl Scale {
    /// Bytes from the least to the largest value of each dimension.
    #[must_use]
    pub fn between(limits: &[(f32, f32)]) -> Self {
        // In f64, since the largest float32 less the least is none.
        #[allow(clippy::cast_possible_truncation)] // 1/255 of it is
        let step = |(low, high): &(f32, f32)| ((f64::from(*high) - f64::from(*low)) / 255.0) as f32;
        Self { low: limits.iter().map(|(low, _)| *low).collect(), step: limits.iter().map(step).collect() }
    }

    /// The byte of a value in a dimension.
    fn byte(&self, at: usize, value: f32) -> u8 {
        let step = f64::from(self.step[at]);
        if step == 0.0 {
            return 0;
        }
        let byte = ((f64::from(value) - f64::from(self.low[at])) / step).round().clamp(0.0, 255.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is a whole number from 0 to 255
        {
            byte as u8
        }
    }

    /// The value of a byte in a dimension.
    fn value(&self, at: usize, byte: u8) -> f32 {
        #[allow(clippy::cast_possible_truncation)] // between two float32, but for the last rounding
        let value = (f64::from(self.low[at]) + f64::from(byte) * f64::from(self.step[at])) as f32;
        value.clamp(f32::MIN, f32::MAX)
    }

    /// The values of bytes, row by row.
    pub fn values(&self, bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.chunks_exact(self.low.len()).zip(out.chunks_exact_mut(self.low.len())) {
            for (at, (byte, out)) in bytes.iter().zip(out).enumerate() {
                *out = self.value(at, *byte);
            }
        }
    }
}

impl Codec {
    /// Codes per row.
    #[must_use]
    pub fn width(encoding: Encoding, dim: u64) -> u64 {
        match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Sq8 | Encoding::Pq => dim,
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

    /// The codes of rows.
    ///
    /// # Errors
    /// The place of the first value that cannot be kept.
    pub fn encode(&self, rows: &[f32], dim: usize) -> Result<Values, usize> {
        match self {
            Self::F32 => Ok(Values::F32(rows.to_vec())),
            Self::F16 => {
                let codes: Vec<f16> = rows.iter().map(|value| f16::from_f32(*value)).collect();
                match codes.iter().position(|code| !code.is_finite()) {
                    Some(at) => Err(at),
                    None => Ok(Values::F16(codes)),
                }
            }
            Self::Sq8(scale) => {
                let byte = |(at, value): (usize, &f32)| scale.byte(at % dim, *value);
                Ok(Values::U8(rows.iter().enumerate().map(byte).collect()))
            }
        }
    }

    /// The rows of codes, from one row to another.
    #[must_use]
    pub fn decode(&self, codes: &Values, rows: std::ops::Range<usize>, dim: usize) -> Vec<f32> {
        let range = rows.start * dim..rows.end * dim;
        match (self, codes) {
            (_, Values::F32(values)) => values[range].to_vec(),
            (_, Values::F16(values)) => values[range].iter().map(|value| value.to_f32()).collect(),
            (Self::Sq8(scale), Values::U8(bytes)) => {
                let mut out = vec![0.0; range.len()];
                scale.values(&bytes[range], &mut out);
                out
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(codec: &Codec, rows: &[f32], dim: usize) -> Vec<f32> {
        let codes = codec.encode(rows, dim).unwrap();
        codec.decode(&codes, 0..rows.len() / dim, dim)
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
        assert_eq!(Codec::F16.encode(&[1.0, 65_504.0, 65_520.0], 1), Err(2));
    }
}
