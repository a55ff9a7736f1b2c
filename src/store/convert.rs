//! Stored floats made into float32 or float64, each looked at once: no NaN and no infinity gets through.

use half::f16;

use crate::error::StoreError;
use crate::store::FloatType;

/// A value that may not be handed out, and its place in the run that was converted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refused {
    /// Place in the run.
    pub(crate) at: usize,
    /// The stored value.
    pub(crate) value: f64,
}

impl Refused {
    /// The error for this value of `array`.
    pub(crate) fn error(self, array: &str, row: u64, column: usize) -> StoreError {
        let (array, column, value) = (array.to_owned(), column as u64, self.value);
        if value.is_finite() {
            StoreError::TooLarge { array, row, column, value }
        } else {
            StoreError::NotFinite { array, row, column, value }
        }
    }
}

/// What rows are handed out as: float32 or float64.
pub(crate) trait Number: Handed {
    /// Rounded to nearest where it is narrower.
    fn of(value: f64) -> Self;
    /// Exact.
    fn of_f32(value: f32) -> Self;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
}

impl Number for f32 {
    #[allow(clippy::cast_possible_truncation, reason = "rounding is what is asked for, and overflow is checked after")]
    fn of(value: f64) -> Self {
        value as Self
    }
    fn of_f32(value: f32) -> Self {
        value
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Number for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn of_f32(value: f32) -> Self {
        Self::from(value)
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// What stored numbers are handed out as: floats, or the codes that they are.
pub(crate) trait Handed: Copy + Default + Send + Sync {
    /// Hands out a run of stored numbers, in the machine's byte order, into `out`, which is as long.
    ///
    /// # Errors
    /// The first that is not finite; the first of all where codes are asked for and they are others.
    fn hand(dtype: FloatType, bytes: &[u8], out: &mut [Self]) -> Result<(), Refused>;
}

impl Handed for f32 {
    fn hand(dtype: FloatType, bytes: &[u8], out: &mut [Self]) -> Result<(), Refused> {
        convert(dtype, bytes, out)
    }
}

impl Handed for f64 {
    fn hand(dtype: FloatType, bytes: &[u8], out: &mut [Self]) -> Result<(), Refused> {
        convert(dtype, bytes, out)
    }
}

impl Handed for f16 {
    fn hand(dtype: FloatType, bytes: &[u8], out: &mut [Self]) -> Result<(), Refused> {
        let mut finite = dtype == FloatType::F16;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = Self::from_ne_bytes(*bytes);
            finite &= out.is_finite();
        }
        if finite {
            return Ok(());
        }
        let at = out.iter().position(|half| !half.is_finite()).unwrap_or(0);
        Err(Refused { at, value: stored(dtype, bytes, at) })
    }
}

impl Handed for u8 {
    fn hand(dtype: FloatType, bytes: &[u8], out: &mut [Self]) -> Result<(), Refused> {
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        let code = dtype == FloatType::Code;
        if code { Ok(()) } else { Err(Refused { at: 0, value: stored(dtype, bytes, 0) }) }
    }
}

/// Converts a run of stored floats, in the machine's byte order, into `out`, which is as long.
pub(crate) fn convert<N: Number>(dtype: FloatType, bytes: &[u8], out: &mut [N]) -> Result<(), Refused> {
    // One pass without branches, which the compiler vectorises; the place is looked for only when there is one.
    let mut finite = true;
    match dtype {
        FloatType::Code => out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = N::of_f32(f32::from(*byte))),
        FloatType::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = N::of_f32(f16::from_ne_bytes(*bytes).to_f32());
                finite &= out.finite();
            }
        }
        FloatType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = N::of_f32(f32::from_ne_bytes(*bytes));
                finite &= out.finite();
            }
        }
        FloatType::F64 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = N::of(f64::from_ne_bytes(*bytes));
                finite &= out.finite();
            }
        }
    }
    if finite { Ok(()) } else { Err(first_refused(dtype, bytes, out)) }
}

fn first_refused<N: Number>(dtype: FloatType, bytes: &[u8], out: &[N]) -> Refused {
    let at = out.iter().position(|v| !v.finite()).unwrap_or(0);
    Refused { at, value: stored(dtype, bytes, at) }
}

/// The `at`-th stored float, exactly; NaN when there is none.
pub(crate) fn stored(dtype: FloatType, bytes: &[u8], at: usize) -> f64 {
    match dtype {
        FloatType::Code => bytes.get(at).map_or(f64::NAN, |byte| f64::from(*byte)),
        FloatType::F16 => bytes.as_chunks().0.get(at).map_or(f64::NAN, |b| f16::from_ne_bytes(*b).to_f64()),
        FloatType::F32 => bytes.as_chunks().0.get(at).map_or(f64::NAN, |b| f64::from(f32::from_ne_bytes(*b))),
        FloatType::F64 => bytes.as_chunks().0.get(at).map_or(f64::NAN, |b| f64::from_ne_bytes(*b)),
    }
}

/// Converts floats in memory into `out`, which is as long.
pub(crate) fn convert_f64<N: Number>(values: &[f64], out: &mut [N]) -> Result<(), Refused> {
    let mut finite = true;
    for (out, value) in out.iter_mut().zip(values) {
        *out = N::of(*value);
        finite &= out.finite();
    }
    match out.iter().position(|v| !v.finite()) {
        Some(at) if !finite => Err(Refused { at, value: values[at] }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_converted_exactly_or_refused_with_its_place() {
        let halves: Vec<u8> = [1.5_f32, -0.0, 65504.0].iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect();
        let mut out = [0_f32; 3];
        assert_eq!(convert(FloatType::F16, &halves, &mut out), Ok(()));
        assert_eq!(out, [1.5, -0.0, 65504.0]);
        let doubles: Vec<u8> = [0.1_f64, 1e300, f64::NAN].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(convert(FloatType::F64, &doubles, &mut out), Err(Refused { at: 1, value: 1e300 }));
        let mut exact = [0_f64; 2];
        assert_eq!((convert(FloatType::F64, &doubles[..16], &mut exact), exact), (Ok(()), [0.1, 1e300]));
        let singles: Vec<u8> = [0.0_f32, f32::NEG_INFINITY].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(convert(FloatType::F32, &singles, &mut exact), Err(Refused { at: 1, value: f64::NEG_INFINITY }));
        assert_eq!(convert_f64(&[1.0, 1e39], &mut out), Err(Refused { at: 1, value: 1e39 }));
    }
}
