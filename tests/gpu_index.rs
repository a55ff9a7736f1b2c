//! Indexes that are built and searched on an adapter, beside the CPU: lists that are right, the neighbours of an exact search
//! wherever it is one, the same recall where it is not, and the same bytes whenever it is run again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

#[path = "support/adapters.rs"]
mod adapters;
#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};

use adapters::{adapter, agree, on, on_cpu};
use atlasknn::job::request::{DeviceRequest, How, IndexRequest, Method, Probes, SearchRequest, Within};
use atlasknn::metric::{EngineKind, Metric};
use atlasknn::schedule::progress::Silent;
use atlasknn::store::index::Encoding;
use atlasknn::units::ByteCount;
use indexes::{Truth, build, bytes, index_request, open};
use outputs::{array_bytes, noise, search, search_request, values, write_npy};

const DIM: usize = 18;
const REFERENCES: usize = 4_000;
const QUERIES: usize = 400;
const LISTS: u64 = 40;
const K: usize = 10;

/// Rows of clusters that touch each other, so that neighbours are in several lists.
fn clustered(seed: u64) -> impl Fn(usize, usize) -> f32 {
    move |row, column| 1.6 * noise(9, (row * 7919) % 30, column) + noise(seed, row, column)
}

struct Files {
    dir: tempfile::TempDir,
    query: PathBuf,
    reference: PathBuf,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
        write_npy(&query, QUERIES, DIM, clustered(1));
        write_npy(&reference, REFERENCES, DIM, clustered(2));
        Self { dir, query, reference }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn index(&self, name: &str, metric: Metric, encoding: Encoding, device: &DeviceRequest) -> PathBuf {
        let request = index_request(&self.reference, &self.path(name));
        let request = IndexRequest { metric, encoding, lists: Some(LISTS), device: device.clone(), ..request };
        build(&request).unwrap();
        request.out
    }

    /// Searches on a device, through an index where `how` has one. Returns the output and the share of pairs compared.
    fn search(&self, name: &str, metric: Metric, how: &How, device: &DeviceRequest) -> (PathBuf, Option<f64>) {
        let request = search_request(&self.query, Some(&self.reference), &self.path(name), 10);
        let request = SearchRequest { metric, how: how.clone(), device: device.clone(), ..request };
        let outcome = search(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outcome.device == "gpu", *device != on_cpu(), "{name}");
        (request.out, outcome.share_of_pairs)
    }
}

fn ivf(index: &Path, nprobe: u32) -> How {
    How { method: Method::Ivf, index: Some(index.to_owned()), probes: Probes::Lists(nprobe), ..How::default() }
}

fn ids(out: &Path) -> Vec<i32> {
    values(out, "obsm/knn_indices")
}

/// The share of the neighbours in `truth` that are in `found`.
fn recall(found: &Path, truth: &Path) -> f64 {
    let (found, truth) = (ids(found), ids(truth));
    let hits = found.chunks(K).zip(truth.chunks(K)).map(|(f, t)| f.iter().filter(|id| t.contains(id)).count());
    hits.sum::<usize>() as f64 / truth.len() as f64
}

#[test]
fn an_index_built_on_the_gpu_has_each_row_with_its_nearest_centroid_and_the_same_bytes_again() {
    let Some(adapter) = adapter() else { return };
    let files = Files::new();
    let value = clustered(2);
    for (metric, encoding) in [
        (Metric::Euclidean, Encoding::F32),
        (Metric::Cosine, Encoding::F32),
        (Metric::Euclidean, Encoding::F16),
        (Metric::Euclidean, Encoding::Sq8),
        (Metric::Euclidean, Encoding::Pq),
    ] {
        let name = format!("{metric}-{}", encoding.name());
        let out = files.index(&name, metric, encoding, &on(&adapter));
        let index = open(&out);
        if encoding == Encoding::F32 {
            let truth = Truth { rows: REFERENCES, dim: DIM, value: &value, metric };
            truth.check_built_by(EngineKind::Gpu, &index).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        }
        let engine = &index.manifest()["engines"];
        assert_eq!((&engine[0]["device"], &engine[0]["adapter"]), (&"gpu".into(), &adapter.name.clone().into()));
        let report = atlasknn::job::verify(&out, &Silent).unwrap();
        assert!(report.problems.is_empty(), "{name}: {report:?}");
        let again = files.index(&format!("{name}-again"), metric, encoding, &on(&adapter));
        assert_eq!(bytes(&again), bytes(&out), "{name}");
    }
}

#[test]
fn lists_searched_on_the_gpu_give_the_neighbours_of_the_cpu() {
    let Some(adapter) = adapter() else { return };
    let files = Files::new();
    for metric in [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Correlation, Metric::Manhattan] {
        let called = |what: &str| format!("{metric}-{what}");
        let index = files.index(&called("index"), metric, Encoding::F32, &on(&adapter));
        let (cpu, gpu) = (on_cpu(), on(&adapter));
        let (truth, _) = files.search(&called("truth"), metric, &How::default(), &cpu);
        // Every list is an exact search.
        let (all, _) = files.search(&called("all"), metric, &ivf(&index, 10_000), &gpu);
        let same =
            |a: &Path, b: &Path| agree((a, b), metric, DIM, K).unwrap_or_else(|wrong| panic!("{metric}: {wrong}"));
        assert!(same(&truth, &all) * 500 < QUERIES * K, "{metric}");
        // Few lists are the same lists, ties apart, and what is missing then would have been noticed above.
        let (on_host, _) = files.search(&called("near-cpu"), metric, &ivf(&index, 3), &cpu);
        let (near, share) = files.search(&called("near-gpu"), metric, &ivf(&index, 3), &gpu);
        let differ = ids(&on_host).iter().zip(ids(&near)).filter(|(a, b)| **a != *b).count();
        assert!(differ * 500 < QUERIES * K, "{metric}: {differ} ids differ");
        let (host_recall, gpu_recall) = (recall(&on_host, &truth), recall(&near, &truth));
        assert!((host_recall - gpu_recall).abs() < 0.002 && share.unwrap() < 0.3, "{metric}: {share:?}");
        assert!((0.5..0.999).contains(&gpu_recall), "{metric}: {gpu_recall} says nothing");
        assert!(agree((&truth, &near), metric, DIM, K).is_err(), "{metric}");
        if metric == Metric::Manhattan {
            continue;
        }
        // What bounds leave out would not have changed a byte.
        let (plain, _) = files.search(&called("plain"), metric, &How::default(), &gpu);
        let bounds = How { method: Method::Exact, index: Some(index), ..How::default() };
        let (bounded, share) = files.search(&called("bounded"), metric, &bounds, &gpu);
        assert_eq!(array_bytes(&bounded), array_bytes(&plain), "{metric}");
        assert!(share.unwrap() < 1.0, "{metric}: {share:?}");
    }
}

#[test]
fn compressed_lists_on_the_gpu_find_what_they_do_on_the_cpu() {
    let Some(adapter) = adapter() else { return };
    let files = Files::new();
    let (metric, cpu, gpu) = (Metric::Euclidean, on_cpu(), on(&adapter));
    let (truth, _) = files.search("truth", metric, &How::default(), &cpu);
    for encoding in [Encoding::F16, Encoding::Sq8, Encoding::Pq] {
        let name = encoding.name();
        let index = files.index(&format!("{name}-index"), metric, encoding, &gpu);
        for refine in [true, false] {
            let how = How { refine, ..ivf(&index, 3) };
            let called = |on: &str| format!("{name}-{refine}-{on}");
            let (on_host, _) = files.search(&called("cpu"), metric, &how, &cpu);
            let (found, _) = files.search(&called("gpu"), metric, &how, &gpu);
            let (a, b) = (recall(&on_host, &truth), recall(&found, &truth));
            assert!((a - b).abs() < 0.004, "{name}, refined {refine}: {a} on the CPU, {b} on the GPU");
            let distances = |out: &Path| values::<f32>(out, "obsm/knn_distances");
            let (da, db) = (distances(&on_host), distances(&found));
            let both = ids(&on_host).into_iter().zip(ids(&found)).zip(da.iter().zip(&db));
            // Refined distances come from the processor, whoever found the candidates.
            let wrong = both.filter(|((a, b), (da, db))| refine && a == b && da != db).count();
            assert_eq!(wrong, 0, "{name}");
        }
    }
}

#[test]
fn cells_are_not_their_own_neighbours_through_an_index_on_the_gpu() {
    let Some(adapter) = adapter() else { return };
    let files = Files::new();
    let index = files.index("index", Metric::Euclidean, Encoding::F32, &on(&adapter));
    let request = search_request(&files.reference, None, &files.path("self"), 10);
    let request = SearchRequest { how: ivf(&index, 10_000), device: on(&adapter), ..request };
    search(&request).unwrap();
    for (row, neighbours) in ids(&request.out).chunks(K).enumerate() {
        assert!(neighbours.iter().all(|&id| usize::try_from(id).unwrap() != row), "row {row}");
    }
    let truth = SearchRequest { how: How::default(), device: on_cpu(), out: files.path("truth"), ..request.clone() };
    search(&truth).unwrap();
    agree((&truth.out, &request.out), Metric::Euclidean, DIM, K).unwrap();
}

#[test]
fn budgets_of_host_and_device_do_not_change_a_byte_of_what_lists_give_on_the_gpu() {
    let Some(adapter) = adapter() else { return };
    let files = Files::new();
    let index = files.index("index", Metric::Euclidean, Encoding::F32, &on_cpu());
    let bounds = How { method: Method::Exact, index: Some(index.clone()), ..How::default() };
    for (name, how) in [("near", ivf(&index, 3)), ("bounded", bounds)] {
        let request = search_request(&files.query, Some(&files.reference), &files.path(name), 10);
        let roomy = SearchRequest { how, device: on(&adapter), ..request };
        search(&roomy).unwrap();
        // The least that is refused says what would do.
        let tight = |memory: ByteCount| DeviceRequest { memory: Some(memory), ..on(&adapter) };
        let none = SearchRequest { device: tight(ByteCount::mib(1)), out: files.path("none"), ..roomy.clone() };
        let message = search(&none).unwrap_err().to_string();
        let least = message.split("at least ").nth(1).and_then(|rest| rest.split(" (").next()).expect(&message);
        let small = SearchRequest {
            device: tight(least.parse().unwrap()),
            within: Within { host_memory: Some(ByteCount::mib(128)), threads: Some(2) },
            out: files.path(&format!("{name}-small")),
            ..roomy.clone()
        };
        search(&small).unwrap();
        assert_eq!(array_bytes(&small.out), array_bytes(&roomy.out), "{name}");
    }
}
