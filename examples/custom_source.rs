//! Rows from anywhere: a `Source` of generated rows, searched one piece at a time and never held whole.
//!
//! Run: `cargo run --release --example custom_source`

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::cpu::{CpuConfig, CpuEngine};
use atlasknn::engine::{Engine, Exclude, Partition};
use atlasknn::error::StoreError;
use atlasknn::metric::Metric;
use atlasknn::route::{Known, Router, all::AllRows};
use atlasknn::store::{FloatType, Source};
use atlasknn::units::K;

/// Points on a line: row i is at (i, 0).
#[derive(Debug)]
struct Line(u64);

#[rustfmt::skip]
impl Source for Line {
    fn name(&self) -> &'static str { "a line" }
    fn rows(&self) -> u64 { self.0 }
    fn dim(&self) -> usize { 2 }
    fn dtype(&self) -> FloatType { FloatType::F32 }
    fn chunk_rows(&self) -> u64 { 1 }
    fn stored_bytes(&self) -> u64 { 0 }
    fn scratch_bytes(&self) -> u64 { 0 }
    fn read(&self, ranges: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
        let rows = ranges.iter().cloned().flatten();
        out.chunks_exact_mut(2).zip(rows).for_each(|(to, row)| to.copy_from_slice(&[row as f32, 0.0]));
        Ok(())
    }
    fn read_f64(&self, _: &[Range<u64>], _: &mut [f64]) -> Result<(), StoreError> { Ok(()) }
    fn fingerprint(&self) -> Result<serde_json::Value, StoreError> { Ok(self.0.into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let line = Line(100_000);
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().build()?);
    let mut engine = CpuEngine::new(CpuConfig { metric: Metric::Euclidean, pool, simd: None })?;
    let queries = RowBlock::new(RowIds::Range(0..1), 2, vec![54_321.25, 0.0])?;
    engine.begin(&queries, K::new(3)?, &Exclude::Nothing)?;
    let router = AllRows::new(line.rows(), 4_096);
    let route = router.route(0, &Known { queries: &queries, near: &[], bounds: &[], seen_to: 0 });
    for partition in 0..route.partitions() {
        let rows = route.rows(partition);
        let ids = RowIds::List(rows.iter().cloned().flatten().collect());
        let mut values = vec![0.0; ids.len() * line.dim()];
        line.read(rows, &mut values)?;
        let block = Partition::new(RowBlock::new(ids, line.dim(), values)?);
        route.visits(partition).try_for_each(|visits| engine.visit(&block, &visits))?;
    }
    let nearest = engine.finish()?;
    println!("nearest rows {:?} at {:?}", nearest.ids(), nearest.distances());
    assert_eq!(nearest.ids(), [54_321, 54_322, 54_320]);
    Ok(())
}
