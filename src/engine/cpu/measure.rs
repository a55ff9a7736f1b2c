//! One pair by itself, with the bytes that the engine would write for it.

use super::exact::{Norm, distance};
use super::simd::{Simd, available};
use crate::metric::Metric;

/// Measures pairs by the exact form of a metric, with the fastest instructions there are: all give the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    metric: Metric,
    simd: Simd,
}

impl Measure {
    /// For pairs by this metric.
    #[must_use]
    pub fn of(metric: Metric) -> Self {
        Self { metric, simd: available(metric).swap_remove(0) }
    }

    /// The exact distance of two rows of the same dimension, in the metric's own unit. Under correlation neither is
    /// constant.
    #[must_use]
    pub fn distance(&self, q: &[f32], r: &[f32]) -> f32 {
        let (norm_q, norm_r) = (Norm::of(self.metric, q), Norm::of(self.metric, r));
        distance(self.metric, self.simd.sum(q, r, norm_q, norm_r), norm_q, norm_r)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::{RowBlock, RowIds};
    use crate::engine::cpu::{CpuConfig, CpuEngine};
    use crate::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
    use crate::units::K;

    #[test]
    fn a_pair_has_the_bytes_that_a_search_gives_it() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool"));
        for dim in [3, 8, 50] {
            let value = |i: u64| f32::from(u16::try_from(i * 7919 % 10_007).expect("small")) / 999.0 - 3.0;
            let block = |seed: u64| {
                let values = (0..20 * dim as u64).map(|i| value(i + 31 * seed)).collect();
                RowBlock::new(RowIds::Range(0..20), dim, values).expect("a block")
            };
            let (queries, references) = (block(1), block(2));
            for metric in Metric::ALL {
                let mut engine =
                    CpuEngine::new(CpuConfig { metric, pool: Arc::clone(&pool), simd: None }).expect("an engine");
                engine.begin(&queries, K::new(20).expect("k"), &Exclude::Nothing).expect("queries");
                let all = Visit { rows: 0..20, queries: VisitQueries::All };
                engine.visit(&Partition::new(references.clone()), &[all]).expect("references");
                let top = engine.finish().expect("a search");
                for row in 0..20 {
                    for (&id, &found) in top.row(row).0.iter().zip(top.row(row).1) {
                        let reference = references.row(usize::try_from(id).expect("few"));
                        let alone = Measure::of(metric).distance(queries.row(row), reference);
                        assert_eq!(alone.to_bits(), found.to_bits(), "{metric}, {dim}: {row} and {id}");
                    }
                }
            }
        }
    }
}
