//! The engine: queries and their top-k, and the graph of the partition that was visited last.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rayon::prelude::*;

use super::graph::Graph;
use super::space::{Space, take_compared};
use super::{GraphOptions, HnswConfig, check_metric};
use crate::block::{EachRow, RowBlock};
use crate::engine::cpu::Measure;
use crate::engine::cpu::exact::check_rows;
use crate::engine::visits::check_visits;
use crate::engine::{
    Engine, EngineLimits, Exclude, Horizon, NO_GROUP, Partition, Visit, VisitQueries, nearest_in_pieces,
};
use crate::error::EngineError;
use crate::metric::EngineKind;
use crate::plan::graph::bytes_per_row;
use crate::topk::{TopK, nearer};
use crate::units::K;

/// How often a search that led to fewer than k is repeated with more candidates, before every row is compared.
const RAISES: u32 = 2;
/// And with how many times as many.
const RAISE: usize = 4;
/// Distances between rows that a thread computes in a second, times dimensions and what each costs beside: rows are read
/// from all over the memory, and most of the time goes into the crate's sets and heaps.
const RATE: f64 = 1e9;
const COST_BESIDE: usize = 150;
/// What a thread holds for a candidate: in the crate's heaps, in its set of rows seen, and with its exact distance.
const CANDIDATE_BYTES: u64 = 4_096;

/// Approximate search through a graph. What is found has its exact distance, and never fewer than k are found where there
/// are k.
pub struct HnswEngine {
    config: HnswConfig,
    options: GraphOptions,
    measure: Measure,
    begun: Option<Begun>,
    /// The graph of a partition that somebody holds.
    graph: Option<(Weak<Partition>, Graph)>,
}

struct Begun {
    block: RowBlock,
    k: K,
    exclude: Exclude,
    top: TopK,
}

/// What a thread works in.
#[derive(Default)]
struct Room {
    placed: Vec<f32>,
    rows: Vec<usize>,
    near: Vec<(f32, u64)>,
    decoded: Vec<f32>,
}

impl HnswEngine {
    /// An engine with nothing loaded.
    ///
    /// # Errors
    /// A metric or options that no graph can be made with.
    pub fn new(config: HnswConfig) -> Result<Self, EngineError> {
        check_metric(config.metric)?;
        let options = config.options.check()?;
        Ok(Self { measure: Measure::of(config.metric), config, options, begun: None, graph: None })
    }

    fn begun(&self, call: &'static str) -> Result<&Begun, EngineError> {
        self.begun.as_ref().ok_or(EngineError::NotBegun { call })
    }

    /// Builds the graph of a partition, unless it is the one at hand.
    fn build(&mut self, part: &Arc<Partition>) -> Result<(), EngineError> {
        let same =
            |(known, _): &(Weak<Partition>, Graph)| known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, part));
        if self.graph.as_ref().is_some_and(same) {
            return Ok(());
        }
        // There is room for one.
        self.graph = None;
        let HnswConfig { metric, pool, counts, stop, .. } = &self.config;
        let began = Instant::now();
        let space = pool.install(|| Space::of(*metric, &part.block));
        let graph = Graph::build(space, &part.block, self.options, pool, (stop, &counts.pairs))?;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        counts.building_ms.fetch_add(took, Ordering::Relaxed);
        self.graph = Some((Arc::downgrade(part), graph));
        Ok(())
    }

    /// The neighbours of some queries among rows of a partition, through its graph where there is one.
    fn found(&self, part: &Partition, rows: &Range<usize>, queries: &[usize]) -> Result<TopK, EngineError> {
        let begun = self.begun("visit")?;
        let graph = self.graph.as_ref().map(|(_, graph)| graph).filter(|_| self.by_graph(part, rows));
        let each = |room: &mut Room, &query: &usize| {
            let asked = Asked { engine: self, begun, part, query };
            let nearest = asked.nearest(graph, rows, room);
            self.config.counts.pairs.fetch_add(take_compared(), Ordering::Relaxed);
            nearest
        };
        let nearest: Result<Vec<Vec<(f32, u64)>>, EngineError> =
            self.config.pool.install(|| queries.par_iter().map_init(Room::default, each).collect());
        let mut top = TopK::empty(begun.block.rows(), begun.k);
        queries.iter().zip(nearest?).for_each(|(&query, nearest)| top.set_row(query, &nearest));
        Ok(top)
    }

    /// Whether these rows are searched through a graph: all of a partition that has enough of them.
    fn by_graph(&self, part: &Partition, rows: &Range<usize>) -> bool {
        *rows == (0..part.block.rows()) && rows.len() > self.config.exact_rows
    }
}

/// One query and what it is compared with.
struct Asked<'a> {
    engine: &'a HnswEngine,
    begun: &'a Begun,
    part: &'a Partition,
    query: usize,
}

impl Asked<'_> {
    /// Its k nearest, in order.
    fn nearest(
        &self,
        graph: Option<&Graph>,
        rows: &Range<usize>,
        room: &mut Room,
    ) -> Result<Vec<(f32, u64)>, EngineError> {
        let k = self.begun.k.get();
        let Some(graph) = graph else { return Ok(self.among(rows.clone(), (&mut room.near, &mut room.decoded))) };
        let ef = usize::try_from(self.engine.options.ef).unwrap_or(usize::MAX).max(k);
        let placed = graph.space().place(self.begun.block.row(self.query), &mut room.placed);
        for raise in (0..=RAISES).filter(|_| placed) {
            let ef = ef.saturating_mul(RAISE.pow(raise));
            if ef >= rows.len() {
                break;
            }
            graph.nearest(&room.placed, ef, &mut room.rows)?;
            let found = self.among(room.rows.iter().copied(), (&mut room.near, &mut room.decoded));
            if found.len() == k {
                return Ok(found);
            }
        }
        self.engine.config.counts.compared_with_all.fetch_add(1, Ordering::Relaxed);
        self.engine.config.counts.pairs.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(self.among(rows.clone(), (&mut room.near, &mut room.decoded)))
    }

    /// The k nearest of these rows that it may get, by exact distance.
    fn among(
        &self,
        rows: impl Iterator<Item = usize>,
        (near, decoded): (&mut Vec<(f32, u64)>, &mut Vec<f32>),
    ) -> Vec<(f32, u64)> {
        let (k, block) = (self.begun.k.get(), &self.part.block);
        let row = self.begun.block.row(self.query);
        near.clear();
        for other in rows.filter(|&other| self.may_get(other)) {
            let distance = self.engine.measure.distance(row, block.row_in(other, decoded));
            near.push((distance, block.ids().get(other).0));
            if near.len() == 2 * k {
                near.select_nth_unstable_by(k - 1, |a, b| nearer(*a, *b));
                near.truncate(k);
            }
        }
        near.sort_unstable_by(|a, b| nearer(*a, *b));
        near.truncate(k);
        near.clone()
    }

    fn may_get(&self, other: usize) -> bool {
        let own = |own_row: bool| own_row && self.part.block.ids().get(other) == self.begun.block.ids().get(self.query);
        let excluded = match &self.begun.exclude {
            Exclude::Nothing => false,
            Exclude::OwnRow => own(true),
            Exclude::SameGroup { groups, own_row } => {
                let group = groups[self.query];
                let same = |theirs: &Vec<u32>| group != NO_GROUP && theirs[other] == group;
                own(*own_row) || self.part.groups.as_ref().is_some_and(same)
            }
        };
        !excluded && self.part.mask.as_ref().is_none_or(|mask| mask[other])
    }
}

impl Engine for HnswEngine {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        let (dim_wide, k_wide, threads) = (dim as u64, k.get() as u64, self.config.pool.current_num_threads() as u64);
        let ef = u64::from(self.options.ef.max(self.options.ef_construction)).max(k_wide);
        EngineLimits {
            kind: EngineKind::Cpu,
            // Its row, its group, what was found before and now, and that in order.
            bytes_per_query: dim_wide * 4 + 4 + 2 * k_wide * 12 + k_wide * 16 + 32,
            bytes_per_reference: bytes_per_row(dim_wide, u64::from(self.options.m)),
            bytes_fixed: threads * ef * CANDIDATE_BYTES + (1 << 20),
            // One graph is made of all rows.
            partition_bytes_max: u64::MAX,
            pairs_per_second: RATE * threads as f64 / (dim + COST_BESIDE) as f64,
            device: None,
        }
    }

    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        self.begun = None;
        self.config.pool.install(|| check_rows(self.config.metric, queries, "query"))?;
        if let Exclude::SameGroup { groups, .. } = exclude
            && groups.len() != queries.rows()
        {
            let why = format!("{} groups were given for {} queries", groups.len(), queries.rows());
            return Err(EngineError::Shape { what: "exclusion groups", why });
        }
        let top = TopK::empty(queries.rows(), k);
        self.begun = Some(Begun { block: queries.clone(), k, exclude: exclude.clone(), top });
        Ok(())
    }

    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        let block = &self.begun("visit")?.block;
        let queries = block.rows();
        check_visits((queries, block.dim()), part, visits)?;
        self.config.pool.install(|| check_rows(self.config.metric, &part.block, "reference"))?;
        let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        for visit in visits {
            let rows = wide(visit.rows.start)..wide(visit.rows.end);
            if self.by_graph(part, &rows) {
                self.build(part)?;
            }
            let asking: Vec<usize> = match &visit.queries {
                VisitQueries::All => (0..queries).collect(),
                VisitQueries::List(list) => list.iter().copied().map(wide).collect(),
            };
            let found = self.found(part, &rows, &asking)?;
            if let Some(begun) = &mut self.begun {
                begun.top.merge(&found);
            }
        }
        Ok(())
    }

    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        let begun = self.begun.take().ok_or(EngineError::NotBegun { call: "nearest" })?;
        let pool = Arc::clone(&self.config.pool);
        let near = pool.install(|| nearest_in_pieces(self, &begun.block, part, (k, horizon), at_a_time));
        self.begun = Some(begun);
        near
    }

    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        let top = &self.begun("bounds")?.top;
        Ok(top.distances().iter().skip(top.k() - 1).step_by(top.k()).copied().collect())
    }

    fn finish(&mut self) -> Result<TopK, EngineError> {
        self.begun.take().map(|begun| begun.top).ok_or(EngineError::NotBegun { call: "finish" })
    }

    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        Ok(self.begun("snapshot")?.top.clone())
    }

    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        let begun = self.begun.as_mut().ok_or(EngineError::NotBegun { call: "restore" })?;
        if (top.rows(), top.k()) != (begun.block.rows(), begun.k.get()) {
            let why = format!(
                "it has {} rows of {}, for {} queries and k = {}",
                top.rows(),
                top.k(),
                begun.block.rows(),
                begun.k
            );
            return Err(EngineError::Shape { what: "a saved top-k", why });
        }
        begun.top = top.clone();
        Ok(())
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
