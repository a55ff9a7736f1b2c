//! The graphs of a partition. The only file that names `hnsw_rs`' graph.
//!
//! Rows are dealt out to graphs like cards, each graph is built row after row, and several graphs at once. So a graph
//! follows from its rows, whatever the number of threads; and threads that insert into one graph, which may wait for each
//! other's rows for ever, are never two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hnsw_rs::hnsw::Hnsw;
use rayon::prelude::*;

use super::GraphOptions;
use super::guard::guarded;
use super::space::{Apart, Space, take_compared};
use crate::block::EachRow;
use crate::error::EngineError;
use crate::plan::graph::graphs;

/// Levels, as many as the crate has.
const LEVELS: usize = 16;
/// Rows inserted between two looks at whether to stop.
const ROWS_BETWEEN: usize = 256;
/// Rows of one graph are counted in i32 by the crate.
const ROWS_MAX: usize = 1 << 31;

/// Graphs of all rows of a partition.
pub struct Graph {
    space: Space,
    parts: Vec<Hnsw<'static, f32, Apart>>,
    pool: Arc<rayon::ThreadPool>,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // The crate clears its lists on the pool of the thread it is dropped by, or makes one.
        let parts = std::mem::take(&mut self.parts);
        self.pool.install(|| drop(parts));
    }
}

impl Graph {
    /// The graphs of some rows.
    ///
    /// # Errors
    /// [`EngineError::Graph`] for a panic inside, [`EngineError::Stopped`] when asked to stop.
    pub fn build(
        space: Space,
        rows: &dyn EachRow,
        options: GraphOptions,
        pool: &Arc<rayon::ThreadPool>,
        (stop, pairs): (&AtomicBool, &AtomicU64),
    ) -> Result<Self, EngineError> {
        let options = options.check()?;
        let count = usize::try_from(graphs(rows.rows() as u64)).unwrap_or(usize::MAX);
        if rows.rows().div_ceil(count) >= ROWS_MAX {
            let why = format!("{} rows are too many", rows.rows());
            return Err(EngineError::Graph { doing: "building a graph", why });
        }
        let build = |part: usize| {
            let built = guarded("building a graph", || one(space, rows, options, (part, count), stop));
            pairs.fetch_add(take_compared(), Ordering::Relaxed);
            built?
        };
        let parts: Result<Vec<_>, EngineError> =
            pool.install(|| (0..count).into_par_iter().with_max_len(1).map(build).collect());
        Ok(Self { space, parts: parts?, pool: Arc::clone(pool) })
    }

    /// Where queries are placed.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Puts the rows that each graph finds nearest a placed query into `found`, up to `ef` of each.
    ///
    /// # Errors
    /// [`EngineError::Graph`] for a panic inside.
    pub fn nearest(&self, placed: &[f32], ef: usize, found: &mut Vec<usize>) -> Result<(), EngineError> {
        found.clear();
        for graph in &self.parts {
            let near = guarded("searching a graph", || graph.search(placed, ef, ef))?;
            found.extend(near.iter().map(|near| near.d_id));
        }
        Ok(())
    }
}

/// One graph: of every `count`-th row, from the `part`-th on.
fn one(
    space: Space,
    rows: &dyn EachRow,
    options: GraphOptions,
    (part, count): (usize, usize),
    stop: &AtomicBool,
) -> Result<Hnsw<'static, f32, Apart>, EngineError> {
    let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let (m, ef) = (wide(options.m), wide(options.ef_construction));
    let graph = Hnsw::new(m, rows.rows().div_ceil(count), LEVELS, ef, space.apart());
    let (mut placed, mut decoded) = (Vec::new(), Vec::new());
    for (done, row) in (part..rows.rows()).step_by(count).enumerate() {
        if done % ROWS_BETWEEN == 0 && stop.load(Ordering::Relaxed) {
            return Err(EngineError::Stopped);
        }
        space.place(rows.row_in(row, &mut decoded), &mut placed);
        graph.insert((&placed, row));
    }
    Ok(graph)
}
