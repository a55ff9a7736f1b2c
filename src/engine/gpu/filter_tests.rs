//! No filter loses a neighbour: the twins of the filter's shaders on rows and spaces as the engine prepares them, against
//! the truth in f64. And the property can fail: with the bounds left out it does.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

use super::params::Mark;
use super::rows::{Rows, width};
use super::space::Space;
use crate::block::{RowBlock, RowIds};
use crate::metric::{EngineKind, Metric, tie_band};
use crate::oracle::merge::{Neighbour, merge, threshold};
use crate::oracle::numbers::{Kept, MASKED, OPEN, ZERO_VECTOR};
use crate::oracle::pack::{Query, Reference};
use crate::oracle::{columns, exact, pack, pack_half, tile, tile_half};

/// Which filter, and whether with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Full,
    FullWithoutBound,
    Half,
    HalfWithoutBound,
}

impl Filter {
    fn is_bounded(self) -> bool {
        matches!(self, Self::Full | Self::Half)
    }
}

/// How rows are made.
#[derive(Clone, Debug)]
struct Case {
    metric: Metric,
    dim: usize,
    k: usize,
    seed: u64,
    /// Moves all rows by this.
    offset: f32,
    /// Multiplies all rows.
    scale: f32,
    /// How far rows are from one another, the offset aside.
    spread: f32,
    /// Share of rows, of 8, that are outliers, zeros, copies of the first one, next to the first one.
    odd: [u32; 4],
}

fn rows(case: &Case, n: usize, seed: u64) -> RowBlock {
    let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(case.seed ^ seed);
    let mut values: Vec<f32> = Vec::new();
    // Both sides share the first row.
    let mut first = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(case.seed);
    let first: Vec<f32> =
        (0..case.dim).map(|_| (first.random_range(-1.0_f32..1.0) * case.spread + case.offset) * case.scale).collect();
    for _ in 0..n {
        let pick = random.random_range(0..8_u32);
        let [outliers, zeros, copies, near] = case.odd;
        let kind = [outliers, outliers + zeros, outliers + zeros + copies, outliers + zeros + copies + near];
        for x in &first {
            let noise = random.random_range(-1.0_f32..1.0);
            values.push(match pick {
                _ if pick < kind[0] => noise * case.scale * 3e6,
                _ if pick < kind[1] => 0.0,
                _ if pick < kind[2] => *x,
                _ if pick < kind[3] => x + x * noise * 1e-6,
                _ => (noise * case.spread + case.offset) * case.scale,
            });
        }
        // A constant row has no correlation.
        if case.metric == Metric::Correlation {
            let at = values.len() - case.dim;
            values[at] += case.scale;
        }
    }
    let finite = values.into_iter().map(|x| x.clamp(-3e38, 3e38)).collect();
    RowBlock::new(RowIds::Range(0..n as u64), case.dim, finite).expect("a block")
}

/// Rows as the engine keeps them on the device: values and flags.
fn kept(metric: Metric, block: &RowBlock) -> Vec<(Vec<f32>, u32)> {
    let row_values = 4 * width(block.dim());
    let mut values = vec![0.0; block.rows() * row_values];
    let mut marks = vec![Mark::default(); block.rows()];
    Rows { metric, block, groups: None, mask: None }.fill(0..block.rows(), &mut values, &mut marks);
    values.chunks(row_values).zip(marks).map(|(values, mark)| (values.to_vec(), mark.flags)).collect()
}

fn wide(row: Kept<'_>) -> impl Iterator<Item = f64> {
    row.values.iter().map(move |x| f64::from(*x) * 2f64.powi(row.exponent()))
}

/// The distance in f64 of two rows as they are kept: rounded directions are what the device compares.
fn distance(metric: Metric, q: Kept<'_>, r: Kept<'_>) -> f64 {
    let pairs = || wide(q).zip(wide(r));
    let squares = || pairs().map(|(q, r)| (q - r) * (q - r)).sum::<f64>();
    match metric {
        Metric::Euclidean => squares().sqrt(),
        Metric::SqEuclidean => squares(),
        Metric::Manhattan => pairs().map(|(q, r)| (q - r).abs()).sum(),
        Metric::Chebyshev => pairs().map(|(q, r)| (q - r).abs()).fold(0.0, f64::max),
        Metric::InnerProduct => -pairs().map(|(q, r)| q * r).sum::<f64>(),
        _ if q.has(ZERO_VECTOR) || r.has(ZERO_VECTOR) => 1.0,
        _ => 0.5 * squares(),
    }
}

fn norm(row: Kept<'_>) -> f64 {
    wide(row).map(|x| x * x).sum::<f64>().sqrt()
}

/// What a query with this threshold lets through.
fn survivors(filter: Filter, space: &pack::Space, query: &Query, limit: f32, references: &[Reference]) -> Vec<usize> {
    if matches!(filter, Filter::Full | Filter::FullWithoutBound) {
        return tile::survivors(space.metric, &query.values, limit, references);
    }
    let share = |row: &pack_half::Half| match filter {
        Filter::HalfWithoutBound if row.share < OPEN => 0.0,
        _ => row.share,
    };
    let q = pack_half::half(&query.values, space.gamma);
    let q_columns = columns::query_columns(limit, share(&q));
    let passes = |reference: &Reference| {
        let mut r = pack_half::half(&reference.values, space.gamma);
        r.share = share(&r);
        let r_columns = pack_half::reference_columns(&mut r, reference.bias());
        // Queries that are too far out have the threshold of those that are open.
        tile_half::sum((&q.values, q_columns), (&r.values, r_columns)) >= 0.0
    };
    (0..references.len()).filter(|&r| passes(&references[r])).collect()
}

/// Both sides of a case, packed by the twins into the space that the engine takes.
struct Packed {
    filter: Filter,
    space: pack::Space,
    /// How much a bound is widened.
    share: f32,
    queries: Vec<(Vec<f32>, u32)>,
    references: Vec<(Vec<f32>, u32)>,
    kept: Vec<Reference>,
}

impl Packed {
    fn new(case: &Case, filter: Filter, counts: (usize, usize)) -> Self {
        let metric = case.metric;
        let (queries, references) = (rows(case, counts.0, 1), rows(case, counts.1, 2));
        let host = Space::of(metric, &queries, &references);
        let params = host.pack_params();
        let space = pack::Space {
            metric,
            exponent: host.exponent,
            centre: host.centre.clone(),
            gamma: params.gamma,
            shift: params.shift,
            zero_share: params.zero_share,
        };
        let references = kept(metric, &references);
        let mut packed: Vec<Reference> =
            references.iter().map(|(values, flags)| space.reference(Kept { values, flags: *flags })).collect();
        let mut share = host.merge_params().share;
        if !filter.is_bounded() {
            for reference in &mut packed {
                reference.slack = 0.0;
            }
            share = 0.0;
        }
        Self { filter, space, share, queries: kept(metric, &queries), references, kept: packed }
    }

    /// What passes under the k-th best of all, which is the tightest threshold there can be.
    fn survivors(&self, q_row: Kept<'_>, last: Option<Neighbour>) -> Vec<usize> {
        let mut query = self.space.query(q_row);
        if !self.filter.is_bounded() {
            query.slack = 0.0;
        }
        let limit = match last {
            Some(last) if !query.far => {
                threshold(self.space.metric, last.order, query.gain, query.offset(), self.share)
            }
            _ => OPEN,
        };
        survivors(self.filter, &self.space, &query, limit, &self.kept)
    }

    /// The first neighbour of a query that the filter loses: of its k nearest by the device's exact form, or by the truth.
    fn lost(&self, q: usize, k: usize) -> Option<String> {
        let metric = self.space.metric;
        let q_row = Kept { values: &self.queries[q].0, flags: self.queries[q].1 };
        let r_row = |r: usize| Kept { values: &self.references[r].0, flags: self.references[r].1 };
        let n = self.references.len();
        let all: Vec<Neighbour> =
            (0..n).map(|r| Neighbour { order: exact::exact(metric, q_row, r_row(r)), id: r as u64 }).collect();
        let last = if k <= n { merge(&[], &all, k).last().copied() } else { None };
        let passed = self.survivors(q_row, last);
        let truth: Vec<f64> = (0..n).map(|r| distance(metric, q_row, r_row(r))).collect();
        let mut sorted = truth.clone();
        sorted.sort_by(f64::total_cmp);
        let kth = sorted[k.min(n) - 1];
        // What inner products are off by does not shrink with them: their k-th may stand before a nearer one.
        let norms = norm(q_row) * (0..n).map(|r| norm(r_row(r))).fold(0.0, f64::max);
        let band = tie_band(metric, self.space.centre.len(), EngineKind::Gpu);
        let excused = |r: usize| metric == Metric::InnerProduct && band.is_tie(truth[r], kth, norms);
        let wanted = |r: &usize| last.is_none_or(|last| all[*r] <= last) || truth[*r] <= kth && !excused(*r);
        let lost = (0..n).filter(wanted).find(|r| passed.binary_search(r).is_err())?;
        Some(format!("query {q} lost reference {lost} at {:e}, the k-th is at {kth:e}", truth[lost]))
    }
}

fn lost(case: &Case, filter: Filter, counts: (usize, usize)) -> Option<String> {
    let packed = Packed::new(case, filter, counts);
    (0..counts.0).find_map(|q| packed.lost(q, case.k))
}

fn cases(metrics: Vec<Metric>) -> impl Strategy<Value = Case> {
    let dims = prop_oneof![1_usize..=20, 21_usize..=130];
    let odd = prop::array::uniform4(0_u32..=2);
    let offsets = prop::sample::select(vec![0.0_f32, 1.0, 100.0, 1e4]);
    let scales = prop::sample::select(vec![1.0_f32, 1e-3, 1e-30, 1e-42, 1e12, 1e28]);
    let spreads = prop::sample::select(vec![1.0_f32, 1e-3]);
    let shape = (prop::sample::select(metrics), dims, 1_usize..12, any::<u64>());
    (shape, offsets, scales, spreads, odd).prop_map(|((metric, dim, k, seed), offset, scale, spread, odd)| {
        // Correlation needs two different values.
        let dim = if metric == Metric::Correlation { dim.max(2) } else { dim };
        Case { metric, dim, k, seed, offset, scale, spread, odd }
    })
}

fn products() -> Vec<Metric> {
    Metric::ALL.into_iter().filter(|m| !matches!(m, Metric::Manhattan | Metric::Chebyshev)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_filter_in_f32_loses_no_neighbour(case in cases(Metric::ALL.to_vec())) {
        prop_assert_eq!(lost(&case, Filter::Full, (6, 40)), None);
    }

    #[test]
    fn the_filter_in_f16_loses_no_neighbour(case in cases(products())) {
        prop_assert_eq!(lost(&case, Filter::Half, (6, 40)), None);
    }
}

/// Ordinary rows, on which a filter without bounds must go wrong somewhere.
fn ordinary(metric: Metric, seed: u64) -> Case {
    Case { metric, dim: 50, k: 10, seed, offset: 0.0, scale: 1.0, spread: 1.0, odd: [0, 0, 2, 2] }
}

#[test]
fn without_its_bound_either_filter_loses_some_neighbour() {
    let metrics = [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Correlation, Metric::InnerProduct];
    for metric in metrics {
        for (with, without) in [(Filter::Full, Filter::FullWithoutBound), (Filter::Half, Filter::HalfWithoutBound)] {
            let seeds = || (0..40).map(|seed| ordinary(metric, seed));
            assert!(seeds().all(|case| lost(&case, with, (6, 60)).is_none()), "{metric}, {with:?}");
            assert!(seeds().any(|case| lost(&case, without, (6, 60)).is_some()), "{metric}, {without:?} lost nothing");
        }
    }
}

#[test]
fn zero_vectors_that_are_most_rows_are_not_lost_in_f16() {
    // Half the square of a large scale: what a zero vector is farther than its sum says, beyond what f16 can hold.
    let reference = Reference { values: vec![0.5; 8], start: 0.5 * 4_f32.powi(9), slack: 0.0 };
    for limit in [OPEN, 1e6, 3.0 * reference.start] {
        let query = pack_half::half(&[-1.0; 8], 1e-6);
        let mut row = pack_half::half(&reference.values, 1e-6);
        let r_columns = pack_half::reference_columns(&mut row, reference.bias());
        let sum = tile_half::sum((&query.values, columns::query_columns(limit, query.share)), (&row.values, r_columns));
        assert!(sum >= 0.0, "a threshold of {limit}: {sum}");
    }
}

#[test]
fn masked_rows_and_slots_without_a_query_never_pass() {
    let space = pack::Space {
        metric: Metric::Euclidean,
        exponent: 0,
        centre: vec![0.0; 3],
        gamma: 1e-6,
        shift: 0.0,
        zero_share: 0.0,
    };
    let masked = space.reference(Kept { values: &[1.0, 2.0, 3.0, 0.0], flags: 512 | MASKED });
    let query = space.query(Kept { values: &[1.0, 2.0, 3.0, 0.0], flags: 512 });
    for filter in [Filter::Full, Filter::Half] {
        assert_eq!(survivors(filter, &space, &query, OPEN, std::slice::from_ref(&masked)), Vec::<usize>::new());
    }
}
