//! The filter's space on the device: a centre and a power of two, taken from a sample of the first queries and references
//! an engine meets, and the bounds on rounding in it. The centre and scale change how tight the filter is, never what is
//! found, so they stay for as long as the engine lives and packed partitions stay valid from block to block.
//!
//! The bounds are those of `engine/cpu/space.rs`, four times as wide: devices may contract and reorder, and the bounds
//! themselves are computed in f32 there.

use super::params::{MergeParams, PackParams};
use super::rows::exponent_of;
use crate::block::{EachRow, RowBlock, RowIds};
use crate::engine::cpu::exact::{Norm, is_directional};
use crate::error::EngineError;
use crate::metric::Metric;

/// The relative error of rounding to f32.
const ULP: f64 = 1.0 / 16_777_216.0;
/// Rows of each side that the centre and scale are taken from.
const SAMPLE: usize = 128;
/// How much wider bounds are than on the CPU.
const SLACK: f64 = 4.0;

/// Where rows live for the filter.
#[derive(Clone, Debug)]
pub(super) struct Space {
    metric: Metric,
    dim: usize,
    /// log2 of the scale.
    pub exponent: i32,
    /// The centre in the scaled space, `dim` values; 0 for inner products.
    pub centre: Vec<f32>,
}

impl Space {
    /// The space of these rows.
    pub fn of(metric: Metric, queries: &RowBlock, references: &dyn EachRow) -> Self {
        let dim = queries.dim();
        let rows: Vec<Vec<f64>> = sample(metric, references).chain(sample(metric, queries)).collect();
        let references = references.rows().min(SAMPLE);
        let mut centre = vec![0.0; dim];
        if metric != Metric::InnerProduct && references > 0 {
            let mut column = vec![0.0; references];
            for (j, centre) in centre.iter_mut().enumerate() {
                column.iter_mut().zip(&rows).for_each(|(value, row)| *value = row[j]);
                *centre = *column.select_nth_unstable_by(references / 2, f64::total_cmp).1;
            }
        }
        let size = |row: &Vec<f64>| {
            let moved = row.iter().zip(&centre).map(|(x, c)| x - c);
            match metric {
                Metric::Manhattan => moved.map(f64::abs).sum::<f64>(),
                Metric::Chebyshev => moved.map(f64::abs).fold(0.0, f64::max),
                _ => moved.map(|y| y * y).sum::<f64>().sqrt(),
            }
        };
        let mut sizes: Vec<f64> = rows.iter().map(size).filter(|size| *size > 0.0).collect();
        sizes.sort_by(f64::total_cmp);
        let typical = sizes.get(sizes.len() / 2).copied().unwrap_or(1.0);
        let exponent = (-exponent_of(typical)).min(if is_directional(metric) { 40 } else { 200 });
        let scale = 2f64.powi(exponent);
        #[allow(clippy::cast_possible_truncation)]
        let centre = centre.iter().map(|c| (c * scale).clamp(-1e38, 1e38) as f32).collect();
        Self { metric, dim, exponent, centre }
    }

    /// γ: the relative error of a sum over all dimensions.
    fn gamma(&self) -> f64 {
        match self.metric {
            Metric::Chebyshev => SLACK * SLACK * ULP,
            _ => SLACK * (self.dim + 12) as f64 * ULP,
        }
    }

    /// What `pack.wgsl` must know.
    #[allow(clippy::cast_possible_truncation)]
    pub fn pack_params(&self) -> PackParams {
        let zero_share = if is_directional(self.metric) { 0.5 * 4f64.powi(self.exponent) } else { 0.0 };
        PackParams {
            exponent: self.exponent,
            gamma: self.gamma() as f32,
            shift: (f64::from(f32::MIN_POSITIVE) * SLACK * (self.dim as f64).sqrt()) as f32,
            zero_share: zero_share as f32,
            ..PackParams::default()
        }
    }

    /// What `merge.wgsl` must know: how much a bound is widened. Exact forms on a device are off by up to 36 roundings; sums
    /// and maxima of absolute differences are off by a share of themselves.
    #[allow(clippy::cast_possible_truncation)]
    pub fn merge_params(&self) -> MergeParams {
        let linear = matches!(self.metric, Metric::Manhattan | Metric::Chebyshev);
        let share = 2f64.powi(-15) + if linear { 8.0 * self.gamma() } else { 0.0 };
        MergeParams { share: share as f32, ..MergeParams::default() }
    }

    /// The log2 of what turns a distance into a bound, as an expression of `pack.wgsl`.
    pub fn gain(metric: Metric) -> &'static str {
        match metric {
            Metric::Euclidean | Metric::Manhattan | Metric::Chebyshev | Metric::InnerProduct => "params.exponent",
            Metric::SqEuclidean => "2 * params.exponent - 1",
            Metric::Cosine | Metric::Correlation => "2 * params.exponent",
        }
    }
}

/// The rows of a block that a space is taken from, as a block.
pub(super) fn sample_of(block: &RowBlock) -> Result<RowBlock, EngineError> {
    let rows: Vec<usize> = sample_rows(block).collect();
    let ids = rows.iter().map(|&row| block.ids().get(row).0).collect();
    let values = rows.iter().flat_map(|&row| block.row(row)).copied().collect();
    RowBlock::new(RowIds::List(ids), block.dim(), values)
        .map_err(|error| EngineError::Shape { what: "a sample of the queries", why: error.to_string() })
}

fn sample_rows(block: &dyn EachRow) -> impl Iterator<Item = usize> {
    let n = block.rows().min(SAMPLE);
    (0..n).map(move |i| i * block.rows() / n)
}

fn sample(metric: Metric, block: &dyn EachRow) -> impl Iterator<Item = Vec<f64>> {
    let mut room = Vec::new();
    sample_rows(block).map(move |row| {
        let row = block.row_in(row, &mut room);
        let norm = Norm::of(metric, row);
        row.iter().map(|&x| (f64::from(x) - norm.mean) * norm.inverse).collect()
    })
}
