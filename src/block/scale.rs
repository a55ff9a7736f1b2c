//! A byte per value, between the least and the largest value of its dimension.

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

    /// The bytes of a row.
    pub fn encode(&self, row: &[f32], bytes: &mut [u8]) {
        for (at, (byte, value)) in bytes.iter_mut().zip(row).enumerate() {
            let step = f64::from(self.step[at]);
            let steps = if step == 0.0 { 0.0 } else { (f64::from(*value) - f64::from(self.low[at])) / step };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a whole number from 0 to 255
            {
                *byte = steps.round().clamp(0.0, 255.0) as u8;
            }
        }
    }

    /// The values of all bytes, `dim × 256`.
    #[must_use]
    pub fn table(&self) -> Vec<f32> {
        let (dim, mut row) = (self.low.len(), vec![0.0; self.low.len()]);
        let mut table = vec![0.0; dim * 256];
        for byte in 0..=u8::MAX {
            self.decode(&vec![byte; dim], &mut row);
            table[usize::from(byte)..].iter_mut().step_by(256).zip(&row).for_each(|(to, value)| *to = *value);
        }
        table
    }

    /// The row of bytes.
    ///
    /// # Panics
    /// When there are fewer bytes than dimensions.
    pub fn decode(&self, bytes: &[u8], row: &mut [f32]) {
        let bytes = &bytes[..row.len()];
        for ((value, byte), (low, step)) in row.iter_mut().zip(bytes).zip(self.low.iter().zip(&self.step)) {
            // In f64, where neither the product nor the sum is beyond it; rounded once.
            #[allow(clippy::cast_possible_truncation)] // between two float32, but for the last rounding
            let between = (f64::from(*low) + f64::from(*byte) * f64::from(*step)) as f32;
            *value = between.clamp(f32::MIN, f32::MAX);
        }
    }
}
