//! A partition as the inner loop reads it: panels of references in the filter's space, packed in parallel.

use rayon::prelude::*;

use super::exact::{Norm, is_directional};
use super::simd::Simd;
use super::space::Space;
use crate::engine::Partition;
use crate::error::EngineError;
use crate::metric::Metric;

/// A packed partition. The rows themselves stay in the [`Partition`]: exact distances are taken from there.
#[derive(Debug)]
pub(super) struct Packed {
    pub space: Space,
    /// `panels × dim × panel rows`; rows beyond the last are zero.
    pub values: Vec<f32>,
    /// `panels × panel rows`; +∞, which never passes, for masked rows and beyond the last row.
    pub bias: Vec<f32>,
    /// Each row's norm, for the metrics that have one.
    norms: Vec<Norm>,
}

impl Packed {
    /// Packs all rows of a partition.
    pub fn new(metric: Metric, simd: &Simd, part: &Partition) -> Result<Self, EngineError> {
        let block = &part.block;
        let (dim, rows) = (block.dim(), simd.rows);
        let norm = |row: usize| Norm::checked(metric, block.row(row), "reference", block.ids().get(row).0);
        let norms = if is_directional(metric) {
            // The first constant row is named, whichever thread met one first.
            (0..block.rows()).into_par_iter().map(norm).collect::<Vec<_>>().into_iter().collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let norm_of = |row: usize| norms.get(row).copied().unwrap_or(Norm::IDENTITY);
        let space = Space::of(metric, block, norm_of);
        let panels = block.rows().div_ceil(rows);
        let mut values = vec![0.0; panels * dim * rows];
        let mut bias = vec![f32::INFINITY; panels * rows];
        let pack = |(panel, (values, bias)): (usize, (&mut [f32], &mut [f32]))| {
            let mut placed = vec![0.0; dim];
            for (lane, bias) in bias.iter_mut().enumerate() {
                let row = panel * rows + lane;
                if row >= block.rows() || part.mask.as_ref().is_some_and(|mask| !mask[row]) {
                    continue;
                }
                *bias = space.reference(block.row(row), norm_of(row), &mut placed);
                for (value, &placed) in values[lane..].iter_mut().step_by(rows).zip(&placed) {
                    *value = placed;
                }
            }
        };
        values.par_chunks_mut(dim * rows).zip(bias.par_chunks_mut(rows)).enumerate().for_each(pack);
        Ok(Self { space, values, bias, norms })
    }

    /// A row's norm.
    #[inline]
    pub fn norm(&self, row: usize) -> Norm {
        self.norms.get(row).copied().unwrap_or(Norm::IDENTITY)
    }

    /// Bytes per reference of what [`Packed::new`] makes.
    pub fn bytes_per_reference(metric: Metric, dim: usize) -> usize {
        let norm = if is_directional(metric) { size_of::<Norm>() } else { 0 };
        (dim + 1) * size_of::<f32>() + norm
    }
}
