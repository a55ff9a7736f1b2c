//! Exact search in memory, in pairs per second (elements here are pairs): `cargo bench --bench tile`.
//!
//! Two threads, seeded mixtures of normals; `ATLASKNN_SIMD` picks the instruction set. What the partition costs to pack
//! is not in these figures.

// A benchmark that cannot run should stop; criterion makes undocumented items.
#![allow(clippy::expect_used, missing_docs)]

use std::sync::Arc;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::cpu::{CpuConfig, CpuEngine};
use atlasknn::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use atlasknn::metric::Metric;
use atlasknn::units::K;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How the references are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    Shuffled,
    ByCluster,
    Identical,
}

struct Shape {
    metric: Metric,
    queries: u32,
    rows: u32,
    dim: usize,
    k: u32,
    stored: Stored,
}

const CLUSTERS: usize = 100;

/// Rows about shared centres, with less spread in later dimensions, as principal components have.
fn mixture(seed: u64, rows: u32, dim: usize, stored: Stored) -> RowBlock {
    let mut shared = Xoshiro256PlusPlus::seed_from_u64(7);
    let centres: Vec<f32> = (0..CLUSTERS * dim).map(|_| normal(&mut shared) * 2.0).collect();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let n = usize::try_from(rows).expect("64 bits");
    let mut values = Vec::with_capacity(n * dim);
    for row in 0..n {
        let cluster = if stored == Stored::Shuffled { rng.random_range(0..CLUSTERS) } else { row * CLUSTERS / n };
        for (j, centre) in centres[cluster * dim..(cluster + 1) * dim].iter().enumerate() {
            let value = if stored == Stored::Identical { 1.5 } else { centre + normal(&mut rng) };
            values.push(value / (1.0 + j as f32 * 0.1));
        }
    }
    RowBlock::new(RowIds::Range(0..u64::from(rows)), dim, values).expect("rows × dim values")
}

fn normal(rng: &mut Xoshiro256PlusPlus) -> f32 {
    (0..6).map(|_| rng.random_range(-0.5_f32..0.5)).sum::<f32>() * std::f32::consts::SQRT_2
}

fn search(criterion: &mut Criterion) {
    let base =
        Shape { metric: Metric::Euclidean, queries: 10_000, rows: 200_000, dim: 50, k: 30, stored: Stored::Shuffled };
    let shapes = [
        Shape { rows: 1_000_000, ..base },
        Shape { queries: 1000, rows: 1_000_000, ..base },
        Shape { stored: Stored::ByCluster, ..base },
        Shape { queries: 2000, stored: Stored::Identical, ..base },
        Shape { queries: 100_000, rows: 20_000, ..base },
        Shape { dim: 10, ..base },
        Shape { dim: 128, ..base },
        Shape { queries: 2000, rows: 60_000, dim: 784, ..base },
        Shape { k: 1, ..base },
        Shape { k: 100, ..base },
        Shape { metric: Metric::Manhattan, ..base },
        base,
    ];
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"));
    let mut group = criterion.benchmark_group("exact");
    group.sample_size(10);
    for shape in shapes {
        let Shape { metric, queries, rows, dim, k, stored } = shape;
        let config = CpuConfig { metric, pool: Arc::clone(&pool), simd: None };
        let mut engine = CpuEngine::new(config).expect("an instruction set of this machine");
        let part = Partition::new(mixture(1, rows, dim, stored));
        let block = mixture(2, queries, dim, Stored::Shuffled);
        let k = K::new(k).expect("a small k");
        let visit = Visit { rows: 0..rows, queries: VisitQueries::All };
        group.throughput(Throughput::Elements(u64::from(queries) * u64::from(rows)));
        let name = format!("{queries} x {rows}, d = {dim}, k = {k}, {metric}, {stored:?}");
        group.bench_function(BenchmarkId::new(engine.simd(), name), |bencher| {
            bencher.iter(|| {
                engine.begin(&block, k, &Exclude::Nothing).expect("begin");
                engine.visit(&part, std::slice::from_ref(&visit)).expect("visit");
                engine.finish().expect("finish")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
