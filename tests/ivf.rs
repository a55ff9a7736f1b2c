//! Claims about whole searches through an index: what they find, how they choose, what they say of themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]
// A job that fails where it should not is a failed test.

#[path = "support/files.rs"]
mod files;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use atlasknn::Error;
use atlasknn::error::JobError;
use atlasknn::job::request::{
    DeviceChoice, DeviceRequest, How, IndexRequest, Method, Outcome, Probes, RunOptions, SearchRequest, Within,
};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Silent, Stage, Step, Stop};
use atlasknn::store::index::Encoding;
use atlasknn::units::ByteCount;
use files::{Files, clustered};
use outputs::{array_bytes, search, search_request, values, write_npy, write_npy_f64};

const DIM: usize = 8;
const REFERENCES: usize = 6_000;
const QUERIES: usize = 1_500;
const LISTS: u64 = 60;

fn files() -> Files {
    Files::of((QUERIES, REFERENCES), DIM, clustered)
}

/// Rows enough for several partitions within [`little_memory`].
fn large_files() -> Files {
    Files::of((QUERIES, 40_000), 32, clustered)
}

fn little_memory() -> Within {
    Within { host_memory: Some(ByteCount::mib(18)), threads: Some(2) }
}

fn index_request(reference: &Path, out: &Path) -> IndexRequest {
    IndexRequest {
        reference: reference.to_owned(),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        metric: Metric::Euclidean,
        lists: Some(LISTS),
        encoding: Encoding::F32,
        device: DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() },
        within: Within { host_memory: Some(ByteCount::mib(1024)), threads: Some(2) },
        run: RunOptions::default(),
    }
}

fn build(request: &IndexRequest) -> PathBuf {
    atlasknn::job::index(request, &Silent, &Stop::new()).unwrap();
    request.out.clone()
}

impl Files {
    fn index(&self, metric: Metric) -> PathBuf {
        let out = self.path(&format!("{metric}.index"));
        build(&IndexRequest { metric, ..index_request(&self.reference, &out) })
    }

    fn request(&self, out: &str) -> SearchRequest {
        search_request(&self.query, Some(&self.reference), &self.path(out), 10)
    }

    fn exactly(&self, out: &str, metric: Metric) -> Outcome {
        search(&SearchRequest { metric, ..self.request(out) }).unwrap()
    }
}

fn ivf(index: &Path, probes: Probes) -> How {
    How { method: Method::Ivf, index: Some(index.to_owned()), probes, ..How::default() }
}

/// The share of the neighbours in `truth` that are in `found`.
fn recall(found: &Path, truth: &Path) -> f64 {
    let (found, truth): (Vec<i32>, Vec<i32>) = (values(found, "obsm/knn_indices"), values(truth, "obsm/knn_indices"));
    let hits = found.chunks(10).zip(truth.chunks(10)).map(|(f, t)| f.iter().filter(|id| t.contains(id)).count());
    hits.sum::<usize>() as f64 / truth.len() as f64
}

/// Hears what a run says.
#[derive(Default)]
struct Heard {
    notes: Mutex<Vec<String>>,
    warnings: Mutex<Vec<String>>,
}

impl Observer for Heard {
    fn note(&self, message: &str) {
        self.notes.lock().unwrap().push(message.to_owned());
    }
    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn every_list_visited_is_an_exact_search_and_bounds_are_one_with_fewer_pairs() {
    let files = files();
    for metric in Metric::ALL {
        let index = files.index(metric);
        let (plain, near, within) = (format!("{metric}"), format!("{metric}-near"), format!("{metric}-within"));
        files.exactly(&plain, metric);
        let expected = array_bytes(&files.path(&plain));
        let all = ivf(&index, Probes::Lists(10_000));
        let outcome = search(&SearchRequest { metric, how: all, ..files.request(&near) }).unwrap();
        assert_eq!(array_bytes(&files.path(&near)), expected, "{metric}");
        assert_eq!((outcome.method, outcome.recall, outcome.share_of_pairs), ("ivf", Some(1.0), Some(1.0)));
        let how = How { method: Method::Exact, index: Some(index), ..How::default() };
        let outcome = search(&SearchRequest { metric, how, ..files.request(&within) });
        if matches!(metric, Metric::InnerProduct | Metric::Manhattan | Metric::Chebyshev) {
            assert!(outcome.unwrap_err().to_string().contains("needs bounds"));
        } else {
            let outcome = outcome.unwrap();
            assert_eq!(array_bytes(&files.path(&within)), expected, "{metric}");
            let share = outcome.share_of_pairs.unwrap();
            assert!(outcome.method == "exact" && outcome.recall.is_none() && share < 0.9, "{metric}: {share}");
        }
    }
}

#[test]
fn the_audit_says_what_was_found_and_warns_where_it_is_too_little() {
    let files = files();
    let index = files.index(Metric::Euclidean);
    files.exactly("truth", Metric::Euclidean);
    for nprobe in [1, 4] {
        let out = format!("near-{nprobe}");
        let outcome =
            search(&SearchRequest { how: ivf(&index, Probes::Lists(nprobe)), ..files.request(&out) }).unwrap();
        let (audited, (low, high)) = (outcome.recall.unwrap(), outcome.recall_interval.unwrap());
        let true_recall = recall(&files.path(&out), &files.path("truth"));
        assert!((audited - true_recall).abs() < 0.02 && low <= audited && audited <= high, "{audited} {true_recall}");
        assert_eq!(values::<f64>(&files.path(&out), "uns/atlasknn/audit/recall"), [audited]);
        assert_eq!(outcome.pairs as f64 / (QUERIES * REFERENCES) as f64, outcome.share_of_pairs.unwrap());
        assert!(outcome.share_of_pairs.unwrap() < 0.2);
    }
}

#[test]
fn a_recall_that_is_asked_for_is_met_on_other_queries() {
    let files = files();
    let index = files.index(Metric::Euclidean);
    files.exactly("truth", Metric::Euclidean);
    let mut shares = Vec::new();
    for asked in [0.8, 0.99] {
        let out = format!("recall-{asked}");
        let how = How { strict: true, ..ivf(&index, Probes::Recall(asked)) };
        let outcome = search(&SearchRequest { how, ..files.request(&out) }).unwrap();
        let found = recall(&files.path(&out), &files.path("truth"));
        assert!(found >= asked && outcome.recall.unwrap() >= asked, "{asked}: {found}, {:?}", outcome.recall);
        shares.push(outcome.share_of_pairs.unwrap());
    }
    assert!(shares[0] < shares[1] && shares[1] < 0.9, "{shares:?}");
}

#[test]
fn a_recall_that_is_missed_is_a_warning_or_with_strict_an_error() {
    let files = large_files();
    let index = files.index(Metric::Euclidean);
    let how = ivf(&index, Probes::Recall(0.99));
    let request = SearchRequest { how, within: little_memory(), ..files.request("out") };
    let interrupted = |how: How| {
        let stop = Stop::new();
        let run = RunOptions { overwrite: true, ..request.run };
        let asked = SearchRequest { how, run, ..request.clone() };
        let error = atlasknn::job::search(&asked, &StopAfter(AtomicU64::new(1), &stop), &stop).unwrap_err();
        assert!(matches!(error, Error::Job(JobError::Interrupted)), "{error}");
        // As if the sample had misled it.
        let manifest = files.path("out/.atlasknn/manifest.json");
        let mut job: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
        job["parameters"]["nprobe"] = 1.into();
        std::fs::write(&manifest, job.to_string()).unwrap();
    };
    let resume = RunOptions { resume: true, ..request.run };
    interrupted(request.how.clone());
    let heard = Heard::default();
    let resumed = SearchRequest { run: resume, ..request.clone() };
    let outcome = atlasknn::job::search(&resumed, &heard, &Stop::new()).unwrap();
    assert!(outcome.recall.unwrap() < 0.99);
    let warnings = heard.warnings.into_inner().unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("below the 0.99 that was asked for")), "{warnings:?}");
    let strict = How { strict: true, ..request.how.clone() };
    interrupted(strict.clone());
    let error = search(&SearchRequest { how: strict, run: resume, ..request.clone() }).unwrap_err().to_string();
    assert!(error.contains("--strict") && error.contains("0.99"), "{error}");
}

#[test]
fn an_index_of_something_else_is_refused_by_name() {
    let files = files();
    let (other, changed) = (files.path("other.npy"), files.path("changed.npy"));
    write_npy(&other, REFERENCES, DIM, clustered(3));
    std::fs::copy(&files.reference, &changed).unwrap();
    let index = build(&index_request(&other, &files.path("other.index")));
    let how = ivf(&index, Probes::Lists(5));
    let error = search(&SearchRequest { how, ..files.request("out") }).unwrap_err().to_string();
    assert!(error.contains("other.index") && error.contains("reference.npy"), "{error}");
    let cosine = files.index(Metric::Cosine);
    let error = search(&SearchRequest { how: ivf(&cosine, Probes::Lists(5)), ..files.request("out") }).unwrap_err();
    assert!(matches!(error, Error::Job(JobError::Refused(_))) && error.to_string().contains("cosine"), "{error}");
    // A copy is the same reference.
    let index = files.index(Metric::Euclidean);
    let request = SearchRequest { reference: Some(changed), ..files.request("copied") };
    search(&SearchRequest { how: ivf(&index, Probes::Lists(5)), ..request }).unwrap();
    assert!(!files.path("out").exists());
}

#[test]
fn cells_are_not_their_own_neighbours_through_an_index() {
    let files = files();
    let index = files.index(Metric::Euclidean);
    let request = search_request(&files.reference, None, &files.path("self"), 10);
    let how = ivf(&index, Probes::Lists(8));
    let outcome = search(&SearchRequest { how, ..request.clone() }).unwrap();
    let found: Vec<i32> = values(&files.path("self"), "obsm/knn_indices");
    for (row, neighbours) in found.chunks(10).enumerate() {
        assert!(neighbours.iter().all(|&id| usize::try_from(id).unwrap() != row), "row {row}");
    }
    search(&SearchRequest { out: files.path("self-truth"), ..request }).unwrap();
    let true_recall = recall(&files.path("self"), &files.path("self-truth"));
    assert!((outcome.recall.unwrap() - true_recall).abs() < 0.02, "{outcome:?} {true_recall}");
}

#[test]
fn rows_of_float64_are_prepared_as_the_index_was() {
    let files = files();
    let (query, reference) = (files.path("q64.npy"), files.path("r64.npy"));
    let far = |seed| move |row, column| f64::from(clustered(seed)(row, column)) + 1e6;
    write_npy_f64(&query, 300, DIM, far(1));
    write_npy_f64(&reference, REFERENCES, DIM, far(2));
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct] {
        let index = build(&IndexRequest { metric, ..index_request(&reference, &files.path(&format!("{metric}.64"))) });
        let (plain, near) = (files.path(&format!("{metric}-plain")), files.path(&format!("{metric}-near")));
        let request = |out: &Path| SearchRequest { metric, ..search_request(&query, Some(&reference), out, 10) };
        search(&request(&plain)).unwrap();
        let how = ivf(&index, Probes::Lists(10_000));
        search(&SearchRequest { how, ..request(&near) }).unwrap();
        assert_eq!(array_bytes(&near), array_bytes(&plain), "{metric}");
    }
}

/// Asks to stop after so many steps of a search.
struct StopAfter<'a>(AtomicU64, &'a Stop);

impl Observer for StopAfter<'_> {
    fn advance(&self, stage: Stage, step: Step) {
        if stage == Stage::Search && step.pairs > 0 && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.1.ask();
        }
    }
}

#[test]
fn budgets_threads_and_interruptions_do_not_change_a_byte() {
    let files = large_files();
    let index = files.index(Metric::Euclidean);
    let (near, within) = (
        ivf(&index, Probes::Recall(0.95)),
        How { method: Method::Exact, index: Some(index.clone()), ..How::default() },
    );
    for (how, name) in [(near, "near"), (within, "within")] {
        let whole = SearchRequest { how: how.clone(), ..files.request(&format!("{name}-whole")) };
        search(&whole).unwrap();
        let expected = array_bytes(&whole.out);
        // Little memory makes many blocks and partitions.
        let within = Within { threads: Some(1), ..little_memory() };
        let small = SearchRequest { how, within, ..files.request(&format!("{name}-small")) };
        let mut interruptions = 0;
        for steps in [3, 1, 2, 5, 1_000] {
            let stop = Stop::new();
            let observer = StopAfter(AtomicU64::new(steps), &stop);
            let run = RunOptions { resume: true, checkpoint_seconds: 0, ..small.run };
            match atlasknn::job::search(&SearchRequest { run, ..small.clone() }, &observer, &stop) {
                Err(Error::Job(JobError::Interrupted)) => interruptions += 1,
                done => drop(done.unwrap_or_else(|error| panic!("{name}: {error}"))),
            }
        }
        assert!(interruptions >= 2, "{name}: {interruptions}");
        assert_eq!(array_bytes(&small.out), expected, "{name}");
    }
}

#[test]
fn what_a_compressed_index_finds_is_refined_and_without_that_is_not_exact() {
    let files = files();
    files.exactly("truth", Metric::Euclidean);
    let plain = files.index(Metric::Euclidean);
    let of = |how: How, out: &str| {
        let outcome = search(&SearchRequest { how, ..files.request(out) }).unwrap();
        (outcome.recall.unwrap(), recall(&files.path(out), &files.path("truth")))
    };
    let (_, f32_recall) = of(ivf(&plain, Probes::Lists(12)), "f32");
    for encoding in [Encoding::F16, Encoding::Sq8] {
        let name = encoding.name();
        let request = index_request(&files.reference, &files.path(&format!("{name}.index")));
        let index = build(&IndexRequest { encoding, ..request });
        let (audited, found) = of(ivf(&index, Probes::Lists(12)), &format!("{name}-refined"));
        assert!((found - f32_recall).abs() < 0.002, "{name}: {found}, with f32 {f32_recall}");
        assert!((audited - found).abs() < 0.01, "{name}: {audited} {found}");
        let rough = How { refine: false, ..ivf(&index, Probes::Lists(12)) };
        let (audited, found) = of(rough, &format!("{name}-rough"));
        assert!((audited - found).abs() < 0.02 && found <= f32_recall, "{name}: {audited} {found}");
        // With every list the refined distances are those of an exact search.
        of(ivf(&index, Probes::Lists(1_000)), &format!("{name}-all"));
        let truth: Vec<f32> = values(&files.path("truth"), "obsm/knn_distances");
        let refined: Vec<f32> = values(&files.path(&format!("{name}-all")), "obsm/knn_distances");
        let same = truth.iter().zip(&refined).filter(|(a, b)| a == b).count();
        assert!(same as f64 > 0.999 * truth.len() as f64, "{name}: {same} of {}", truth.len());
        let how = How { method: Method::Exact, index: Some(index), ..How::default() };
        let error = search(&SearchRequest { how, ..files.request("exact") }).unwrap_err().to_string();
        assert!(error.contains("not exact") && error.contains(name), "{error}");
    }
}

#[test]
fn choices_that_do_not_go_together_are_refused_and_auto_explains_itself() {
    let files = files();
    let index = files.index(Metric::Euclidean);
    for (how, says) in [
        (How { refine: false, ..How::default() }, "--no-refine"),
        (How { method: Method::Exact, probes: Probes::Lists(3), ..How::default() }, "--method exact"),
        (How { method: Method::Exact, probes: Probes::Recall(0.9), ..ivf(&index, Probes::Auto) }, "--method exact"),
    ] {
        let error = search(&SearchRequest { how, ..files.request("out") }).unwrap_err();
        assert!(matches!(error, Error::Job(JobError::Refused(_))) && error.to_string().contains(says), "{error}");
    }
    let compat = SearchRequest { compat: true, how: ivf(&index, Probes::Auto), ..files.request("out") };
    assert!(search(&compat).unwrap_err().to_string().contains("--compat"));
    let plan = |how: How| atlasknn::job::plan_search(&SearchRequest { how, ..files.request("out") }).unwrap();
    let auto = plan(How { index: Some(index.clone()), ..How::default() });
    let says = |plan: &atlasknn::job::request::PlanReport, what: &str, text: &str| {
        assert!(plan.lines.iter().any(|(name, value)| name == what && value.contains(text)), "{:?}", plan.lines);
    };
    says(&auto, "method", "exact: comparing every pair takes under a second");
    let guessed = plan(ivf(&index, Probes::Auto));
    says(&guessed, "lists", "as many as find 0.99");
    says(&guessed, "calibration and audit", "1,500 cells");
    assert_eq!(guessed.json["index"]["nprobe_is_a_guess"], true);
    let fixed = plan(ivf(&index, Probes::Lists(7)));
    says(&fixed, "lists", "the nearest 7 of 60");
    assert_eq!((fixed.json["method"].as_str(), fixed.json["index"]["nprobe"].as_u64()), (Some("ivf"), Some(7)));
    assert!(fixed.json["search"]["memory"]["centroids"].as_u64() > Some(60 * 8 * 12), "{}", fixed.json);
}
