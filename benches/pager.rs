//! Bringing in the partitions of a reference, in bytes of rows per second: `cargo bench --bench pager`.
//!
//! Two threads decode; nothing is searched. From memory it is what the pager itself costs, from `.npy` what reading
//! costs, from zarr (zstd, sharded, as this program writes) what decoding costs, and `held` a second pass over partitions
//! that stayed, in partitions per second. The files are read from the page cache.

// A benchmark that cannot run should stop; criterion makes undocumented items.
#![allow(clippy::expect_used, missing_docs)]

#[path = "support/rows.rs"]
mod rows;

use std::time::Duration;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::route::{Known, Route, Router, all::AllRows};
use atlasknn::schedule::Clock;
use atlasknn::schedule::pager::{Pager, References};
use atlasknn::store::memory::MemorySource;
use atlasknn::store::open::open_representation;
use atlasknn::store::{IoCounters, Source};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const ROWS: u64 = 500_000;
const DIM: usize = 50;
const PARTITION_ROWS: u32 = 65_536;

/// Visits all partitions, and says how many rows came by.
fn pass(pager: &mut Pager<'_>, route: &dyn Route, pool: &rayon::ThreadPool) -> usize {
    let mut seen = 0;
    let visit = |_, part: &std::sync::Arc<atlasknn::engine::Partition>| {
        seen += part.block.rows();
        Ok(true)
    };
    pager.each(route, pool, &Clock::default(), visit).expect("rows that can be read");
    seen
}

fn pages(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    let values = rows::mixture(1, ROWS, DIM);
    let (npy, zarr) = (folder.path().join("rows.npy"), folder.path().join("rows.zarr"));
    rows::write_npy(&npy, ROWS, DIM, &values);
    rows::write_zarr(&zarr, ROWS, DIM, &values);
    let open = |path| pool.install(|| open_representation(path, "rows", &IoCounters::new()).expect("rows"));
    let (npy, zarr) = (open(&npy), open(&zarr));
    let memory = MemorySource::from_f32("memory", DIM, values).expect("rows × dim values");
    let sources: [(&str, &dyn Source); 3] = [("memory", &memory), ("npy", &*npy), ("zarr", &*zarr)];
    let router = AllRows::new(ROWS, PARTITION_ROWS);
    let nobody = RowBlock::new(RowIds::Range(0..1), DIM, vec![0.0; DIM]).expect("a row");
    let route = router.route(0, &Known { queries: &nobody, near: &[], bounds: &[], seen_to: 0, goes_on: false });
    let references = |source| References { source, ids: None, groups: None };
    let mut group = criterion.benchmark_group("pager");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes(ROWS * DIM as u64 * 4));
    for (name, source) in sources {
        group.bench_function(name, |bencher| {
            bencher.iter(|| pass(&mut Pager::new(references(source), false), &*route, &pool));
        });
    }
    let mut holding = Pager::new(references(&memory), true);
    pass(&mut holding, &*route, &pool);
    // Nothing is moved, so this is per partition.
    group.throughput(Throughput::Elements(route.partitions() as u64));
    group.bench_function("held", |bencher| bencher.iter(|| pass(&mut holding, &*route, &pool)));
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
