//! A one-dimensional zarr array read by row range: numbers, truth values or texts. The chunk at which a read stops
//! halfway is kept for the next.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Chunk, Element, ZarrArray};
use crate::error::StoreError;
use crate::store::FloatType;
use crate::store::convert::stored;
use crate::store::disk::Disk;

/// A one-dimensional array.
#[derive(Debug)]
pub struct ZarrVector {
    array: ZarrArray,
    len: u64,
    chunk: u64,
    kept: Mutex<Option<(u64, Arc<Chunk>)>>,
}

impl ZarrVector {
    /// The array at `path` of a store.
    ///
    /// # Errors
    /// No such array, one that is not one-dimensional, codecs that are not supported.
    pub fn open(disk: &Arc<Disk>, path: &str) -> Result<Self, StoreError> {
        let array = ZarrArray::open(disk, path)?;
        match (array.shape(), array.chunk_shape()) {
            (&[len], &[chunk]) => Ok(Self { len, chunk, kept: Mutex::default(), array }),
            (shape, _) => Err(StoreError::WrongKind {
                array: array.name().to_owned(),
                found: format!("{}-dimensional", shape.len()),
                expected: "a column must be one-dimensional".to_owned(),
            }),
        }
    }

    /// How many elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The array.
    #[must_use]
    pub fn array(&self) -> &ZarrArray {
        &self.array
    }

    /// Most bytes that one read holds beyond what it returns, what is kept for the next one included.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        2 * self.array.chunk_bytes() + self.array.decode_bytes() + self.array.index_bytes(1)
    }

    /// Frees what is kept for the next read.
    pub fn release(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.array.release();
    }

    /// Truth values.
    ///
    /// # Errors
    /// Another type, rows out of range, a damaged chunk, any I/O error.
    pub fn bools(&self, range: Range<u64>) -> Result<Vec<bool>, StoreError> {
        if self.array.element() != &Element::Bool {
            return Err(self.wrong_kind("true or false is needed"));
        }
        self.collect(range, |bytes, at| Some(*bytes.get(at)? != 0))
    }

    /// Whole numbers, of any width.
    ///
    /// # Errors
    /// Another type, a number beyond the int64 range, rows out of range, a damaged chunk, any I/O error.
    pub fn integers(&self, range: Range<u64>) -> Result<Vec<i64>, StoreError> {
        match *self.array.element() {
            Element::Bool => self.collect(range, |bytes, at| bytes.get(at).map(|b| i64::from(*b != 0))),
            Element::Int(width) => self.collect(range, |bytes, at| integer(bytes, at, width, true)),
            Element::UInt(width) => self.collect(range, |bytes, at| integer(bytes, at, width, false)),
            _ => Err(self.wrong_kind("whole numbers are needed")),
        }
    }

    /// Numbers as float64: exact for floats and for whole numbers up to 2⁵³; NaN and infinities come as they are.
    ///
    /// # Errors
    /// Text, rows out of range, a damaged chunk, any I/O error.
    pub fn numbers(&self, range: Range<u64>) -> Result<Vec<f64>, StoreError> {
        match *self.array.element() {
            Element::Float(dtype) => {
                let width = usize::try_from(dtype.bytes()).unwrap_or(8);
                self.collect(range, |bytes, at| {
                    let one = bytes.get(at * width..(at + 1) * width)?;
                    Some(stored(dtype, one, 0))
                })
            }
            Element::UInt(8) => {
                self.collect(range, |bytes, at| bytes.as_chunks().0.get(at).map(|b| u64::from_ne_bytes(*b) as f64))
            }
            Element::Bool | Element::Int(_) | Element::UInt(_) => {
                Ok(self.integers(range)?.into_iter().map(|v| v as f64).collect())
            }
            _ => Err(self.wrong_kind("numbers are needed")),
        }
    }

    /// Texts, of any or of fixed length.
    ///
    /// # Errors
    /// Another type, bytes that are no text, rows out of range, a damaged chunk, any I/O error.
    pub fn texts(&self, range: Range<u64>) -> Result<Vec<String>, StoreError> {
        match *self.array.element() {
            Element::Text => self.variable_texts(range),
            Element::FixedText(0) => Ok(vec![String::new(); self.checked(&range)?]),
            Element::FixedText(code_points) => self.collect(range, |bytes, at| {
                let (points, _) = bytes.get(at * code_points * 4..(at + 1) * code_points * 4)?.as_chunks();
                let points = points.iter().map(|p| u32::from_ne_bytes(*p));
                let mut text: String = points.map(char::from_u32).collect::<Option<_>>()?;
                text.truncate(text.trim_end_matches('\0').len());
                Some(text)
            }),
            _ => Err(self.wrong_kind("text is needed")),
        }
    }

    /// Any element as text: numbers and truth values as Python prints them.
    ///
    /// # Errors
    /// An unknown type, and as the other reads.
    pub fn as_texts(&self, range: Range<u64>) -> Result<Vec<String>, StoreError> {
        match *self.array.element() {
            Element::Text | Element::FixedText(_) => self.texts(range),
            Element::Bool => {
                let name = |b| if b { "True" } else { "False" }.to_owned();
                Ok(self.bools(range)?.into_iter().map(name).collect())
            }
            Element::UInt(8) => {
                self.collect(range, |bytes, at| bytes.as_chunks().0.get(at).map(|b| u64::from_ne_bytes(*b).to_string()))
            }
            Element::Int(_) | Element::UInt(_) => {
                Ok(self.integers(range)?.into_iter().map(|v| v.to_string()).collect())
            }
            // The shortest digits that read back depend on the width: 0.1 of float32 is not 0.10000000149.
            Element::Float(FloatType::F32) => self.collect(range, |bytes, at| {
                bytes.as_chunks().0.get(at).map(|b| python_float(&format!("{:?}", f32::from_ne_bytes(*b))))
            }),
            Element::Float(_) => {
                Ok(self.numbers(range)?.into_iter().map(|v| python_float(&format!("{v:?}"))).collect())
            }
            Element::Other(_) => Err(self.wrong_kind("text, numbers or truth values are needed")),
        }
    }

    fn wrong_kind(&self, expected: &str) -> StoreError {
        StoreError::WrongKind {
            array: self.array.name().to_owned(),
            found: format!("of {}", self.array.element().name()),
            expected: expected.to_owned(),
        }
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged { array: self.array.name().to_owned(), why: why.to_owned() }
    }

    fn checked(&self, range: &Range<u64>) -> Result<usize, StoreError> {
        if range.start > range.end || range.end > self.len {
            return Err(StoreError::OutOfRange {
                array: self.array.name().to_owned(),
                rows: self.len,
                start: range.start,
                end: range.end,
            });
        }
        usize::try_from(range.end - range.start).map_err(|_| self.damaged("more rows than this machine can address"))
    }

    /// Elements of a fixed size, each read by `element` from the bytes of its chunk and its place there.
    fn collect<T: Clone>(
        &self,
        range: Range<u64>,
        element: impl Fn(&[u8], usize) -> Option<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut out = Vec::with_capacity(self.checked(&range)?);
        let unreadable = || self.damaged("it holds a value that can't be read");
        self.each_chunk(range, |chunk, rows| {
            match chunk {
                Chunk::Fixed(bytes) => {
                    for at in rows {
                        out.push(element(bytes, at).ok_or_else(unreadable)?);
                    }
                }
                Chunk::Fill(fill) => {
                    let fill = element(fill, 0).ok_or_else(unreadable)?;
                    out.extend(rows.map(|_| fill.clone()));
                }
                Chunk::Text(..) => return Err(self.damaged("a chunk holds text")),
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn variable_texts(&self, range: Range<u64>) -> Result<Vec<String>, StoreError> {
        let mut out = Vec::with_capacity(self.checked(&range)?);
        let text = |bytes: Option<&[u8]>| {
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.map(str::to_owned).ok_or_else(|| self.damaged("it holds bytes that are no text"))
        };
        self.each_chunk(range, |chunk, rows| {
            for at in rows {
                out.push(match chunk {
                    Chunk::Text(bytes, offsets) => match offsets.get(at..at + 2) {
                        Some(&[start, end]) => text(bytes.get(start..end))?,
                        _ => text(None)?,
                    },
                    Chunk::Fill(fill) => text(Some(fill))?,
                    Chunk::Fixed(_) => text(None)?,
                });
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Calls `each` with the chunks of the range in order, and the rows of it that are in each.
    fn each_chunk(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(&Chunk, Range<usize>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut row = range.start;
        while row < range.end {
            let number = row / self.chunk;
            let start = number * self.chunk;
            let end = range.end.min(start.saturating_add(self.chunk));
            let halfway = end < self.len && !end.is_multiple_of(self.chunk);
            let chunk = self.chunk(number, halfway)?;
            let place = |row: u64| usize::try_from(row - start).map_err(|_| self.damaged("a chunk is too large"));
            each(&chunk, place(row)?..place(end)?)?;
            row = end;
        }
        Ok(())
    }

    fn chunk(&self, number: u64, keep: bool) -> Result<Arc<Chunk>, StoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.as_ref().filter(|(kept, _)| *kept == number).map(|(_, chunk)| Arc::clone(chunk));
        if let Some(chunk) = found {
            if !keep {
                *kept = None;
            }
            return Ok(chunk);
        }
        drop(kept);
        let chunk = Arc::new(self.array.chunk(&[number], &self.array.reserve(number))?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = keep.then(|| (number, Arc::clone(&chunk)));
        Ok(chunk)
    }
}

/// The `at`-th whole number of `width` bytes; `None` beyond int64.
fn integer(bytes: &[u8], at: usize, width: u8, signed: bool) -> Option<i64> {
    match (width, signed) {
        (1, true) => bytes.as_chunks().0.get(at).map(|b| i64::from(i8::from_ne_bytes(*b))),
        (2, true) => bytes.as_chunks().0.get(at).map(|b| i64::from(i16::from_ne_bytes(*b))),
        (4, true) => bytes.as_chunks().0.get(at).map(|b| i64::from(i32::from_ne_bytes(*b))),
        (8, true) => bytes.as_chunks().0.get(at).map(|b| i64::from_ne_bytes(*b)),
        (1, false) => bytes.get(at).map(|b| i64::from(*b)),
        (2, false) => bytes.as_chunks().0.get(at).map(|b| i64::from(u16::from_ne_bytes(*b))),
        (4, false) => bytes.as_chunks().0.get(at).map(|b| i64::from(u32::from_ne_bytes(*b))),
        _ => bytes.as_chunks().0.get(at).and_then(|b| i64::try_from(u64::from_ne_bytes(*b)).ok()),
    }
}

/// Rust's shortest digits of a float in Python's spelling: `1e-05` rather than `1e-5`, `nan`, `inf`.
fn python_float(digits: &str) -> String {
    match digits.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, power) = exponent.strip_prefix('-').map_or(("+", exponent), |power| ("-", power));
            format!("{}e{sign}{power:0>2}", mantissa.strip_suffix(".0").unwrap_or(mantissa))
        }
        None => digits.to_lowercase(),
    }
}
