//! A partition as the inner loop reads it: panels of references in the filter's form, packed in parallel.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::aligned::Aligned;
use super::exact::{Norm, check_rows, distance, is_directional};
use super::filter::Filter;
use super::grid::{Grid, sum};
use super::queries::Queries;
use super::simd::Simd;
use super::space::Space;
use super::tile::Form;
use crate::block::{EachRow, Rows};
use crate::engine::Partition;
use crate::error::EngineError;
use crate::metric::Metric;

/// How many identical rows before it make a row superfluous: the largest k, and one that may be the query's own row.
pub(super) const TWINS: usize = 257;
/// References and queries that a grid is tried on.
const TRIED: (usize, usize) = (512, 8);
/// One pair in so many may pass a grid's filter in vain: more would take longer than the grid saves.
const IN_VAIN: usize = 256;

/// A packed partition. The rows themselves stay in the [`Partition`]: exact distances are taken from there.
#[derive(Debug)]
pub(super) struct Packed {
    pub filter: Filter,
    /// `panels × words × panel rows`; rows beyond the last are zero.
    pub values: Aligned,
    /// `panels × panel rows`; what never passes, for masked rows and beyond the last row.
    pub bias: Vec<i32>,
    /// How much higher each row's sum might have been; nothing where sums have no error of their own.
    slack: Vec<f32>,
    /// The most of those, of rows whose sums say something.
    pub most_slack: f32,
    /// Runs of rows that the ones before them make superfluous, which never pass.
    pub repeats: Vec<Range<usize>>,
    /// Each row's norm, for the metrics that have one.
    norms: Vec<Norm>,
    /// Pairs that were searched so far, and those that were computed exactly and were not among the nearest.
    searched: AtomicUsize,
    in_vain: AtomicUsize,
}

/// A panel on its way: its number, and the values, biases and slacks of its rows.
type Panel<'a> = (usize, ((&'a mut [i32], &'a mut [i32]), &'a mut [f32]));

impl Packed {
    /// Packs all rows of a partition: onto a grid where the path can scan one and it suits these rows and the queries
    /// there are now, and else as f32; as f32 in any case without `grid`.
    pub fn new(
        metric: Metric,
        simd: &Simd,
        part: &Partition,
        queries: &Queries,
        grid: bool,
    ) -> Result<Self, EngineError> {
        let block = &part.block;
        let (dim, rows) = (block.dim(), simd.rows);
        check_rows(metric, block, "reference")?;
        let norms: Vec<Norm> = if is_directional(metric) {
            let norm = |room: &mut Vec<f32>, row| Norm::of(metric, block.row_in(row, room));
            (0..block.rows()).into_par_iter().map_init(Vec::new, norm).collect()
        } else {
            Vec::new()
        };
        let norm_of = |row: usize| norms.get(row).copied().unwrap_or(Norm::IDENTITY);
        let space = Space::of(metric, block, norm_of);
        let grid = if simd.has_pairs() && grid { Grid::of(simd, block, &space, norm_of) } else { None };
        let grid = grid.filter(|grid| Trial { metric, simd, block, queries }.suits(grid, norm_of));
        let mut filter = grid.map_or(Filter::Floats(space), Filter::Pairs);
        let words = filter.form().words(dim);
        let panels = block.rows().div_ceil(rows);
        let mut values = Aligned::zeros(panels * words * rows);
        let mut bias = vec![filter.form().never(); panels * rows];
        let mut slack = vec![0.0; panels * rows];
        // A row that never passes is packed as nothing: added to the largest of all biases, anything might end up below.
        let repeats = repeats(part);
        let is_repeat = |row: usize| {
            let after = repeats.partition_point(|run| run.end <= row);
            repeats.get(after).is_some_and(|run| run.contains(&row))
        };
        let pack = |(placed, room): &mut (Vec<i32>, Vec<f32>), (panel, ((values, bias), slack)): Panel<'_>| {
            for (lane, (bias, slack)) in bias.iter_mut().zip(slack).enumerate() {
                let row = panel * rows + lane;
                if row >= block.rows() || part.mask.as_ref().is_some_and(|mask| !mask[row]) || is_repeat(row) {
                    continue;
                }
                (*bias, *slack) = filter.reference(block.row_in(row, room), norm_of(row), placed);
                for (value, &placed) in values[lane..].iter_mut().step_by(rows).zip(&*placed) {
                    *value = placed;
                }
            }
        };
        let chunks = values.as_mut_slice().par_chunks_mut(words * rows);
        let chunks = chunks.zip(bias.par_chunks_mut(rows)).zip(slack.par_chunks_mut(rows));
        chunks.enumerate().for_each_init(|| (vec![0; words], Vec::new()), pack);
        filter.take_errors(&mut slack);
        // What always passes bounds nothing.
        let told = slack.iter().zip(&bias).filter(|(_, bias)| **bias != filter.form().always());
        let most_slack = told.map(|(slack, _)| *slack).fold(0.0, f32::max);
        let (searched, in_vain) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self { filter, values, bias, slack, most_slack, repeats, norms, searched, in_vain })
    }

    /// A row's norm.
    #[inline]
    pub fn norm(&self, row: usize) -> Norm {
        self.norms.get(row).copied().unwrap_or(Norm::IDENTITY)
    }

    /// How much higher a row's sum might have been.
    #[inline]
    pub fn slack(&self, row: usize) -> f32 {
        self.slack.get(row).copied().unwrap_or(0.0)
    }

    /// Takes down how many pairs were searched, and how many of them computed exactly in vain.
    pub fn note(&self, searched: usize, in_vain: usize) {
        self.searched.fetch_add(searched, Ordering::Relaxed);
        self.in_vain.fetch_add(in_vain, Ordering::Relaxed);
    }

    /// Whether it is a grid that has let too many pairs pass: later queries may be unlike those it was tried on.
    pub fn is_too_coarse(&self) -> bool {
        let (searched, in_vain) = (self.searched.load(Ordering::Relaxed), self.in_vain.load(Ordering::Relaxed));
        self.filter.form() == Form::Pairs && in_vain > searched / IN_VAIN
    }

    /// Bytes per reference of what [`Packed::new`] makes, in the larger form, which is f32.
    pub fn bytes_per_reference(metric: Metric, dim: usize) -> usize {
        let norm = if is_directional(metric) { size_of::<Norm>() } else { 0 };
        (dim + 2) * size_of::<f32>() + norm
    }
}

/// A try of a grid on some rows, before all are packed.
struct Trial<'a> {
    metric: Metric,
    simd: &'a Simd,
    block: &'a Rows,
    queries: &'a Queries,
}

impl Trial<'_> {
    /// Whether few pairs pass the grid's filter beside those that must.
    fn suits(&self, grid: &Grid, norm: impl Fn(usize) -> Norm) -> bool {
        let (block, queries) = (self.block, &self.queries.block);
        let n = TRIED.0.min(block.rows());
        let rows = (0..n).map(|i| i * block.rows() / n);
        let references: Vec<(Vec<f32>, Norm)> =
            rows.map(|row| (block.row_in(row, &mut Vec::new()).to_vec(), norm(row))).collect();
        let mut grid = grid.clone();
        let words = Form::Pairs.words(block.dim());
        let mut values = vec![0; n * words];
        let mut biases = Vec::with_capacity(n);
        for ((row, norm), values) in references.iter().zip(values.chunks_mut(words)) {
            let (bias, error) = grid.reference(row, *norm, values);
            biases.push(bias);
            grid.error = grid.error.max(f64::from(error));
        }
        // The k-th neighbour among all is about the `rank`-th here.
        let rank = (self.queries.k.get() * n).div_ceil(block.rows()).min(n);
        let tried = TRIED.1.min(queries.rows());
        let mut passed = 0;
        let mut placed = vec![0; words];
        for query in (0..tried).map(|i| i * queries.rows() / tried) {
            let row = queries.row(query);
            let norm_q = Norm::of(self.metric, row);
            let exact = |(r, norm_r): &(Vec<f32>, Norm)| {
                let exact = self.simd.sum(row, r, norm_q, *norm_r);
                distance(self.metric, exact, norm_q, *norm_r)
            };
            let mut distances: Vec<f32> = references.iter().map(exact).collect();
            let kth = *distances.select_nth_unstable_by(rank - 1, f32::total_cmp).1;
            let filter = grid.query(row, norm_q, 0, &mut placed);
            let tau = grid.tau(filter, kth);
            passed += (0..n)
                .filter(|&i| sum(&placed, &values[i * words..][..words], biases[i], filter.halvings) <= tau)
                .count();
        }
        passed <= tried * (2 * rank + n / IN_VAIN)
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
        block.same(row, row - 1)
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
