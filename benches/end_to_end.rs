//! Whole jobs, from zarr to zarr on the disk, in pairs or cells per second: `cargo bench --bench end_to_end`.
//!
//! Two threads. A search is measured in pairs: one whose reference stays in memory, and one whose reference streams past
//! within a small budget. A mapping of the bundled cells with everything that can be asked for is measured in cells: it is
//! small, so this is what a job costs beside its search. Writes are synced, so the disk counts.

// A benchmark that cannot run should stop; criterion makes undocumented items.
#![allow(clippy::expect_used, missing_docs)]

#[path = "support/rows.rs"]
mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use atlasknn::job;
use atlasknn::job::request::{How, MapRequest, MappingRequest, PresenceRequest, RunOptions, SearchRequest, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Silent, Stop};
use atlasknn::units::{ByteCount, K};
use atlasknn::weights::WeightKernel;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const DIM: usize = 50;

fn request(query: &Path, reference: &Path, out: &Path, rep: &str, budget: ByteCount) -> SearchRequest {
    SearchRequest {
        query: query.to_owned(),
        reference: Some(reference.to_owned()),
        out: out.to_owned(),
        rep: rep.to_owned(),
        reference_rep: None,
        device: atlasknn::job::request::DeviceRequest::default(),
        k: K::new(30).expect("a small k"),
        metric: Metric::Euclidean,
        exclude_group: None,
        compat: false,
        how: How::default(),
        within: Within { host_memory: Some(budget), threads: Some(2) },
        run: RunOptions { overwrite: true, ..RunOptions::default() },
    }
}

fn searches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut group = criterion.benchmark_group("search");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(3));
    for (name, queries, references, budget) in [
        ("reference stays", 50_000, 20_000, ByteCount::mib(1024)),
        ("reference streams", 1_000, 400_000, ByteCount::mib(128)),
    ] {
        let (query, reference) = (path(&format!("{queries}.zarr")), path(&format!("{references}.zarr")));
        rows::write_zarr(&query, queries, DIM, &rows::mixture(1, queries, DIM));
        rows::write_zarr(&reference, references, DIM, &rows::mixture(2, references, DIM));
        let request = request(&query, &reference, &path("out"), "rows", budget);
        group.throughput(Throughput::Elements(queries * references));
        group.bench_function(name, |bencher| {
            bencher.iter(|| job::search(&request, &Silent, &Stop::new()).expect("a search"));
        });
    }
    group.finish();
}

fn mappings(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let cells = |side: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/data/pbmc_{side}.zarr"));
    let (query, reference) = (cells("query"), cells("reference"));
    let search = request(&query, &reference, &folder.path().join("out"), "X_pca", ByteCount::mib(512));
    let mapping = MappingRequest {
        kernel: WeightKernel::Gauss,
        labels: vec!["bulk_labels".to_owned()],
        label_subsets: vec![],
        values: vec!["n_genes".to_owned()],
        obsm: vec!["X_umap".to_owned()],
        presence: Some(PresenceRequest::default()),
        self_edges: None,
        matrix: true,
        min_confidence: None,
        probabilities: true,
    };
    let request = MapRequest { search, mapping };
    let mut group = criterion.benchmark_group("map");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(2));
    let outcome = job::map(&request, &Silent, &Stop::new()).expect("a mapping");
    group.throughput(Throughput::Elements(outcome.rows));
    group.bench_function("bundled cells", |bencher| {
        bencher.iter(|| job::map(&request, &Silent, &Stop::new()).expect("a mapping"));
    });
    group.finish();
}

criterion_group!(benches, searches, mappings);
criterion_main!(benches);
