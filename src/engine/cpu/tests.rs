use super::tile::Form;
use super::*;
use crate::engine::conformance::shapes::SHAPES;
use crate::engine::conformance::{Case, Subject, block, clustered, k, noise, whole};
use crate::units::K;
use crate::visit::VisitQueries;

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool"))
}

fn engine(metric: Metric, threads: usize, simd: Option<&str>) -> CpuEngine {
    let config = CpuConfig { metric, pool: pool(threads), simd: simd.map(str::to_owned) };
    CpuEngine::new(config).expect("an engine")
}

/// Calls a claim with an engine of every instruction set of this machine, one after the other.
fn on_every_path(claim: fn(Subject<'_>)) {
    for name in paths() {
        let make = |metric| Box::new(engine(metric, 2, Some(name))) as Box<dyn Engine>;
        let subject = Subject { make: &make, kind: EngineKind::Cpu };
        let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| claim(subject)));
        assert!(kept.is_ok(), "the claim does not hold on {name}; the message above says why");
    }
}

fn paths() -> Vec<&'static str> {
    simd::available(Metric::Euclidean).iter().map(|simd| simd.name).collect()
}

fn find_on(name: &str, threads: usize, case: &Case) -> TopK {
    let make = |metric| Box::new(engine(metric, threads, Some(name))) as Box<dyn Engine>;
    case.find(Subject { make: &make, kind: EngineKind::Cpu })
}

/// Every claim, on every path this machine runs; see `a_path_is_run_as_asked_or_refused_by_name` for the others.
mod on_every_path {
    crate::engine::conformance::claims!(each: super::on_every_path);
}

#[test]
fn a_path_is_run_as_asked_or_refused_by_name() {
    let (mut run, mut lacking) = (Vec::new(), Vec::new());
    for name in NAMES {
        for metric in Metric::ALL {
            let config = CpuConfig { metric, pool: pool(1), simd: Some(name.to_owned()) };
            match CpuEngine::new(config) {
                Ok(engine) => {
                    assert_eq!(engine.simd(), name);
                    run.push(name);
                }
                Err(EngineError::Simd { found, why: "this machine does not have", .. }) => {
                    assert_eq!(found, name);
                    lacking.push(name);
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
    run.dedup();
    lacking.dedup();
    // Shown with --nocapture: what the other tests of this file did not run.
    println!("instruction sets run: {run:?}; lacking here, so at most compiled: {lacking:?}");
    assert_eq!(run, paths(), "the claims run on all of them");
    assert!(run.contains(&"portable") && run.iter().all(|name| !lacking.contains(name)));
}

#[test]
fn every_path_finds_the_same_bytes() {
    let more =
        [(1_000, 3_000, 7, 20), (5, 30_000, 50, 30), (13, 500, 131, 20), (200, 2_000, 128, 256), (7, 400, 784, 9)];
    for (queries, rows, dim, k_here) in SHAPES.into_iter().chain(more) {
        let references = block(0, dim, clustered(50, rows, dim, 9));
        let queries = block(0, dim, clustered(51, queries, dim, 9));
        for metric in Metric::ALL {
            let case = Case::new(metric, &queries, &references, k(k_here));
            let found: Vec<TopK> = paths().into_iter().map(|name| find_on(name, 2, &case)).collect();
            let what = format!("{metric}, {} queries × {rows} rows × {dim}, k = {k_here}", queries.rows());
            assert!(found.iter().all(|top| *top == found[0]), "{what}: {:?} differ", paths());
        }
    }
}

#[test]
fn threads_do_not_show() {
    let references = block(0, 10, clustered(52, 30_000, 10, 20));
    for queries in [1, 5, 300] {
        let queries = block(0, 10, clustered(53, queries, 10, 20));
        for metric in Metric::ALL {
            let case = Case::new(metric, &queries, &references, k(30));
            for name in paths() {
                let one = find_on(name, 1, &case);
                assert_eq!(find_on(name, 2, &case), one, "{metric} on {name}");
                assert_eq!(find_on(name, 3, &case), one, "{metric} on {name}");
            }
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
    for name in paths() {
        let mut engine = engine(Metric::Euclidean, 1, Some(name));
        engine.begin(&block(0, 4, noise(1, 40)), k(3), &Exclude::Nothing).expect("begin");
        let parts: Vec<_> = (0..3).map(|i| Partition::new(block(i * 10, 4, noise(i, 40)))).collect();
        for part in parts.iter().chain(&parts) {
            engine.visit(part, &[whole(part)]).expect("visit");
        }
        assert_eq!(engine.resident_partitions(), 3, "{name}");
        drop(parts);
        assert_eq!(engine.resident_partitions(), 0, "{name}");
    }
}

/// Rows about two centres far apart: the first half spread widely, the second half next to none.
fn loose_and_tight(seed: u64, rows: usize) -> Vec<f32> {
    let mut values = noise(seed, rows * 20);
    let half = rows / 2 * 20;
    for (at, value) in values.iter_mut().enumerate() {
        *value = if at < half { *value } else { *value * 1e-5 + 2.0 };
    }
    values
}

#[test]
fn a_grid_is_left_where_later_queries_find_it_too_coarse() {
    let references = block(0, 20, loose_and_tight(70, 8000));
    let queries = loose_and_tight(71, 400);
    let (loose, tight) = (block(0, 20, queries[..4000].to_vec()), block(0, 20, queries[4000..].to_vec()));
    for simd in simd::available(Metric::Euclidean).into_iter().filter(Simd::has_pairs) {
        let mut engine = engine(Metric::Euclidean, 2, Some(simd.name));
        let part = Partition::new(references.clone());
        let mut forms = Vec::new();
        for queries in [&loose, &tight, &tight, &loose] {
            engine.begin(queries, k(10), &Exclude::Nothing).expect("begin");
            engine.visit(&part, &[whole(&part)]).expect("visit");
            forms.push(engine.packed[&part.key()].1.filter.form());
            let expected = find_on("portable", 1, &Case::new(Metric::Euclidean, queries, &references, k(10)));
            assert_eq!(engine.finish().expect("finish"), expected, "{}", simd.name);
        }
        assert_eq!(forms, [Form::Pairs, Form::Pairs, Form::Floats, Form::Floats], "{}", simd.name);
        // Tried with those queries, it is not taken to begin with.
        engine.begin(&tight, k(10), &Exclude::Nothing).expect("begin");
        let part = Partition::new(references.clone());
        engine.visit(&part, &[whole(&part)]).expect("visit");
        assert_eq!(engine.packed[&part.key()].1.filter.form(), Form::Floats, "{}", simd.name);
    }
}

#[test]
fn queries_far_from_all_references_find_the_same_bytes() {
    let references = block(0, 30, clustered(72, 6000, 30, 5));
    for shift in [1.0, 10.0, 100.0, 1e4, 1e6] {
        // One in three is far, so that tiles are mixed.
        let mut queries = clustered(73, 90, 30, 5);
        for query in queries.chunks_mut(30).step_by(3) {
            for value in query {
                *value += shift;
            }
        }
        let queries = block(0, 30, queries);
        for metric in Metric::ALL {
            let case = Case::new(metric, &queries, &references, k(20));
            let expected = find_on("portable", 1, &case);
            for name in paths() {
                assert_eq!(find_on(name, 2, &case), expected, "{metric} on {name}, {shift} away");
            }
        }
    }
}

#[test]
fn tasks_are_full_or_leave_every_thread_as_many() {
    for simd in simd::available(Metric::Euclidean) {
        for (queries, threads) in [(1, 2), (96, 2), (1000, 2), (10_000, 2), (1000, 64), (97, 8)] {
            let size = super::tasks::queries_per_task(25, &simd, queries, threads);
            let widest = simd.widths[simd.widths.len() - 1];
            assert!((1..=96).contains(&size) && size.is_multiple_of(widest), "{queries} on {threads}: {size}");
            let even = queries.div_ceil(size).is_multiple_of(threads);
            assert!(size > 96 - widest || size >= 45 && even, "{queries} on {threads}: {size}");
        }
    }
}

/// Queries that visit the same lists go through them together, in tasks of several legs.
#[test]
fn queries_that_share_lists_find_what_each_list_holds() {
    let (dim, queries, lists, of_each) = (7, 1_000_u32, 20_u32, 50_u32);
    for metric in Metric::ALL {
        let mut values = clustered(3, 1_000, dim, 20);
        // Identical rows, and rows so far out that queries as long are halved.
        values.copy_within(0..dim * 30, dim * 500);
        values[dim * 700..dim * 703].iter_mut().for_each(|value| *value *= 900.0);
        let references = block(0, dim, values);
        let mut values = clustered(5, 1_000, dim, 20);
        values[dim * 300..dim * 340].iter_mut().enumerate().for_each(|(i, value)| *value *= 1.0 + i as f32 * 7.0);
        let asked = block(0, dim, values);
        // Each query visits six lists, beginning with that of its cluster.
        let visits = |query: u32, list: u32| (lists + list - query * lists / queries) % lists < 6;
        let visit = |list: u32, first: bool| {
            let named = (0..queries).filter(|&query| visits(query, list) && (query * lists / queries == list) == first);
            Visit { rows: list * of_each..(list + 1) * of_each, queries: VisitQueries::List(named.collect()) }
        };
        let truth = crate::oracle::search::search(metric, &asked, &references, |query, reference| {
            let of = |id: usize| u32::try_from(id).expect("few");
            visits(of(query), of(reference) / of_each) && query != reference
        });
        for name in paths() {
            let mut engine = engine(metric, 2, Some(name));
            engine.begin(&asked, k(12), &Exclude::OwnRow).expect("queries");
            let part = Partition::new(references.clone());
            for first in [true, false] {
                let visits: Vec<Visit> = (0..lists).map(|list| visit(list, first)).collect();
                engine.visit(&part, &visits).expect("visits");
            }
            let found = engine.finish().expect("a search");
            crate::oracle::search::agrees(&found, &truth, EngineKind::Cpu)
                .unwrap_or_else(|why| panic!("{metric} on {name}: {why}"));
        }
    }
}

#[test]
fn limits_name_what_is_held() {
    for name in paths() {
        let limits = engine(Metric::Euclidean, 2, Some(name)).limits(50, k(30));
        assert_eq!(limits.bytes_per_query, 200 + 12 * 30 + 32);
        assert_eq!(limits.bytes_per_reference, 208);
        assert_eq!(engine(Metric::Cosine, 2, Some(name)).limits(50, k(30)).bytes_per_reference, 224);
        assert!(limits.bytes_fixed < 2 << 20 && limits.pairs_per_second > 1e6);
        let widest = engine(Metric::Euclidean, 2, Some(name)).limits(1000, K::new(256).expect("k"));
        assert!(widest.bytes_fixed > limits.bytes_fixed && widest.bytes_fixed < 16 << 20, "{}", widest.bytes_fixed);
    }
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
    let Ok(held) = Queries::new(metric, queries, k(10), &Exclude::Nothing) else { return };
    let Ok(packed) = Packed::new(metric, simd, &part, &held, true) else { return };
    let (form, words) = (packed.filter.form(), packed.filter.form().words(dim));
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
        let mut placed = vec![0; words];
        let filter = packed.filter.query(values, norm, 0, &mut placed);
        let mut halved = packed.bias.clone();
        if filter.halvings > 0 {
            filter::halve(&packed.bias, filter.halvings, &mut halved);
        }
        let mut sorted = distances.clone();
        sorted.sort_by(f32::total_cmp);
        for rank in [0, 9, 100] {
            let tau = [packed.filter.tau(filter, sorted[rank])];
            let panels = packed.values.as_slice();
            let job = tile::Scan { form, panels, bias: &halved, queries: &placed, tau: &tau, words };
            let mut passed = vec![false; references.rows()];
            let (mut from, panels) = (0, packed.bias.len() / simd.rows);
            let mut hits = tile::Hits::NONE;
            while from < panels {
                from = simd.scan(0, &job, from, &mut hits);
                for lane in (0..simd.rows).filter(|lane| from < panels && hits.masks[0] >> lane & 1 == 1) {
                    let r = from * simd.rows + lane;
                    passed[r] = true;
                    let sum = hits.sums[0][lane];
                    let highest = form.value(form.order(sum)) + f64::from(packed.slack(r));
                    let bound = if sum == form.always() { f32::INFINITY } else { packed.filter.bound(filter, highest) };
                    assert!(distances[r] <= bound, "{metric} on {}, {what}: {} > {bound}", simd.name, distances[r]);
                }
                from += 1;
            }
            let lost = (0..references.rows()).find(|&r| distances[r] <= sorted[rank] && !passed[r]);
            assert_eq!(lost, None, "{metric} on {}, {what}", simd.name);
        }
    }
}
