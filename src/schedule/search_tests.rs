//! Claims about searches that are interrupted: a device is lost, or somebody asks to stop.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::block::RowBlock;
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::engine::gpu::tests::adapter;
use crate::engine::gpu::{DEFAULT_MEMORY, GpuConfig, GpuEngine};
use crate::engine::{EngineLimits, Exclude, Horizon, Partition};
use crate::metric::Metric;
use crate::route::all::AllRows;
use crate::schedule::blocks::unit_count;
use crate::schedule::lists_case_tests::{Portioned, read_again};
use crate::schedule::progress::Silent;
use crate::store::counted::Counted;
use crate::store::memory::MemorySource;
use crate::units::UNIT_ROWS;

const REFERENCES: u64 = 90;
const BLOCK: u64 = 256;
const QUERIES: u64 = 600;
/// Of a partition that is visited at a time: less than all.
const PORTION: Option<u32> = Some(7);

/// An engine whose device is lost at this visit of a block while there are losses left.
struct Losing<E> {
    inner: E,
    lose: fn(&mut E) -> Result<(), EngineError>,
    at: u32,
    visits: u32,
    left: Arc<AtomicU32>,
}

impl<E: Engine> Engine for Losing<E> {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        self.inner.limits(dim, k)
    }
    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        self.visits = 0;
        self.inner.begin(queries, k, exclude)
    }
    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        self.visits += 1;
        let lose = |left: u32| left.checked_sub(1);
        if self.visits == self.at && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            (self.lose)(&mut self.inner)?;
        }
        self.inner.visit(part, visits)
    }
    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        self.inner.nearest(part, k, horizon, at_a_time)
    }
    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        self.inner.bounds()
    }
    fn finish(&mut self) -> Result<TopK, EngineError> {
        self.inner.finish()
    }
    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        self.inner.snapshot()
    }
    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        self.inner.restore(top)
    }
}

#[derive(Default)]
struct Kept {
    units: Mutex<Vec<(u64, TopK)>>,
    saved: Mutex<Vec<Checkpoint>>,
}

impl UnitSink for Kept {
    fn commit(&self, unit: u64, top: TopK) -> Result<(), Error> {
        self.units.lock().unwrap().push((unit, top));
        Ok(())
    }
    fn save(&self, unfinished: &Unfinished<'_>) -> Result<(), Error> {
        self.saved.lock().unwrap().push(read_again(unfinished));
        Ok(())
    }
}

/// Counts pairs, and how often it was told of some.
#[derive(Default)]
struct Pairs(AtomicU64, AtomicU64);

impl Observer for Pairs {
    fn advance(&self, _stage: Stage, step: Step) {
        self.0.fetch_add(step.pairs, Ordering::SeqCst);
        self.1.fetch_add(u64::from(step.pairs > 0), Ordering::SeqCst);
    }
}

fn rows(n: u64, seed: u64) -> MemorySource {
    let values = (0..n * 3).map(|i| ((i * 7919 + seed * 104_729) % 1_009) as f32).collect();
    MemorySource::from_f32("rows", 3, values).unwrap()
}

fn pool() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap())
}

fn cpu(pool: &Arc<rayon::ThreadPool>) -> CpuEngine {
    CpuEngine::new(CpuConfig { metric: Metric::Euclidean, pool: Arc::clone(pool), simd: None }).unwrap()
}

/// Searches with a device that is lost so often at the second visit of a block; what came of it, what was kept, and the reopenings that were asked for.
fn run(losses: u32, resume: Option<Checkpoint>, observer: &dyn Observer) -> (Result<(), Error>, Kept, Vec<u32>) {
    let router = AllRows::new(REFERENCES, 25);
    run_losing((losses, 2), Given { resume, ..Given::new(&router, observer, &Stop::new()) })
}

/// The same at another visit.
fn run_losing((losses, at): (u32, u32), given: Given<'_>) -> (Result<(), Error>, Kept, Vec<u32>) {
    let pool = pool();
    let left = Arc::new(AtomicU32::new(losses));
    let open = || -> Box<dyn Engine> {
        let lose = |_: &mut CpuEngine| Err(EngineError::DeviceLost { adapter: "A card".to_owned() });
        Box::new(Losing { inner: cpu(&pool), lose, at, visits: 0, left: Arc::clone(&left) })
    };
    run_on(&pool, &open, given)
}

/// What a search is given beside its engine.
struct Given<'a> {
    resume: Option<Checkpoint>,
    observer: &'a dyn Observer,
    /// Neighbours that stay of those that are searched, and what they are measured against.
    refined: Option<(K, &'a dyn Source)>,
    stop: &'a Stop,
    router: &'a dyn Router,
    checkpoint_every: Duration,
    queries: u64,
    block_rows: u64,
}

impl<'a> Given<'a> {
    fn new(router: &'a dyn Router, observer: &'a dyn Observer, stop: &'a Stop) -> Self {
        let (queries, block_rows, checkpoint_every) = (QUERIES, BLOCK, Duration::from_secs(1_000));
        Self { resume: None, observer, refined: None, stop, router, checkpoint_every, queries, block_rows }
    }
}

/// The same on engines of any kind.
fn run_on(
    pool: &rayon::ThreadPool,
    open: &dyn Fn() -> Box<dyn Engine>,
    given: Given<'_>,
) -> (Result<(), Error>, Kept, Vec<u32>) {
    let Given { resume, observer, refined, stop, router, checkpoint_every, queries, block_rows } = given;
    let todo: Vec<u64> = (0..unit_count(queries)).collect();
    let (queries, references) = (rows(queries, 1), rows(REFERENCES, 2));
    let metric = Metric::Euclidean;
    let clock = Clock::default();
    let task = Search {
        queries: &queries,
        query_ids: None,
        query_groups: None,
        references: References { source: &references, ids: None, groups: None },
        exclude_own_row: false,
        router,
        k: K::new(5).unwrap(),
        refine: refined.map(|(k, references)| Refine { references, metric, k, window_rows: 40 }),
        order: Order::QueriesStay,
        block_rows,
        ranked_rows: block_rows,
        stage: Stage::Search,
        todo: &todo,
        checkpoint_every,
        pool,
        clock: &clock,
        pairs: &AtomicU64::new(0),
    };
    let mut reopened = Vec::new();
    let mut reopen = |lost: u32, _: &EngineError| {
        reopened.push(lost);
        Ok(open())
    };
    let (mut engine, kept) = (open(), Kept::default());
    let engines = Engines { engine: &mut engine, reopen: &mut reopen };
    let result = search(&task, engines, &kept, resume, observer, stop);
    (result, kept, reopened)
}

#[test]
fn a_lost_device_is_opened_again_and_the_block_repeated_with_the_same_bytes() {
    let whole = run(0, None, &Silent).1.units.into_inner().unwrap();
    for (losses, wanted) in [(0, vec![]), (1, vec![1]), (2, vec![1, 2])] {
        let observer = Pairs::default();
        let (result, kept, reopened) = run(losses, None, &observer);
        result.unwrap();
        assert_eq!((kept.units.into_inner().unwrap(), reopened), (whole.clone(), wanted), "{losses} losses");
        assert_eq!(observer.0.into_inner(), QUERIES * REFERENCES, "{losses} losses");
    }
}

#[test]
fn pairs_are_told_portion_by_portion_and_once_also_where_a_device_is_lost_within_a_partition() {
    let whole = run(0, None, &Silent).1.units.into_inner().unwrap();
    let all = AllRows::new(REFERENCES, 25);
    let router = Portioned(&all, PORTION);
    // Visits 5 to 8 are those of the second partition.
    for (losses, at) in [(0, 0), (1, 2), (1, 4), (2, 5), (1, 6), (2, 8), (1, 15)] {
        let observer = Pairs::default();
        let (result, kept, reopened) = run_losing((losses, at), Given::new(&router, &observer, &Stop::new()));
        result.unwrap();
        assert_eq!((kept.units.into_inner().unwrap(), reopened.len()), (whole.clone(), losses as usize));
        let told = (observer.0.into_inner(), observer.1.into_inner());
        assert_eq!(told, (QUERIES * REFERENCES, 3 * (3 * 4 + 3)), "{losses} losses at visit {at}");
    }
}

#[test]
fn a_checkpoint_is_saved_within_a_partition_where_it_is_time_and_goes_on_to_the_same_bytes() {
    let whole = run(0, None, &Silent).1.units.into_inner().unwrap();
    let all = AllRows::new(REFERENCES, 25);
    let router = Portioned(&all, PORTION);
    let stop = Stop::new();
    let given = Given { checkpoint_every: Duration::ZERO, ..Given::new(&router, &Silent, &stop) };
    let (result, kept, _) = run_losing((0, 0), given);
    result.unwrap();
    let saved = kept.saved.into_inner().unwrap();
    // In each of three blocks all borders but the last, and two borders between blocks.
    assert_eq!(saved.len(), 3 * (3 * 4 + 2) + 2);
    for saved in saved {
        assert!([0, 25, 50, 75].contains(&saved.references_done), "{} of a partition", saved.references_done);
        let standing = (saved.rows.clone(), saved.complete_to, saved.references_done);
        let (result, kept, _) = run(0, Some(saved), &Silent);
        result.unwrap();
        assert_eq!(kept.units.into_inner().unwrap(), whole, "from {standing:?}");
    }
}

#[test]
fn a_gpu_that_is_lost_in_the_middle_is_opened_again_with_the_same_bytes() {
    let Some(adapter) = adapter() else { return };
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let find = |losses: u32| {
        let left = Arc::new(AtomicU32::new(losses));
        let open = || -> Box<dyn Engine> {
            let inner = GpuEngine::new(GpuConfig {
                metric: Metric::Euclidean,
                pool: Arc::clone(&pool),
                adapter: adapter.clone(),
                variant: None,
                memory: DEFAULT_MEMORY,
                pairs_per_second: None,
            });
            // The device is gone and nothing is said: the engine itself must notice.
            let lose = |engine: &mut GpuEngine| {
                engine.lose();
                Ok(())
            };
            Box::new(Losing { inner: inner.unwrap(), lose, at: 2, visits: 0, left: Arc::clone(&left) })
        };
        let router = AllRows::new(REFERENCES, 25);
        let (result, kept, reopened) = run_on(&pool, &open, Given::new(&router, &Silent, &Stop::new()));
        result.unwrap();
        (kept.units.into_inner().unwrap(), reopened)
    };
    let (whole, _) = find(0);
    assert_eq!(find(2), (whole, vec![1, 2]));
}

#[test]
fn a_device_lost_three_times_in_one_block_ends_the_search() {
    let (result, kept, reopened) = run(3, None, &Silent);
    assert!(matches!(result, Err(Error::Engine(EngineError::DeviceLost { .. }))));
    assert_eq!(reopened, [1, 2]);
    assert!(kept.units.into_inner().unwrap().is_empty() && kept.saved.into_inner().unwrap().is_empty());
}

#[test]
fn a_checkpoint_in_the_middle_of_a_partition_visits_only_what_was_not_seen() {
    let whole = run(0, None, &Silent).1.units.into_inner().unwrap();
    // As if another engine had seen the first 30 references, and none of them was near.
    let top = TopK::empty(100, K::new(5).unwrap());
    let checkpoint = Checkpoint { rows: 0..100, complete_to: 0, round: 0, references_done: 30, top };
    let observer = Pairs::default();
    let (result, kept, _) = run(0, Some(checkpoint), &observer);
    result.unwrap();
    let units = kept.units.into_inner().unwrap();
    for row in 0..100 {
        let ids = units[0].1.row(row).0;
        assert!(ids.iter().all(|&id| (30..REFERENCES).contains(&id)), "{ids:?}");
    }
    assert_eq!(units[0].1.row(100), whole[0].1.row(100));
    assert_eq!(observer.0.into_inner(), QUERIES * REFERENCES - 100 * 30);
}

#[test]
fn a_timed_checkpoint_never_holds_less_than_the_one_that_is_gone_on_with() {
    let whole = run(0, None, &Silent).1.units.into_inner().unwrap();
    let (router, stop) = (AllRows::new(REFERENCES, 25), Stop::new());
    // Resumed in smaller blocks than it was saved in.
    let top = TopK::empty(500, K::new(5).unwrap());
    let resume = Some(Checkpoint { rows: 0..500, complete_to: 0, round: 0, references_done: 0, top });
    let given =
        Given { resume, block_rows: 100, checkpoint_every: Duration::ZERO, ..Given::new(&router, &Silent, &stop) };
    let (result, kept, _) = run_losing((0, 0), given);
    result.unwrap();
    assert_eq!(kept.units.into_inner().unwrap(), whole);
    let saved = kept.saved.into_inner().unwrap();
    assert!(!saved.is_empty() && saved.iter().all(|saved| saved.rows.end >= 500), "{:?}", saved[0].rows);
}

/// Asks to stop once so many rows were searched.
struct Asking<'a>(AtomicU64, u64, &'a Stop);

impl Observer for Asking<'_> {
    fn advance(&self, _stage: Stage, step: Step) {
        if self.0.fetch_add(step.rows, Ordering::SeqCst) + step.rows >= self.1 {
            self.2.ask();
        }
    }
}

#[test]
fn a_search_that_is_asked_to_stop_before_it_refines_saves_what_it_found_and_goes_on_to_the_same_bytes() {
    let (pool, router) = (pool(), AllRows::new(REFERENCES, 25));
    let references = rows(REFERENCES, 2);
    let refined: Option<(K, &dyn Source)> = Some((K::new(3).unwrap(), &references));
    let run = |resume, observer: &dyn Observer, stop: &Stop| {
        let given = Given { resume, refined, ..Given::new(&router, observer, stop) };
        let (result, kept, _) = run_on(&pool, &|| Box::new(cpu(&pool)), given);
        (result, kept.units.into_inner().unwrap(), kept.saved.into_inner().unwrap())
    };
    let (result, whole, _) = run(None, &Silent, &Stop::new());
    result.unwrap();
    let stop = Stop::new();
    let (result, units, mut saved) = run(None, &Asking(AtomicU64::new(0), QUERIES, &stop), &stop);
    assert!(matches!(result, Err(Error::Job(JobError::Interrupted))) && units.is_empty());
    let checkpoint = saved.pop().unwrap();
    assert_eq!((checkpoint.rows.clone(), checkpoint.complete_to, checkpoint.top.k()), (0..QUERIES, QUERIES, 5));
    // Asked again at once, it keeps the checkpoint as it is.
    let (result, units, saved) = run(Some(checkpoint.clone()), &Silent, &stop);
    assert!(matches!(result, Err(Error::Job(JobError::Interrupted))) && units.is_empty() && saved.is_empty());
    let (result, units, _) = run(Some(checkpoint), &Silent, &Stop::new());
    result.unwrap();
    assert_eq!(units, whole);
}

#[test]
fn units_that_were_stopped_before_they_were_refined_are_refined_together_as_far_as_a_block_reaches() {
    let (pool, router) = (pool(), AllRows::new(REFERENCES, 25));
    let queries = 2 * UNIT_ROWS + 1_000;
    let run = |resume, block_rows, observer: &dyn Observer, stop: &Stop| {
        let references = Counted::new(Arc::new(rows(REFERENCES, 2)));
        let refined: Option<(K, &dyn Source)> = Some((K::new(3).unwrap(), &references));
        let given = Given { resume, refined, queries, block_rows, ..Given::new(&router, observer, stop) };
        let (result, kept, _) = run_on(&pool, &|| Box::new(cpu(&pool)), given);
        let (units, saved) = (kept.units.into_inner().unwrap(), kept.saved.into_inner().unwrap());
        (result, units, saved, references.rows_read())
    };
    let (result, whole, _, once) = run(None, queries, &Silent, &Stop::new());
    result.unwrap();
    assert!(whole.len() == 3 && once <= REFERENCES);
    let stop = Stop::new();
    let (result, units, mut saved, _) = run(None, queries, &Asking(AtomicU64::new(0), queries, &stop), &stop);
    assert!(matches!(result, Err(Error::Job(JobError::Interrupted))) && units.is_empty());
    let checkpoint = saved.pop().unwrap();
    assert_eq!((checkpoint.rows.clone(), checkpoint.complete_to), (0..queries, queries));
    for (block_rows, passes) in [(queries, 1), (2 * UNIT_ROWS, 2), (UNIT_ROWS, 3), (BLOCK, 3)] {
        let (result, units, _, read) = run(Some(checkpoint.clone()), block_rows, &Silent, &Stop::new());
        result.unwrap();
        assert!(units == whole && read <= passes * once, "blocks of {block_rows} read {read} rows");
        assert!(read > (passes - 1) * once, "blocks of {block_rows} read {read} rows");
    }
}
