//! A `Source` whose rows are made ready for a metric in float64 and then rounded to float32, once: moved to a centre,
//! or scaled to length 1 for cosine and correlation. "Exact" speaks of the rounded rows, so `read_f64` gives those too.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::error::StoreError;
use crate::metric::Metric;
use crate::store::convert::Number;
use crate::store::{Absent, FloatType, Source, check_ranges};

/// Bytes of float64 rows that are held at once: enough for the source to decode on many threads.
const PIECE_BYTES: u64 = 32 << 20;

/// Rows per task of the arithmetic.
const TASK_ROWS: usize = 1024;

/// What is done to a row before it is rounded.
#[derive(Clone, Debug, PartialEq)]
pub enum Preparation {
    /// This vector is subtracted.
    Centre(Arc<[f64]>),
    /// Scaled to length 1; a zero row stays zero.
    Unit,
    /// Its own mean is subtracted, then as `Unit`; a constant row is an error.
    CentredUnit,
}

impl Preparation {
    /// What a metric needs done to rows of its own accord, without a centre.
    #[must_use]
    pub fn of(metric: Metric) -> Option<Self> {
        match metric {
            Metric::Cosine => Some(Self::Unit),
            Metric::Correlation => Some(Self::CentredUnit),
            _ => None,
        }
    }

    /// As a manifest has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Centre(centre) => json!({ "centre": centre.as_ref() }),
            Self::Unit => json!("unit"),
            Self::CentredUnit => json!("centred unit"),
        }
    }

    /// What a manifest says; null is none. `None` where it says something else.
    #[must_use]
    #[allow(clippy::option_option)] // unreadable, nothing, or something
    pub fn from_json(value: &Value) -> Option<Option<Self>> {
        match value {
            Value::Null => Some(None),
            Value::String(text) if text == "unit" => Some(Some(Self::Unit)),
            Value::String(text) if text == "centred unit" => Some(Some(Self::CentredUnit)),
            _ => {
                let values = value.get("centre")?.as_array()?;
                let centre: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
                Some(Some(Self::Centre(centre?.into())))
            }
        }
    }
}

/// Rows of a source, prepared.
#[derive(Clone, Debug)]
pub struct Prepared {
    source: Arc<dyn Source>,
    preparation: Preparation,
    piece_bytes: u64,
}

impl Prepared {
    /// The rows of `source`, prepared.
    ///
    /// # Errors
    /// A centre of another dimension.
    pub fn new(source: Arc<dyn Source>, preparation: Preparation) -> Result<Self, StoreError> {
        match &preparation {
            Preparation::Centre(centre) if centre.len() != source.dim() => Err(StoreError::WrongKind {
                array: source.name().to_owned(),
                found: format!("of {} dimensions", source.dim()),
                expected: format!("the centre has {}", centre.len()),
            }),
            _ => Ok(Self { source, preparation, piece_bytes: PIECE_BYTES }),
        }
    }

    fn piece_rows(&self) -> u64 {
        let row_bytes = self.source.dim() as u64 * 8;
        let fit = (self.piece_bytes / row_bytes).max(1);
        let chunk = self.source.chunk_rows().max(1);
        // Whole chunks where they fit; else the source keeps the chunk that a piece ends in.
        if chunk <= fit { fit - fit % chunk } else { fit }
    }

    fn read_as<N: Number>(&self, ranges: &[Range<u64>], mut out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        let (dim, piece_rows) = (self.source.dim(), self.piece_rows());
        let longest = ranges.iter().map(|r| r.end - r.start).max().unwrap_or(0).min(piece_rows);
        let mut rows = vec![0.0; usize::try_from(longest).unwrap_or(0) * dim];
        for range in ranges {
            let mut row = range.start;
            while row < range.end {
                let end = range.end.min((row / piece_rows + 1) * piece_rows);
                let values = usize::try_from(end - row).unwrap_or(usize::MAX) * dim;
                let (part, rest) = out.split_at_mut(values);
                out = rest;
                let rows = &mut rows[..values];
                let piece = row..end;
                self.source.read_f64(std::slice::from_ref(&piece), rows)?;
                self.prepare(row, rows, part)?;
                row = end;
            }
        }
        Ok(())
    }

    fn prepare<N: Number>(&self, first: u64, rows: &mut [f64], out: &mut [N]) -> Result<(), StoreError> {
        let dim = self.source.dim();
        let tasks = rows.par_chunks_mut(dim * TASK_ROWS).zip(out.par_chunks_mut(dim * TASK_ROWS)).enumerate();
        let results: Vec<Result<(), StoreError>> = tasks
            .map(|(task, (rows, out))| {
                for (at, (row, out)) in rows.chunks_exact_mut(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
                    self.prepare_row(first + (task * TASK_ROWS + at) as u64, row, out)?;
                }
                Ok(())
            })
            .collect();
        results.into_iter().collect()
    }

    fn prepare_row<N: Number>(&self, number: u64, row: &mut [f64], out: &mut [N]) -> Result<(), StoreError> {
        match &self.preparation {
            Preparation::Centre(centre) => row.iter_mut().zip(centre.iter()).for_each(|(v, c)| *v -= c),
            Preparation::Unit => make_unit(row),
            Preparation::CentredUnit => {
                if row.iter().all(|v| *v == row[0]) {
                    return Err(StoreError::ConstantRow { array: self.name().to_owned(), row: number });
                }
                subtract_mean(row);
                make_unit(row);
            }
        }
        for (column, (out, value)) in out.iter_mut().zip(row).enumerate() {
            let rounded = f32::of(*value);
            if !rounded.is_finite() {
                let (array, column) = (self.name().to_owned(), column as u64);
                return Err(StoreError::TooLarge { array, row: number, column, value: *value });
            }
            *out = N::of_f32(rounded);
        }
        Ok(())
    }
}

/// Takes a row's own mean off it.
pub fn subtract_mean(row: &mut [f64]) {
    let len = row.len() as f64;
    let sum: f64 = row.iter().sum();
    let mean = if sum.is_finite() { sum / len } else { row.iter().map(|v| v / len).sum() };
    for v in row.iter_mut() {
        *v -= mean;
    }
}

/// Scales a row to length 1, unless it is zero.
pub fn make_unit(row: &mut [f64]) {
    let largest = row.iter().fold(0.0_f64, |largest, v| largest.max(v.abs()));
    if largest == 0.0 {
        return;
    }
    // Squares of very small or large values leave float64, so such rows are scaled first. A power of two changes no digit.
    if !(1e-140..1e140).contains(&largest) {
        let scale = largest.log2().floor().exp2();
        for v in row.iter_mut() {
            *v /= scale;
        }
    }
    let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
    for v in row.iter_mut() {
        *v /= length;
    }
}

impl Source for Prepared {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn rows(&self) -> u64 {
        self.source.rows()
    }

    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn dtype(&self) -> FloatType {
        FloatType::F32
    }

    fn chunk_rows(&self) -> u64 {
        self.source.chunk_rows()
    }

    fn stored_bytes(&self) -> u64 {
        self.source.stored_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        let piece = self.piece_rows().min(self.rows()).saturating_mul(self.dim() as u64 * 8);
        self.source.scratch_bytes().saturating_add(piece)
    }

    fn release(&self) {
        self.source.release();
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        self.source.absent()
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        Ok(json!({ "prepared": self.preparation.to_json(), "source": self.source.fingerprint()? }))
    }
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;
