//! Several sources one after the other as one: the datasets of an annbatch collection.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::error::StoreError;
use crate::store::convert::Number;
use crate::store::{Absent, FloatType, Source, check_ranges};

/// Sources in order, as one.
#[derive(Debug)]
pub struct Concatenated {
    name: String,
    parts: Vec<Arc<dyn Source>>,
    /// Rows before each part, and at the end all rows.
    starts: Vec<u64>,
    dim: usize,
    dtype: FloatType,
    /// The part read last: the only one that may keep something.
    last: AtomicUsize,
}

impl Concatenated {
    /// The rows of `parts`, in order, called `name` in messages.
    ///
    /// # Errors
    /// No part at all, parts of different dimension.
    pub fn new(name: &str, parts: Vec<Arc<dyn Source>>) -> Result<Self, StoreError> {
        let wrong = |found: String, expected: &str| StoreError::WrongKind {
            array: name.to_owned(),
            found,
            expected: expected.to_owned(),
        };
        let Some(first) = parts.first() else {
            return Err(wrong("empty".to_owned(), "a collection needs at least one dataset"));
        };
        let dim = first.dim();
        if let Some(other) = parts.iter().find(|part| part.dim() != dim) {
            let found = format!("of {dim} dimensions in {} and {} in {}", first.name(), other.dim(), other.name());
            return Err(wrong(found, "all datasets of a collection must have the same"));
        }
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.rows());
        }
        let dtype = parts.iter().map(|part| part.dtype()).max_by_key(|t| t.bytes()).unwrap_or(FloatType::F32);
        Ok(Self { name: name.to_owned(), parts, starts, dim, dtype, last: AtomicUsize::new(0) })
    }

    fn read_as<N: Number>(
        &self,
        ranges: &[Range<u64>],
        mut out: &mut [N],
        read: impl Fn(&dyn Source, &[Range<u64>], &mut [N]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        check_ranges(self, ranges, out.len())?;
        // Ranges that follow each other in one part are read together, so that the part can decode them at once.
        let mut pending: (usize, Vec<Range<u64>>) = (0, Vec::new());
        let mut flush = |pending: &mut (usize, Vec<Range<u64>>)| {
            let rows: u64 = pending.1.iter().map(|r| r.end - r.start).sum();
            let values = usize::try_from(rows).unwrap_or(usize::MAX) * self.dim;
            let (part, rest) = std::mem::take(&mut out).split_at_mut(values);
            out = rest;
            let ranges = std::mem::take(&mut pending.1);
            if ranges.is_empty() {
                return Ok(());
            }
            let last = self.last.swap(pending.0, Ordering::Relaxed);
            if last != pending.0 {
                self.parts[last].release();
            }
            read(self.parts[pending.0].as_ref(), &ranges, part)
        };
        for range in ranges {
            let mut row = range.start;
            while row < range.end {
                let at = self.starts.partition_point(|start| *start <= row) - 1;
                let end = range.end.min(self.starts[at + 1]);
                if pending.0 != at {
                    flush(&mut pending)?;
                    pending.0 = at;
                }
                pending.1.push(row - self.starts[at]..end - self.starts[at]);
                row = end;
            }
        }
        flush(&mut pending)
    }
}

impl Source for Concatenated {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> u64 {
        self.starts[self.parts.len()]
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn dtype(&self) -> FloatType {
        self.dtype
    }

    fn chunk_rows(&self) -> u64 {
        self.parts.iter().map(|part| part.chunk_rows()).max().unwrap_or(1)
    }

    fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.stored_bytes()).fold(0, u64::saturating_add)
    }

    fn scratch_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.scratch_bytes()).max().unwrap_or(0)
    }

    fn release(&self) {
        self.parts[self.last.load(Ordering::Relaxed)].release();
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.read_as(ranges, out, |part, ranges, out| part.read(ranges, out))
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.read_as(ranges, out, |part, ranges, out| part.read_f64(ranges, out))
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        let mut all = Vec::new();
        for part in &self.parts {
            all.extend(part.absent()?);
        }
        Ok(all)
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        let parts = self.parts.iter().map(|part| part.fingerprint()).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "parts": parts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemorySource;
    use crate::store::{conformance, testing};

    #[test]
    fn sources_of_any_length_read_as_one() -> Result<(), Box<dyn std::error::Error>> {
        for lengths in [vec![0], vec![5], vec![3, 0, 4, 1], vec![0, 7, 0]] {
            let all = testing::values(lengths.iter().sum(), 3);
            let mut rest = all.as_slice();
            let mut parts: Vec<Arc<dyn Source>> = Vec::new();
            for rows in &lengths {
                let (part, later) = rest.split_at(rows * 3);
                rest = later;
                parts.push(Arc::new(MemorySource::from_f64("part", 3, part.to_vec())?));
            }
            conformance::check(&Concatenated::new("all", parts)?, &all).map_err(|e| format!("{lengths:?}: {e}"))?;
        }
        Ok(())
    }

    #[test]
    fn parts_of_different_width_are_refused() -> Result<(), Box<dyn std::error::Error>> {
        let part = |dim| MemorySource::from_f32("p", dim, vec![0.0; 6]).map(|p| Arc::new(p) as Arc<dyn Source>);
        assert!(Concatenated::new("all", vec![part(2)?, part(3)?]).is_err());
        assert!(Concatenated::new("all", vec![]).is_err());
        Ok(())
    }
}
