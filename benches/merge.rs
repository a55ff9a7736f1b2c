//! Merging the top-k of two halves of a reference, in slots (rows × k) per second: `cargo bench --bench merge`.
//!
//! One thread. `disjoint` is two partitions that never name the same row; `repeated` is the same rows found twice, as after
//! a resumed search; `late` brings nothing nearer, as most merges near the end of a search.

// A benchmark that cannot run should stop; criterion makes undocumented items.
#![allow(clippy::expect_used, missing_docs)]

use std::time::Duration;

use atlasknn::topk::{TopK, nearer};
use atlasknn::units::K;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const ROWS: usize = 1_000;

/// Neighbours with ids from `first` on and distances from `low` to `low` + 1, sorted.
fn top(seed: u64, k: u32, first: u64, low: f32) -> TopK {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let width = K::new(k).expect("a small k");
    let mut top = TopK::empty(ROWS, width);
    for row in 0..ROWS {
        let mut ids = first;
        let mut found: Vec<(f32, u64)> = (0..k)
            .map(|_| {
                ids += rng.random_range(1..1000);
                (low + rng.random_range(0.0_f32..1.0), ids)
            })
            .collect();
        found.sort_by(|a, b| nearer(*a, *b));
        top.set_row(row, &found);
    }
    top
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for k in [1, 15, 30, 256] {
        let base = top(1, k, 0, 0.0);
        let others =
            [("disjoint", top(2, k, 1 << 30, 0.0)), ("repeated", base.clone()), ("late", top(3, k, 1 << 30, 2.0))];
        group.throughput(Throughput::Elements(ROWS as u64 * u64::from(k)));
        for (name, other) in &others {
            group.bench_function(BenchmarkId::new(*name, k), |bencher| {
                bencher.iter_batched_ref(|| base.clone(), |top| top.merge(other), BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
