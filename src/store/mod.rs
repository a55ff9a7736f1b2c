//! Bytes: the only code that opens files. Rows come in through [`Source`], by range, into the caller's buffer.

pub mod absent;
pub mod anndata;
pub mod columns;
pub mod concatenated;
pub mod conformance;
mod convert;
pub mod counted;
pub mod describe;
pub mod disk;
pub(crate) mod fingerprint;
pub mod folder;
pub mod index;
pub mod memory;
pub mod neighbours;
pub mod node;
pub mod npy;
pub mod open;
pub mod prepared;
pub mod results;
pub mod spill;
pub mod unpack;
pub mod zarr;

#[cfg(test)]
mod testing;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use absent::Absent;

use crate::block::codes::Codes;
use crate::error::StoreError;

/// How the numbers of a source are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// A byte that stands for a number, or for some: only in an index, which knows what it means.
    Code,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl FloatType {
    /// Bytes per number.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Code => 1,
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The zarr and numpy name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Code => "uint8",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }
}

/// Bytes that went to and from files, shared by everything one job opens.
#[derive(Debug, Default)]
pub struct IoCounters {
    read: AtomicU64,
    written: AtomicU64,
}

impl IoCounters {
    /// Counts from zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds to the bytes read.
    pub fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the bytes written.
    pub fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes read from files so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written to files so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// Ordered rows of floats, `rows × dim`, on disk or in memory; all reads are by row range into the caller's buffer.
///
/// Reads are safe from several threads at once. Every value that is handed out is finite.
pub trait Source: Send + Sync + Debug {
    /// The array with its store, for messages: `atlas.zarr:obsm/X_pca`.
    fn name(&self) -> &str;
    /// How many rows.
    fn rows(&self) -> u64;
    /// Values per row.
    fn dim(&self) -> usize;
    /// How the numbers are stored.
    fn dtype(&self) -> FloatType;
    /// Rows per piece that is decoded on its own: reads that begin and end on multiples of it decode nothing twice.
    fn chunk_rows(&self) -> u64;
    /// Bytes on disk of the whole array, estimated from a sample of its chunks.
    fn stored_bytes(&self) -> u64;
    /// Most bytes that one `read` holds beyond the caller's buffer, what the source keeps for the next one included.
    fn scratch_bytes(&self) -> u64;

    /// Frees what is kept for the next read, for a source that will not be read for a while.
    fn release(&self) {}

    /// Bytes of a row in memory: its codes for a source that keeps those, and else its values as float32.
    fn row_bytes(&self) -> u64 {
        self.dim() as u64 * 4
    }

    /// The rows of these ranges, one after the other, as the codes they are kept as; `None` for a source that keeps numbers.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn read_codes(&self, ranges: &[Range<u64>]) -> Result<Option<Codes>, StoreError> {
        let _ = ranges;
        Ok(None)
    }

    /// Reads the rows of these ranges, one after the other, into `out` (`Σ range length × dim`), as float32.
    ///
    /// # Errors
    /// Rows out of range, a value that is not finite or does not fit float32, a damaged chunk, any I/O error.
    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError>;

    /// The same as float64: exact for every type.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError>;

    /// Chunk files that are not there, so that rows read as the fill value; none for a source that has no such thing.
    ///
    /// # Errors
    /// Any I/O error.
    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        Ok(Vec::new())
    }

    /// What would change if the rows did, and does not when they are copied: shape, type, metadata, sizes and checksums
    /// of a sample of the files.
    ///
    /// # Errors
    /// Any I/O error.
    fn fingerprint(&self) -> Result<serde_json::Value, StoreError>;
}

/// What Linux says of this process (`/proc/self/status`); `None` elsewhere.
#[must_use]
pub fn process_status() -> Option<String> {
    std::fs::read_to_string("/proc/self/status").ok()
}

/// Checks a read before it begins.
///
/// # Panics
/// When the caller's buffer is not as long as the ranges ask for.
fn check_ranges(source: &dyn Source, ranges: &[Range<u64>], len: usize) -> Result<(), StoreError> {
    let (rows, dim) = (source.rows(), source.dim());
    let mut wanted = 0_u64;
    for range in ranges {
        if range.start > range.end || range.end > rows {
            let (start, end) = (range.start, range.end);
            return Err(StoreError::OutOfRange { array: source.name().to_owned(), rows, start, end });
        }
        wanted = wanted.saturating_add(range.end - range.start);
    }
    assert_eq!(wanted.checked_mul(dim as u64), Some(len as u64), "the buffer is rows × dim");
    Ok(())
}
