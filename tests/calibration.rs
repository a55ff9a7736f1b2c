//! Claims about the samples of an approximate search: lists are counted as the search visits them, whatever the metric; what
//! cannot be measured is refused before the search; what cannot be promised is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use atlasknn::job::request::{How, IndexRequest, Method, Probes, SearchRequest, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Stop};
use atlasknn::store::index::Encoding;
use atlasknn::units::ByteCount;
use indexes::{build, index_request};
use outputs::{noise, search, search_request, values, write_npy};

const DIM: usize = 8;
const K: usize = 10;

/// Rows of clusters that touch each other, so that neighbours are in several lists.
fn clustered(seed: u64) -> impl Fn(usize, usize) -> f32 {
    move |row, column| 3.0 * noise(9, (row * 7919) % 30, column) + noise(seed, row, column)
}

struct Files {
    dir: tempfile::TempDir,
    query: PathBuf,
    reference: PathBuf,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
    write_npy(&query, 1_500, DIM, clustered(1));
    write_npy(&reference, 6_000, DIM, clustered(2));
    Files { dir, query, reference }
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

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
    let files = files();
    for metric in Metric::ALL {
        let (index, out) = (files.index(metric, Encoding::F32), format!("{metric}-found"));
        let (heard, request) = (Heard::default(), files.request(&out, metric, ivf(&index, Probes::Recall(0.9))));
        atlasknn::job::search(&request, &heard, &Stop::new()).unwrap();
        let note = heard.saying("visiting ");
        let seen: f64 = note.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        // Of 1,000 of the 1,500 queries.
        let found = files.recall(&out, metric);
        assert!((seen - found).abs() < 0.005 && found >= 0.9, "{metric}: {note}, and {found} were found");
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
