//! Whole jobs on data that hurts: the right answer, or an error that says what, where and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::job::request::{MapRequest, SearchRequest, Within};
use atlasknn::metric::{EngineKind, Metric};
use atlasknn::oracle::search as oracle;
use atlasknn::topk::{PADDING, TopK};
use atlasknn::units::{ByteCount, K};
use atlasknn::weights::WeightKernel;
use outputs::{map, mapping, noise, pbmc, search, search_request, values, write_npy, write_npy_f64};

type Rows = Vec<Vec<f32>>;

struct Case {
    dir: tempfile::TempDir,
    query: PathBuf,
    reference: PathBuf,
}

fn case(queries: &Rows, references: &Rows) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
    let write = |path: &Path, rows: &Rows| {
        write_npy(path, rows.len(), rows.first().map_or(3, Vec::len), |row, column| rows[row][column]);
    };
    write(&query, queries);
    write(&reference, references);
    Case { dir, query, reference }
}

impl Case {
    fn request(&self, k: u32) -> SearchRequest {
        search_request(&self.query, Some(&self.reference), &self.dir.path().join("out"), k)
    }

    fn refused(&self, k: u32) -> String {
        search(&self.request(k)).unwrap_err().to_string()
    }
}

fn random(seed: u64, rows: usize, dim: usize, scale: f32, offset: f32) -> Rows {
    (0..rows).map(|row| (0..dim).map(|column| noise(seed, row, column) * scale + offset).collect()).collect()
}

fn block(rows: &Rows) -> RowBlock {
    RowBlock::new(RowIds::Range(0..rows.len() as u64), rows[0].len(), rows.concat()).unwrap()
}

fn found(out: &Path, k: u32) -> TopK {
    let ids: Vec<i32> = values(out, "obsm/knn_indices");
    let ids = ids.into_iter().map(|id| u64::try_from(id).unwrap_or(PADDING)).collect();
    TopK::from_parts(K::new(k).unwrap(), ids, values(out, "obsm/knn_distances")).expect("sorted rows")
}

/// Runs a search and holds it against the f64 oracle on the same rows.
fn check(what: &str, queries: &Rows, references: &Rows, k: u32, metric: Metric) {
    let case = case(queries, references);
    let request = SearchRequest { metric, ..case.request(k) };
    search(&request).unwrap_or_else(|error| panic!("{what}: {error}"));
    let truth = oracle::search(metric, &block(queries), &block(references), |_, _| true);
    oracle::agrees(&found(&request.out, k), &truth, EngineKind::Cpu)
        .unwrap_or_else(|e| panic!("{what}, {metric}: {e}"));
}

#[test]
fn offsets_and_scales_change_no_neighbour() {
    for metric in [Metric::Euclidean, Metric::Manhattan, Metric::Cosine] {
        for (scale, offset) in [(1.0, 0.0), (1.0, 1e3), (1e-3, 1e3), (1e3, 1e3), (1e3, 0.0), (1e-3, 0.0)] {
            let (queries, references) = (random(1, 60, 50, scale, offset), random(2, 1_500, 50, scale, offset));
            check(&format!("scale {scale}, offset {offset}"), &queries, &references, 15, metric);
        }
    }
}

#[test]
fn shapes_that_hurt_are_searched_right() {
    for (queries, references, dim, k) in
        [(1, 1, 1, 1), (1, 40, 1, 5), (33, 1, 7, 3), (20, 300, 1_000, 15), (7, 20, 3, 64)]
    {
        for metric in Metric::ALL.into_iter().filter(|&metric| dim > 1 || metric != Metric::Correlation) {
            let what = format!("{queries} × {references}, dim {dim}, k {k}");
            check(&what, &random(3, queries, dim, 1.0, 0.0), &random(4, references, dim, 1.0, 0.0), k, metric);
        }
    }
}

#[test]
fn zero_vectors_are_at_cosine_distance_one() {
    let mut references = random(5, 50, 4, 1.0, 0.0);
    references[7] = vec![0.0; 4];
    let mut queries = random(6, 5, 4, 1.0, 0.0);
    queries[2] = vec![0.0; 4];
    check("zero vectors", &queries, &references, 50, Metric::Cosine);
}

#[test]
fn identical_rows_are_found_by_lowest_id() {
    let references = vec![vec![1.0, 2.0]; 10_000];
    let case = case(&vec![vec![1.0, 2.0]; 3], &references);
    let request = case.request(5);
    search(&request).unwrap();
    assert_eq!(values::<i32>(&request.out, "obsm/knn_indices"), [0, 1, 2, 3, 4].repeat(3));
    assert_eq!(values::<f32>(&request.out, "obsm/knn_distances"), [0.0; 15]);
}

#[test]
fn self_mapping_never_finds_the_cell_itself_even_among_duplicates() {
    let rows: Rows = vec![vec![1.0, 2.0]; 40];
    let case = case(&rows, &rows);
    let request = SearchRequest { reference: None, ..case.request(5) };
    search(&request).unwrap();
    let top = found(&request.out, 5);
    for row in 0..40 {
        let expected: Vec<u64> = (0..40).filter(|&id| id != row as u64).take(5).collect();
        assert_eq!(top.neighbours(row).0, expected, "row {row}");
    }
}

#[test]
fn k_beyond_the_reference_is_padded() {
    let case = case(&random(7, 3, 4, 1.0, 0.0), &random(8, 4, 4, 1.0, 0.0));
    let request = case.request(6);
    search(&request).unwrap();
    let (ids, distances): (Vec<i32>, Vec<f32>) =
        (values(&request.out, "obsm/knn_indices"), values(&request.out, "obsm/knn_distances"));
    for row in 0..3 {
        assert_eq!(ids[row * 6 + 4..row * 6 + 6], [-1, -1]);
        assert_eq!(distances[row * 6 + 4..row * 6 + 6], [f32::INFINITY; 2]);
        assert!(ids[row * 6..row * 6 + 4].iter().all(|&id| id >= 0));
    }
}

#[test]
fn a_matrix_of_rows_with_different_numbers_of_neighbours_is_whole() {
    // Every cell excludes its own group, and the groups differ in size: rows of M have 15, fewer, or no entries.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut mapping = mapping(WeightKernel::Gauss);
    (mapping.matrix, mapping.self_edges) = (true, Some(true));
    let search = search_request(&pbmc("reference"), None, &out, 250);
    let search = SearchRequest { exclude_group: Some("phase".to_owned()), ..search };
    map(&MapRequest { search, mapping }).unwrap();
    let ids: Vec<i32> = values(&out, "obsm/knn_indices");
    let indptr: Vec<i32> = values(&out, "X/indptr");
    let data: Vec<f32> = values(&out, "X/data");
    let counts: Vec<usize> = ids.chunks(250).map(|row| row.iter().filter(|&&id| id >= 0).count()).collect();
    assert!(counts.iter().any(|&c| c < 250) && counts.contains(&250), "the case is not the one meant");
    for (row, count) in counts.iter().enumerate() {
        let (start, end) = (usize::try_from(indptr[row]).unwrap(), usize::try_from(indptr[row + 1]).unwrap());
        assert_eq!(end - start, count + 1, "row {row}");
        let sum: f32 = data[start..end].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "row {row} sums to {sum}");
    }
    assert_eq!(data.len(), counts.iter().sum::<usize>() + 500);
}

#[test]
fn float64_rows_far_from_zero_keep_their_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference) = (dir.path().join("q.npy"), dir.path().join("r.npy"));
    let value = |seed: u64| move |row, column| f64::from(noise(seed, row, column)) + 1e6;
    write_npy_f64(&query, 50, 20, value(1));
    write_npy_f64(&reference, 2_000, 20, value(2));
    // In float32 a value near 1e6 is a multiple of 1/16: without centring in float64 nothing would be left.
    let (queries, references) = (random(1, 50, 20, 1.0, 0.0), random(2, 2_000, 20, 1.0, 0.0));
    for metric in [Metric::Euclidean, Metric::Manhattan, Metric::Chebyshev] {
        let out = dir.path().join(metric.name());
        search(&SearchRequest { metric, ..search_request(&query, Some(&reference), &out, 10) }).unwrap();
        let truth = oracle::search(metric, &block(&queries), &block(&references), |_, _| true);
        let top = found(&out, 10);
        for row in 0..50 {
            let expected: Vec<u64> = truth.neighbours[row][..10].iter().map(|n| n.id).collect();
            assert_eq!(top.neighbours(row).0, expected, "{metric}, row {row}");
        }
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut references = random(9, 30, 4, 1.0, 0.0);
        references[17][2] = value;
        let message = case(&random(10, 3, 4, 1.0, 0.0), &references).refused(5);
        for part in ["reference.npy", name, "row 17", "column 2"] {
            assert!(message.contains(part), "{message} does not say {part}");
        }
    }
}

#[test]
fn inputs_that_cannot_be_searched_are_refused_clearly() {
    let two = random(11, 2, 4, 1.0, 0.0);
    let message = case(&two, &random(12, 5, 3, 1.0, 0.0)).refused(1);
    assert!(message.contains("4 dimensions") && message.contains('3'), "{message}");
    for (queries, references, side) in [(vec![], two.clone(), "query"), (two.clone(), vec![], "reference")] {
        let references: Rows = references.into_iter().map(|row: Vec<f32>| row[..3].to_vec()).collect();
        let queries: Rows = queries.into_iter().map(|row: Vec<f32>| row[..3].to_vec()).collect();
        let message = case(&queries, &references).refused(1);
        assert!(message.contains(side) && message.contains("no rows"), "{message}");
    }
    let constant = case(&two, &vec![vec![2.0; 4]; 3]);
    let request = SearchRequest { metric: Metric::Correlation, ..constant.request(1) };
    let message = search(&request).unwrap_err().to_string();
    assert!(message.contains("constant") && message.contains("row 0"), "{message}");
}

#[test]
fn a_budget_that_cannot_work_names_one_that_does() {
    let case = case(&random(13, 2_000, 50, 1.0, 0.0), &random(14, 2_000, 50, 1.0, 0.0));
    let within = Within { host_memory: Some(ByteCount::mib(1)), threads: Some(1) };
    let message = search(&SearchRequest { within, ..case.request(15) }).unwrap_err().to_string();
    let needs = message.split("at least ").nth(1).and_then(|rest| rest.split(" (").next()).unwrap();
    let within = Within { host_memory: Some(needs.parse().unwrap()), threads: Some(1) };
    assert!(search(&SearchRequest { within, ..case.request(15) }).is_ok(), "{message}");
}

#[test]
fn missing_things_are_named_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let base = search_request(&pbmc("query"), Some(&pbmc("reference")), &out, 5);
    let refused = |request: &MapRequest| map(request).unwrap_err().to_string();
    let plain = || mapping(WeightKernel::Gauss);
    let no_rep = SearchRequest { rep: "X_pcaa".to_owned(), ..base.clone() };
    let message = refused(&MapRequest { search: no_rep, mapping: plain() });
    assert!(message.contains("obsm/X_pcaa") && message.contains("X_pca"), "{message}");
    let with = |edit: &dyn Fn(&mut atlasknn::job::request::MappingRequest)| {
        let mut mapping = plain();
        edit(&mut mapping);
        refused(&MapRequest { search: base.clone(), mapping })
    };
    let message = with(&|m| m.labels = vec!["bulk_label".to_owned()]);
    assert!(message.contains("obs/bulk_label") && message.contains("bulk_labels"), "{message}");
    let message = with(&|m| m.labels = vec!["n_genes".to_owned()]);
    assert!(message.contains("n_genes") && message.contains("--value"), "{message}");
    let message = with(&|m| m.values = vec!["bulk_labels".to_owned()]);
    assert!(message.contains("bulk_labels") && message.contains("--label"), "{message}");
    let message = with(&|m| m.self_edges = Some(true));
    assert!(message.contains("self-mapping"), "{message}");
    let gone = SearchRequest { query: dir.path().join("gone.zarr"), ..base.clone() };
    let message = refused(&MapRequest { search: gone, mapping: plain() });
    assert!(message.contains("gone.zarr does not exist"), "{message}");
    for (key, says) in [("phas", "phase"), ("n_genes", "categorical or text")] {
        let search = SearchRequest { exclude_group: Some(key.to_owned()), ..base.clone() };
        let message = refused(&MapRequest { search, mapping: plain() });
        assert!(message.contains(key) && message.contains(says), "{message}");
    }
    assert!(!out.exists(), "nothing is written before everything is checked");
}
