//! What searches through lists are tried on: rows that lie in several ways, a naive index of them, and one search.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Clock;
use super::pager::References;
use super::progress::{Observer, Silent, Stage, Step, Stop};
use super::search::{Checkpoint, Engines, Search, Unfinished, UnitSink, search};
use crate::block::{RowBlock, RowIds};
use crate::engine::Engine;
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::error::Error;
use crate::metric::Metric;
use crate::plan::search::Order;
use crate::route::all::AllRows;
use crate::route::ivf::Lists;
use crate::route::{Known, Landmarks, Route, Router};
use crate::store::memory::MemorySource;
use crate::topk::TopK;
use crate::units::K;
use crate::visit::Visit;

pub(super) const DIM: usize = 6;

/// References in list order.
pub(super) struct Index {
    pub(super) lists: Arc<Lists>,
    pub(super) rows: MemorySource,
    pub(super) ids: Vec<u64>,
}

/// How rows lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lie {
    Clustered,
    Uniform,
    Identical,
    Outliers,
}

pub(super) fn rows(lie: Lie, n: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut values = Vec::with_capacity(n * DIM);
    for row in 0..n {
        // The cluster of a row does not depend on the seed, so queries lie among the references.
        let cluster = row % 11;
        for column in 0..DIM {
            let noise: f32 = random.random_range(-1.0..1.0);
            values.push(match lie {
                Lie::Clustered => 40.0 * ((cluster * 7 + column * 3) % 13) as f32 + noise,
                Lie::Identical => 0.25,
                Lie::Outliers if row % 50 == 0 => 1e6 * noise,
                Lie::Uniform | Lie::Outliers => noise,
            });
        }
    }
    values
}

pub(super) fn place(row: u64) -> usize {
    usize::try_from(row).unwrap()
}

#[allow(clippy::cast_possible_truncation)] // the rounding that is asked for
pub(super) fn single(value: f64) -> f32 {
    value as f32
}

pub(super) fn block(values: &[f32]) -> RowBlock {
    RowBlock::new(RowIds::Range(0..(values.len() / DIM) as u64), DIM, values.to_vec()).unwrap()
}

/// A row in the space of the lists.
pub(super) fn placed(metric: Metric, row: &[f32]) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    let mean = if metric == Metric::Correlation { row.iter().sum::<f64>() / row.len() as f64 } else { 0.0 };
    let row: Vec<f64> = row.iter().map(|x| x - mean).collect();
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let directional = matches!(metric, Metric::Cosine | Metric::Correlation);
    if directional && norm > 0.0 { row.iter().map(|x| x / norm).collect() } else { row }
}

pub(super) fn apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Puts every row to its nearest centroid. Centroids are every so many rows, and the last one is far from all of them, so
/// that its list is empty; with as many lists as rows, most lists have one row.
pub(super) fn index(metric: Metric, values: &[f32], lists: usize) -> Index {
    let n = values.len() / DIM;
    let mut centroids: Vec<f32> = Vec::new();
    for list in 0..lists {
        let row = (list * n / lists.max(1)).min(n - 1);
        centroids.extend(placed(metric, &values[row * DIM..][..DIM]).iter().map(|&x| single(x)));
    }
    if lists > 2 {
        let far = centroids.len() - DIM..;
        centroids[far].copy_from_slice(&[-7e5, 3.0, 9.0, 1.0, -2.0, 8e5]);
    }
    let centres: Vec<Vec<f64>> =
        centroids.chunks_exact(DIM).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    let mut members = vec![Vec::new(); lists];
    let mut radii = vec![0.0_f32; lists];
    for row in 0..n {
        let at = placed(metric, &values[row * DIM..][..DIM]);
        let nearest = (0..lists).min_by(|&a, &b| apart(&at, &centres[a]).total_cmp(&apart(&at, &centres[b]))).unwrap();
        radii[nearest] = radii[nearest].max(single(apart(&at, &centres[nearest])).next_up());
        members[nearest].push(row as u64);
    }
    let mut offsets = vec![0];
    for rows in &members {
        offsets.push(offsets[offsets.len() - 1] + rows.len() as u64);
    }
    let ids = members.concat();
    let ordered = ids.iter().flat_map(|&id| values[place(id) * DIM..][..DIM].to_vec()).collect();
    let lists = Arc::new(Lists { centroids: block(&centroids), offsets, radii });
    Index { lists, rows: MemorySource::from_f32("lists", DIM, ordered).unwrap(), ids }
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) found: Mutex<Option<TopK>>,
    pub(super) saved: Mutex<Option<Checkpoint>>,
}

impl UnitSink for Kept {
    fn commit(&self, _: u64, top: TopK) -> Result<(), Error> {
        *self.found.lock().unwrap() = Some(top);
        Ok(())
    }
    fn save(&self, unfinished: &Unfinished<'_>) -> Result<(), Error> {
        *self.saved.lock().unwrap() = Some(read_again(unfinished));
        Ok(())
    }
}

/// What was saved, as it is read again.
pub(super) fn read_again(unfinished: &Unfinished<'_>) -> Checkpoint {
    let Unfinished { rows, complete_to, round, references_done, k, top } = unfinished.clone();
    let k = K::new(u32::try_from(k).unwrap()).unwrap();
    let ids = top.iter().flat_map(|part| part.ids.to_vec()).collect();
    let distances = top.iter().flat_map(|part| part.distances.to_vec()).collect();
    let top = TopK::from_parts(k, ids, distances).unwrap();
    assert_eq!(top.rows() as u64, rows.end - rows.start);
    Checkpoint { rows, complete_to, round, references_done, top }
}

/// A router whose partitions are visited in portions of at most so many rows, or all at once.
pub(super) struct Portioned<'a>(pub(super) &'a dyn Router, pub(super) Option<u32>);

impl Router for Portioned<'_> {
    fn landmarks(&self) -> Option<Landmarks<'_>> {
        self.0.landmarks()
    }
    fn rounds(&self) -> u32 {
        self.0.rounds()
    }
    fn route<'r>(&'r self, round: u32, known: &Known<'_>) -> Box<dyn Route + 'r> {
        Box::new(PortionedRoute(self.0.route(round, known), self.1))
    }
}

struct PortionedRoute<'r>(Box<dyn Route + 'r>, Option<u32>);

impl Route for PortionedRoute<'_> {
    fn partitions(&self) -> usize {
        self.0.partitions()
    }
    fn rows(&self, partition: usize) -> &[Range<u64>] {
        self.0.rows(partition)
    }
    fn visits<'v>(&'v self, partition: usize) -> Box<dyn Iterator<Item = Vec<Visit>> + Send + 'v> {
        let visits = self.0.visits(partition).flatten();
        let Some(rows) = self.1 else { return Box::new(std::iter::once(visits.collect())) };
        Box::new(visits.flat_map(move |visit| {
            let starts = visit.rows.clone().step_by(usize::try_from(rows).unwrap());
            starts.map(move |start| {
                let rows = start..visit.rows.end.min(start + rows);
                vec![Visit { rows, queries: visit.queries.clone() }]
            })
        }))
    }
}

/// Asks to stop once it was told of pairs so many times: after so many portions, or partitions of one portion.
pub(super) struct StopAfter<'a>(pub(super) AtomicU64, pub(super) &'a Stop);

impl Observer for StopAfter<'_> {
    fn advance(&self, _: Stage, step: Step) {
        if step.pairs > 0 && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.1.ask();
        }
    }
}

/// One search of `queries`, through an index where there is one.
pub(super) struct Case<'a> {
    pub(super) metric: Metric,
    pub(super) k: u32,
    pub(super) queries: &'a [f32],
    pub(super) references: &'a [f32],
    pub(super) index: Option<&'a Index>,
    pub(super) router: &'a dyn Router,
    pub(super) order: Order,
    pub(super) own_row: bool,
    /// Groups of queries and references.
    pub(super) groups: Option<(&'a [u32], &'a [u32])>,
}

impl Case<'_> {
    /// What is found, and how many pairs were compared for it.
    pub(super) fn run(&self) -> (TopK, u64) {
        let kept = Kept::default();
        let pairs = AtomicU64::new(0);
        self.run_with(&kept, None, &Silent, &Stop::new(), &pairs).unwrap();
        (kept.found.into_inner().unwrap().unwrap(), pairs.into_inner())
    }

    pub(super) fn run_with(
        &self,
        kept: &Kept,
        resume: Option<Checkpoint>,
        observer: &dyn Observer,
        stop: &Stop,
        pairs: &AtomicU64,
    ) -> Result<(), Error> {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let open = || CpuEngine::new(CpuConfig { metric: self.metric, pool: Arc::clone(&pool), simd: None }).unwrap();
        let queries = MemorySource::from_f32("queries", DIM, self.queries.to_vec()).unwrap();
        let plain = MemorySource::from_f32("references", DIM, self.references.to_vec()).unwrap();
        let ids = |rows: Range<u64>| Ok(self.index.unwrap().ids[place(rows.start)..place(rows.end)].to_vec());
        let groups = |rows: Range<u64>| Ok(self.groups.unwrap().0[place(rows.start)..place(rows.end)].to_vec());
        let task = Search {
            queries: &queries,
            query_ids: None,
            query_groups: self.groups.map(|_| &groups as super::search::QueryGroups<'_>),
            references: References {
                source: self.index.map_or(&plain, |index| &index.rows),
                ids: self.index.map(|_| &ids as super::pager::ReadIds<'_>),
                groups: self.groups.map(|(_, references)| references),
            },
            exclude_own_row: self.own_row,
            router: self.router,
            k: K::new(self.k).unwrap(),
            refine: None,
            order: self.order,
            block_rows: 256,
            ranked_rows: 100,
            stage: Stage::Search,
            todo: &[0],
            checkpoint_every: Duration::from_secs(1_000),
            pool: &pool,
            clock: &Clock::default(),
            pairs,
        };
        let mut engine: Box<dyn Engine> = Box::new(open());
        let engines = Engines { engine: &mut engine, reopen: &mut |_, _| Ok(Box::new(open())) };
        search(&task, engines, kept, resume, observer, stop)
    }

    /// The same by comparing every pair.
    pub(super) fn exactly(&self) -> TopK {
        let all = AllRows::new((self.references.len() / DIM) as u64, 1_000);
        Case { index: None, router: &all, ..*self }.run().0
    }
}
