//! What every `Source` must do, as a check that any of them can be put through.

use std::ops::Range;

use rayon::prelude::*;

use crate::block::RowIds;
use crate::block::codes::CodedRows;
use crate::error::StoreError;
use crate::store::Source;

/// Checks that `source` holds `expected` (`rows × dim`, exactly) and reads it right by ranges that hurt: empty, one
/// row, across chunk borders, several at once, backwards, the whole, out of range, from several threads.
///
/// # Errors
/// What it did wrong.
pub fn check(source: &dyn Source, expected: &[f64]) -> Result<(), String> {
    let (rows, dim) = (source.rows(), source.dim());
    if dim == 0 || rows.checked_mul(dim as u64) != Some(expected.len() as u64) {
        return Err(format!("{rows} rows of {dim} dimensions, but {} values are expected", expected.len()));
    }
    if source.name().is_empty() || source.chunk_rows() == 0 {
        return Err(format!("its name is `{}` and its chunks have {} rows", source.name(), source.chunk_rows()));
    }
    let cases = cases(rows, source.chunk_rows());
    for ranges in &cases {
        check_read(source, expected, ranges)?;
    }
    cases
        .par_iter()
        .try_for_each(|ranges| check_read(source, expected, ranges).map_err(|e| format!("at once: {e}")))?;
    for range in out_of_range(rows) {
        let range = std::slice::from_ref(&range);
        let read = source.read(range, &mut []);
        if !matches!(read, Err(StoreError::OutOfRange { .. })) {
            return Err(format!("rows {range:?} of {rows} are not refused: {read:?}"));
        }
        if !matches!(source.read_codes(range), Ok(None) | Err(StoreError::OutOfRange { .. })) {
            return Err(format!("codes of rows {range:?} of {rows} are not refused"));
        }
    }
    match (source.fingerprint(), source.fingerprint()) {
        (Ok(one), Ok(two)) if one == two => Ok(()),
        (one, two) => Err(format!("fingerprints differ: {one:?}, {two:?}")),
    }
}

fn cases(rows: u64, chunk: u64) -> Vec<Vec<Range<u64>>> {
    let mut borders: Vec<u64> = [0, 1, rows / 2, rows.saturating_sub(1), rows].to_vec();
    for chunks in [1, 2, rows / chunk] {
        let border = chunk.saturating_mul(chunks);
        borders.extend([border.saturating_sub(1), border, border.saturating_add(1)]);
    }
    borders.retain(|border| *border <= rows);
    borders.sort_unstable();
    borders.dedup();
    let mut cases = vec![vec![], vec![0..rows]];
    for (at, start) in borders.iter().enumerate() {
        cases.extend(borders[at..].iter().map(|end| vec![*start..*end]));
    }
    let steps: Vec<Range<u64>> = borders.windows(2).map(|pair| pair[0]..pair[1]).collect();
    cases.push(steps.clone());
    cases.push(steps.iter().rev().cloned().collect());
    cases.push(steps.iter().step_by(2).cloned().collect());
    cases.push(vec![0..rows, rows..rows, 0..rows.min(3)]);
    cases
}

#[allow(clippy::reversed_empty_ranges, reason = "a range that ends before it begins must be refused")]
fn out_of_range(rows: u64) -> Vec<Range<u64>> {
    vec![0..rows + 1, rows + 1..rows + 1, rows + 5..rows + 9, 0..u64::MAX, 2..1]
}

fn check_read(source: &dyn Source, expected: &[f64], ranges: &[Range<u64>]) -> Result<(), String> {
    let dim = source.dim();
    let mut wanted = Vec::new();
    for range in ranges {
        let place = |row: u64| usize::try_from(row).map(|row| row * dim).map_err(|e| e.to_string());
        wanted.extend_from_slice(&expected[place(range.start)?..place(range.end)?]);
    }
    // Filled with something else, so that a value left out shows.
    let (mut singles, mut doubles) = (vec![f32::NAN; wanted.len()], vec![f64::NAN; wanted.len()]);
    source.read(ranges, &mut singles).map_err(|e| format!("{ranges:?} as float32: {e}"))?;
    source.read_f64(ranges, &mut doubles).map_err(|e| format!("{ranges:?} as float64: {e}"))?;
    let wrong = |at: usize, found: f64, wanted: f64| {
        format!("{ranges:?}: value {at} is {found} and should be {wanted} (row {} of the read)", at / dim)
    };
    for (at, value) in wanted.iter().enumerate() {
        #[allow(clippy::cast_possible_truncation, reason = "the rounding that a float32 read makes")]
        let single = *value as f32;
        if singles[at].to_bits() != single.to_bits() {
            return Err(wrong(at, f64::from(singles[at]), f64::from(single)));
        }
        if doubles[at].to_bits() != value.to_bits() {
            return Err(wrong(at, doubles[at], *value));
        }
    }
    check_codes(source, ranges, &singles)
}

/// Codes, where there are any, are of the rows that a read gives.
fn check_codes(source: &dyn Source, ranges: &[Range<u64>], read: &[f32]) -> Result<(), String> {
    let dim = source.dim();
    let Some(codes) = source.read_codes(ranges).map_err(|e| format!("{ranges:?} as codes: {e}"))? else {
        return Ok(());
    };
    let ids = RowIds::Range(0..(read.len() / dim) as u64);
    let rows = CodedRows::new(ids, ranges, dim, codes).map_err(|e| format!("{ranges:?} as codes: {e}"))?;
    let mut decoded = vec![f32::NAN; dim];
    for (row, read) in read.chunks_exact(dim).enumerate() {
        rows.decode(row, &mut decoded);
        if decoded.iter().zip(read).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err(format!("{ranges:?}: row {row} of the read is {read:?}, and its codes are of {decoded:?}"));
        }
        if rows.bytes(row).len() as u64 != source.row_bytes() {
            return Err(format!("its rows are {} bytes and not {}", rows.bytes(row).len(), source.row_bytes()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::Value;

    use super::*;
    use crate::block::codes::Codes;
    use crate::store::memory::MemorySource;
    use crate::store::{FloatType, testing};

    /// How a source may be wrong.
    #[derive(Clone, Copy, Debug)]
    enum Fault {
        OffByOne,
        LastColumn,
        OnlySingles,
        SecondRange,
        AcceptsAnything,
        ForgetsValues,
        FingerprintDrifts,
        CodesOfOthers,
    }

    #[derive(Debug)]
    struct Faulty(MemorySource, Fault, AtomicU64);

    impl Faulty {
        fn spoil<N: Copy + Default>(&self, ranges: &[Range<u64>], out: &mut [N]) {
            let dim = self.0.dim();
            match self.1 {
                Fault::LastColumn if !out.is_empty() => out[dim - 1] = N::default(),
                Fault::SecondRange if ranges.len() > 1 => out.rotate_left(dim),
                Fault::ForgetsValues if out.len() > 40 * dim => out[40 * dim..].fill(N::default()),
                _ => {}
            }
        }

        fn ranges(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
            let rows = self.0.rows();
            match self.1 {
                Fault::OffByOne => {
                    ranges.iter().map(|r| if r.end < rows { r.start + 1..r.end + 1 } else { r.clone() }).collect()
                }
                Fault::AcceptsAnything => {
                    ranges.iter().map(|r| if r.end > rows || r.start > r.end { 0..0 } else { r.clone() }).collect()
                }
                _ => ranges.to_vec(),
            }
        }
    }

    impl Source for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn rows(&self) -> u64 {
            self.0.rows()
        }
        fn dim(&self) -> usize {
            self.0.dim()
        }
        fn dtype(&self) -> FloatType {
            self.0.dtype()
        }
        fn chunk_rows(&self) -> u64 {
            16
        }
        fn stored_bytes(&self) -> u64 {
            0
        }
        fn scratch_bytes(&self) -> u64 {
            0
        }
        fn read_codes(&self, ranges: &[Range<u64>]) -> Result<Option<Codes>, StoreError> {
            let values = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap() * self.0.dim();
            let zeros = || Codes::Halves(vec![half::f16::ZERO; ranges.iter().map(values).sum()]);
            let whole = ranges.iter().all(|range| range.start <= range.end && range.end <= self.0.rows());
            Ok((matches!(self.1, Fault::CodesOfOthers) && whole).then(zeros))
        }
        fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
            self.0.read(&self.ranges(ranges), out)?;
            self.spoil(ranges, out);
            Ok(())
        }
        fn read_f64(&self, ranges: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
            self.0.read_f64(&self.ranges(ranges), out)?;
            self.spoil(ranges, out);
            if matches!(self.1, Fault::OnlySingles) {
                for value in out {
                    *value = f64::from(testing::as_f32(&[*value])[0]);
                }
            }
            Ok(())
        }
        fn fingerprint(&self) -> Result<Value, StoreError> {
            let calls = self.2.fetch_add(1, Ordering::Relaxed);
            Ok(Value::from(if matches!(self.1, Fault::FingerprintDrifts) { calls } else { 0 }))
        }
    }

    #[test]
    fn every_fault_is_found() -> Result<(), Box<dyn std::error::Error>> {
        let values = testing::values(50, 3);
        let source = MemorySource::from_f64("m", 3, values.clone())?;
        check(&source, &values)?;
        for fault in [
            Fault::OffByOne,
            Fault::LastColumn,
            Fault::OnlySingles,
            Fault::SecondRange,
            Fault::AcceptsAnything,
            Fault::ForgetsValues,
            Fault::FingerprintDrifts,
            Fault::CodesOfOthers,
        ] {
            let checked = check(&Faulty(source.clone(), fault, AtomicU64::new(0)), &values);
            assert!(checked.is_err(), "{fault:?} is not found");
        }
        assert!(check(&source, &values[3..]).is_err(), "a missing row is not found");
        Ok(())
    }
}
