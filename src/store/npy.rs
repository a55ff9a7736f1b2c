//! A `.npy` file of `rows × dim` little-endian floats in C order as a `Source`, by positioned reads. It is never mapped:
//! mapped pages count as resident memory.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::StoreError;
use crate::store::convert::{Number, convert};
use crate::store::disk::{io_error, read_exact_at};
use crate::store::fingerprint::{SUMMED_FILES, summed_parts};
use crate::store::{FloatType, IoCounters, Source, check_ranges};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Rows of a `.npy` file.
#[derive(Debug)]
pub struct NpySource {
    file: File,
    path: PathBuf,
    name: String,
    header: Header,
    io: Arc<IoCounters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    rows: u64,
    dim: usize,
    dtype: FloatType,
    /// Where the first row begins.
    start: u64,
}

impl NpySource {
    /// The array in the file at `path`; what is read is added to `io`.
    ///
    /// # Errors
    /// No such file, no `.npy`, an array of another type, order or number of dimensions, a file that is too short.
    pub fn open(path: &Path, io: &Arc<IoCounters>) -> Result<Self, StoreError> {
        let failed = |e| io_error("read", path, e);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let read = |offset: u64, len: u64| {
            let missing = len > size || offset > size - len;
            let mut bytes = vec![0; if missing { 0 } else { usize::try_from(len).unwrap_or(0) }];
            if missing {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            read_exact_at(&file, &mut bytes, offset).map_err(failed)?;
            io.add_read(len);
            Ok(bytes)
        };
        let not_npy = |why: &str| StoreError::NotAStore { path: path.to_owned(), why: why.to_owned() };
        let preamble = read(0, size.min(12))?;
        let (start, len) = match preamble.as_slice() {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (10, u64::from(u16::from_le_bytes([*a, *b]))),
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => {
                (12, u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1..=3, ..] => {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => return Err(not_npy("its .npy version is not 1, 2 or 3")),
            _ => return Err(not_npy("it does not begin as a .npy file does")),
        };
        let text = String::from_utf8(read(start, len)?).map_err(|_| not_npy("its header is no text"))?;
        let name = path.display().to_string();
        let header = parse(&text, start + len, &name)?;
        let needs = header.rows.checked_mul(header.dim as u64).and_then(|n| n.checked_mul(header.dtype.bytes()));
        if needs.is_none_or(|needs| size - header.start < needs) {
            let why =
                format!("{} rows of {} {} do not fit in {size} bytes", header.rows, header.dim, header.dtype.name());
            return Err(StoreError::Damaged { array: name, why });
        }
        Ok(Self { path: path.to_owned(), name, header, io: Arc::clone(io), file })
    }

    fn row_bytes(&self) -> u64 {
        self.header.dim as u64 * self.header.dtype.bytes()
    }

    fn read_as<N: Number>(&self, ranges: &[Range<u64>], mut out: &mut [N]) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        let width = usize::try_from(self.header.dtype.bytes()).unwrap_or(8);
        let mut bytes = vec![0; PIECE_BYTES.min(out.len().saturating_mul(width))];
        for range in ranges {
            let mut offset = self.header.start + range.start * self.row_bytes();
            let values = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).saturating_mul(self.header.dim);
            let (mut rest, after) = out.split_at_mut(values);
            out = after;
            let mut done = 0;
            while !rest.is_empty() {
                let (piece, later) = rest.split_at_mut(rest.len().min(PIECE_BYTES / width));
                let bytes = &mut bytes[..piece.len() * width];
                read_exact_at(&self.file, bytes, offset).map_err(|e| io_error("read", &self.path, e))?;
                self.io.add_read(bytes.len() as u64);
                convert(self.header.dtype, bytes, piece).map_err(|e| {
                    let at = done + e.at;
                    e.error(&self.name, range.start + (at / self.header.dim) as u64, at % self.header.dim)
                })?;
                offset += bytes.len() as u64;
                done += piece.len();
                rest = later;
            }
        }
        Ok(())
    }
}

/// Reads the header's Python dictionary: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str, start: u64, name: &str) -> Result<Header, StoreError> {
    let array = || name.to_owned();
    let after = |key: &str| {
        let value = text.split_once(&format!("'{key}'")).and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
        value.map(str::trim_start).ok_or_else(|| StoreError::Damaged { array: array(), why: format!("no {key}") })
    };
    let wrong = |found: String, expected: &str| StoreError::WrongKind {
        array: array(),
        found,
        expected: format!("{expected}; save it with numpy.save(path, numpy.ascontiguousarray(rows, \"float32\"))"),
    };
    let descr = after("descr")?;
    let descr = descr.split('\'').nth(1).filter(|_| descr.starts_with('\'')).unwrap_or(descr);
    let dtype = match descr {
        "<f2" => FloatType::F16,
        "<f4" => FloatType::F32,
        "<f8" => FloatType::F64,
        other => {
            return Err(wrong(format!("of type {other}"), "rows must be little-endian float16, float32 or float64"));
        }
    };
    let shape = after("shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).map_or("", |(inside, _)| inside);
    let sizes: Vec<u64> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let &[rows, columns] = sizes.as_slice() else {
        return Err(wrong(format!("{}-dimensional", sizes.len()), "rows must be two-dimensional"));
    };
    if after("fortran_order")?.starts_with("True") {
        return Err(wrong("in Fortran order".to_owned(), "rows must follow each other (C order)"));
    }
    match usize::try_from(columns) {
        Ok(dim) if dim > 0 => Ok(Header { rows, dim, dtype, start }),
        _ => Err(wrong(format!("{columns} columns wide"), "rows must have at least one dimension")),
    }
}

impl Source for NpySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> u64 {
        self.header.rows
    }

    fn dim(&self) -> usize {
        self.header.dim
    }

    fn dtype(&self) -> FloatType {
        self.header.dtype
    }

    fn chunk_rows(&self) -> u64 {
        1
    }

    fn stored_bytes(&self) -> u64 {
        self.header.rows * self.row_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        PIECE_BYTES as u64
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out)
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        let failed = |e| io_error("read", &self.path, e);
        let bytes = self.file.metadata().map_err(failed)?.len();
        // As if it were several files: one after the other, of equal length.
        let mut sums = Vec::new();
        let step = bytes.div_ceil(SUMMED_FILES).max(1);
        for place in 0..bytes.div_ceil(step) {
            let start = place * step;
            let mut sum = 0;
            for (offset, len) in summed_parts(place, step.min(bytes - start)) {
                let mut part = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
                read_exact_at(&self.file, &mut part, start + offset).map_err(failed)?;
                self.io.add_read(len);
                sum = crc32c::crc32c_append(sum, &part);
            }
            sums.push(sum);
        }
        Ok(json!({
            "npy": { "rows": self.header.rows, "dim": self.header.dim, "dtype": self.header.dtype.name() },
            "bytes": bytes,
            "crc32c": sums,
        }))
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
