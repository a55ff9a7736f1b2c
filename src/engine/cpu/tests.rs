use super::*;
use crate::engine::conformance::{Case, Subject, block, claims, clustered, k, noise, whole};
use crate::units::K;

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool"))
}

fn engine(metric: Metric, threads: usize, simd: Option<&str>) -> CpuEngine {
    let config = CpuConfig { metric, pool: pool(threads), simd: simd.map(str::to_owned) };
    CpuEngine::new(config).expect("an engine")
}

fn subject() -> Subject<'static> {
    Subject { make: &|metric| Box::new(engine(metric, 2, None)), kind: EngineKind::Cpu }
}

claims!(subject());

/// All claims again on every other instruction set of this machine.
mod every_instruction_set {
    use super::*;

    fn on(name: &str, check: fn(Subject<'_>)) {
        let make = |metric| Box::new(engine(metric, 2, Some(name))) as Box<dyn Engine>;
        check(Subject { make: &make, kind: EngineKind::Cpu });
    }

    fn on_all(check: fn(Subject<'_>)) {
        for simd in simd::available(Metric::Euclidean).iter().skip(1) {
            on(simd.name, check);
        }
    }

    #[test]
    fn agrees_with_the_oracle_for_every_shape() {
        on_all(crate::engine::conformance::shapes::every_shape_agrees_with_the_oracle);
    }

    #[test]
    fn ignores_splits_and_order() {
        on_all(crate::engine::conformance::order::splits_and_order_do_not_show);
    }

    #[test]
    fn keeps_its_bounds_at_the_ends_of_f32() {
        on_all(crate::engine::conformance::numbers::values_near_the_ends_of_f32_agree);
        on_all(crate::engine::conformance::numbers::one_outlier_changes_nothing_else);
        on_all(crate::engine::conformance::numbers::offsets_and_scales_change_no_neighbour);
    }

    #[test]
    fn finds_the_same_bytes() {
        for (rows, dim, queries) in [(1000, 50, 100), (3000, 7, 5), (500, 131, 13)] {
            let references = block(0, dim, clustered(50, rows, dim, 9));
            let queries = block(0, dim, clustered(51, queries, dim, 9));
            for metric in Metric::ALL {
                let case = Case::new(metric, &queries, &references, k(20));
                let found: Vec<TopK> = simd::available(metric)
                    .iter()
                    .map(|simd| {
                        let make = |metric| Box::new(engine(metric, 2, Some(simd.name))) as Box<dyn Engine>;
                        case.find(Subject { make: &make, kind: EngineKind::Cpu })
                    })
                    .collect();
                assert!(found.iter().all(|top| *top == found[0]), "{metric}, {dim} dimensions");
            }
        }
    }
}

#[test]
fn threads_do_not_show() {
    let references = block(0, 10, clustered(52, 30_000, 10, 20));
    for queries in [1, 5, 300] {
        let queries = block(0, 10, clustered(53, queries, 10, 20));
        for metric in Metric::ALL {
            let on = |threads: usize| {
                let make = |metric| Box::new(engine(metric, threads, None)) as Box<dyn Engine>;
                Case::new(metric, &queries, &references, k(30)).find(Subject { make: &make, kind: EngineKind::Cpu })
            };
            let one = on(1);
            assert_eq!(on(2), one, "{metric}");
            assert_eq!(on(3), one, "{metric}");
        }
    }
}

#[test]
fn unknown_instruction_sets_are_errors() {
    let try_one = |name: &str| {
        let config = CpuConfig { metric: Metric::Euclidean, pool: pool(1), simd: Some(name.to_owned()) };
        CpuEngine::new(config).map(|engine| engine.simd())
    };
    assert_eq!(try_one("portable").expect("it is always there"), "portable");
    assert!(matches!(try_one("sse9"), Err(EngineError::Simd { why: "is not an instruction set", .. })));
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    assert!(matches!(try_one(foreign), Err(EngineError::Simd { why: "this machine does not have", .. })));
}

#[test]
fn packed_partitions_go_when_their_partition_goes() {
    let mut engine = engine(Metric::Euclidean, 1, None);
    engine.begin(&block(0, 4, noise(1, 40)), k(3), &Exclude::Nothing).expect("begin");
    let parts: Vec<_> = (0..3).map(|i| Partition::new(block(i * 10, 4, noise(i, 40)))).collect();
    for part in parts.iter().chain(&parts) {
        engine.visit(part, &[whole(part)]).expect("visit");
    }
    assert_eq!(engine.resident_partitions(), 3);
    drop(parts);
    assert_eq!(engine.resident_partitions(), 0);
}

#[test]
fn limits_name_what_is_held() {
    let limits = engine(Metric::Euclidean, 2, None).limits(50, k(30));
    assert_eq!(limits.bytes_per_query, 200 + 12 * 30 + 16);
    assert_eq!(limits.bytes_per_reference, 208);
    assert_eq!(engine(Metric::Cosine, 2, None).limits(50, k(30)).bytes_per_reference, 224);
    assert!(limits.bytes_fixed < 2 << 20 && limits.pairs_per_second > 1e6);
    let widest = engine(Metric::Euclidean, 2, None).limits(1000, K::new(256).expect("k"));
    assert!(widest.bytes_fixed > limits.bytes_fixed && widest.bytes_fixed < 16 << 20, "{}", widest.bytes_fixed);
}

/// The filter alone: whatever the scale, no reference that belongs to the k nearest is dropped, and what a sum says of a
/// distance is never too little.
#[test]
fn what_is_near_always_passes_the_filter() {
    let scales = [1e-40, 1e-12, 1e-3, 1.0, 1e3, 1e12, 1e30];
    for (round, &scale) in scales.iter().enumerate() {
        for (dim, spread, offset) in [(2, 1.0, 0.0), (50, 1e-3, 1.0), (50, 1.0, 0.0), (300, 1e-6, 1.0), (33, 1.0, 50.0)]
        {
            let seed = 60 + round as u64;
            let place =
                |values: Vec<f32>| block(0, dim, values.iter().map(|x| (x * spread + offset) * scale).collect());
            let references = place(noise(seed, 200 * dim));
            let queries = place(noise(seed + 100, 24 * dim));
            for metric in Metric::ALL {
                for simd in simd::available(metric) {
                    passes(
                        metric,
                        &simd,
                        &queries,
                        &references,
                        &format!("{dim}, {spread}·x + {offset}, times {scale}"),
                    );
                }
            }
        }
    }
}

fn passes(metric: Metric, simd: &Simd, queries: &RowBlock, references: &RowBlock, what: &str) {
    let dim = references.dim();
    let part = Partition::new(references.clone());
    // Subnormal rows may be constant.
    let Ok(packed) = Packed::new(metric, simd, &part) else { return };
    for row in 0..queries.rows() {
        let values = queries.row(row);
        let norm = exact::Norm::of(metric, values);
        if metric == Metric::Correlation && norm.is_zero_vector() {
            continue;
        }
        let distances: Vec<f32> = (0..references.rows())
            .map(|r| {
                let sum = simd.sum(values, references.row(r), norm, packed.norm(r));
                exact::distance(metric, sum, norm, packed.norm(r))
            })
            .collect();
        let mut placed = vec![0.0; dim];
        let filter = packed.space.query(values, norm, &mut placed);
        let mut sorted = distances.clone();
        sorted.sort_by(f32::total_cmp);
        for rank in [0, 9, 100] {
            let tau = [packed.space.tau(filter, sorted[rank])];
            let job =
                tile::Scan { panels: packed.values.as_slice(), bias: &packed.bias, queries: &placed, tau: &tau, dim };
            let mut passed = vec![false; references.rows()];
            let (mut from, panels) = (0, packed.bias.len() / simd.rows);
            let mut hits = tile::Hits::NONE;
            while from < panels {
                from = simd.scan(0, &job, from, &mut hits);
                for lane in (0..simd.rows).filter(|lane| from < panels && hits.masks[0] >> lane & 1 == 1) {
                    let r = from * simd.rows + lane;
                    passed[r] = true;
                    let highest = f64::from(hits.sums[0][lane]) + f64::from(packed.slack(r));
                    let bound = packed.space.bound(filter, highest);
                    assert!(distances[r] <= bound, "{metric} on {}, {what}: {} > {bound}", simd.name, distances[r]);
                }
                from += 1;
            }
            let lost = (0..references.rows()).find(|&r| distances[r] <= sorted[rank] && !passed[r]);
            assert_eq!(lost, None, "{metric} on {}, {what}", simd.name);
        }
    }
}
