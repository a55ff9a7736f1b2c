//! Rows that are kept as codes: an engine finds in them what it finds in the rows that they decode to, byte for byte.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::{Case, Subject, block, clustered, k, noise, whole};
use crate::block::codes::{CodedRows, Codes, ListPatterns};
use crate::block::patterns::{PATTERNS, Patterns};
use crate::block::scale::Scale;
use crate::block::{RowBlock, RowIds};
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use crate::metric::Metric;
use crate::topk::TopK;

/// Rows of three ranges of an index that begin and end within its lists, one of which is empty; kept in one of the ways.
fn coded(kind: usize, rows: usize, dim: usize) -> CodedRows {
    let n = rows as u64;
    let places = [n + 7..n + 7 + n / 3, 2..2 + n / 2, 2 * n + 9..3 * n + 9 - n / 3 - n / 2];
    let ids = RowIds::List((0..n).map(|row| (row * 7_919) % 1_000_003 + (1 << 33)).collect());
    let values = clustered(5, rows, dim, 4);
    let codes = match kind {
        0 => Codes::Halves(values.iter().map(|value| f16::from_f32(*value)).collect()),
        1 => scaled(&values, dim),
        _ => patterns(&values, dim, 4 * n + 20),
    };
    CodedRows::new(ids, &places, dim, codes).expect("codes of all rows")
}

fn scaled(values: &[f32], dim: usize) -> Codes {
    let column = |at: usize| values.iter().skip(at).step_by(dim).copied();
    let limits: Vec<(f32, f32)> =
        (0..dim).map(|at| (column(at).fold(f32::MAX, f32::min), column(at).fold(f32::MIN, f32::max))).collect();
    let scale = Scale::between(&limits);
    let mut bytes = vec![0; values.len()];
    let rows = bytes.chunks_exact_mut(dim).zip(values.chunks_exact(dim));
    rows.for_each(|(bytes, row)| scale.encode(row, bytes));
    Codes::Scaled(bytes, Arc::new(scale))
}

/// Any codes of an index of so many rows in six lists.
fn patterns(values: &[f32], dim: usize, n: u64) -> Codes {
    let of = noise(6, dim.div_ceil(2) * PATTERNS * 2);
    let patterns = Patterns::from_rows(&of, dim).expect("patterns of all codes");
    let rows = values.len() / dim;
    let bytes = noise(7, rows * patterns.codes()).iter().map(|value| value.to_bits().to_le_bytes()[1]).collect();
    let centroids = Arc::new(clustered(8, 6, dim, 6));
    let offsets = Arc::new(vec![0, 5, n / 4, n / 2, n / 2, n - 1, n]);
    Codes::Patterns(bytes, Arc::new(ListPatterns { patterns, centroids, offsets }))
}

fn decoded(rows: &CodedRows) -> RowBlock {
    let mut values = vec![0.0; rows.rows() * rows.dim()];
    values.chunks_exact_mut(rows.dim()).enumerate().for_each(|(row, out)| rows.decode(row, out));
    RowBlock::new(rows.ids().clone(), rows.dim(), values).expect("a block")
}

/// What is found in a partition by these visits, or in all of it.
fn find(engine: &mut dyn Engine, case: &Case, part: &Arc<Partition>, visits: Option<&[Visit]>) -> TopK {
    engine.begin(&case.queries, case.k, &case.exclude).expect("begin");
    engine.visit(part, visits.unwrap_or(&[whole(part)])).expect("visit");
    engine.finish().expect("finish")
}

/// Both ways of keeping a case's references find the same, by these visits.
fn check(engine: &mut dyn Engine, case: &Case, rows: &CodedRows, visits: Option<&[Visit]>, what: &str) -> TopK {
    let with = |rows: crate::block::Rows| Partition::with(rows, case.groups.clone(), case.mask.clone());
    let plain = find(engine, case, &with(case.references.clone().into()), visits);
    let coded = find(engine, case, &with(rows.clone().into()), visits);
    assert_eq!(coded, plain, "{what}, {}", case.metric);
    coded
}

pub(crate) fn codes_are_searched_as_the_rows_they_decode_to(subject: Subject<'_>) {
    for (dim, counts) in [(1, [1, 40]), (3, [1, 17]), (50, [16, 700]), (129, [5, 100])] {
        for metric in Metric::ALL.into_iter().filter(|metric| *metric != Metric::Correlation || dim > 1) {
            let mut engine = (subject.make)(metric);
            for (kind, rows) in (0..3).flat_map(|kind| counts.map(|rows| (kind, rows))) {
                let coded = coded(kind, rows, dim);
                let queries = block(1 << 40, dim, clustered(2, 21, dim, 4));
                let case = Case::new(metric, &queries, &decoded(&coded), k(15));
                let what = format!("encoding {kind}, {rows} rows × {dim}");
                let found = check(engine.as_mut(), &case, &coded, None, &what);
                if let Err(wrong) = crate::oracle::search::agrees(&found, &case.truth(), subject.kind) {
                    panic!("{what}, {metric}: {wrong}");
                }
            }
        }
    }
}

pub(crate) fn codes_keep_to_ranges_masks_and_exclusion(subject: Subject<'_>) {
    let (dim, rows) = (10, 300);
    let range = |rows: Range<u32>, queries| Visit { rows, queries };
    let visits = [
        range(0..70, VisitQueries::All),
        range(65..66, VisitQueries::List(vec![0, 3])),
        range(200..300, VisitQueries::All),
    ];
    for metric in Metric::ALL {
        let mut engine = (subject.make)(metric);
        for kind in 0..3 {
            let coded = coded(kind, rows, dim);
            let references = decoded(&coded);
            // Queries that are references: each is left out by its id.
            let values = (0..30).flat_map(|row| references.row(row * 9).to_vec()).collect();
            let ids = (0..30).map(|row| references.ids().get(row * 9).0).collect();
            let queries = RowBlock::new(RowIds::List(ids), dim, values).expect("a block");
            let own = Case { exclude: Exclude::OwnRow, ..Case::new(metric, &queries, &references, k(8)) };
            let found = check(engine.as_mut(), &own, &coded, Some(&visits), "own rows");
            assert!((0..30).all(|row| !found.neighbours(row).0.contains(&queries.ids().get(row).0)), "{metric}");
            let groups = (0..30).map(|row| row % 3).collect();
            let case = Case {
                exclude: Exclude::SameGroup { groups, own_row: false },
                groups: Some((0..300).map(|row| row % 3).collect()),
                mask: Some((0..rows).map(|row| row % 5 != 0).collect()),
                ..Case::new(metric, &queries, &references, k(8))
            };
            check(engine.as_mut(), &case, &coded, None, "masks and groups");
        }
    }
}

pub(crate) fn masses_of_equal_codes_are_found_by_id(subject: Subject<'_>) {
    let (dim, rows) = (4, 1_500);
    let one = clustered(1, 1, dim, 1);
    let halves = |row: usize| one.iter().map(move |value| f16::from_f32(if row % 500 == 499 { 9.0 } else { *value }));
    let codes = Codes::Halves((0..rows).flat_map(halves).collect());
    let coded = CodedRows::new(RowIds::Range(0..1_500), &[0..1_500], dim, codes).expect("codes of all rows");
    let queries = block(1 << 40, dim, clustered(2, 5, dim, 1));
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct, Metric::Chebyshev] {
        let case = Case::new(metric, &queries, &decoded(&coded), k(30));
        let found = check((subject.make)(metric).as_mut(), &case, &coded, None, "equal codes");
        if let Err(wrong) = crate::oracle::search::agrees(&found, &case.truth(), subject.kind) {
            panic!("{metric}: {wrong}");
        }
    }
}

#[test]
#[should_panic(expected = "a comparer that can fail")]
fn codes_of_other_rows_are_told_apart() {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool"));
    let config = CpuConfig { metric: Metric::Euclidean, pool, simd: None };
    let coded = coded(1, 40, 3);
    let mut values = decoded(&coded).values().to_vec();
    values[0] += 0.5;
    let others = RowBlock::new(coded.ids().clone(), 3, values).expect("a block");
    let case = Case::new(Metric::Euclidean, &block(0, 3, clustered(2, 5, 3, 4)), &others, k(40));
    check(&mut CpuEngine::new(config).expect("an engine"), &case, &coded, None, "a comparer that can fail");
}
