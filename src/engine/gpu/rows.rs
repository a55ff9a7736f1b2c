//! Rows on their way to the device: directions made unit length in f64, values that f32 arithmetic on a device could flush
//! or overflow kept as x · 2^-exponent, and a mark of what else is known of each row. Each follows from the row alone.

use std::ops::Range;

use rayon::prelude::*;

use super::params::Mark;
use crate::block::EachRow;
use crate::engine::NO_GROUP;
use crate::engine::cpu::exact::{Norm, is_directional, round};
use crate::metric::Metric;

/// Values within these need no exponent: sums of their products neither overflow nor lose what counts.
pub(super) const SANE: Range<f32> = 8.9e-16..1.2e15;

const MASKED: u32 = 0x2000_0000;
const ZERO_VECTOR: u32 = 0x4000_0000;
const EXPONENT_ZERO: i32 = 512;

/// Rows of a block with what a mark says of each.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub metric: Metric,
    pub block: &'a dyn EachRow,
    pub groups: Option<&'a [u32]>,
    pub mask: Option<&'a [bool]>,
}

/// vec4s of a row.
pub(super) fn width(dim: usize) -> usize {
    dim.div_ceil(4)
}

impl Rows<'_> {
    /// Writes some rows, each `4 × width` values, and their marks.
    pub fn fill(&self, rows: Range<usize>, values: &mut [f32], marks: &mut [Mark]) {
        let row_values = 4 * width(self.block.dim());
        let each = values.par_chunks_mut(row_values).zip(marks.par_iter_mut()).enumerate();
        let each = each.with_min_len(256);
        each.for_each_init(Vec::new, |room, (i, (out, mark))| *mark = self.fill_row(rows.start + i, room, out));
    }

    fn fill_row(&self, row: usize, room: &mut Vec<f32>, out: &mut [f32]) -> Mark {
        let values = self.block.row_in(row, room);
        let mut flags = 0;
        out[values.len()..].fill(0.0);
        let out = &mut out[..values.len()];
        if is_directional(self.metric) {
            let norm = Norm::of(self.metric, values);
            if norm.is_zero_vector() {
                flags |= ZERO_VECTOR;
            }
            for (out, &x) in out.iter_mut().zip(values) {
                *out = round((f64::from(x) - norm.mean) * norm.inverse);
            }
        } else {
            out.copy_from_slice(values);
        }
        let exponent = normalise(out);
        self.mark(row, flags, exponent)
    }

    /// Writes the marks of rows that are kept as they are, and are sane.
    pub fn mark_sane(&self, rows: Range<usize>, marks: &mut [Mark]) {
        let each = marks.par_iter_mut().with_min_len(4096).zip(rows);
        each.for_each(|(mark, row)| *mark = self.mark(row, 0, 0));
    }

    fn mark(&self, row: usize, mut flags: u32, exponent: i32) -> Mark {
        if self.mask.is_some_and(|mask| !mask[row]) {
            flags |= MASKED;
        }
        let id = self.block.ids().get(row).0;
        let half = |shift: u32| u32::try_from(id >> shift & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Mark {
            id_low: half(0),
            id_high: half(32),
            group: self.groups.map_or(NO_GROUP, |groups| groups[row]),
            flags: flags | (exponent + EXPONENT_ZERO).cast_unsigned(),
        }
    }
}

/// Brings a row with values outside the sane ones to a largest value in 1..2; the exponent that was taken out.
fn normalise(row: &mut [f32]) -> i32 {
    let is_sane = |x: &f32| *x == 0.0 || SANE.contains(&x.abs());
    if row.iter().all(is_sane) {
        return 0;
    }
    let largest = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let exponent = exponent_of(f64::from(largest));
    let factor = 2f64.powi(-exponent);
    for x in row {
        *x = round(f64::from(*x) * factor);
    }
    exponent
}

/// The exponent of a positive number: 0 for 1..2.
pub(super) fn exponent_of(x: f64) -> i32 {
    i32::try_from(x.to_bits() >> 52).unwrap_or(0) - 1023
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RowBlock, RowIds};

    fn fill(metric: Metric, values: &[f32]) -> (Vec<f32>, Mark) {
        let block = RowBlock::new(RowIds::List(vec![7 << 32 | 9]), values.len(), values.to_vec()).expect("a block");
        let mut out = vec![9.0; 4 * width(values.len())];
        let mut marks = [Mark::default()];
        Rows { metric, block: &block, groups: Some(&[3]), mask: None }.fill(0..1, &mut out, &mut marks);
        (out, marks[0])
    }

    #[test]
    fn sane_rows_are_kept_as_they_are_and_padded() {
        let (values, mark) = fill(Metric::Euclidean, &[1.5, -2.0, 0.0, 1e14, 1e-14]);
        assert_eq!(values, [1.5, -2.0, 0.0, 1e14, 1e-14, 0.0, 0.0, 0.0]);
        assert_eq!(mark, Mark { id_low: 9, id_high: 7, group: 3, flags: 512 });
    }

    #[test]
    fn rows_of_extreme_values_keep_them_beside_an_exponent() {
        for (scale, exponent) in [(1e-45, -149), (1e-38, -127), (1e37, 122), (1e-30, -100)] {
            let row = [scale, -scale / 2.0, 0.0];
            let (values, mark) = fill(Metric::Manhattan, &row);
            assert_eq!(mark.flags.cast_signed() - 512, exponent, "{scale}");
            for (value, x) in values.iter().zip(row) {
                assert_eq!(f64::from(*value) * 2f64.powi(exponent), f64::from(x), "{scale}");
            }
            assert!((1.0..2.0).contains(&values[0]), "{values:?}");
        }
    }

    #[test]
    fn directions_have_length_one_and_zero_vectors_a_flag() {
        let (values, mark) = fill(Metric::Cosine, &[3e30, 4e30, 0.0]);
        assert!((values[0] - 0.6).abs() < 1e-7 && (values[1] - 0.8).abs() < 1e-7, "{values:?}");
        assert_eq!(mark.flags, 512);
        let (values, mark) = fill(Metric::Cosine, &[0.0; 3]);
        assert_eq!((values, mark.flags), (vec![0.0; 4], 512 | ZERO_VECTOR));
    }
}
