//! A partition as the inner loop reads it: panels of references in the filter's space, packed in parallel.

use std::ops::Range;

use rayon::prelude::*;

use super::aligned::Aligned;
use super::exact::{Norm, check_rows, is_directional};
use super::simd::Simd;
use super::space::Space;
use crate::engine::Partition;
use crate::error::EngineError;
use crate::metric::Metric;

/// How many identical rows before it make a row superfluous: the largest k, and one that may be the query's own row.
pub(super) const TWINS: usize = 257;

/// A packed partition. The rows themselves stay in the [`Partition`]: exact distances are taken from there.
#[derive(Debug)]
pub(super) struct Packed {
    pub space: Space,
    /// `panels × dim × panel rows`; rows beyond the last are zero.
    pub values: Aligned,
    /// `panels × panel rows`; +∞, which never passes, for masked rows and beyond the last row.
    pub bias: Vec<f32>,
    /// How much higher each row's sum might have been.
    slack: Vec<f32>,
    /// Runs of rows that the ones before them make superfluous; their bias is +∞.
    pub repeats: Vec<Range<usize>>,
    /// Each row's norm, for the metrics that have one.
    norms: Vec<Norm>,
}

impl Packed {
    /// Packs all rows of a partition.
    pub fn new(metric: Metric, simd: &Simd, part: &Partition) -> Result<Self, EngineError> {
        let block = &part.block;
        let (dim, rows) = (block.dim(), simd.rows);
        check_rows(metric, block, "reference")?;
        let norms: Vec<Norm> = if is_directional(metric) {
            (0..block.rows()).into_par_iter().map(|row| Norm::of(metric, block.row(row))).collect()
        } else {
            Vec::new()
        };
        let norm_of = |row: usize| norms.get(row).copied().unwrap_or(Norm::IDENTITY);
        let space = Space::of(metric, block, norm_of);
        let panels = block.rows().div_ceil(rows);
        let mut values = Aligned::zeros(panels * dim * rows);
        let mut bias = vec![f32::INFINITY; panels * rows];
        let mut slack = vec![0.0; panels * rows];
        let pack = |panel: usize, values: &mut [f32], bias: &mut [f32], slack: &mut [f32]| {
            let mut placed = vec![0.0; dim];
            for (lane, (bias, slack)) in bias.iter_mut().zip(slack).enumerate() {
                let row = panel * rows + lane;
                if row >= block.rows() || part.mask.as_ref().is_some_and(|mask| !mask[row]) {
                    continue;
                }
                (*bias, *slack) = space.reference(block.row(row), norm_of(row), &mut placed);
                for (value, &placed) in values[lane..].iter_mut().step_by(rows).zip(&placed) {
                    *value = placed;
                }
            }
        };
        let chunks = values.as_mut_slice().par_chunks_mut(dim * rows);
        let chunks = chunks.zip(bias.par_chunks_mut(rows)).zip(slack.par_chunks_mut(rows));
        chunks.enumerate().for_each(|(panel, ((values, bias), slack))| pack(panel, values, bias, slack));
        let repeats = repeats(part);
        for run in &repeats {
            bias[run.clone()].fill(f32::INFINITY);
        }
        Ok(Self { space, values, bias, slack, repeats, norms })
    }

    /// A row's norm.
    #[inline]
    pub fn norm(&self, row: usize) -> Norm {
        self.norms.get(row).copied().unwrap_or(Norm::IDENTITY)
    }

    /// How much higher a row's sum might have been.
    #[inline]
    pub fn slack(&self, row: usize) -> f32 {
        self.slack[row]
    }

    /// Bytes per reference of what [`Packed::new`] makes.
    pub fn bytes_per_reference(metric: Metric, dim: usize) -> usize {
        let norm = if is_directional(metric) { size_of::<Norm>() } else { 0 };
        (dim + 2) * size_of::<f32>() + norm
    }
}

/// Runs of rows that cannot be among the k nearest of any query that is also shown the [`TWINS`] rows before them: those
/// are identical, in the same group, and come first by id. Without this, a mass of identical rows would pass the filter
/// as long as it is as near as the k-th neighbour, each row at the cost of a hundred others.
fn repeats(part: &Partition) -> Vec<Range<usize>> {
    let block = &part.block;
    let masked = |row: usize| part.mask.as_ref().is_some_and(|mask| !mask[row]);
    let group = |row: usize| part.groups.as_ref().map(|groups| groups[row]);
    let follows = |row: usize| {
        block.row(row) == block.row(row - 1)
            && block.ids().get(row) > block.ids().get(row - 1)
            && group(row) == group(row - 1)
            && !masked(row)
            && !masked(row - 1)
    };
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for row in 1..=block.rows() {
        if row == block.rows() || !follows(row) {
            if row > start + TWINS {
                runs.push(start + TWINS..row);
            }
            start = row;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RowBlock, RowIds};

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn only_rows_behind_enough_twins_are_repeats() {
        let long = TWINS + 5;
        let mut values = vec![0.5; long];
        values.extend([1.0, 2.0]);
        values.extend(vec![3.0; TWINS]);
        let ids = RowIds::Range(0..values.len() as u64);
        let block = RowBlock::new(ids, 1, values.clone()).expect("a block");
        assert_eq!(repeats(&Partition::new(block.clone())), [TWINS..long]);
        let mut mask = vec![true; block.rows()];
        mask[3] = false;
        assert_eq!(repeats(&Partition::with(block.clone(), None, Some(mask))), [TWINS + 4..long]);
        let groups = (0..block.rows()).map(|row| u32::from(row < 100)).collect();
        assert!(repeats(&Partition::with(block, Some(groups), None)).is_empty());
        let ids = RowIds::List((0..values.len() as u64).rev().collect());
        let block = RowBlock::new(ids, 1, values).expect("a block");
        assert!(repeats(&Partition::new(block)).is_empty());
    }
}
