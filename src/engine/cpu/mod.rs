//! The CPU engine: exact search in SIMD tiles, a filter with proven bounds before f64 distances.
//!
//! A partition is packed once into `panels` for its `filter`: on a `grid` of 16-bit whole numbers, which takes half the
//! instructions, or in a `space` of f32 for the metrics, rows and instruction sets that have no such grid. A `task` takes some queries past its panels with the
//! loops of `simd`, keeps what passes `pending`, and merges the `nearest` by their `exact` distances. The filter only ever
//! drops what cannot be among the k nearest, so the result does not depend on centre, scale, instruction set, order,
//! splits or threads. It starts no threads and lives in the pool it is given.

mod aligned;
mod bounds;
pub(in crate::engine) mod exact;
mod filter;
mod grid;
#[cfg(test)]
mod grid_tests;
mod measure;
mod nearest;
mod panel_order;
mod panels;
mod pending;
mod queries;
mod simd;
mod space;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
mod tile;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rayon::prelude::*;

pub use self::measure::Measure;
use self::panels::Packed;
use self::queries::Queries;
use self::simd::Simd;
use self::task::{Scratch, Search, scratch_bytes};
use self::tasks::{Cutter, Tasks, is_one_each};
use self::tile::Form;
use super::visits::check_visits;
use super::{Engine, EngineLimits, Exclude, Horizon, Partition, Visit, nearest_in_pieces};
use crate::block::RowBlock;
use crate::error::EngineError;
use crate::metric::{EngineKind, Metric};
use crate::topk::TopK;
use crate::units::K;

/// The environment variable that forces an instruction set.
pub const SIMD_VARIABLE: &str = "ATLASKNN_SIMD";

/// Every path there is code for, whatever this machine has. `vnni` and `i16` filter on whole numbers of 16 bits, with and
/// without an instruction of its own for it; the others on f32. See `simd::available`
/// for which have been run.
const NAMES: [&str; 8] = ["avx512-vnni", "avx512-i16", "avx512", "avx2-vnni", "avx2-i16", "avx2", "neon", "portable"];
/// What a CPU engine is made of.
#[derive(Clone, Debug)]
pub struct CpuConfig {
    /// The metric.
    pub metric: Metric,
    /// Where all the work is done.
    pub pool: Arc<rayon::ThreadPool>,
    /// `portable`, `neon`, `avx2` or `avx512`, which filter in f32, or `avx2-i16`, `avx2-vnni`, `avx512-i16` or
    /// `avx512-vnni`, which do in whole numbers; `None` takes the environment variable `ATLASKNN_SIMD`, or else the best
    /// this machine has.
    pub simd: Option<String>,
}

/// Exact search on the CPU.
///
/// Distances are computed in f64 from the rows as given and rounded once, so every machine finds the same bytes. A zero
/// vector has cosine distance 1 to everything, another zero vector and itself included.
#[derive(Debug)]
pub struct CpuEngine {
    metric: Metric,
    pool: Arc<rayon::ThreadPool>,
    simd: Simd,
    queries: Option<Queries>,
    /// What of the landmarks that are being searched is wanted.
    horizon: Option<Horizon>,
    /// Visits of a partition that are searched with those of the next call.
    waiting: Option<(Arc<Partition>, Vec<Visit>)>,
    /// Packed partitions by key, for as long as somebody holds the partition.
    packed: HashMap<u64, (Weak<Partition>, Arc<Packed>)>,
    /// What the threads work in; never more than there are threads.
    scratch: Mutex<Vec<Scratch>>,
}

impl CpuEngine {
    /// An engine with nothing loaded.
    ///
    /// # Errors
    /// [`EngineError::Simd`] when an instruction set is forced that does not exist or that this machine does not have.
    pub fn new(config: CpuConfig) -> Result<Self, EngineError> {
        let forced = config.simd.or_else(|| std::env::var(SIMD_VARIABLE).ok().filter(|name| !name.is_empty()));
        let simd = choose(config.metric, forced.as_deref())?;
        Ok(Self {
            metric: config.metric,
            pool: config.pool,
            simd,
            queries: None,
            horizon: None,
            waiting: None,
            packed: HashMap::new(),
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// The instruction set in use, for the manifest.
    #[must_use]
    pub fn simd(&self) -> &'static str {
        self.simd.name
    }

    /// How many packed partitions are held; those the caller dropped are gone.
    pub fn resident_partitions(&mut self) -> usize {
        self.forget_dropped();
        self.packed.len()
    }

    fn forget_dropped(&mut self) {
        self.packed.retain(|_, (part, _)| part.strong_count() > 0);
    }

    fn packed(&mut self, part: &Arc<Partition>) -> Result<Arc<Packed>, EngineError> {
        self.forget_dropped();
        let mut grid = true;
        if let Some((_, packed)) = self.packed.get(&part.key()) {
            if !packed.is_too_coarse() {
                return Ok(Arc::clone(packed));
            }
            grid = false;
            // Given back before it is packed again: only one of the two is in the plan.
            self.packed.remove(&part.key());
        }
        let queries = self.begun("visit")?;
        let packed = self.pool.install(|| Packed::new(self.metric, &self.simd, part, queries, grid))?;
        let packed = Arc::new(packed);
        self.packed.insert(part.key(), (Arc::downgrade(part), Arc::clone(&packed)));
        Ok(packed)
    }

    fn begun(&self, call: &'static str) -> Result<&Queries, EngineError> {
        self.queries.as_ref().ok_or(EngineError::NotBegun { call })
    }

    /// Whether visits had better be searched with the next ones: the first ones of a block, of one list per query. What they
    /// find is a bound for the rest, and queries that are taken through both at once are packed and measured once.
    fn may_wait(&self, part: &Partition, visits: &[Visit]) -> bool {
        let Some(queries) = &self.queries else { return false };
        let words = Form::Pairs.words(queries.block.dim());
        let named = visits.len().min(part.block.rows());
        let cutter = self.cutter(queries, words);
        named > 1 && queries.met.is_empty() && cutter.has_many(cutter.rows) && is_one_each(visits, cutter.rows)
    }

    /// Searches what waits.
    fn catch_up(&mut self) -> Result<(), EngineError> {
        self.waiting.take().map_or(Ok(()), |(part, first)| self.search(&part, &first, &[]))
    }

    fn cutter(&self, queries: &Queries, words: usize) -> Cutter<'_> {
        let (threads, rows) = (self.pool.current_num_threads(), queries.block.rows());
        Cutter { simd: &self.simd, words, threads, room: queries.room(), rows }
    }

    /// Searches some visits after those that give a good bound for them.
    fn search(&mut self, part: &Arc<Partition>, first: &[Visit], rest: &[Visit]) -> Result<(), EngineError> {
        let packed = self.packed(part)?;
        if let Some(queries) = &mut self.queries {
            queries.met.extend(queries.block.rows(), first);
            queries.met.extend(queries.block.rows(), rest);
        }
        let queries = self.begun("visit")?;
        let search = Search { metric: self.metric, simd: &self.simd, queries, part, packed: &packed };
        let words = packed.filter.form().words(queries.block.dim());
        let cutter = self.cutter(queries, words);
        if first.is_empty() {
            self.work(&search, &cutter.cut(&queries.met, rest));
        } else if let Some(tasks) = cutter.by_query(&queries.met, first, rest) {
            self.work(&search, &tasks);
        } else {
            self.work(&search, &cutter.cut(&queries.met, first));
            self.work(&search, &cutter.cut(&queries.met, rest));
        }
        Ok(())
    }

    fn work(&self, search: &Search<'_>, tasks: &Tasks<'_>) {
        self.pool.install(|| {
            (0..tasks.len()).into_par_iter().with_max_len(1).for_each(|task| {
                let held = |work: &Mutex<Vec<Scratch>>| work.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut scratch = held(&self.scratch).unwrap_or_default();
                search.run(&tasks.task(task), &mut scratch);
                self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
            });
        });
    }
}

/// The instruction set of this name, or the best one here.
fn choose(metric: Metric, name: Option<&str>) -> Result<Simd, EngineError> {
    let mut found = simd::available(metric);
    let Some(name) = name else {
        return Ok(found.swap_remove(0));
    };
    if let Some(at) = found.iter().position(|simd| simd.name == name) {
        return Ok(found.swap_remove(at));
    }
    let why = if NAMES.contains(&name) { "this machine does not have" } else { "is not an instruction set" };
    let known = found.iter().map(|simd| simd.name).collect::<Vec<_>>().join(", ");
    Err(EngineError::Simd { found: name.to_owned(), why, known })
}

impl Engine for CpuEngine {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        let bytes = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let threads = self.pool.current_num_threads();
        // A panel that is not full, and the centre, for a handful of partitions.
        let per_partition = self.simd.rows * Packed::bytes_per_reference(self.metric, dim) + dim * size_of::<f64>();
        EngineLimits {
            kind: EngineKind::Cpu,
            bytes_per_query: bytes(Queries::bytes_per_query(dim, k.get())),
            bytes_per_reference: bytes(Packed::bytes_per_reference(self.metric, dim)),
            bytes_fixed: bytes(threads * scratch_bytes(dim, k.get(), &self.simd) + 8 * per_partition + (64 << 10)),
            partition_bytes_max: 1 << 30,
            // Every pair costs a compare beside its dimensions.
            pairs_per_second: self.simd.rate * threads as f64 / (dim + 6) as f64,
            device: None,
        }
    }

    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        (self.queries, self.waiting) = (None, None);
        self.forget_dropped();
        let mut queries = self.pool.install(|| Queries::new(self.metric, queries, k, exclude))?;
        queries.horizon = self.horizon;
        self.queries = Some(queries);
        Ok(())
    }

    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        let block = &self.begun("visit")?.block;
        check_visits((block.rows(), block.dim()), part, visits)?;
        if let Some((waits, first)) = self.waiting.take() {
            if waits.key() == part.key() {
                return self.search(part, &first, visits);
            }
            self.search(&waits, &first, &[])?;
        }
        if self.may_wait(part, visits) {
            self.waiting = Some((Arc::clone(part), visits.to_vec()));
            return Ok(());
        }
        self.search(part, &[], visits)
    }

    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        self.catch_up()?;
        let begun = self.queries.take().ok_or(EngineError::NotBegun { call: "nearest" })?;
        self.horizon = horizon;
        let pool = Arc::clone(&self.pool);
        let near = pool.install(|| nearest_in_pieces(self, &begun.block, part, (k, horizon), at_a_time));
        (self.queries, self.horizon) = (Some(begun), None);
        near
    }

    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        self.catch_up()?;
        let queries = self.begun("bounds")?;
        Ok((0..queries.block.rows()).map(|row| queries.with_top(row, |top, at| nearest::limit(top, at).0)).collect())
    }

    fn finish(&mut self) -> Result<TopK, EngineError> {
        self.catch_up()?;
        let queries = self.begun("finish")?;
        let top = self.pool.install(|| queries.top());
        self.queries = None;
        self.forget_dropped();
        Ok(top)
    }

    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        self.catch_up()?;
        let queries = self.begun("snapshot")?;
        Ok(self.pool.install(|| queries.top()))
    }

    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        self.waiting = None;
        self.queries.as_mut().ok_or(EngineError::NotBegun { call: "restore" })?.restore(top)
    }
}
