//! Which landmarks of a router are near each query. The engine finds them, before it searches for the queries.

use std::sync::Arc;

use crate::engine::{Engine, Partition};
use crate::error::EngineError;
use crate::route::{self, Router};
use crate::units::K;
use crate::visit::Horizon;

/// The landmarks of a router, ready to be searched.
#[derive(Debug)]
pub struct Landmarks {
    part: Arc<Partition>,
    nearest: K,
    horizon: Option<Horizon>,
    /// Queries that are told at a time.
    piece_rows: usize,
}

impl Landmarks {
    /// Those of this router, if it has any, to be told to so many queries at a time.
    #[must_use]
    pub fn of(router: &dyn Router, piece_rows: u64) -> Option<Self> {
        let route::Landmarks { rows, nearest, horizon } = router.landmarks()?;
        let piece_rows = usize::try_from(piece_rows.max(1)).unwrap_or(usize::MAX);
        Some(Self { part: Partition::new(rows.clone()), nearest, horizon, piece_rows })
    }

    /// The rows of the landmarks nearest each query that the engine has begun with, nearest first: `rows × nearest`,
    /// [`u32::MAX`] for those beyond its horizon.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn near(&self, engine: &mut dyn Engine) -> Result<Vec<u32>, EngineError> {
        engine.nearest(&self.part, self.nearest, self.horizon, self.piece_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RowBlock, RowIds};
    use crate::engine::Exclude;
    use crate::engine::cpu::{CpuConfig, CpuEngine};
    use crate::metric::Metric;

    struct Marks(RowBlock);

    impl Router for Marks {
        fn landmarks(&self) -> Option<route::Landmarks<'_>> {
            Some(route::Landmarks { rows: &self.0, nearest: K::new(2).unwrap(), horizon: None })
        }
        fn route<'r>(&'r self, _: u32, _: &route::Known<'_>) -> Box<dyn route::Route + 'r> {
            unreachable!("only its landmarks are asked for")
        }
    }

    #[test]
    fn every_query_is_told_its_nearest_landmarks_however_many_there_are() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let mut engine = CpuEngine::new(CpuConfig { metric: Metric::Euclidean, pool, simd: None }).unwrap();
        let marks = Marks(RowBlock::new(RowIds::Range(0..3), 1, vec![0.0, 10.0, 100.0]).unwrap());
        let landmarks = Landmarks::of(&marks, 64).unwrap();
        let rows = 133;
        let values: Vec<f32> = (0..rows).map(|row| if row % 2 == 0 { 1.0 } else { 90.0 }).collect();
        let queries = RowBlock::new(RowIds::Range(0..rows), 1, values).unwrap();
        let k = K::new(1).unwrap();
        engine.begin(&queries, k, &Exclude::Nothing).unwrap();
        let near = landmarks.near(&mut engine).unwrap();
        assert!(near.chunks_exact(4).all(|two| two == [0, 1, 2, 1]), "{near:?}");
        assert_eq!(near.len() as u64, 2 * rows);
        let nobody = RowBlock::new(RowIds::Range(0..0), 1, vec![]).unwrap();
        engine.begin(&nobody, k, &Exclude::Nothing).unwrap();
        assert!(landmarks.near(&mut engine).unwrap().is_empty());
    }
}
