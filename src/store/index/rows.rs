//! The rows of an index that are kept as codes, as a `Source`: read as codes, or decoded as they are read.

use std::ops::Range;
use std::sync::Arc;

use half::f16;
use rayon::prelude::*;
use serde_json::Value;

use crate::block::RowIds;
use crate::block::codes::{CodedRows, Codes, ListPatterns};
use crate::block::scale::Scale;
use crate::error::StoreError;
use crate::store::convert::Number;
use crate::store::zarr::ZarrSource;
use crate::store::{Absent, FloatType, Source, check_ranges};

/// Rows that are decoded at a time, and by one thread.
const PIECE_ROWS: u64 = 16_384;
const TASK_ROWS: usize = 512;

/// What codes mean.
#[derive(Debug)]
pub enum Meaning {
    /// A float16 per value.
    Halves,
    /// A byte per value.
    Scale(Arc<Scale>),
    /// A byte for a few values beside the centroid of a row's list.
    Patterns(Arc<ListPatterns>),
}

/// Rows kept as codes.
#[derive(Debug)]
pub struct Coded {
    codes: ZarrSource,
    dim: usize,
    meaning: Meaning,
}

impl Coded {
    /// The rows of these codes. `None` where what they mean is not what they are.
    pub fn new(codes: ZarrSource, dim: usize, meaning: Meaning) -> Option<Self> {
        let (width, dtype) = (codes.dim(), codes.dtype());
        let fits = match &meaning {
            Meaning::Halves => width == dim && dtype == FloatType::F16,
            Meaning::Scale(scale) => {
                let Scale { low, step } = &**scale;
                let numbers = low.iter().chain(step).all(|value| value.is_finite());
                width == dim && low.len() == dim && step.len() == dim && numbers && dtype == FloatType::Code
            }
            Meaning::Patterns(lists) => width == lists.patterns.codes() && dtype == FloatType::Code,
        };
        fits.then_some(Self { codes, dim, meaning })
    }

    fn codes(&self, ranges: &[Range<u64>]) -> Result<Codes, StoreError> {
        let rows = ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add);
        let length = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(self.codes.dim());
        check_ranges(&self.codes, ranges, length)?;
        Ok(match &self.meaning {
            Meaning::Halves => {
                let mut halves = vec![f16::ZERO; length];
                self.codes.read_as(ranges, &mut halves)?;
                Codes::Halves(halves)
            }
            Meaning::Scale(scale) => Codes::Scaled(self.bytes(ranges, length)?, Arc::clone(scale)),
            Meaning::Patterns(lists) => Codes::Patterns(self.bytes(ranges, length)?, Arc::clone(lists)),
        })
    }

    fn bytes(&self, ranges: &[Range<u64>], length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length];
        self.codes.read_as(ranges, &mut bytes)?;
        Ok(bytes)
    }

    fn read_decoded<N: Number>(&self, ranges: &[Range<u64>], mut out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        let dim = self.dim;
        for piece in pieces(ranges) {
            let rows: u64 = piece.iter().map(|range| range.end - range.start).sum();
            let coded = CodedRows::new(RowIds::Range(0..rows), &piece, dim, self.codes(&piece)?);
            let coded = coded.map_err(|error| self.damaged(&error.to_string()))?;
            let (part, rest) = out.split_at_mut(coded.rows() * dim);
            out = rest;
            part.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
                let mut row = vec![0.0; dim];
                for (at, out) in out.chunks_exact_mut(dim).enumerate() {
                    coded.decode(task * TASK_ROWS + at, &mut row);
                    out.iter_mut().zip(&row).for_each(|(out, value)| *out = N::of_f32(*value));
                }
            });
        }
        Ok(())
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged { array: self.name().to_owned(), why: why.to_owned() }
    }
}

/// The ranges, in groups of not many rows.
fn pieces(ranges: &[Range<u64>]) -> Vec<Vec<Range<u64>>> {
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), PIECE_ROWS);
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + room);
            piece.push(start..end);
            room -= end - start;
            start = end;
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = PIECE_ROWS;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

impl Source for Coded {
    fn name(&self) -> &str {
        self.codes.name()
    }

    fn rows(&self) -> u64 {
        self.codes.rows()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn dtype(&self) -> FloatType {
        self.codes.dtype()
    }

    fn chunk_rows(&self) -> u64 {
        self.codes.chunk_rows()
    }

    fn stored_bytes(&self) -> u64 {
        self.codes.stored_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        // Where rows are decoded as they are read, the codes of a piece.
        self.codes.scratch_bytes() + self.rows().min(PIECE_ROWS) * self.row_bytes()
    }

    fn release(&self) {
        self.codes.release();
    }

    fn row_bytes(&self) -> u64 {
        self.codes.dim() as u64 * self.dtype().bytes()
    }

    fn read_codes(&self, ranges: &[Range<u64>]) -> Result<Option<Codes>, StoreError> {
        self.codes(ranges).map(Some)
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_decoded(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_decoded(ranges, out)
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        self.codes.absent()
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        self.codes.fingerprint()
    }
}
