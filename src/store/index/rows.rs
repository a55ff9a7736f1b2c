//! The rows of an index that are kept as codes, as a `Source`: decoded as they are read.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::{Patterns, Scale};
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
    /// A byte per value.
    Scale(Scale),
    /// A byte for a few values beside the centroid of a row's list.
    Patterns {
        /// The patterns.
        patterns: Patterns,
        /// The centroids of the lists.
        centroids: Arc<Vec<f32>>,
        /// Where each begins, and at the end where the last one ends.
        offsets: Arc<Vec<u64>>,
    },
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
        let fits = match &meaning {
            Meaning::Scale(Scale { low, step }) => {
                let numbers = low.iter().chain(step).all(|value| value.is_finite());
                codes.dim() == dim && low.len() == dim && step.len() == dim && numbers
            }
            Meaning::Patterns { patterns, .. } => codes.dim() == patterns.codes(),
        };
        fits.then_some(Self { codes, dim, meaning })
    }

    fn read_as<N: Number>(&self, ranges: &[Range<u64>], mut out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        let (width, dim) = (self.codes.dim(), self.dim);
        let mut codes = Vec::new();
        for piece in pieces(ranges) {
            let rows: u64 = piece.iter().map(|range| range.end - range.start).sum();
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            codes.resize(rows * width, 0.0);
            self.codes.read(&piece, &mut codes)?;
            let numbers: Vec<u64> = piece.into_iter().flatten().collect();
            let (part, rest) = out.split_at_mut(rows * dim);
            out = rest;
            let tasks = part.par_chunks_mut(TASK_ROWS * dim).zip(codes.par_chunks(TASK_ROWS * width));
            tasks.zip(numbers.par_chunks(TASK_ROWS)).for_each(|((out, codes), numbers)| {
                let mut row = vec![0.0; dim];
                let rows = out.chunks_exact_mut(dim).zip(codes.chunks_exact(width)).zip(numbers);
                for ((out, codes), number) in rows {
                    self.decode(*number, codes, &mut row);
                    out.iter_mut().zip(&row).for_each(|(out, value)| *out = N::of_f32(*value));
                }
            });
        }
        Ok(())
    }

    fn decode(&self, number: u64, codes: &[f32], row: &mut [f32]) {
        let codes = codes.iter().copied();
        match &self.meaning {
            Meaning::Scale(scale) => scale.decode(codes, row),
            Meaning::Patterns { patterns, centroids, offsets } => {
                // Lists that end before it, the empty ones among them, come first.
                let list = offsets.partition_point(|at| *at <= number) - 1;
                patterns.decode(codes, &centroids[list * self.dim..(list + 1) * self.dim], row);
            }
        }
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
        FloatType::Code
    }

    fn chunk_rows(&self) -> u64 {
        self.codes.chunk_rows()
    }

    fn stored_bytes(&self) -> u64 {
        self.codes.stored_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        // Codes as numbers, and which rows they are of.
        let piece = self.rows().min(PIECE_ROWS) * (self.codes.dim() as u64 * 4 + 8);
        self.codes.scratch_bytes() + piece
    }

    fn release(&self) {
        self.codes.release();
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        self.codes.absent()
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        self.codes.fingerprint()
    }
}
