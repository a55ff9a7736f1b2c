//! The engine alone: two blocks of rows in memory, the nearest references of every query.
//!
//! Run: `cargo run --release --example neighbours`

use std::error::Error;
use std::sync::Arc;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::cpu::{CpuConfig, CpuEngine};
use atlasknn::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use atlasknn::metric::Metric;
use atlasknn::units::K;

fn main() -> Result<(), Box<dyn Error>> {
    // Four references at the corners of a square, two queries near two of them.
    let corners = vec![0.0, 0.0, 0.0, 10.0, 10.0, 0.0, 10.0, 10.0];
    let references = Partition::new(RowBlock::new(RowIds::Range(0..4), 2, corners)?);
    let queries = RowBlock::new(RowIds::Range(0..2), 2, vec![1.0, 2.0, 9.0, 9.0])?;

    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build()?);
    let mut engine = CpuEngine::new(CpuConfig { metric: Metric::Euclidean, pool, simd: None })?;

    // The queries and their running top-k stay in the engine; as many partitions as there are may come by.
    engine.begin(&queries, K::new(3)?, &Exclude::Nothing)?;
    engine.visit(&references, &[Visit { rows: 0..4, queries: VisitQueries::All }])?;
    let nearest = engine.finish()?;

    for query in 0..nearest.rows() {
        let (ids, distances) = nearest.row(query);
        println!("query {query}: references {ids:?} at {distances:.2?}");
    }
    assert_eq!(nearest.row(0).0, [0, 1, 2]);
    assert_eq!(nearest.row(1).0, [3, 1, 2], "1 and 2 are as far: the lower id comes first");
    assert_eq!(nearest.row(0).1[0], 5.0_f32.sqrt());
    Ok(())
}
