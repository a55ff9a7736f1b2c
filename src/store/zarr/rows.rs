//! A two-dimensional zarr array of floats as a `Source`.
//!
//! The rows of one chunk, over all columns, are a piece. A read takes its pieces in order, several at once, decodes
//! each chunk once and writes its rows where they belong in the caller's buffer. The piece at which a read stops halfway is
//! kept, so that a pass over the array decodes nothing twice wherever its blocks end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::Value;

use super::shards::Reserved;
use super::{Chunk, Element, ZarrArray};
use crate::error::StoreError;
use crate::store::convert::{Handed, Refused};
use crate::store::disk::Disk;
use crate::store::{Absent, FloatType, Source, check_ranges};

/// A piece of several chunks larger than this is not kept between reads.
const KEEP_BYTES: u64 = 64 << 20;

/// Most chunks decoded at once, whatever the number of threads.
const MOST_LANES: usize = 64;

/// Rows of a zarr array.
#[derive(Debug)]
pub struct ZarrSource {
    array: ZarrArray,
    rows: u64,
    dim: usize,
    dtype: FloatType,
    /// Rows and columns of a chunk.
    chunk: (u64, usize),
    lanes: usize,
    stored_bytes: u64,
    keeps: bool,
    kept: Mutex<Option<Piece>>,
}

/// The decoded chunks of one piece, from the first column to the last.
#[derive(Clone, Debug)]
struct Piece {
    number: u64,
    chunks: Arc<Vec<Chunk>>,
}

/// Consecutive rows of a piece, and where they go.
struct Part<'a, N> {
    first: usize,
    out: &'a mut [N],
}

/// What one read shares between its lanes.
struct Work<'a, N> {
    pieces: Mutex<std::collections::btree_map::IntoIter<u64, Vec<Part<'a, N>>>>,
    /// Chunks of one piece decoded at once.
    width: usize,
    kept: Option<Piece>,
    /// The piece to keep.
    keep: Option<u64>,
    failed: AtomicBool,
    error: Mutex<Option<(u64, StoreError)>>,
}

impl ZarrSource {
    /// The array at `path` of a store. As many chunks are decoded at once as the current rayon pool has threads.
    ///
    /// # Errors
    /// No such array, one that is not two-dimensional or not of floats, codecs that are not supported.
    pub fn open(disk: &Arc<Disk>, path: &str) -> Result<Self, StoreError> {
        let array = ZarrArray::open(disk, path)?;
        let Element::Float(dtype) = *array.element() else {
            return Err(StoreError::WrongKind {
                array: array.name().to_owned(),
                found: format!("of {}", array.element().name()),
                expected: "coordinates must be float16, float32 or float64; store the array as one of them".to_owned(),
            });
        };
        Self::of(array, dtype)
    }

    /// An array of bytes, each a code; read as floats they are the numbers from 0 to 255.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_codes(disk: &Arc<Disk>, path: &str) -> Result<Self, StoreError> {
        let array = ZarrArray::open(disk, path)?;
        match array.element() {
            Element::UInt(1) => Self::of(array, FloatType::Code),
            other => Err(StoreError::WrongKind {
                array: array.name().to_owned(),
                found: format!("of {}", other.name()),
                expected: "codes are uint8".to_owned(),
            }),
        }
    }

    fn of(array: ZarrArray, dtype: FloatType) -> Result<Self, StoreError> {
        let lanes = rayon::current_num_threads().clamp(1, MOST_LANES);
        let wrong = |found: String, expected: &str| StoreError::WrongKind {
            array: array.name().to_owned(),
            found,
            expected: expected.to_owned(),
        };
        let (&[rows, columns], &[chunk_rows, chunk_columns]) = (array.shape(), array.chunk_shape()) else {
            let expected = "coordinates must be two-dimensional, cells × dimensions";
            return Err(wrong(format!("{}-dimensional", array.shape().len()), expected));
        };
        let (Ok(dim), Ok(chunk_columns)) = (usize::try_from(columns), usize::try_from(chunk_columns)) else {
            return Err(wrong(format!("{columns} columns wide"), "this machine can't address so many"));
        };
        if dim == 0 {
            return Err(wrong("without columns".to_owned(), "coordinates must have at least one dimension"));
        }
        let stored_bytes = array.stored_bytes()?;
        let chunks = columns.div_ceil(chunk_columns as u64);
        let keeps = chunks == 1 || array.chunk_bytes().saturating_mul(chunks) <= KEEP_BYTES;
        let (chunk, kept) = ((chunk_rows, chunk_columns), Mutex::default());
        Ok(Self { array, rows, dim, dtype, chunk, lanes, stored_bytes, keeps, kept })
    }

    /// The array.
    #[must_use]
    pub fn array(&self) -> &ZarrArray {
        &self.array
    }

    fn chunks_across(&self) -> usize {
        self.dim.div_ceil(self.chunk.1)
    }

    /// Reads rows as floats, or as the codes they are.
    pub(in crate::store) fn read_as<N: Handed>(&self, ranges: &[Range<u64>], out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        let pieces = self.pieces(ranges, out);
        let end = ranges.iter().rfind(|r| !r.is_empty()).map_or(0, |r| r.end);
        let halfway = self.keeps && !end.is_multiple_of(self.chunk.0) && end < self.rows;
        let keep = halfway.then(|| end / self.chunk.0);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = kept.filter(|piece| pieces.contains_key(&piece.number));
        if keep.is_none() && kept.is_some() {
            // This read goes past it, so the next one will not come back.
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let lanes = self.lanes.min(pieces.len());
        let work = Work {
            width: self.lanes / lanes.max(1),
            pieces: Mutex::new(pieces.into_iter()),
            kept,
            keep,
            failed: AtomicBool::new(false),
            error: Mutex::default(),
        };
        if lanes == 1 {
            self.lane(&work);
        } else {
            (0..lanes).into_par_iter().with_max_len(1).for_each(|_| self.lane(&work));
        }
        let error = work.error.into_inner().unwrap_or_else(PoisonError::into_inner);
        error.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The pieces that the ranges touch, each with its rows' places in `out`.
    fn pieces<'a, N>(&self, ranges: &[Range<u64>], mut out: &'a mut [N]) -> BTreeMap<u64, Vec<Part<'a, N>>> {
        let mut pieces: BTreeMap<u64, Vec<Part<'a, N>>> = BTreeMap::new();
        for range in ranges {
            let mut row = range.start;
            while row < range.end {
                let piece = row / self.chunk.0;
                let end = range.end.min((piece + 1).saturating_mul(self.chunk.0));
                // Both fit: the rows of the caller's buffer and of a chunk in memory can be counted in it.
                let rows = usize::try_from(end - row).unwrap_or(usize::MAX);
                let first = usize::try_from(row % self.chunk.0).unwrap_or(usize::MAX);
                let (part, rest) = out.split_at_mut(rows * self.dim);
                out = rest;
                pieces.entry(piece).or_default().push(Part { first, out: part });
                row = end;
            }
        }
        pieces
    }

    fn lane<N: Handed>(&self, work: &Work<'_, N>) {
        while !work.failed.load(Ordering::Relaxed) {
            let mut pieces = work.pieces.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((number, parts)) = pieces.next() else { return };
            // While the next piece can't be taken: so rows are reserved in order, whatever the lanes' speed.
            let reserved = self.array.reserve(number);
            drop(pieces);
            if let Err(error) = self.piece(work, number, parts, &reserved) {
                // Pieces are taken in order and those begun are finished, so the first bad row is named every time.
                let mut first = work.error.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(piece, _)| number < *piece) {
                    *first = Some((number, error));
                }
                work.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn piece<N: Handed>(
        &self,
        work: &Work<'_, N>,
        number: u64,
        mut parts: Vec<Part<'_, N>>,
        reserved: &Reserved,
    ) -> Result<(), StoreError> {
        let across = self.chunks_across();
        if let Some(kept) = work.kept.as_ref().filter(|piece| piece.number == number) {
            return self.place(number, 0, &kept.chunks, &mut parts);
        }
        let decode = |column: usize| self.array.chunk(&[number, column as u64], reserved);
        if work.keep == Some(number) {
            let chunks = decode_all(0..across, work.width, &decode)?;
            self.place(number, 0, &chunks, &mut parts)?;
            let piece = Piece { number, chunks: Arc::new(chunks) };
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(piece);
            return Ok(());
        }
        for first in (0..across).step_by(work.width) {
            let columns = first..across.min(first + work.width);
            let chunks = decode_all(columns, work.width, &decode)?;
            self.place(number, first, &chunks, &mut parts)?;
        }
        Ok(())
    }

    /// Writes the rows of a piece that lie in these chunks, the first of which is the `first`-th of the piece.
    fn place<N: Handed>(
        &self,
        number: u64,
        first: usize,
        chunks: &[Chunk],
        parts: &mut [Part<'_, N>],
    ) -> Result<(), StoreError> {
        for (at, chunk) in chunks.iter().enumerate() {
            let column = (first + at) * self.chunk.1;
            for part in &mut *parts {
                self.place_chunk(number, column, chunk, part)?;
            }
        }
        Ok(())
    }

    fn place_chunk<N: Handed>(
        &self,
        number: u64,
        column: usize,
        chunk: &Chunk,
        part: &mut Part<'_, N>,
    ) -> Result<(), StoreError> {
        let (dim, size) = (self.dim, self.array.element().bytes().unwrap_or(1));
        let width = self.chunk.1.min(dim - column);
        let refused = |row: usize, refused: Refused| {
            let row = number * self.chunk.0 + (part.first + row + refused.at / width) as u64;
            refused.error(self.name(), row, column + refused.at % width)
        };
        match chunk {
            Chunk::Fixed(bytes) if width == dim && self.chunk.1 == dim => {
                let bytes = &bytes[part.first * dim * size..];
                N::hand(self.dtype, bytes, part.out).map_err(|e| refused(0, e))
            }
            Chunk::Fixed(bytes) => {
                for (row, out) in part.out.chunks_exact_mut(dim).enumerate() {
                    let bytes = &bytes[(part.first + row) * self.chunk.1 * size..][..width * size];
                    N::hand(self.dtype, bytes, &mut out[column..column + width]).map_err(|e| refused(row, e))?;
                }
                Ok(())
            }
            Chunk::Fill(element) => {
                let mut value = [N::default()];
                N::hand(self.dtype, element, &mut value).map_err(|e| refused(0, e))?;
                for out in part.out.chunks_exact_mut(dim) {
                    out[column..column + width].fill(value[0]);
                }
                Ok(())
            }
            Chunk::Text(..) => Err(StoreError::Damaged {
                array: self.name().to_owned(),
                why: "a chunk holds text where floats should be".to_owned(),
            }),
        }
    }
}

fn decode_all(
    columns: Range<usize>,
    width: usize,
    decode: &(impl Fn(usize) -> Result<Chunk, StoreError> + Sync),
) -> Result<Vec<Chunk>, StoreError> {
    if width == 1 || columns.len() == 1 {
        return columns.map(decode).collect();
    }
    let mut chunks = Vec::with_capacity(columns.len());
    for first in columns.clone().step_by(width) {
        let group: Vec<_> = (first..columns.end.min(first + width)).into_par_iter().map(decode).collect();
        for chunk in group {
            chunks.push(chunk?);
        }
    }
    Ok(chunks)
}

impl Source for ZarrSource {
    fn name(&self) -> &str {
        self.array.name()
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn dtype(&self) -> FloatType {
        self.dtype
    }

    fn chunk_rows(&self) -> u64 {
        self.chunk.0
    }

    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn scratch_bytes(&self) -> u64 {
        let chunk = self.array.chunk_bytes();
        let (pieces, across) = (self.rows.div_ceil(self.chunk.0), self.chunks_across() as u64);
        let at_once = pieces.saturating_mul(across).min(self.lanes as u64);
        let in_flight = (chunk + self.array.decode_bytes()).saturating_mul(at_once);
        // A piece that is kept may replace another that a reader still holds; one of its chunks is in flight as well.
        let kept = if self.keeps { chunk.saturating_mul(across).saturating_mul(pieces.min(2)) } else { 0 };
        in_flight + kept.saturating_sub(chunk) + self.array.index_bytes(self.lanes)
    }

    fn release(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.array.release();
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        Ok(self.array.absent()?.into_iter().collect())
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        self.array.fingerprint()
    }
}
