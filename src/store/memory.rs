//! Rows that are in memory already, as a `Source`: for tests, examples, and arrays handed over by a caller.

use std::ops::Range;

use serde_json::{Value, json};

use crate::error::BlockError;
use crate::error::StoreError;
use crate::store::convert::{Number, Refused, convert_f64};
use crate::store::{FloatType, Source, check_ranges};

/// Rows in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySource {
    name: String,
    dim: usize,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl MemorySource {
    /// Rows of `dim` float32 values, row-major, called `name` in messages.
    ///
    /// # Errors
    /// [`BlockError::Shape`] when `dim` is 0 or does not divide the number of values.
    pub fn from_f32(name: &str, dim: usize, values: Vec<f32>) -> Result<Self, BlockError> {
        check_shape(dim, values.len())?;
        Ok(Self { name: name.to_owned(), dim, values: Values::F32(values) })
    }

    /// Rows of `dim` float64 values, row-major, called `name` in messages.
    ///
    /// # Errors
    /// [`BlockError::Shape`] when `dim` is 0 or does not divide the number of values.
    pub fn from_f64(name: &str, dim: usize, values: Vec<f64>) -> Result<Self, BlockError> {
        check_shape(dim, values.len())?;
        Ok(Self { name: name.to_owned(), dim, values: Values::F64(values) })
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        }
    }

    fn read_as<N: Number>(&self, ranges: &[Range<u64>], mut out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        // The rows are in memory, so their places fit a usize.
        let place = |row: u64| usize::try_from(row).unwrap_or(usize::MAX) * self.dim;
        for range in ranges {
            let from = place(range.start)..place(range.end);
            let (part, rest) = out.split_at_mut(from.len());
            out = rest;
            let done = match &self.values {
                Values::F64(values) => convert_f64(&values[from], part),
                Values::F32(values) => copy(&values[from], part),
            };
            done.map_err(|e| e.error(&self.name, range.start + (e.at / self.dim) as u64, e.at % self.dim))?;
        }
        Ok(())
    }
}

fn copy<N: Number>(values: &[f32], out: &mut [N]) -> Result<(), Refused> {
    for (out, value) in out.iter_mut().zip(values) {
        *out = N::of_f32(*value);
    }
    let refused = values.iter().position(|v| !v.is_finite());
    refused.map_or(Ok(()), |at| Err(Refused { at, value: f64::from(values[at]) }))
}

fn check_shape(dim: usize, values: usize) -> Result<(), BlockError> {
    if dim == 0 || !values.is_multiple_of(dim) {
        return Err(BlockError::Shape { rows: values.checked_div(dim).unwrap_or(0), dim, values });
    }
    Ok(())
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> u64 {
        (self.len() / self.dim) as u64
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn dtype(&self) -> FloatType {
        match self.values {
            Values::F32(_) => FloatType::F32,
            Values::F64(_) => FloatType::F64,
        }
    }

    fn chunk_rows(&self) -> u64 {
        1
    }

    fn stored_bytes(&self) -> u64 {
        self.len() as u64 * self.dtype().bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        // The values are here, so they can be summed up whole.
        let checksum = match &self.values {
            Values::F32(values) => crc32c::crc32c(bytemuck::cast_slice(values)),
            Values::F64(values) => crc32c::crc32c(bytemuck::cast_slice(values)),
        };
        let shape = json!([self.rows(), self.dim]);
        Ok(json!({ "memory": { "shape": shape, "dtype": self.dtype().name(), "crc32c": checksum } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{conformance, testing};

    #[test]
    fn rows_in_memory_conform() -> Result<(), Box<dyn std::error::Error>> {
        for (rows, dim) in [(0, 3), (1, 1), (7, 5), (100, 50)] {
            let values = testing::values(rows, dim);
            conformance::check(&MemorySource::from_f64("f64", dim, values.clone())?, &values)?;
            let singles = testing::as_f32(&values);
            let exact: Vec<f64> = singles.iter().map(|v| f64::from(*v)).collect();
            conformance::check(&MemorySource::from_f32("f32", dim, singles)?, &exact)?;
        }
        Ok(())
    }

    #[test]
    fn what_is_not_finite_is_named() -> Result<(), BlockError> {
        let source = MemorySource::from_f32("m", 2, vec![0.0, 1.0, 2.0, f32::NAN])?;
        let mut out = [0.0; 2];
        assert!(source.read(&[0..1], &mut out).is_ok());
        let error = source.read(&[1..2], &mut out).map_err(|e| e.to_string());
        assert_eq!(error, Err("m holds NaN at row 1, column 1; remove such rows or impute them first".to_owned()));
        assert!(MemorySource::from_f32("m", 2, vec![0.0]).is_err());
        assert!(MemorySource::from_f64("m", 0, vec![]).is_err());
        Ok(())
    }
}
