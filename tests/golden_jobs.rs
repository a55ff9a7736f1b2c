//! Whole jobs on the bundled cells against CellMapper 0.2.5: neighbours, matrices, labels, numbers, presence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/golden.rs"]
mod golden;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::Path;

use atlasknn::job::request::{MapRequest, PresenceRequest, SearchRequest};
use atlasknn::metric::Metric;
use atlasknn::weights::WeightKernel;
use golden::Case;
use outputs::{labels, map, mapping, pbmc, search, search_request, values};

const NUMBERS: [&str; 3] = ["n_counts", "percent_mito", "n_genes"];

fn cross(out: &Path) -> SearchRequest {
    search_request(&pbmc("query"), Some(&pbmc("reference")), out, 15)
}

fn close(what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64], relative: f64, absolute: f64) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= absolute + relative * b.abs(), "{what}[{i}]: {a} and not {b}");
    }
}

fn doubles(values: Vec<f32>) -> impl Iterator<Item = f64> {
    values.into_iter().map(f64::from)
}

fn check_neighbours(out: &Path, metric: Metric, ids: &[u64], distances: &[f64]) {
    let found: Vec<i32> = values(out, "obsm/knn_indices");
    assert_eq!(found.iter().map(|&id| u64::try_from(id).expect("found")).collect::<Vec<_>>(), ids);
    // scikit-learn computes cosine distances of float32 rows in float32: against float64 its golden values are off by
    // up to 4e-6 relative and 4e-7 absolute, so only the metric's own band, which is absolute, can be asked for.
    let (relative, absolute) = if metric == Metric::Cosine { (0.0, 1e-6) } else { (1e-6, 0.0) };
    close(metric.name(), doubles(values(out, "obsm/knn_distances")), distances, relative, absolute);
}

fn check_matrix(out: &Path, case: &Case) {
    let integers = |path: &str| values::<i32>(out, path).into_iter().map(|x| u64::try_from(x).expect("x")).collect();
    let (indptr, indices): (Vec<u64>, Vec<u64>) = (integers("X/indptr"), integers("X/indices"));
    assert_eq!(indptr, case.rows("indptr"));
    assert_eq!(indices, case.rows("indices"));
    close("M", doubles(values(out, "X/data")), &case.numbers("M"), 0.0, 1e-6);
}

/// Labels must be equal but where two categories have exactly as much; those rows are returned.
fn check_labels(out: &Path, case: &Case) -> Vec<usize> {
    let columns = case.strings("prob_cols");
    let probabilities = case.numbers("probs");
    let mut ties = Vec::new();
    for (row, (found, expected)) in labels(out, "bulk_labels").iter().zip(case.strings("labels")).enumerate() {
        let found = found.as_deref().expect("a label");
        let share = |name: &str| {
            let column = columns.iter().position(|column| column == name).expect("a column");
            probabilities[row * columns.len() + column]
        };
        if found != expected {
            assert!((share(found) - share(&expected)).abs() < 1e-7, "row {row}: {found} and not {expected}");
            ties.push(row);
        }
    }
    close("confidence", doubles(values(out, "obs/bulk_labels_conf")), &case.numbers("conf"), 0.0, 1e-5);
    ties
}

#[test]
fn neighbours_of_every_metric_are_cellmappers() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("cross_knn", Metric::Euclidean),
        ("cross_metric_cosine", Metric::Cosine),
        ("cross_metric_manhattan", Metric::Manhattan),
        ("cross_metric_chebyshev", Metric::Chebyshev),
        ("cross_metric_correlation", Metric::Correlation),
    ];
    for (name, metric) in cases {
        let out = dir.path().join(name);
        search(&SearchRequest { metric, ..cross(&out) }).unwrap();
        let case = Case::new(name);
        check_neighbours(&out, metric, &case.rows("idx"), &case.numbers("dist"));
    }
}

#[test]
fn mappings_of_every_kernel_are_cellmappers() {
    let dir = tempfile::tempdir().unwrap();
    let kernels = [WeightKernel::Gauss, WeightKernel::Scarches, WeightKernel::InverseDistance, WeightKernel::Equal];
    for kernel in kernels {
        let out = dir.path().join(kernel.name());
        let mut mapping = mapping(kernel);
        mapping.labels = vec!["bulk_labels".to_owned()];
        mapping.values = NUMBERS.map(str::to_owned).to_vec();
        mapping.obsm = vec!["X_umap".to_owned()];
        (mapping.matrix, mapping.probabilities) = (true, true);
        map(&MapRequest { search: cross(&out), mapping }).unwrap();
        let case = Case::new(&format!("cross_{kernel}"));
        check_matrix(&out, &case);
        let ties = check_labels(&out, &case);
        println!("{kernel}: labels differ at exact ties only, rows {ties:?}");
        close(
            "probability",
            doubles(values(&out, "obsm/bulk_labels_probabilities")),
            &case.numbers("probs"),
            0.0,
            1e-5,
        );
        for key in NUMBERS {
            let path = format!("obs/{key}_pred");
            let single = key != "n_genes";
            let found: Vec<f64> = if single { doubles(values(&out, &path)).collect() } else { values(&out, &path) };
            close(key, found, &case.numbers(&format!("num_{key}")), 1e-5, 1e-5);
        }
        close("X_umap", values::<f64>(&out, "obsm/X_umap_pred"), &case.numbers("X_umap"), 0.0, 1e-5);
    }
}

#[test]
fn a_subset_of_categories_is_labelled_as_by_cellmapper() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("subset");
    let case = Case::new("cross_gauss_subset");
    let mut mapping = mapping(WeightKernel::Gauss);
    mapping.labels = vec!["bulk_labels".to_owned()];
    mapping.label_subsets = case.strings("prob_cols").into_iter().map(|c| ("bulk_labels".to_owned(), c)).collect();
    mapping.probabilities = true;
    map(&MapRequest { search: cross(&out), mapping }).unwrap();
    assert_eq!(check_labels(&out, &case), Vec::<usize>::new());
    close("probability", doubles(values(&out, "obsm/bulk_labels_probabilities")), &case.numbers("probs"), 0.0, 1e-5);
}

#[test]
fn presence_scores_are_cellmappers() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::new("presence");
    for (name, log) in [("default", false), ("log", true)] {
        let out = dir.path().join(name);
        let mut mapping = mapping(WeightKernel::Equal);
        mapping.presence = Some(PresenceRequest { by: Some("phase".to_owned()), log, ..PresenceRequest::default() });
        map(&MapRequest { search: cross(&out), mapping }).unwrap();
        close("raw", values::<f64>(&out, "var/presence_raw"), &case.numbers("raw_all"), 1e-6, 1e-6);
        close("score", doubles(values(&out, "var/presence_score")), &case.numbers(&format!("{name}_all")), 0.0, 1e-5);
        let groups = case.strings("group_names");
        let expected = case.numbers(&format!("{name}_groups"));
        for (column, group) in groups.iter().enumerate() {
            let expected: Vec<f64> = expected.iter().skip(column).step_by(groups.len()).copied().collect();
            close(group, doubles(values(&out, &format!("varm/presence_score/{group}"))), &expected, 0.0, 1e-5);
        }
    }
}

#[test]
fn self_mapping_in_cellmappers_way_is_cellmappers() {
    let dir = tempfile::tempdir().unwrap();
    for kernel in [WeightKernel::Gauss, WeightKernel::Equal, WeightKernel::InverseDistance] {
        for (self_edges, tag) in [(true, "self"), (false, "noself")] {
            let name = format!("self_{kernel}_nosym_{tag}");
            let out = dir.path().join(&name);
            let mut mapping = mapping(kernel);
            (mapping.matrix, mapping.self_edges) = (true, Some(self_edges));
            let search = SearchRequest { compat: true, ..search_request(&pbmc("reference"), None, &out, 15) };
            let outcome = map(&MapRequest { search, mapping }).unwrap();
            assert_eq!(outcome.k, 14);
            let knn = Case::new("self_knn");
            check_neighbours(&out, Metric::Euclidean, &knn.rows("idx"), &knn.numbers("dist"));
            check_matrix(&out, &Case::new(&name));
        }
    }
}

#[test]
fn transfer_from_an_earlier_search_gives_the_same_as_map() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, searched, out) = (dir.path().join("map"), dir.path().join("search"), dir.path().join("transfer"));
    let mut mapping = mapping(WeightKernel::Gauss);
    mapping.labels = vec!["bulk_labels".to_owned()];
    mapping.values = vec!["n_genes".to_owned()];
    (mapping.matrix, mapping.presence) = (true, Some(outputs::raw_presence(None)));
    map(&MapRequest { search: cross(&whole), mapping: mapping.clone() }).unwrap();
    search(&cross(&searched)).unwrap();
    let request = atlasknn::job::request::TransferRequest {
        neighbours: searched,
        reference: pbmc("reference"),
        out: out.clone(),
        mapping,
        within: cross(&out).within,
        run: cross(&out).run,
    };
    atlasknn::job::transfer(
        &request,
        &atlasknn::schedule::progress::Silent,
        &atlasknn::schedule::progress::Stop::new(),
    )
    .unwrap();
    let mut expected = outputs::array_bytes(&whole);
    expected.retain(|path, _| !path.starts_with("obsm/knn_"));
    assert_eq!(outputs::array_bytes(&out), expected);
}

#[test]
#[should_panic(expected = "and not")]
fn the_comparison_can_fail() {
    close("distance", [1.0, 2.0], &[1.0, 2.00001], 1e-6, 0.0);
}
