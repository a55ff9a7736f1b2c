//! A `Source` that counts what is read from it, so that tests can say how much a run may read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::block::codes::Codes;
use crate::error::StoreError;
use crate::store::{Absent, FloatType, Source};

/// A source and how much of it was read.
#[derive(Debug)]
pub struct Counted {
    source: Arc<dyn Source>,
    rows: AtomicU64,
    calls: AtomicU64,
}

impl Counted {
    /// Counts the reads of `source`, from zero.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, rows: AtomicU64::new(0), calls: AtomicU64::new(0) }
    }

    /// Rows read so far, each as often as it was read.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self, ranges: &[Range<u64>]) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let rows = ranges.iter().map(|r| r.end.saturating_sub(r.start)).fold(0, u64::saturating_add);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Source for Counted {
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
        self.source.dtype()
    }

    fn chunk_rows(&self) -> u64 {
        self.source.chunk_rows()
    }

    fn stored_bytes(&self) -> u64 {
        self.source.stored_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        self.source.scratch_bytes()
    }

    fn release(&self) {
        self.source.release();
    }

    fn row_bytes(&self) -> u64 {
        self.source.row_bytes()
    }

    fn read_codes(&self, ranges: &[Range<u64>]) -> Result<Option<Codes>, StoreError> {
        let codes = self.source.read_codes(ranges)?;
        if codes.is_some() {
            self.count(ranges);
        }
        Ok(codes)
    }

    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        self.count(ranges);
        self.source.read(ranges, out)
    }

    fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
        self.count(ranges);
        self.source.read_f64(ranges, out)
    }

    fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        self.source.absent()
    }

    fn fingerprint(&self) -> Result<Value, StoreError> {
        self.source.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemorySource;
    use crate::store::{conformance, testing};

    #[test]
    fn counting_changes_nothing_but_the_counts() -> Result<(), Box<dyn std::error::Error>> {
        let values = testing::values(9, 2);
        let counted = Counted::new(Arc::new(MemorySource::from_f64("m", 2, values.clone())?));
        counted.read(&[0..2, 4..9], &mut [0.0; 14])?;
        counted.read_f64(&[3..4], &mut [0.0; 2])?;
        assert_eq!((counted.rows_read(), counted.calls()), (8, 2));
        conformance::check(&counted, &values)?;
        Ok(())
    }
}
