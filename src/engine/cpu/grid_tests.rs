//! The grid by itself: nothing that belongs to the k nearest is ever above τ, on any path, and these checks can fail.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::exact::{self, Norm};
use super::grid::{Grid, sum};
use super::simd;
use super::space::{QueryFilter, Space};
use super::tile::{Form, Hits, Scan};
use crate::block::RowBlock;
use crate::engine::conformance::{block, clustered, noise};
use crate::metric::Metric;

const METRICS: [Metric; 4] = [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Correlation];

/// Rows and queries, and what is done to them.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    seed: u64,
    dim: usize,
    references: usize,
    clusters: usize,
    /// log₁₀ of what all is multiplied by.
    scale: i32,
    /// What is added to all, in units of the rows.
    offset: f32,
    /// What is added to queries alone.
    shift: f32,
    /// Every so many rows, one is this many times as long.
    outliers: Option<(usize, f32)>,
    /// Whether values are whole, so that distances are equal.
    ties: bool,
}

impl Layout {
    fn any() -> impl Strategy<Value = Self> {
        let outliers =
            prop_oneof![Just(None), (50_usize..300, prop_oneof![Just(10.0_f32), Just(1e3), Just(1e30)]).prop_map(Some)];
        let offset = prop_oneof![Just(0.0_f32), Just(1.0), Just(1e3), Just(1e6)];
        let shift = prop_oneof![Just(0.0_f32), Just(0.5), Just(30.0), Just(1e3), Just(1e5), Just(1e9)];
        let sizes = (any::<u64>(), 1_usize..70, 1_usize..300, 1_usize..9);
        (sizes, -30_i32..8, offset, shift, outliers, any::<bool>()).prop_map(
            |((seed, dim, references, clusters), scale, offset, shift, outliers, ties)| Self {
                seed,
                dim,
                references,
                clusters,
                scale,
                offset,
                shift,
                outliers,
                ties,
            },
        )
    }

    /// References and 6 queries.
    fn rows(&self) -> (RowBlock, RowBlock) {
        let make = |seed: u64, rows: usize, shift: f32, outliers: Option<(usize, f32)>| {
            let mut values = clustered(seed, rows, self.dim, self.clusters.min(rows));
            for (row, values) in values.chunks_mut(self.dim).enumerate() {
                let longer = outliers.filter(|(every, _)| row % every == every - 1).map_or(1.0, |(_, longer)| longer);
                for value in values {
                    let whole = if self.ties { value.round() } else { *value };
                    *value = ((whole + shift) * longer + self.offset) * 10_f32.powi(self.scale);
                }
            }
            block(0, self.dim, values)
        };
        (make(self.seed, self.references, 0.0, self.outliers), make(self.seed ^ 1, 6, self.shift, None))
    }
}

/// Rows on a grid, and their exact distances.
struct Placed {
    grid: Grid,
    words: usize,
    /// `references × words`, and a bias each.
    values: Vec<i32>,
    bias: Vec<i32>,
}

impl Placed {
    /// `None` where the grid wants no such rows, which leaves them to f32.
    fn new(metric: Metric, references: &RowBlock) -> Option<Self> {
        let norm = |row: usize| Norm::of(metric, references.row(row));
        let space = Space::of(metric, references, norm);
        let mut grid = Grid::of(&simd::available(metric)[0], references, &space, norm)?;
        let words = Form::Pairs.words(references.dim());
        let mut values = vec![0; references.rows() * words];
        let mut bias = Vec::new();
        for (row, values) in values.chunks_mut(words).enumerate() {
            let (own, error) = grid.reference(references.row(row), norm(row), values);
            bias.push(own);
            grid.error = grid.error.max(f64::from(error));
        }
        Some(Self { grid, words, values, bias })
    }

    fn query(&self, row: &[f32], norm: Norm) -> (QueryFilter, Vec<i32>) {
        let mut placed = vec![0; self.words];
        (self.grid.query(row, norm, 0, &mut placed), placed)
    }

    fn sums(&self, filter: QueryFilter, query: &[i32]) -> Vec<i32> {
        let rows = self.values.chunks(self.words).zip(&self.bias);
        rows.map(|(row, &bias)| sum(query, row, bias, filter.halvings)).collect()
    }
}

/// Exact distances of one query.
fn distances(metric: Metric, query: &[f32], norm: Norm, references: &RowBlock) -> Vec<f32> {
    let portable = simd::available(metric).pop().expect("the portable path");
    let one = |row: usize| {
        let norm_r = Norm::of(metric, references.row(row));
        exact::distance(metric, portable.sum(query, references.row(row), norm, norm_r), norm, norm_r)
    };
    (0..references.rows()).map(one).collect()
}

/// The first true neighbour that the grid would drop, with the error of all references taken times `trust`; `Ok(None)`
/// where the grid refuses.
fn lost(metric: Metric, layout: &Layout, trust: f64) -> Result<Option<bool>, String> {
    let (references, queries) = layout.rows();
    let Some(mut placed) = Placed::new(metric, &references) else { return Ok(None) };
    placed.grid.error *= trust;
    let mut used = false;
    for q in 0..queries.rows() {
        let row = queries.row(q);
        let norm = Norm::of(metric, row);
        let (mut filter, query) = placed.query(row, norm);
        filter.slack *= trust;
        used |= filter.slack.is_finite();
        let exact = distances(metric, row, norm, &references);
        let sums = placed.sums(filter, &query);
        let mut sorted = exact.clone();
        sorted.sort_by(f32::total_cmp);
        for rank in [0, 4, 30, 150] {
            let Some(&kth) = sorted.get(rank) else { break };
            let tau = placed.grid.tau(filter, kth);
            for (row, (&distance, &sum)) in exact.iter().zip(&sums).enumerate() {
                if distance <= kth && sum > tau {
                    return Err(format!("{metric}: query {q} lost row {row} at {distance} ≤ {kth}: {sum} > {tau}"));
                }
                let bound = placed.grid.bound(filter, f64::from(sum));
                if sum != Form::Pairs.always() && distance > bound {
                    return Err(format!("{metric}: query {q}, row {row} at {distance}, said to be within {bound}"));
                }
            }
        }
    }
    Ok(Some(used))
}

#[test]
fn no_neighbour_is_lost_on_a_grid() {
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let tried = std::cell::Cell::new((0, 0));
    let outcome = runner.run(&Layout::any(), |layout| {
        for metric in METRICS {
            // Rows of one value are constant, and offsets make others so.
            if metric != Metric::Correlation || layout.dim > 2 && layout.offset < 1e3 && !layout.ties {
                let found = lost(metric, &layout, 1.0).map_err(TestCaseError::fail)?;
                let (grids, all) = tried.get();
                tried.set((grids + usize::from(found == Some(true)), all + 1));
            }
        }
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
    let (grids, all) = tried.get();
    assert!(2 * grids > all, "only {grids} of {all} were filtered on a grid");
}

#[test]
fn with_less_error_than_there_is_neighbours_are_lost() {
    let layout = Layout {
        seed: 5,
        dim: 40,
        references: 299,
        clusters: 1,
        scale: 0,
        offset: 0.0,
        shift: 0.0,
        outliers: Some((290, 25.0)),
        ties: false,
    };
    assert_eq!(lost(Metric::Euclidean, &layout, 1.0), Ok(Some(true)));
    let broken = lost(Metric::Euclidean, &layout, -1.0);
    assert!(broken.is_err(), "this test cannot fail: {broken:?}");
}

#[test]
fn sums_are_exact_on_every_path_as_far_as_they_may_go() {
    for dim in [1, 2, 3, 50, 51, 784, 2000] {
        // As long as may be: all in one dimension, or spread over all, with either sign.
        let most = 32_767.0_f32;
        let even = (most / (dim as f32).sqrt()).floor();
        let make: [&dyn Fn(usize) -> f32; 5] = [
            &|j| if j == 0 { most } else { 0.0 },
            &|j| if j + 1 == dim { -most } else { 0.0 },
            &|_| even,
            &|_| -even,
            &|j| if j % 2 == 0 { even } else { -even },
        ];
        let rows: Vec<i32> = make.iter().flat_map(|value| pack(&(0..dim).map(value).collect::<Vec<_>>())).collect();
        let words = Form::Pairs.words(dim);
        for simd in simd::available(Metric::Euclidean).into_iter().filter(simd::Simd::has_pairs) {
            let lanes = simd.rows;
            let mut panels = vec![0; words * lanes];
            for (lane, row) in rows.chunks(words).enumerate() {
                for (j, &word) in row.iter().enumerate() {
                    panels[j * lanes + lane] = word;
                }
            }
            let bias = vec![1 << 29; lanes];
            for query in rows.chunks(words) {
                let tau = [i32::MAX];
                let job = Scan { form: Form::Pairs, panels: &panels, bias: &bias, queries: query, tau: &tau, words };
                let mut hits = Hits::NONE;
                assert_eq!(simd.scan(0, &job, 0, &mut hits), 0);
                for (lane, row) in rows.chunks(words).enumerate() {
                    let expected = (1 << 29) + wide_product(query, row);
                    assert_eq!(i64::from(hits.sums[0][lane]), expected, "{}, {dim} dimensions, row {lane}", simd.name);
                }
            }
        }
    }
}

/// Whole numbers as words.
#[allow(clippy::cast_possible_truncation)] // they are small
fn pack(values: &[f32]) -> Vec<i32> {
    let half = |value: f32| i32::from(value as i16) & 0xFFFF;
    values.chunks(2).map(|pair| half(pair[0]) | pair.get(1).map_or(0, |&value| half(value)) << 16).collect()
}

/// Their product in 64 bits, where nothing overflows.
fn wide_product(a: &[i32], b: &[i32]) -> i64 {
    let halves = |word: i32| [i64::from((word << 16) >> 16), i64::from(word >> 16)];
    a.iter().zip(b).map(|(&a, &b)| halves(a).iter().zip(halves(b)).map(|(a, b)| a * b).sum::<i64>()).sum()
}

#[test]
fn rows_of_16_bits_keep_to_their_norm() {
    // Rounding makes these longer than they were.
    for dim in [2, 3, 50, 1000] {
        let references = block(0, dim, noise(7, 60 * dim));
        let placed = Placed::new(Metric::Euclidean, &references).expect("rows of one size");
        for (row, &bias) in placed.values.chunks(placed.words).zip(&placed.bias) {
            let square = wide_product(row, row);
            assert!((0..=32_767_i64.pow(2)).contains(&square), "{square}");
            assert_eq!(i64::from(bias), square / 2);
        }
    }
}

#[test]
fn far_queries_are_halved_until_they_fit_and_farther_ones_pass() {
    let references = block(0, 20, noise(8, 20 * 300));
    let placed = Placed::new(Metric::Euclidean, &references).expect("rows of one size");
    let halvings = |shift: f32| {
        let row: Vec<f32> = noise(9, 20).iter().map(|value| value + shift).collect();
        let (filter, query) = placed.query(&row, Norm::IDENTITY);
        (filter.halvings, query.iter().any(|&word| word != 0), placed.grid.tau(filter, 0.0) == i32::MAX - 1)
    };
    assert_eq!(halvings(0.0), (0, true, false));
    assert_eq!(halvings(10.0), (3, true, false));
    assert_eq!(halvings(1e4), (13, true, false));
    assert_eq!(halvings(1e9), (0, false, true));
    assert_eq!(halvings(1e38), (0, false, true));
}
