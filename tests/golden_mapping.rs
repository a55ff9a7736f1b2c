//! Weights and transfer against CellMapper 0.2.5: its neighbours in, its matrices, labels, numbers and scores out.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// A golden file that is not as expected ends its test.

#[path = "support/golden.rs"]
mod golden;

use atlasknn::matrix::MatrixRows;
use atlasknn::topk::{TopK, nearer};
use atlasknn::transfer::agreement::{Agreement, shared_labels};
use atlasknn::transfer::categorical::{LabelOptions, LabelTransfer, Labels};
use atlasknn::transfer::numeric::{NumericTransfer, Values};
use atlasknn::transfer::presence::{Presence, PresenceOf, PresenceOptions};
use atlasknn::transfer::vocabulary::{Vocabulary, recode};
use atlasknn::units::K;
use atlasknn::weights::stats::DistanceStatistics;
use atlasknn::weights::{WeightKernel, gauss_weights, weigh};
use golden::{Case, difference, doubles, single};

const QUERIES: usize = 200;
const REFERENCES: usize = 500;

#[track_caller]
fn check(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    if let Some(difference) = difference(found, expected, tolerance) {
        panic!("{what}: {difference}");
    }
}

/// Golden neighbours, with the distances a search would have written.
fn neighbours(case: &Case) -> TopK {
    let (ids, distances, width) = (case.rows("idx"), case.numbers("dist"), case.width("idx"));
    let k = K::new(u32::try_from(width).expect("small k")).expect("k");
    let mut top = TopK::empty(ids.len() / width, k);
    for (row, (ids, distances)) in ids.chunks(width).zip(distances.chunks(width)).enumerate() {
        let mut found: Vec<(f32, u64)> = distances.iter().copied().map(single).zip(ids.iter().copied()).collect();
        found.sort_by(|a, b| nearer(*a, *b));
        top.set_row(row, &found);
    }
    top
}

fn statistics(top: &TopK) -> DistanceStatistics {
    let mut statistics = DistanceStatistics::default();
    statistics.extend(top);
    statistics
}

fn cross_matrix(kernel: WeightKernel) -> MatrixRows {
    let top = neighbours(&Case::new("cross_knn"));
    weigh(kernel, &statistics(&top), &top, None)
}

fn check_matrix(matrix: &MatrixRows, case: &Case, name: &str) {
    let offsets: Vec<u64> = matrix.offsets.iter().map(|&offset| offset as u64).collect();
    assert_eq!((offsets, &matrix.columns), (case.rows("indptr"), &case.rows("indices")), "{name}");
    check(name, &doubles(&matrix.weights), &case.numbers("M"), 1e-6);
}

/// The column as codes of first appearance, which is not the sorted order.
fn coded(values: &[String]) -> (Vec<i32>, Vec<String>) {
    let mut vocabulary = Vocabulary::new();
    let codes = values.iter().map(|value| vocabulary.code(value).expect("few values")).collect();
    (codes, vocabulary.in_order())
}

/// Labels of the cross mapping, and the names of the probabilities' columns.
fn labels(kernel: WeightKernel, subset: Option<&[String]>) -> (Labels, Vec<String>, Vec<String>) {
    let (codes, categories) = coded(&Case::new("inputs").strings("bulk_labels_ref"));
    let transfer = LabelTransfer::new(codes, &categories, subset).expect("codes of these categories");
    let columns = transfer.columns().iter().map(|&code| named(&categories, code)).collect();
    let options = LabelOptions { min_confidence: None, probabilities: true };
    (transfer.transfer(&cross_matrix(kernel), &options).expect("references in range"), categories, columns)
}

fn named(categories: &[String], code: i32) -> String {
    categories[usize::try_from(code).expect("no label is missing")].clone()
}

/// Labels equal those of the case, but where both have exactly the same probability: the rows of such ties.
fn label_ties(labels: &Labels, categories: &[String], columns: &[String], case: &Case) -> Result<Vec<usize>, String> {
    let expected = case.strings("labels");
    assert_eq!(labels.codes.len(), expected.len());
    let mut ties = Vec::new();
    for (row, theirs) in expected.iter().enumerate() {
        let ours = named(categories, labels.codes[row]);
        let shares = &labels.probabilities[row * columns.len()..(row + 1) * columns.len()];
        let share = |name: &str| columns.iter().position(|column| column == name).map(|column| shares[column]);
        if ours != *theirs {
            if share(&ours) != share(theirs) {
                return Err(format!("row {row}: {ours} here, {theirs} in CellMapper, and no tie"));
            }
            ties.push(row);
        }
    }
    Ok(ties)
}

#[test]
fn neighbours_of_every_golden_metric_can_be_read() {
    for name in ["knn", "metric_cosine", "metric_manhattan", "metric_chebyshev", "metric_correlation"] {
        let top = neighbours(&Case::new(&format!("cross_{name}")));
        assert_eq!((top.rows(), top.k()), (QUERIES, 15), "{name}");
        assert!(top.ids().iter().all(|&id| id < REFERENCES as u64), "{name}");
    }
}

#[test]
fn cross_mapping_matrices_are_cellmappers() {
    for kernel in WeightKernel::ALL {
        check_matrix(&cross_matrix(kernel), &Case::new(&format!("cross_{kernel}")), kernel.name());
    }
}

#[test]
fn self_mapping_matrices_are_cellmappers() {
    let top = neighbours(&Case::new("self_knn"));
    for kernel in [WeightKernel::Gauss, WeightKernel::Equal, WeightKernel::InverseDistance] {
        for (tag, edges) in [("noself", false), ("self", true)] {
            let name = format!("self_{kernel}_nosym_{tag}");
            let case = Case::new(&name);
            let n = REFERENCES as u64;
            let statistics = statistics(&top).with_zeros(if edges { n } else { 0 });
            let matrix = weigh(kernel, &statistics, &top, edges.then_some(0..n));
            check_matrix(&matrix, &case, &name);
            let function = kernel.function(&statistics);
            let raw: Vec<f64> = (0..matrix.rows())
                .flat_map(|row| matrix.row(row).0.iter().map(move |&column| (row, column)))
                .map(|(row, column)| {
                    let (ids, distances) = top.neighbours(row);
                    let slot = ids.iter().position(|&id| id == column);
                    function.at(slot.map_or(0.0, |slot| f64::from(distances[slot])))
                })
                .collect();
            check(&format!("{name} K"), &raw, &case.numbers("K"), 1e-6);
        }
    }
}

#[test]
fn labels_confidences_and_probabilities_are_cellmappers() {
    for kernel in WeightKernel::ALL {
        let case = Case::new(&format!("cross_{kernel}"));
        let (labels, categories, columns) = labels(kernel, None);
        assert_eq!(columns, case.strings("prob_cols"));
        let ties = label_ties(&labels, &categories, &columns, &case).expect("labels");
        println!("{kernel}: {} rows differ, all exact ties: {ties:?}", ties.len());
        check(&format!("{kernel} conf"), &doubles(&labels.confidences), &case.numbers("conf"), 1e-5);
        check(&format!("{kernel} probs"), &doubles(&labels.probabilities), &case.numbers("probs"), 1e-5);
    }
}

#[test]
fn a_subset_of_categories_is_labelled_as_by_cellmapper() {
    let case = Case::new("cross_gauss_subset");
    let (labels, categories, columns) = labels(WeightKernel::Gauss, Some(&case.strings("prob_cols")));
    assert_eq!(columns, case.strings("prob_cols"));
    let ties = label_ties(&labels, &categories, &columns, &case).expect("labels");
    println!("subset: {} rows differ, all exact ties: {ties:?}", ties.len());
    check("conf", &doubles(&labels.confidences), &case.numbers("conf"), 1e-5);
    check("probs", &doubles(&labels.probabilities), &case.numbers("probs"), 1e-5);
}

#[test]
fn numbers_and_embeddings_are_cellmappers() {
    let inputs = Case::new("inputs");
    for kernel in WeightKernel::ALL {
        let (case, matrix) = (Case::new(&format!("cross_{kernel}")), cross_matrix(kernel));
        for array in ["num_n_counts", "num_percent_mito", "num_n_genes"] {
            let column = inputs.numbers(array);
            let singles = Values::F32(column.iter().copied().map(single).collect());
            for values in [singles, Values::F64(column)] {
                let mapped = NumericTransfer::new(values, 1).and_then(|t| t.transfer(&matrix)).expect(array);
                check(&format!("{kernel} {array}"), &mapped, &case.numbers(array), 1e-5);
            }
        }
        let umap = Values::F64(inputs.numbers("X_umap_ref"));
        let mapped = NumericTransfer::new(umap, 2).and_then(|t| t.transfer(&matrix)).expect("X_umap");
        check(&format!("{kernel} X_umap"), &mapped, &case.numbers("X_umap"), 1e-5);
    }
}

#[test]
fn presence_scores_are_cellmappers() {
    let (case, inputs) = (Case::new("presence"), Case::new("inputs"));
    let top = neighbours(&Case::new("cross_knn"));
    // CellMapper's groups come in order of appearance, as these codes do.
    let (groups, names) = coded(&inputs.strings("phase_qry"));
    assert_eq!(names, case.strings("group_names"));
    let mut presence = Presence::new(REFERENCES, names.len());
    presence.add(&top, &gauss_weights(&statistics(&top), &top), Some(&groups)).expect("it fits");
    let plain = PresenceOptions { log: false, percentiles: (0.0, 100.0), min_max: false };
    let default = PresenceOptions { percentiles: (1.0, 99.0), min_max: true, ..plain };
    let log = PresenceOptions { log: true, ..default };
    check(
        "raw sums",
        &presence.raw(PresenceOf::All, 0..REFERENCES).collect::<Vec<_>>(),
        &case.numbers("raw_all"),
        1e-6,
    );
    for (name, options, tolerance) in [("raw", plain, 1e-6), ("default", default, 1e-5), ("log", log, 1e-5)] {
        let scores = |of| {
            let scale = presence.scale(of, &options).expect("percentiles in range");
            doubles(&presence.scores(of, &scale, 0..REFERENCES))
        };
        check(name, &scores(PresenceOf::All), &case.numbers(&format!("{name}_all")), tolerance);
        let expected = case.numbers(&format!("{name}_groups"));
        for (group, phase) in names.iter().enumerate() {
            let column: Vec<f64> = expected.iter().skip(group).step_by(names.len()).copied().collect();
            check(&format!("{name} {phase}"), &scores(PresenceOf::Group(group)), &column, tolerance);
        }
    }
}

#[test]
fn label_metrics_are_scikit_learns() {
    let (known, known_names) = coded(&Case::new("inputs").strings("bulk_labels_qry"));
    for kernel in WeightKernel::ALL {
        let (mut labels, categories, _) = labels(kernel, None);
        let (names, of_known, of_transferred) = shared_labels(&known_names, &categories);
        let mut known_codes = known.clone();
        recode(&mut known_codes, &of_known);
        recode(&mut labels.codes, &of_transferred);
        let mut agreement = Agreement::new(names.len(), 0.0);
        agreement.add(&known_codes, &labels.codes, Some(&labels.confidences)).expect("codes of these labels");
        let scores = agreement.scores();
        let found = [
            ("accuracy", scores.accuracy),
            ("precision", scores.precision),
            ("recall", scores.recall),
            ("f1_weighted", scores.f1_weighted),
            ("f1_macro", scores.f1_macro),
            ("excluded_fraction", scores.excluded_fraction),
        ];
        let expected = Case::new(&format!("cross_{kernel}")).json("label_metrics");
        for (name, score) in found {
            check(&format!("{kernel} {name}"), &[score], &[expected[name].as_f64().expect(name)], 1e-6);
        }
    }
}

#[test]
fn the_comparisons_can_fail() {
    assert!(difference(&[1.0, 2.0], &[1.0, 2.0 + 3e-6], 1e-6).is_some());
    assert!(difference(&[1.0], &[1.0, 2.0], 1e-6).is_some());
    assert!(difference(&[f64::NAN], &[1.0], 1e-6).is_some());
    assert!(difference(&[2e6], &[2e6 + 1.0], 1e-6).is_none());
    // Another kernel's matrix is not this kernel's.
    let gauss = doubles(&cross_matrix(WeightKernel::Gauss).weights);
    assert!(difference(&gauss, &Case::new("cross_scarches").numbers("M"), 1e-6).is_some());
    let (mut labels, categories, columns) = labels(WeightKernel::Gauss, None);
    labels.codes[0] = (labels.codes[0] + 1) % 10;
    assert!(label_ties(&labels, &categories, &columns, &Case::new("cross_gauss")).is_err());
}
