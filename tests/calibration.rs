//! Claims about the samples of an approximate search: lists are counted as the search visits them, whatever the metric; what
//! cannot be measured is refused before the search; what cannot be promised is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

#[path = "support/files.rs"]
mod files;
#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use atlasknn::job::request::{How, IndexRequest, Method, Probes, RunOptions, SearchRequest, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Stop};
use atlasknn::store::index::Encoding;
use atlasknn::units::ByteCount;
use files::{Files, clustered};
use indexes::{build, index_request};
use outputs::{array_bytes, search, search_request, values, write_npy, write_npy_f64};

const DIM: usize = 8;
const K: usize = 10;

fn files() -> Files {
    Files::of((1_500, 6_000), DIM, clustered)
}

impl Files {
    fn index(&self, metric: Metric, encoding: Encoding) -> PathBuf {
        let out = self.path(&format!("{metric}-{}.index", encoding.name()));
        build(&IndexRequest { metric, encoding, lists: Some(60), ..index_request(&self.reference, &out) }).unwrap();
        out
    }

    fn request(&self, out: &str, metric: Metric, how: How) -> SearchRequest {
        let request = search_request(&self.query, Some(&self.reference), &self.path(out), 10);
        SearchRequest { metric, how, ..request }
    }

    /// The share of true neighbours in an output.
    fn recall(&self, out: &str, metric: Metric) -> f64 {
        let truth = self.path(&format!("{metric}-truth"));
        if !truth.exists() {
            search(&self.request(&format!("{metric}-truth"), metric, How::default())).unwrap();
        }
        let ids = |out: &Path| values::<i32>(out, "obsm/knn_indices");
        let (found, truth) = (ids(&self.path(out)), ids(&truth));
        let hits = found.chunks(K).zip(truth.chunks(K)).map(|(f, t)| f.iter().filter(|id| t.contains(id)).count());
        hits.sum::<usize>() as f64 / truth.len() as f64
    }
}

fn ivf(index: &Path, probes: Probes) -> How {
    How { method: Method::Ivf, index: Some(index.to_owned()), probes, ..How::default() }
}

/// Hears what a run says.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
    fn warn(&self, message: &str) {
        self.note(message);
    }
}

impl Heard {
    /// What was said that begins like this.
    fn saying(self, begins: &str) -> String {
        let all = self.0.into_inner().unwrap();
        all.iter().find(|said| said.starts_with(begins)).unwrap_or_else(|| panic!("{all:?}")).clone()
    }
}

#[test]
fn lists_are_counted_as_the_search_visits_them_by_every_metric() {
    // Few enough queries that the sample is all of them.
    let files = Files::of((900, 6_000), DIM, clustered);
    for metric in Metric::ALL {
        let (index, out) = (files.index(metric, Encoding::F32), format!("{metric}-found"));
        let (heard, request) = (Heard::default(), files.request(&out, metric, ivf(&index, Probes::Recall(0.9))));
        atlasknn::job::search(&request, &heard, &Stop::new()).unwrap();
        let note = heard.saying("visiting ");
        let seen: f64 = note.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        let found = files.recall(&out, metric);
        // What was said is rounded, and an engine's distances are not quite those of the host.
        assert!((seen - found).abs() < 2e-4 && found >= 0.9, "{metric}: {note}, and {found} were found");
        assert_eq!(note.contains("--horizon"), metric != Metric::InnerProduct, "{metric}: {note}");
    }
}

/// A zarr array of float32 rows in one chunk.
fn write_one_chunk(path: &Path, rows: usize, dim: usize) {
    let value = clustered(2);
    let bytes: Vec<u8> = (0..rows * dim).flat_map(|at| value(at / dim, at % dim).to_le_bytes()).collect();
    let metadata = serde_json::json!({
        "zarr_format": 3, "node_type": "array", "shape": [rows, dim], "data_type": "float32", "fill_value": 0.0,
        "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [rows, dim] } },
        "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
        "codecs": [{ "name": "bytes", "configuration": { "endian": "little" } }],
    });
    std::fs::create_dir_all(path.join("c/0")).unwrap();
    std::fs::write(path.join("zarr.json"), metadata.to_string()).unwrap();
    std::fs::write(path.join("c/0/0"), bytes).unwrap();
}

#[test]
fn a_sample_that_memory_cannot_hold_is_refused_before_the_search_with_a_budget_that_works() {
    let files = files();
    // One chunk of 26 MB; those of the index are small.
    let (query, reference) = (files.path("q32.npy"), files.path("r.zarr"));
    write_one_chunk(&reference, 200_000, 32);
    write_npy(&query, 300, 32, clustered(1));
    let index = files.path("r.index");
    build(&IndexRequest { lists: Some(400), ..index_request(&reference, &index) }).unwrap();
    let out = files.path("out");
    for probes in [Probes::Lists(9), Probes::Recall(0.9)] {
        let of = |memory: ByteCount| {
            let within = Within { host_memory: Some(memory), threads: Some(2) };
            let request = search_request(&query, Some(&reference), &out, 10);
            SearchRequest { how: ivf(&index, probes), within, ..request }
        };
        let error = search(&of(ByteCount::mib(24))).unwrap_err().to_string();
        assert!(error.contains("a sample of the query") && !out.exists(), "{error}");
        let least = error.split("at least ").nth(1).and_then(|rest| rest.split(" (").next()).expect("a size");
        search(&of(least.parse().unwrap())).unwrap_or_else(|again| panic!("{error}, and with that {again}"));
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn every_encoding_finds_the_true_neighbours_through_all_lists_once_refined_by_any_metric() {
    let files = files();
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Correlation, Metric::InnerProduct, Metric::Manhattan] {
        for encoding in [Encoding::F16, Encoding::Sq8, Encoding::Pq] {
            let (index, name) = (files.index(metric, encoding), format!("{metric}-{}", encoding.name()));
            let outcome = search(&files.request(&name, metric, ivf(&index, Probes::Lists(60)))).unwrap();
            let found = files.recall(&name, metric);
            // Of pq, four times as many and 64 are looked at, of 6,000.
            let least = if encoding == Encoding::Pq { 0.95 } else { 0.999 };
            assert!(found >= least && outcome.recall.unwrap() >= least, "{name}: {found}, {:?}", outcome.recall);
            // What is found by its true distance has the bytes of it.
            let distances = |out: &str| values::<f32>(&files.path(out), "obsm/knn_distances");
            let (refined, truth) = (distances(&name), distances(&format!("{metric}-truth")));
            let same = refined.iter().zip(&truth).filter(|(a, b)| a == b).count();
            assert!(same as f64 >= (least - 0.05) * truth.len() as f64, "{name}: {same} of {}", truth.len());
            let how = How { refine: false, ..ivf(&index, Probes::Lists(60)) };
            let rough = search(&files.request(&format!("{name}-rough"), metric, how)).unwrap();
            let rough_found = files.recall(&format!("{name}-rough"), metric);
            assert!(
                (rough.recall.unwrap() - rough_found).abs() < 0.03 && rough_found <= found,
                "{name}: {rough_found}"
            );
        }
    }
}

#[test]
fn the_horizon_that_a_recall_chose_is_the_same_by_hand() {
    let files = files();
    let index = files.index(Metric::Euclidean, Encoding::F32);
    let of = |out: &str, probes| {
        let outcome = search(&files.request(out, Metric::Euclidean, ivf(&index, probes))).unwrap();
        (array_bytes(&files.path(out)), outcome.share_of_pairs.unwrap())
    };
    let chosen = of("recall", Probes::Recall(0.97));
    let manifest = std::fs::read_to_string(files.path("recall/.atlasknn/manifest.json")).unwrap();
    let parameters = &serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["parameters"];
    let (nprobe, times) = (parameters["nprobe"].as_u64().unwrap(), parameters["horizon"].as_f64().unwrap());
    let nprobe = u32::try_from(nprobe).unwrap();
    assert_eq!(of("by-hand", Probes::WithHorizon(nprobe, times)), chosen);
    let (all, share) = of("without", Probes::Lists(nprobe));
    assert!(share > chosen.1, "{share} of the pairs without it, {} with it", chosen.1);
    // However far is as good as none, and however near leaves the nearest list.
    assert_eq!(of("far", Probes::WithHorizon(nprobe, 1e9)).0, all);
    assert_eq!(of("near", Probes::WithHorizon(nprobe, 1e-9)).0, of("nearest", Probes::Lists(1)).0);
    let index = files.index(Metric::InnerProduct, Encoding::F32);
    let request = files.request("out", Metric::InnerProduct, ivf(&index, Probes::WithHorizon(nprobe, times)));
    assert!(search(&request).unwrap_err().to_string().contains("--horizon is about distances"));
}

#[test]
fn a_recall_of_one_visits_every_list_and_codes_say_that_they_lose_more() {
    let files = files();
    let (plain, coded) = (files.index(Metric::Euclidean, Encoding::F32), files.index(Metric::Euclidean, Encoding::Pq));
    let how = How { strict: true, ..ivf(&plain, Probes::Recall(1.0)) };
    let outcome = search(&files.request("all", Metric::Euclidean, how)).unwrap();
    assert_eq!((outcome.recall, outcome.share_of_pairs), (Some(1.0), Some(1.0)));
    let heard = Heard::default();
    let request = files.request("coded", Metric::Euclidean, ivf(&coded, Probes::Recall(0.9)));
    atlasknn::job::search(&request, &heard, &Stop::new()).unwrap();
    assert!(heard.saying("visiting ").contains("what pq loses"));
    for (how, says) in [
        (How { refine: false, ..ivf(&coded, Probes::Recall(0.9)) }, "--no-refine"),
        (How { refine: false, ..ivf(&plain, Probes::Auto) }, "--no-refine"),
        (How { strict: true, method: Method::Exact, ..How::default() }, "--strict"),
        (How { strict: true, method: Method::Exact, ..ivf(&plain, Probes::Auto) }, "--strict"),
    ] {
        let error = search(&files.request("out", Metric::Euclidean, how)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_finished_output_is_held_to_the_recall_that_is_asked_for_as_well() {
    let files = files();
    let index = files.index(Metric::Euclidean, Encoding::F32);
    let request = files.request("out", Metric::Euclidean, ivf(&index, Probes::Recall(0.9)));
    search(&request).unwrap();
    let manifest = request.out.join(".atlasknn/manifest.json");
    let mut job: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    job["recall"] = 0.7.into();
    std::fs::write(&manifest, job.to_string()).unwrap();
    let run = RunOptions { resume: true, ..RunOptions::default() };
    let heard = Heard::default();
    let again = SearchRequest { run, ..request };
    assert_eq!(atlasknn::job::search(&again, &heard, &Stop::new()).unwrap().recall, Some(0.7));
    assert!(heard.saying("audited recall").contains("below the 0.9 that was asked for"));
    let how = How { strict: true, ..again.how.clone() };
    let error = search(&SearchRequest { how, ..again }).unwrap_err().to_string();
    assert!(error.contains("0.7000") && error.contains("--strict"), "{error}");
}

#[test]
fn an_output_around_the_index_is_refused_before_it_is_overwritten() {
    let files = files();
    let around = files.path("around");
    std::fs::create_dir(&around).unwrap();
    let index = around.join("i");
    build(&IndexRequest { lists: Some(60), ..index_request(&files.reference, &index) }).unwrap();
    let run = RunOptions { overwrite: true, ..RunOptions::default() };
    let request = SearchRequest { run, ..files.request("around", Metric::Euclidean, ivf(&index, Probes::Lists(3))) };
    let error = search(&request).unwrap_err().to_string();
    assert!(error.contains("holds the input") && index.join("zarr.json").exists(), "{error}");
}

#[test]
fn what_auto_chose_is_not_chosen_again_when_a_run_goes_on() {
    let files = files();
    let index = files.index(Metric::Euclidean, Encoding::F32);
    let auto = How { index: Some(index.clone()), ..How::default() };
    // As if a machine with too little memory, or too slow a one, had begun it.
    let begun = files.request("out", Metric::Euclidean, ivf(&index, Probes::Auto));
    search(&begun).unwrap();
    let run = RunOptions { resume: true, ..RunOptions::default() };
    let outcome = search(&SearchRequest { how: auto.clone(), run, ..begun }).unwrap();
    assert_eq!((outcome.method, outcome.units), ("ivf", (0, 0)));
    let fresh = search(&files.request("fresh", Metric::Euclidean, auto)).unwrap();
    assert_eq!(fresh.method, "exact", "it is quick");
}

#[test]
fn float64_on_one_side_of_an_index_is_exact_or_refused_and_its_rounding_is_told() {
    let files = files();
    let (query, reference) = (files.path("q64.npy"), files.path("r64.npy"));
    let far = |seed| move |row, column| f64::from(clustered(seed)(row, column)) + 1e4;
    write_npy_f64(&query, 300, DIM, far(1));
    write_npy_f64(&reference, 6_000, DIM, far(2));
    let exact = |index: &Path| How { method: Method::Exact, index: Some(index.to_owned()), ..How::default() };
    // Rows of the index were centred in float64, and float32 queries are as well.
    let index = files.path("64.index");
    build(&IndexRequest { lists: Some(60), ..index_request(&reference, &index) }).unwrap();
    let request = |out: &str, query: &Path, reference: &Path, how| SearchRequest {
        how,
        ..search_request(query, Some(reference), &files.path(out), 10)
    };
    let single = files.path("q32.npy");
    write_npy(&single, 300, DIM, |row, column| clustered(1)(row, column) + 1e4);
    search(&request("plain", &single, &reference, How::default())).unwrap();
    search(&request("within", &single, &reference, exact(&index))).unwrap();
    assert_eq!(array_bytes(&files.path("within")), array_bytes(&files.path("plain")));
    // Rows of this one are as they are.
    let index = files.index(Metric::Euclidean, Encoding::F32);
    let error = search(&request("out", &query, &files.reference, exact(&index))).unwrap_err().to_string();
    assert!(error.contains("float32") && error.contains("float64") && error.contains("leave out --index"), "{error}");
    let heard = Heard::default();
    let near = request("out", &query, &files.reference, ivf(&index, Probes::Lists(5)));
    atlasknn::job::search(&near, &heard, &Stop::new()).unwrap();
    assert!(heard.saying("float64 rows were rounded").contains("at most"));
}
