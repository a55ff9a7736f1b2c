//! Claims about searches through a graph.

use super::*;
use crate::block::RowIds;
use crate::engine::conformance::{Subject, block, claims, clustered, k, noise, part_of, whole};
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::engine::hnsw::{EXACT_ROWS, GraphCounts};
use crate::metric::Metric;
use crate::oracle::search::search as truth;
use crate::topk::PADDING;

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool"))
}

fn config(metric: Metric, exact_rows: usize) -> HnswConfig {
    let (stop, counts) = (Arc::default(), Arc::default());
    HnswConfig { metric, pool: pool(2), options: GraphOptions::default(), exact_rows, stop, counts }
}

/// Few rows are compared whole. Inner products are refused, so the CPU's engine stands in for them.
fn make(metric: Metric) -> Box<dyn Engine> {
    match HnswEngine::new(config(metric, 20_000)) {
        Ok(engine) => Box::new(engine),
        Err(_) => Box::new(CpuEngine::new(CpuConfig { metric, pool: pool(2), simd: None }).expect("an engine")),
    }
}

claims!(Subject { make: &make, kind: EngineKind::Cpu });

/// What an engine finds for some queries among some references, in one visit.
fn found(mut engine: HnswEngine, queries: &RowBlock, part: &Arc<Partition>, width: K, exclude: &Exclude) -> TopK {
    engine.begin(queries, width, exclude).expect("queries");
    engine.visit(part, &[whole(part)]).expect("references");
    engine.finish().expect("a search")
}

fn engine(config: HnswConfig) -> HnswEngine {
    HnswEngine::new(config).expect("an engine")
}

fn distances() -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().filter(|metric| metric.is_distance())
}

#[test]
fn most_true_neighbours_are_found_with_their_exact_distances() {
    let (queries, references) = (block(1 << 40, 20, clustered(1, 60, 20, 6)), block(0, 20, clustered(2, 3_000, 20, 6)));
    let part = Partition::new(references.clone());
    for metric in distances() {
        let config = config(metric, EXACT_ROWS);
        let counts = Arc::clone(&config.counts);
        let top = found(engine(config), &queries, &part, k(10), &Exclude::Nothing);
        let truth = truth(metric, &queries, &references, |_, _| true);
        let mut hits = 0;
        for row in 0..queries.rows() {
            let (ids, distances) = top.neighbours(row);
            assert_eq!(ids.len(), 10, "{metric}");
            for (&id, &distance) in ids.iter().zip(distances) {
                let exact =
                    Measure::of(metric).distance(queries.row(row), references.row(usize::try_from(id).expect("few")));
                assert_eq!(exact.to_bits(), distance.to_bits(), "{metric}");
            }
            let nearest = &truth.neighbours[row][..10];
            hits += ids.iter().filter(|id| nearest.iter().any(|near| near.id == **id)).count();
        }
        assert!(hits >= 570, "{metric}: {hits} of 600");
        let pairs = counts.pairs.load(Ordering::Relaxed);
        assert!(pairs > 0 && counts.compared_with_all.load(Ordering::Relaxed) == 0, "{metric}: {pairs}");
    }
}

#[test]
fn threads_and_blocks_do_not_change_what_is_found() {
    let (queries, references) = (block(1 << 40, 9, noise(3, 9 * 80)), block(0, 9, noise(4, 9 * 4_000)));
    let part = Partition::new(references);
    let with = |threads: usize| engine(HnswConfig { pool: pool(threads), ..config(Metric::Euclidean, EXACT_ROWS) });
    let expected = found(with(1), &queries, &part, k(7), &Exclude::Nothing);
    assert_eq!(found(with(3), &queries, &part, k(7), &Exclude::Nothing), expected);
    let mut engine = with(2);
    let mut blocks = TopK::empty(0, k(7));
    for start in [0, 30] {
        let queries = part_of(&queries, start, if start == 0 { 30 } else { 80 });
        engine.begin(&queries, k(7), &Exclude::Nothing).expect("queries");
        engine.visit(&part, &[whole(&part)]).expect("references");
        blocks = blocks.followed_by(&engine.finish().expect("a search"));
    }
    assert_eq!(blocks, expected);
}

#[test]
fn hostile_rows_and_options_give_k_neighbours_or_as_many_as_there_are() {
    let dim = 3;
    let equal = vec![1.5; 3_000 * dim];
    let zeros = vec![0.0; 2_000 * dim];
    let mut huge = noise(1, 2_000 * dim);
    huge.iter_mut().enumerate().for_each(|(i, x)| *x *= if i % 7 == 0 { 2e37 } else { 1e30 });
    let tiny = noise(2, 2_000 * dim).into_iter().map(|x| x * 1e-38).collect();
    let mut outlier = noise(3, 2_000 * dim);
    outlier[0] = f32::MAX;
    let few = |rows: usize| noise(4, rows * dim);
    let rows = [equal, zeros, huge, tiny, outlier, few(1), few(2), few(31), few(300)];
    let usual = GraphOptions::default();
    let all_options = [
        usual,
        GraphOptions { m: 2, ef_construction: 1, ef: 1 },
        GraphOptions { m: 256, ef_construction: 1, ..usual },
        GraphOptions { m: 2, ..usual },
        GraphOptions { ef: 10_000, ..usual },
    ];
    for (case, values) in rows.into_iter().enumerate() {
        let references = block(0, dim, values);
        let part = Partition::new(references.clone());
        let queries = block(0, dim, references.values()[..dim * references.rows().min(20)].to_vec());
        for options in all_options {
            for metric in [Metric::Euclidean, Metric::Cosine, Metric::Manhattan, Metric::Chebyshev] {
                let engine = engine(HnswConfig { options, ..config(metric, 0) });
                let top = found(engine, &queries, &part, k(30), &Exclude::OwnRow);
                for row in 0..queries.rows() {
                    let ids = top.neighbours(row).0;
                    assert_eq!(ids.len(), 30.min(references.rows() - 1), "{case}, {metric}, {options:?}");
                    assert!(!ids.contains(&(row as u64)), "{case}, {metric}: its own row");
                }
            }
        }
    }
}

#[test]
fn queries_far_from_all_references_are_compared_with_all() {
    let references = block(0, 2, noise(1, 4_000));
    let part = Partition::new(references.clone());
    let queries = block(1 << 40, 2, vec![1e38, -1e38, 0.1, 0.2]);
    let config = config(Metric::Euclidean, EXACT_ROWS);
    let counts = Arc::clone(&config.counts);
    let top = found(engine(config), &queries, &part, k(5), &Exclude::Nothing);
    assert_eq!(counts.compared_with_all.load(Ordering::Relaxed), 1);
    assert!(top.ids().iter().all(|&id| id != PADDING));
}

#[test]
fn who_may_not_be_found_is_made_up_for() {
    let rows = 3_000;
    let references = block(0, 4, noise(7, 4 * rows));
    // All but 40 are of the query's group.
    let groups: Vec<u32> = (0..rows).map(|row| u32::from(row % 75 == 0)).collect();
    let part = Partition::with(references.clone(), Some(groups), None);
    let queries = part_of(&references, 1, 11);
    let exclude = Exclude::SameGroup { groups: vec![0; 10], own_row: true };
    let top = found(engine(config(Metric::Euclidean, EXACT_ROWS)), &queries, &part, k(30), &exclude);
    assert!(top.ids().iter().all(|&id| id % 75 == 0), "{:?}", top.ids());
    let masked = Partition::with(references, None, Some((0..rows).map(|row| row < 20).collect()));
    let top = found(engine(config(Metric::Euclidean, EXACT_ROWS)), &queries, &masked, k(30), &Exclude::Nothing);
    assert!((0..10).all(|row| top.neighbours(row).0.len() == 20));
}

#[test]
fn building_stops_where_it_is_asked_to_and_a_graph_is_of_one_partition() {
    let part = Partition::new(block(0, 4, noise(1, 4 * 3_000)));
    let stopped = config(Metric::Euclidean, EXACT_ROWS);
    stopped.stop.store(true, Ordering::Relaxed);
    let mut engine = engine(stopped.clone());
    engine.begin(&block(0, 4, noise(2, 4)), k(3), &Exclude::Nothing).expect("queries");
    assert!(matches!(engine.visit(&part, &[whole(&part)]), Err(EngineError::Stopped)));
    stopped.stop.store(false, Ordering::Relaxed);
    let other = Partition::new(RowBlock::new(RowIds::Range(9_000..11_000), 4, noise(3, 4 * 2_000)).expect("a block"));
    engine.visit(&part, &[whole(&part)]).expect("references");
    engine.visit(&other, &[whole(&other)]).expect("other references");
    let top = engine.finish().expect("a search");
    assert!(top.ids().iter().all(|&id| id < 3_000 || (9_000..11_000).contains(&id)));
    assert!(matches!(HnswEngine::new(config(Metric::InnerProduct, 0)), Err(EngineError::GraphMetric { .. })));
    let counts: Arc<GraphCounts> = stopped.counts;
    assert!(counts.pairs.load(Ordering::Relaxed) > 3_000);
}
