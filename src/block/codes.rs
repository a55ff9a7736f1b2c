//! Rows as the codes that an index keeps: a half, a quarter or less of what they take as float32. They are decoded a row at
//! a time, here and nowhere else, so that whoever looks at a row sees the same numbers.

use std::ops::Range;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::RowIds;
use super::patterns::Patterns;
use super::scale::Scale;
use crate::error::BlockError;

/// Patterns of what is left of rows beside the centroids of their lists.
#[derive(Debug)]
pub struct ListPatterns {
    /// The patterns.
    pub patterns: Patterns,
    /// The centroids, `lists × dim`.
    pub centroids: Arc<Vec<f32>>,
    /// Where each list begins, and at the end where the last one ends.
    pub offsets: Arc<Vec<u64>>,
}

impl ListPatterns {
    /// The list of a row in list order.
    fn list(&self, row: u64) -> usize {
        // Lists that end before it, the empty ones among them, come first.
        self.offsets.partition_point(|at| *at <= row).saturating_sub(1)
    }

    fn centroid(&self, list: usize, dim: usize) -> &[f32] {
        &self.centroids[list * dim..(list + 1) * dim]
    }
}

/// Codes, row after row, with what they mean.
#[derive(Clone, Debug)]
pub enum Codes {
    /// A float16 per value; all are finite.
    Halves(Vec<f16>),
    /// A byte per value.
    Scaled(Vec<u8>, Arc<Scale>),
    /// A byte for a few values beside the centroid of a row's list.
    Patterns(Vec<u8>, Arc<ListPatterns>),
}

impl Codes {
    /// How many there are.
    fn len(&self) -> usize {
        match self {
            Self::Halves(halves) => halves.len(),
            Self::Scaled(bytes, _) | Self::Patterns(bytes, _) => bytes.len(),
        }
    }

    /// Codes of a row of `dim` values.
    fn per_row(&self, dim: usize) -> usize {
        match self {
            Self::Halves(_) | Self::Scaled(..) => dim,
            Self::Patterns(_, lists) => lists.patterns.codes(),
        }
    }
}

/// Rows of a block as codes, `rows × dim` once they are decoded, with their ids.
#[derive(Clone, Debug)]
pub struct CodedRows {
    ids: RowIds,
    dim: usize,
    codes: Codes,
    /// With patterns: which list each row is of.
    lists: Option<Runs>,
}

impl CodedRows {
    /// Rows with these ids, which in list order are those of `places`, one range after the other.
    ///
    /// # Errors
    /// [`BlockError::Shape`] where there are not as many codes, or places, as the ids ask for.
    pub fn new(ids: RowIds, places: &[Range<u64>], dim: usize, codes: Codes) -> Result<Self, BlockError> {
        let placed: u64 = places.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let wanted = ids.len().checked_mul(codes.per_row(dim));
        if dim == 0 || wanted != Some(codes.len()) || placed != ids.len() as u64 {
            return Err(BlockError::Shape { rows: ids.len(), dim, values: codes.len() });
        }
        let lists = match &codes {
            Codes::Patterns(_, lists) => Some(Runs::of(lists, places)),
            _ => None,
        };
        Ok(Self { ids, dim, codes, lists })
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Values per row, once decoded.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The rows' ids.
    #[must_use]
    pub fn ids(&self) -> &RowIds {
        &self.ids
    }

    /// Writes the `dim` values of a row.
    ///
    /// # Panics
    /// When there is no such row, or no room for it.
    pub fn decode(&self, row: usize, out: &mut [f32]) {
        let of = self.codes_of(row);
        match &self.codes {
            Codes::Halves(halves) => halves_to_floats(&halves[of], out),
            Codes::Scaled(bytes, scale) => scale.decode(&bytes[of], out),
            Codes::Patterns(bytes, lists) => {
                lists.patterns.decode(&bytes[of], lists.centroid(self.list_of(row), self.dim), out);
            }
        }
    }

    /// The codes of all rows.
    #[must_use]
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// How many there are to a row.
    #[must_use]
    pub fn codes_per_row(&self) -> usize {
        self.codes.per_row(self.dim)
    }

    /// The list of a row and its centroid, where its codes are of what is left beside that.
    #[must_use]
    pub fn list(&self, row: usize) -> Option<(usize, &[f32])> {
        match &self.codes {
            Codes::Patterns(_, lists) => Some((self.list_of(row), lists.centroid(self.list_of(row), self.dim))),
            _ => None,
        }
    }

    /// What is kept of a row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> &[u8] {
        self.bytes_of(row..row + 1)
    }

    /// What is kept of some rows, one after the other.
    #[must_use]
    pub fn bytes_of(&self, rows: Range<usize>) -> &[u8] {
        let of = rows.start * self.codes_per_row()..rows.end * self.codes_per_row();
        match &self.codes {
            Codes::Halves(halves) => bytemuck::cast_slice(&halves[of]),
            Codes::Scaled(bytes, _) | Codes::Patterns(bytes, _) => &bytes[of],
        }
    }

    /// Whether two rows are kept alike, so that they decode to the same values.
    #[must_use]
    pub fn same(&self, a: usize, b: usize) -> bool {
        self.bytes(a) == self.bytes(b) && self.list_of(a) == self.list_of(b)
    }

    fn codes_of(&self, row: usize) -> Range<usize> {
        let width = self.codes_per_row();
        row * width..(row + 1) * width
    }

    fn list_of(&self, row: usize) -> usize {
        self.lists.as_ref().map_or(0, |lists| lists.list(row))
    }
}

/// Runs of rows of one list.
#[derive(Clone, Debug)]
struct Runs {
    /// Where each begins, and the list.
    runs: Vec<(u32, u32)>,
    /// The run of every so many rows, so that few are looked at to find that of another.
    marks: Vec<u32>,
}

/// Rows between two marks: about as many as a list has.
const MARKED_ROWS: usize = 256;

impl Runs {
    /// The runs among the rows of `places`.
    fn of(lists: &ListPatterns, places: &[Range<u64>]) -> Self {
        // Rows of a block, and lists, are fewer than 2³².
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (mut runs, mut marks, mut first) = (Vec::new(), Vec::new(), 0);
        for range in places {
            let mut at = range.start;
            while at < range.end {
                let list = lists.list(at);
                let end = lists.offsets.get(list + 1).copied().unwrap_or(u64::MAX).min(range.end);
                let next = first + (end - at);
                while ((marks.len() * MARKED_ROWS) as u64) < next {
                    marks.push(narrow(runs.len() as u64));
                }
                runs.push((narrow(first), narrow(list as u64)));
                (first, at) = (next, end);
            }
        }
        Self { runs, marks }
    }

    /// The list of a row.
    fn list(&self, row: usize) -> usize {
        let mark = row / MARKED_ROWS;
        let first = wide(self.marks[mark]);
        let end = self.marks.get(mark + 1).map_or(self.runs.len(), |run| wide(*run) + 1);
        let after = self.runs[first..end].partition_point(|(start, _)| wide(*start) <= row);
        wide(self.runs[first + after - 1].1)
    }
}

/// The values of halves, exactly.
///
/// # Panics
/// When there is no room for all of them.
pub fn halves_to_floats(halves: &[f16], out: &mut [f32]) {
    halves.convert_to_f32_slice(out);
}

fn wide(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::patterns::PATTERNS;
    use super::*;

    fn decoded(rows: &CodedRows) -> Vec<f32> {
        let mut out = vec![0.0; rows.rows() * rows.dim()];
        out.chunks_exact_mut(rows.dim()).enumerate().for_each(|(row, out)| rows.decode(row, out));
        out
    }

    #[test]
    fn every_kind_of_code_comes_back_as_what_it_means() {
        let halves = Codes::Halves([1.5, -0.0, 65_504.0, 6e-8].map(f16::from_f32).to_vec());
        let rows = CodedRows::new(RowIds::Range(3..5), &[0..2], 2, halves).unwrap();
        assert_eq!(decoded(&rows), [1.5, -0.0, 65_504.0, 5.960_464_5e-8]);
        let scale = Arc::new(Scale { low: vec![-1.0, 5.0], step: vec![0.5, 0.0] });
        let codes = Codes::Scaled(vec![0, 0, 255, 9], scale);
        let rows = CodedRows::new(RowIds::List(vec![9, 4]), &[7..8, 2..3], 2, codes).unwrap();
        assert_eq!((decoded(&rows), rows.bytes(1)), (vec![-1.0, 5.0, 126.5, 5.0], [255, 9].as_slice()));
    }

    /// 256 patterns of one code: the number of the pattern, and nothing in the second dimension.
    fn numbers(offsets: Vec<u64>, centroids: Vec<f32>) -> Arc<ListPatterns> {
        let rows: Vec<f32> = (0..PATTERNS).flat_map(|p| [p as f32, 0.0]).collect();
        let patterns = Patterns::from_rows(&rows, 1).unwrap();
        Arc::new(ListPatterns { patterns, centroids: Arc::new(centroids), offsets: Arc::new(offsets) })
    }

    #[test]
    fn patterns_stand_beside_the_centroid_of_the_list_that_a_row_is_of() {
        // Lists of 2, 0, 3, 1 and 0 rows; ranges that begin and end within lists.
        let lists = numbers(vec![0, 2, 2, 5, 6, 6], vec![1000.0, 2000.0, 3000.0, 4000.0, 5000.0]);
        let of = |places: &[Range<u64>], codes: Vec<u8>| {
            let ids = RowIds::Range(0..codes.len() as u64);
            CodedRows::new(ids, places, 1, Codes::Patterns(codes, Arc::clone(&lists))).unwrap()
        };
        let rows = of(&[1..4, 5..6, 0..1], vec![1, 2, 3, 4, 5]);
        assert_eq!(decoded(&rows), [1001.0, 3002.0, 3003.0, 4004.0, 1005.0]);
        let rows = of(&[0..6], vec![7; 6]);
        let alike: Vec<bool> = (1..6).map(|row| rows.same(row - 1, row)).collect();
        assert_eq!(alike, [true, false, true, true, false]);
        assert_eq!(of(&[], vec![]).rows(), 0);
    }

    #[test]
    fn the_list_of_every_row_is_found_whatever_the_sizes_of_lists() {
        for sizes in [vec![1; 700], vec![1, 0, 1_000, 0, 0, 255, 256, 257, 3], vec![0, 5_000, 0], (0..60).collect()] {
            let mut offsets = vec![0];
            for size in &sizes {
                offsets.push(offsets[offsets.len() - 1] + size);
            }
            let n = offsets[sizes.len()];
            let lists = numbers(offsets, vec![0.0; sizes.len()]);
            let places = [n / 3..n, 0..n / 2];
            let runs = Runs::of(&lists, &places);
            for (row, place) in places.into_iter().flatten().enumerate() {
                assert_eq!(runs.list(row), lists.list(place), "row {row} of {sizes:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let halves = |n| Codes::Halves(vec![f16::ONE; n]);
        let rows = |places: &[Range<u64>], codes| CodedRows::new(RowIds::Range(0..2), places, 2, codes);
        assert!(matches!(rows(&[0..2], halves(3)), Err(BlockError::Shape { values: 3, .. })));
        assert!(matches!(rows(&[0..1], halves(4)), Err(BlockError::Shape { .. })));
        assert!(rows(&[0..2], halves(4)).is_ok());
    }
}
