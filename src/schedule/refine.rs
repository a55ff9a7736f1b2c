//! What a compressed index found gets its exact distances from the reference, and the k nearest of it stay.
//!
//! The reference is gone through once, in windows of rows: of each, what some query found is read and measured. So memory
//! does not grow with what was found, and no row is read twice. A run that is asked to stop does so between windows, and
//! hands back what was found for whoever saves it: measuring it again gives the same.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::blocks::unit_rows;
use super::pager::read_rows;
use super::progress::Stop;
use super::queries::read_queries;
use super::search::Search;
use super::{Clock, Part};
use crate::block::{RowBlock, RowIds};
use crate::engine::cpu::Measure;
use crate::error::{Error, JobError};
use crate::metric::Metric;
use crate::store::Source;
use crate::topk::{PADDING, TopK, nearer};
use crate::units::K;

/// Rows that nobody found between others are read with them where they are no more than this.
const GAP_ROWS: u64 = 32;
/// Rows of a word of what is needed.
const WORD: u64 = 64;

/// How to refine.
#[derive(Clone, Copy)]
pub struct Refine<'a> {
    /// The reference as it is, by id.
    pub references: &'a dyn Source,
    /// The metric.
    pub metric: Metric,
    /// Neighbours that stay.
    pub k: K,
    /// References of a window.
    pub window_rows: u64,
}

/// What was found for some queries.
#[derive(Debug)]
pub struct Candidates {
    /// Where they begin in their block.
    pub first: usize,
    /// What was found.
    pub top: TopK,
}

/// The same while it is measured.
struct Measured {
    first: usize,
    width: usize,
    ids: Vec<u64>,
    distances: Vec<f32>,
}

/// What came of some candidates.
#[derive(Debug)]
pub enum Refined {
    /// The nearest of each query.
    Done(Vec<TopK>),
    /// All of them, where the run was asked to stop: in order, some by their exact distance and some not yet.
    Stopped(Vec<TopK>),
}

/// What refining works with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The threads to work on.
    pub pool: &'a rayon::ThreadPool,
    /// Where time is counted.
    pub clock: &'a Clock,
    /// Who may ask to stop.
    pub stop: &'a Stop,
}

impl Refine<'_> {
    /// The k nearest candidates of each query by exact distance, in the order of `found`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn run(&self, queries: &RowBlock, found: Vec<Candidates>, means: Means<'_>) -> Result<Refined, Error> {
        let Means { pool, clock, stop } = means;
        let mut measured: Vec<Measured> = found
            .into_iter()
            .map(|Candidates { first, top }| {
                let width = top.k();
                let (ids, distances) = top.into_parts();
                Measured { first, width, ids, distances }
            })
            .collect();
        let rows = self.references.rows();
        let mut start = 0;
        while start < rows {
            if stop.asked() {
                self.references.release();
                let all = |found: &Measured| nearest(found, found.width);
                return Ok(Refined::Stopped(pool.install(|| measured.iter().map(all).collect::<Result<_, _>>())?));
            }
            let window = start..rows.min(start + self.window_rows.max(1));
            start = window.end;
            let runs = clock.time(Part::Search, || pool.install(|| needed(&measured, &window)));
            if runs.is_empty() {
                continue;
            }
            let length: u64 = runs.iter().map(|run| run.end - run.start).sum();
            let ids = RowIds::Range(0..length);
            let block = clock.time(Part::Read, || read_rows(self.references, &runs, ids, pool))?;
            let near = Near::new(runs, block);
            let measure = |found: &mut Measured| self.measure(queries, found, &window, &near);
            clock.time(Part::Search, || pool.install(|| measured.iter_mut().for_each(measure)));
        }
        self.references.release();
        let nearest = |found: &Measured| nearest(found, self.k.get());
        let done =
            clock.time(Part::Search, || pool.install(|| measured.iter().map(nearest).collect::<Result<_, _>>()))?;
        Ok(Refined::Done(done))
    }

    /// Gives what lies in a window its exact distance.
    fn measure(&self, queries: &RowBlock, found: &mut Measured, window: &Range<u64>, near: &Near) {
        let (first, width, pairs) = (found.first, found.width, Measure::of(self.metric));
        let rows = found.distances.par_chunks_mut(width).zip(found.ids.par_chunks(width));
        rows.enumerate().for_each(|(row, (distances, ids))| {
            for (distance, id) in distances.iter_mut().zip(ids).filter(|(_, id)| window.contains(id)) {
                *distance = pairs.distance(queries.row(first + row), near.row(*id));
            }
        });
    }
}

/// The nearest of each row, in order, so many of them.
fn nearest(found: &Measured, k: usize) -> Result<TopK, Error> {
    let rows = found.ids.len() / found.width;
    let (mut ids, mut distances) = (vec![PADDING; rows * k], vec![f32::INFINITY; rows * k]);
    let kept = ids.par_chunks_mut(k).zip(distances.par_chunks_mut(k));
    let candidates = found.ids.par_chunks(found.width).zip(found.distances.par_chunks(found.width));
    kept.zip(candidates).for_each_init(Vec::new, |order: &mut Vec<(f32, u64)>, ((ids, distances), candidates)| {
        order.clear();
        let there = candidates.1.iter().copied().zip(candidates.0.iter().copied());
        order.extend(there.filter(|(_, id)| *id != PADDING));
        order.sort_unstable_by(|a, b| nearer(*a, *b));
        for ((id, distance), nearest) in ids.iter_mut().zip(distances).zip(order) {
            (*distance, *id) = *nearest;
        }
    });
    let wrong = || JobError::Unfit("neighbours got a distance that is no number".to_owned());
    let k = u32::try_from(k).ok().and_then(|k| K::new(k).ok()).ok_or_else(wrong)?;
    Ok(TopK::from_parts(k, ids, distances).ok_or_else(wrong)?)
}

/// Units and what was found for their queries.
pub(super) type Units = Vec<(u64, TopK)>;

/// Units as they are handed on, and behind them those that are not refined because the run was asked to stop. Those that lie
/// in the block in hand are refined together, so that the references are gone through once for all of them.
pub(super) fn refined(
    search: &Search<'_>,
    units: Units,
    block: Option<(&Range<u64>, &RowBlock)>,
    stop: &Stop,
) -> Result<(Units, Units), Error> {
    let Some(refine) = &search.refine else { return Ok((units, Vec::new())) };
    let means = Means { pool: search.pool, clock: search.clock, stop };
    let rows_of = |unit: u64| unit_rows(unit, search.queries.rows());
    let covers = block.map_or(0..0, |(rows, _)| rows.clone());
    let inside = |unit: u64| covers.start <= rows_of(unit).start && rows_of(unit).end <= covers.end;
    let (together, others): (Vec<_>, Vec<_>) = units.into_iter().partition(|(unit, _)| inside(*unit));
    let (mut done, mut left) = (Vec::new(), Vec::new());
    let mut take = |numbers: Vec<u64>, refined: Refined| match refined {
        Refined::Done(tops) => done.extend(numbers.into_iter().zip(tops)),
        Refined::Stopped(tops) => left.extend(numbers.into_iter().zip(tops)),
    };
    for (unit, top) in others {
        let (queries, _) = read_queries(search, &rows_of(unit))?;
        take(vec![unit], refine.run(&queries, vec![Candidates { first: 0, top }], means)?);
    }
    if let Some((rows, queries)) = block.filter(|_| !together.is_empty()) {
        let numbers: Vec<u64> = together.iter().map(|(unit, _)| *unit).collect();
        let first = |unit: u64| usize::try_from(rows_of(unit).start - rows.start).unwrap_or(usize::MAX);
        let found = together.into_iter().map(|(unit, top)| Candidates { first: first(unit), top }).collect();
        take(numbers, refine.run(queries, found, means)?);
    }
    Ok((done, left))
}

/// Rows of a window that were read.
struct Near {
    runs: Vec<Range<u64>>,
    /// Where each run begins in the block.
    places: Vec<u64>,
    block: RowBlock,
}

impl Near {
    fn new(runs: Vec<Range<u64>>, block: RowBlock) -> Self {
        let mut places = vec![0];
        for run in &runs {
            places.push(places[places.len() - 1] + run.end - run.start);
        }
        Self { runs, places, block }
    }

    /// A row that is among them.
    fn row(&self, id: u64) -> &[f32] {
        // A search among runs costs less than the distance that follows.
        let at = self.runs.partition_point(|run| run.end <= id);
        self.block.row(usize::try_from(self.places[at] + id - self.runs[at].start).unwrap_or(usize::MAX))
    }
}

/// The rows of a window that somebody found, as runs.
fn needed(found: &[Measured], window: &Range<u64>) -> Vec<Range<u64>> {
    let words: Vec<AtomicU64> = (window.start / WORD..window.end.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect();
    let first = window.start / WORD;
    let word = |id: u64| &words[usize::try_from(id / WORD - first).unwrap_or(usize::MAX)];
    for found in found {
        found.ids.par_iter().filter(|id| window.contains(id)).for_each(|id| {
            word(*id).fetch_or(1 << (id % WORD), Ordering::Relaxed);
        });
    }
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (base, word) in (first * WORD..).step_by(64).zip(words) {
        let mut word = word.into_inner();
        while word != 0 {
            let id = base + u64::from(word.trailing_zeros());
            word &= word - 1;
            match runs.last_mut() {
                Some(run) if id <= run.end + GAP_ROWS => run.end = id + 1,
                _ => runs.push(id..id + 1),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;
    use crate::metric::EngineKind;
    use crate::oracle::search as oracle;
    use crate::store::FloatType;
    use crate::store::counted::Counted;
    use crate::store::memory::MemorySource;

    const DIM: usize = 5;

    fn values(rows: usize, seed: usize) -> Vec<f32> {
        (0..rows * DIM).map(|i| ((i * 7919 + seed * 104_729) % 1_009) as f32 / 100.0).collect()
    }

    fn block(rows: usize, seed: usize) -> RowBlock {
        RowBlock::new(RowIds::Range(0..rows as u64), DIM, values(rows, seed)).unwrap()
    }

    /// Candidates in an order that has nothing to do with their distances: every third row, and padding.
    fn candidates(rows: usize, references: u64) -> TopK {
        let mut top = TopK::empty(rows, K::new(40).unwrap());
        for row in 0..rows {
            let ids = (row as u64 % 3..references).step_by(3);
            let found: Vec<(f32, u64)> = ids.take(33).enumerate().map(|(i, id)| (i as f32, id)).collect();
            top.set_row(row, &found);
        }
        top
    }

    fn means<'a>(pool: &'a rayon::ThreadPool, clock: &'a Clock, stop: &'a Stop) -> Means<'a> {
        Means { pool, clock, stop }
    }

    fn done(refined: Result<Refined, Error>) -> Vec<TopK> {
        match refined.unwrap() {
            Refined::Done(tops) => tops,
            Refined::Stopped(_) => panic!("nobody asked it to stop"),
        }
    }

    /// Asks to stop once something was read.
    #[derive(Debug)]
    struct Asking<'a>(MemorySource, &'a Stop);

    impl Source for Asking<'_> {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn rows(&self) -> u64 {
            self.0.rows()
        }
        fn dim(&self) -> usize {
            self.0.dim()
        }
        fn dtype(&self) -> FloatType {
            self.0.dtype()
        }
        fn chunk_rows(&self) -> u64 {
            self.0.chunk_rows()
        }
        fn stored_bytes(&self) -> u64 {
            self.0.stored_bytes()
        }
        fn scratch_bytes(&self) -> u64 {
            self.0.scratch_bytes()
        }
        fn read(&self, rows: &[Range<u64>], out: &mut [f32]) -> Result<(), StoreError> {
            self.1.ask();
            self.0.read(rows, out)
        }
        fn read_f64(&self, rows: &[Range<u64>], out: &mut [f64]) -> Result<(), StoreError> {
            self.0.read_f64(rows, out)
        }
        fn fingerprint(&self) -> Result<serde_json::Value, StoreError> {
            self.0.fingerprint()
        }
    }

    #[test]
    fn a_run_that_is_asked_to_stop_does_so_between_windows_and_goes_on_to_the_same() {
        let (queries, references) = (block(70, 1), block(99, 2));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (clock, never, asked) = (Clock::default(), Stop::new(), Stop::new());
        let source = || MemorySource::from_f32("r", DIM, references.values().to_vec()).unwrap();
        let (plain, asking) = (source(), Asking(source(), &asked));
        let refine =
            |references| Refine { references, metric: Metric::Euclidean, k: K::new(6).unwrap(), window_rows: 20 };
        let found = |top| vec![Candidates { first: 0, top }];
        let all = candidates(70, 99);
        let whole = done(refine(&plain).run(&queries, found(all.clone()), means(&pool, &clock, &never)));
        let stopped = refine(&asking).run(&queries, found(all.clone()), means(&pool, &clock, &asked)).unwrap();
        let Refined::Stopped(mut left) = stopped else { panic!("it was asked to stop after the first window") };
        let left = left.remove(0);
        assert_eq!((left.rows(), left.k()), (70, 40), "every candidate is handed back");
        assert_ne!(left, all, "a window was measured");
        assert_eq!(done(refine(&plain).run(&queries, found(left), means(&pool, &clock, &never))), whole);
    }

    #[test]
    fn candidates_become_the_nearest_of_them_by_exact_distance() {
        let (queries, references) = (block(70, 1), block(99, 2));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for metric in Metric::ALL {
            let truth = oracle::search(metric, &queries, &references, |q, r| r % 3 == q % 3);
            for window_rows in [1, 7, 64, 1_000] {
                let source = Counted::new(std::sync::Arc::new(
                    MemorySource::from_f32("r", DIM, references.values().to_vec()).unwrap(),
                ));
                let refine = Refine { references: &source, metric, k: K::new(6).unwrap(), window_rows };
                // Two units of one block.
                let all = candidates(70, 99);
                let parts = [0..30, 30..70].map(|rows| Candidates { first: rows.start, top: all.slice(rows) });
                let found = done(refine.run(&queries, parts.into(), means(&pool, &Clock::default(), &Stop::new())));
                let found = found[0].clone().followed_by(&found[1]);
                oracle::agrees(&found, &truth, EngineKind::Cpu).unwrap_or_else(|e| panic!("{metric}: {e}"));
                assert!(source.rows_read() <= 99, "{} rows were read", source.rows_read());
            }
        }
    }

    #[test]
    fn only_what_was_found_is_read() {
        let queries = block(1, 1);
        let source = Counted::new(std::sync::Arc::new(MemorySource::from_f32("r", DIM, values(10_000, 2)).unwrap()));
        let mut top = TopK::empty(1, K::new(4).unwrap());
        top.set_row(0, &[(0.0, 9_999), (1.0, 3), (2.0, 5_000), (3.0, 20)]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let refine =
            Refine { references: &source, metric: Metric::Euclidean, k: K::new(2).unwrap(), window_rows: 2_000 };
        done(refine.run(&queries, vec![Candidates { first: 0, top }], means(&pool, &Clock::default(), &Stop::new())));
        assert_eq!(source.rows_read(), 18 + 1 + 1, "3 to 20, 5,000 and 9,999");
    }
}
