//! An index against the plain truth: where each row is, how far lists reach, and that nothing of a run shows in the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::Path;

use atlasknn::block::{RowIds, Rows};
use atlasknn::job::request::{IndexRequest, RunOptions, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::pager::read_kept;
use atlasknn::store::IoCounters;
use atlasknn::store::Source;
use atlasknn::store::conformance;
use atlasknn::store::index::{Encoding, Index};
use atlasknn::store::memory::MemorySource;
use atlasknn::units::ByteCount;
use indexes::{Truth, build, index_request, open};
use outputs::{noise, write_npy, write_npy_f64};

/// Rows in clumps of very different sizes, the first clump half of them.
#[allow(clippy::cast_precision_loss)]
fn clumped(row: usize, column: usize) -> f32 {
    let clump = row.trailing_zeros() as usize;
    10.0 * noise(5, clump, column) + noise(6, row, column)
}

fn check(name: &str, rows: usize, dim: usize, lists: Option<u64>, value: &dyn Fn(usize, usize) -> f32, metric: Metric) {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, rows, dim, value);
    let request = IndexRequest { lists, metric, ..index_request(&reference, &out) };
    let outcome = build(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
    let index = open(&out);
    let truth = Truth { rows, dim, value, metric };
    truth.check(&index).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    assert_eq!(outcome.lists, index.list_rows(), "{name}");
    let report = atlasknn::job::verify(&out, &atlasknn::schedule::progress::Silent).unwrap();
    assert!(report.problems.is_empty() && report.rows == rows as u64, "{name}: {report:?}");
}

#[test]
fn every_row_is_in_the_list_of_its_nearest_centroid_within_its_radius() {
    let even = |row: usize, column: usize| noise(1, row, column);
    let far = |row: usize, column: usize| 1e5 + noise(1, row, column);
    let few = |row: usize, column: usize| noise(1, row % 7, column);
    let tiny = |row: usize, column: usize| 1e-30 * noise(1, row, column);
    for metric in [Metric::Euclidean, Metric::Cosine] {
        check("one row", 1, 1, Some(1), &even, metric);
        check("more lists than rows", 5, 3, Some(9), &even, metric);
        check("a list per row", 40, 2, Some(40), &even, metric);
        check("one list", 300, 4, Some(1), &even, metric);
        check("one dimension", 2_000, 1, Some(20), &clumped, metric);
        check("as many lists as suit", 5_000, 8, None, &even, metric);
        check("clumps", 6_000, 6, Some(100), &clumped, metric);
        check("many dimensions", 700, 301, Some(9), &even, metric);
        check("far from the origin", 3_000, 5, Some(40), &far, metric);
        check("seven different rows", 900, 5, Some(60), &few, metric);
        check("very small", 900, 5, Some(10), &tiny, metric);
    }
    for metric in Metric::ALL {
        check(metric.name(), 2_500, 7, Some(33), &clumped, metric);
    }
    check("several blocks and shards", 170_000, 60, Some(50), &clumped, Metric::Euclidean);
}

#[test]
fn equal_rows_are_spread_over_lists_of_one_centroid() {
    check("equal", 4_000, 3, Some(64), &|_, column| noise(1, 0, column), Metric::Euclidean);
    check("all zero", 500, 3, Some(8), &|_, _| 0.0, Metric::Euclidean);
    check("zero under cosine", 500, 3, Some(8), &|_, _| 0.0, Metric::Cosine);
    let zeros = |row: usize, column: usize| if row.is_multiple_of(9) { 0.0 } else { noise(1, row, column) };
    check("some zero under cosine", 900, 3, Some(8), &zeros, Metric::Cosine);
}

#[test]
fn an_index_that_is_not_of_these_rows_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 800, 3, clumped);
    build(&IndexRequest { lists: Some(12), ..index_request(&reference, &out) }).unwrap();
    let index = open(&out);
    let other = |row: usize, column: usize| clumped(row, column) + if row == 77 { 5.0 } else { 0.0 };
    let truth = |value| Truth { rows: 800, dim: 3, value, metric: Metric::Euclidean };
    assert!(truth(&clumped).check(&index).is_ok());
    assert!(truth(&other).check(&index).is_err());
    assert!(Truth { metric: Metric::Cosine, ..truth(&clumped) }.check(&index).is_err());
}

#[test]
fn budgets_threads_and_chunks_do_not_change_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, 230_000, 12, clumped);
    let of = |out: &str, mib: u64, threads: usize, encoding: Encoding| {
        let within = Within { host_memory: Some(ByteCount::mib(mib)), threads: Some(threads) };
        let request = index_request(&reference, &dir.path().join(out));
        let request = IndexRequest { within, encoding, lists: Some(600), ..request };
        build(&request).unwrap_or_else(|error| panic!("{mib} MiB: {error}"));
        indexes::bytes(&request.out)
    };
    for (encoding, name) in [(Encoding::F32, "f32"), (Encoding::Sq8, "sq8"), (Encoding::Pq, "pq")] {
        let expected = of(&format!("{name}-1"), 1024, 2, encoding);
        assert_eq!(of(&format!("{name}-2"), 1024, 1, encoding), expected, "{name}");
        assert_eq!(of(&format!("{name}-3"), 88, 3, encoding), expected, "{name}");
    }
}

#[test]
fn as_much_is_read_and_written_as_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, 230_000, 12, clumped);
    // All rows in the sample, or few.
    for (out, lists) in [("a", 2_000), ("b", 100)] {
        let request = IndexRequest { lists: Some(lists), ..index_request(&reference, &dir.path().join(out)) };
        let plan = atlasknn::job::plan_index(&request).unwrap().json;
        let outcome = build(&request).unwrap();
        for (what, found) in [("bytes_read", outcome.bytes_read), ("bytes_written", outcome.bytes_written)] {
            let planned: u64 = plan[what].as_object().unwrap().values().map(|part| part.as_u64().unwrap()).sum();
            // No more but for fingerprints, of up to 4 MiB; of a `.npy` file a small sample takes little more than its rows.
            assert!(found < planned + (6 << 20) && planned * 2 < found * 3, "{lists} lists: {what} {planned}: {found}");
        }
    }
}

#[test]
fn another_seed_is_another_index_and_both_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, 9_000, 4, clumped);
    let of = |out: &str, seed: u64| {
        let request = index_request(&reference, &dir.path().join(out));
        let run = RunOptions { seed, ..request.run };
        let request = IndexRequest { run, lists: Some(30), ..request };
        build(&request).unwrap();
        Truth { rows: 9_000, dim: 4, value: &clumped, metric: Metric::Euclidean }.check(&open(&request.out)).unwrap();
        indexes::bytes(&request.out)
    };
    assert_ne!(of("a", 1), of("b", 2));
}

#[test]
fn float64_rows_are_kept_as_a_search_compares_them() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    let value = |row: usize, column: usize| 1e7 + f64::from(clumped(row, column));
    write_npy_f64(&reference, 3_000, 4, value);
    build(&IndexRequest { lists: Some(20), ..index_request(&reference, &out) }).unwrap();
    let index = open(&out);
    let preparation = index.preparation().unwrap().expect("they were centred");
    let values = (0..3_000).flat_map(|row| (0..4).map(move |column| value(row, column))).collect();
    let source = MemorySource::from_f64("m", 4, values).unwrap();
    let source = atlasknn::store::prepared::Prepared::new(std::sync::Arc::new(source), preparation).unwrap();
    let mut expected = vec![0.0; 12_000];
    source.read(&[0..3_000], &mut expected).unwrap();
    let prepared = |row: usize, column: usize| expected[row * 4 + column];
    Truth { rows: 3_000, dim: 4, value: &prepared, metric: Metric::Euclidean }.check(&index).unwrap();
    let io = IoCounters::new();
    let raw = atlasknn::store::open::open_representation(&reference, "", &io).unwrap();
    assert_eq!(index.fingerprint_of_reference(), &raw.fingerprint().unwrap());
}

#[test]
fn rows_kept_as_codes_are_as_near_as_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    let (rows, dim) = (20_000, 5);
    write_npy(&reference, rows, dim, clumped);
    let mut errors = Vec::new();
    for metric in [Metric::Euclidean, Metric::Cosine] {
        for encoding in [Encoding::F16, Encoding::Sq8, Encoding::Pq] {
            let out = dir.path().join(format!("{}-{metric}", encoding.name()));
            build(&IndexRequest { encoding, metric, lists: Some(40), ..index_request(&reference, &out) }).unwrap();
            let index = open(&out);
            let said = index.manifest()["largest_encoding_error"].as_f64().unwrap();
            let found = indexes::largest_error(&index, &clumped);
            assert!(found <= said * 1.000_001 && found >= said * 0.999, "{encoding:?} {metric}: {found} and {said}");
            let report = atlasknn::job::verify(&out, &atlasknn::schedule::progress::Silent).unwrap();
            assert!(report.problems.is_empty(), "{encoding:?} {metric}: {:?}", report.problems);
            errors.push(said);
        }
    }
    // Fewer bytes, larger errors: from 10 to 5 to 3.
    assert!(errors[0] < errors[1] && errors[1] < errors[2], "{errors:?}");
}

#[test]
fn codes_are_read_by_any_ranges_as_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, 40_000, 3, clumped);
    for encoding in Encoding::ALL {
        let out = dir.path().join(encoding.name());
        build(&IndexRequest { encoding, lists: Some(50), ..index_request(&reference, &out) }).unwrap();
        let source = std::sync::Arc::clone(open(&out).source());
        let mut whole = vec![0.0; 120_000];
        source.read(&[0..40_000], &mut whole).unwrap();
        let ranges = [5_u64..5, 39_999..40_000, 0..1, 100..20_001, 100..103, 20_000..39_000];
        let expected: Vec<f32> = ranges
            .iter()
            .flat_map(|r| whole[usize::try_from(r.start).unwrap() * 3..usize::try_from(r.end).unwrap() * 3].to_vec())
            .collect();
        let mut found = vec![0.0; expected.len()];
        source.read(&ranges, &mut found).unwrap();
        assert_eq!(found, expected, "{encoding:?}");
        let mut wide = vec![0.0; expected.len()];
        source.read_f64(&ranges, &mut wide).unwrap();
        assert!(wide.iter().zip(&expected).all(|(a, b)| *a == f64::from(*b)), "{encoding:?}");
        assert!(source.read(&[39_999..40_001], &mut [0.0; 6]).is_err());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let searched = read_kept(&*source, &ranges, RowIds::Range(0..expected.len() as u64 / 3), &pool).unwrap();
        assert_eq!(matches!(searched, Rows::Coded(_)), encoding != Encoding::F32, "{encoding:?}");
        assert_eq!(source.row_bytes() < 12, encoding != Encoding::F32, "{encoding:?}");
        let whole: Vec<f64> = whole.into_iter().map(f64::from).collect();
        conformance::check(&*source, &whole).unwrap_or_else(|wrong| panic!("{encoding:?}: {wrong}"));
    }
}

/// What `Index` opens without the folder that only a run needs.
#[test]
fn an_index_is_read_without_what_its_run_left() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 500, 3, clumped);
    build(&IndexRequest { lists: Some(7), ..index_request(&reference, &out) }).unwrap();
    std::fs::remove_dir_all(out.join(".atlasknn")).unwrap();
    let truth = Truth { rows: 500, dim: 3, value: &clumped, metric: Metric::Euclidean };
    truth.check(&open(&out)).unwrap();
    assert!(Index::is_at(&out) && !Index::is_at(dir.path()) && !Index::is_at(Path::new("nowhere")));
}
