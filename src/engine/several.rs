//! Several engines as one: each has a part of the queries, and all are shown the same partitions. What each finds for its
//! queries is what it would find alone, so engines that find the same bytes do so together.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::visits::check_visits;
use super::{Engine, EngineLimits, Exclude, Horizon, Partition, Visit, VisitQueries};
use crate::block::RowBlock;
use crate::error::EngineError;
use crate::plan::DeviceLimits;
use crate::topk::TopK;
use crate::units::K;

/// Engines that share a block of queries.
pub struct Several {
    engines: Vec<Box<dyn Engine>>,
    pool: Arc<rayon::ThreadPool>,
    /// Shape of the block and the rows of it that each engine has, between `begin` and `finish`.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    rows: usize,
    dim: usize,
    k: K,
    parts: Vec<Range<usize>>,
}

impl Several {
    /// These engines, at least one, working at once on the pool.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn new(engines: Vec<Box<dyn Engine>>, pool: Arc<rayon::ThreadPool>) -> Self {
        assert!(!engines.is_empty(), "at least one engine");
        Self { engines, pool, begun: None }
    }

    fn begun(&self, call: &'static str) -> Result<&Begun, EngineError> {
        self.begun.as_ref().ok_or(EngineError::NotBegun { call })
    }

    /// Does the same with every engine and its part of the queries, at once.
    fn each<T: Send>(
        &mut self,
        call: &'static str,
        work: impl Fn(&mut dyn Engine, &Range<usize>) -> Result<T, EngineError> + Sync,
    ) -> Result<Vec<T>, EngineError> {
        let begun = self.begun.as_ref().ok_or(EngineError::NotBegun { call })?;
        let engines = self.engines.par_iter_mut().zip(&begun.parts);
        // Of several errors the one of the first queries is told, whichever came first.
        let each: Vec<_> = self.pool.install(|| engines.map(|(engine, part)| work(engine.as_mut(), part)).collect());
        each.into_iter().collect()
    }

    fn gathered(
        &mut self,
        call: &'static str,
        top: impl Fn(&mut dyn Engine) -> Result<TopK, EngineError> + Sync,
    ) -> Result<TopK, EngineError> {
        let (rows, k) = self.begun.as_ref().map(|begun| (begun.rows, begun.k)).ok_or(EngineError::NotBegun { call })?;
        let parts = self.each(call, |engine, _| top(engine))?;
        let mut all = TopK::empty(rows, k);
        let mut at = 0;
        for part in parts {
            all.copy_rows(at, &part, 0, part.rows());
            at += part.rows();
        }
        Ok(all)
    }
}

/// Cuts rows into so many runs, as even as can be; some are empty where there are few.
fn cut(rows: usize, parts: usize) -> Vec<Range<usize>> {
    let at = |part: usize| part * rows / parts;
    (0..parts).map(|part| at(part)..at(part + 1)).collect()
}

fn exclude_of(exclude: &Exclude, rows: &Range<usize>) -> Exclude {
    match exclude {
        Exclude::SameGroup { groups, own_row } => {
            Exclude::SameGroup { groups: groups[rows.clone()].to_vec(), own_row: *own_row }
        }
        other => other.clone(),
    }
}

/// A visit's queries among these rows, counted from the first of them; `None` where there are none.
fn visit_of(visit: &Visit, rows: &Range<usize>) -> Option<Visit> {
    let queries = match &visit.queries {
        VisitQueries::All => VisitQueries::All,
        VisitQueries::List(list) => {
            let at = |row: usize| list.partition_point(|&query| usize::try_from(query).is_ok_and(|query| query < row));
            let first = u32::try_from(rows.start).ok()?;
            let own = &list[at(rows.start)..at(rows.end)];
            if own.is_empty() {
                return None;
            }
            VisitQueries::List(own.iter().map(|query| query - first).collect())
        }
    };
    Some(Visit { rows: visit.rows.clone(), queries })
}

impl Engine for Several {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        let all: Vec<EngineLimits> = self.engines.iter().map(|engine| engine.limits(dim, k)).collect();
        let n = all.len() as u64;
        let most = |of: fn(&EngineLimits) -> u64| all.iter().map(of).max().unwrap_or(0);
        let devices: Vec<&DeviceLimits> = all.iter().filter_map(|limits| limits.device.as_ref()).collect();
        let device_most = |of: fn(&DeviceLimits) -> u64| devices.iter().map(|device| of(device)).max().unwrap_or(0);
        EngineLimits {
            kind: all[0].kind,
            // Each engine is given its part as a block of its own, and gives its part of the top-k.
            bytes_per_query: most(|limits| limits.bytes_per_query) + (dim * 4 + 12).max(12 * k.get()) as u64,
            bytes_per_reference: most(|limits| limits.bytes_per_reference) * n,
            bytes_fixed: all.iter().map(|limits| limits.bytes_fixed).sum(),
            partition_bytes_max: all.iter().map(|limits| limits.partition_bytes_max).min().unwrap_or(0),
            // The queries are shared evenly, so the slowest is waited for.
            pairs_per_second: all.iter().map(|limits| limits.pairs_per_second).fold(f64::INFINITY, f64::min) * n as f64,
            device: devices.iter().map(|device| device.memory).min().map(|memory| DeviceLimits {
                memory,
                bytes_per_query: device_most(|device| device.bytes_per_query).div_ceil(n),
                bytes_per_reference: device_most(|device| device.bytes_per_reference),
                bytes_fixed: device_most(|device| device.bytes_fixed),
                query_rows_max: devices.iter().map(|device| device.query_rows_max).min().unwrap_or(0).saturating_mul(n),
            }),
        }
    }

    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        if let Exclude::SameGroup { groups, .. } = exclude
            && groups.len() != queries.rows()
        {
            let why = format!("{} groups were given for {} queries", groups.len(), queries.rows());
            return Err(EngineError::Shape { what: "exclusion groups", why });
        }
        let parts = cut(queries.rows(), self.engines.len());
        self.begun = Some(Begun { rows: queries.rows(), dim: queries.dim(), k, parts });
        let begin = |engine: &mut dyn Engine, rows: &Range<usize>| {
            engine.begin(&queries.part(rows.clone()), k, &exclude_of(exclude, rows))
        };
        let begun = self.each("begin", begin);
        if begun.is_err() {
            self.begun = None;
        }
        begun.map(drop)
    }

    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        let begun = self.begun("visit")?;
        check_visits((begun.rows, begun.dim), part, visits)?;
        self.each("visit", |engine, rows| {
            let own: Vec<Visit> = visits.iter().filter_map(|visit| visit_of(visit, rows)).collect();
            engine.visit(part, &own)
        })
        .map(drop)
    }

    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        // All work at once.
        let each = at_a_time.div_ceil(self.engines.len());
        Ok(self.each("nearest", |engine, _| engine.nearest(part, k, horizon, each))?.concat())
    }

    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        Ok(self.each("bounds", |engine, _| engine.bounds())?.concat())
    }

    fn finish(&mut self) -> Result<TopK, EngineError> {
        let top = self.gathered("finish", |engine| engine.finish())?;
        self.begun = None;
        Ok(top)
    }

    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        self.gathered("snapshot", |engine| engine.snapshot())
    }

    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        let rows = self.begun("restore")?.rows;
        if top.rows() != rows {
            let why = format!("it has {} rows, there are {rows}", top.rows());
            return Err(EngineError::Shape { what: "the saved top-k and the queries", why });
        }
        self.each("restore", |engine, rows| engine.restore(&top.slice(rows.clone()))).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance::{Subject, block, claims, clustered, cut as partitions, k, whole};
    use crate::engine::cpu::{CpuConfig, CpuEngine};
    use crate::metric::{EngineKind, Metric};

    fn cpus(metric: Metric, n: usize) -> Several {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"));
        let cpu = || CpuEngine::new(CpuConfig { metric, pool: Arc::clone(&pool), simd: None }).expect("an engine");
        Several::new((0..n).map(|_| Box::new(cpu()) as Box<dyn Engine>).collect(), pool)
    }

    claims!(Subject { make: &|metric| Box::new(cpus(metric, 3)), kind: EngineKind::Cpu });

    #[test]
    fn any_number_of_equal_engines_finds_the_same_bytes() {
        let (queries, references) = (block(0, 5, clustered(1, 101, 5, 4)), block(0, 5, clustered(2, 900, 5, 4)));
        let find = |n: usize| {
            let mut engine = cpus(Metric::Euclidean, n);
            engine.begin(&queries, k(9), &Exclude::OwnRow).expect("begin");
            for part in partitions(&references, 400) {
                engine.visit(&part, &[whole(&part)]).expect("visit");
            }
            engine.finish().expect("finish")
        };
        let alone = find(1);
        for n in [2, 7, 101, 150] {
            assert_eq!(find(n), alone, "{n} engines");
        }
    }

    #[test]
    fn parts_cover_all_rows_and_memory_is_shared_by_the_queries_alone() {
        assert_eq!(cut(10, 3), [0..3, 3..6, 6..10]);
        assert_eq!(cut(1, 3), [0..0, 0..0, 0..1]);
        let (one, three) = (cpus(Metric::Cosine, 1).limits(50, k(30)), cpus(Metric::Cosine, 3).limits(50, k(30)));
        assert_eq!(three.bytes_per_reference, 3 * one.bytes_per_reference);
        assert_eq!(three.bytes_per_query, one.bytes_per_query);
    }
}
