//! The search loop: query blocks one ahead, partitions one ahead, finished units written behind, checkpoints between.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::assemble::Assembler;
use super::blocks::{blocks, runs, unit_rows};
use super::near::Landmarks;
use super::pager::{Pager, References};
use super::progress::{Observer, Stage, Step, Stop};
pub use super::queries::QueryGroups;
use super::queries::{Queries, read_queries};
use super::refine::{Refine, Units, refined};
use super::units::write_behind;
use super::{Clock, Part};
use crate::engine::Engine;
use crate::error::{EngineError, Error, JobError};
use crate::plan::search::Order;
use crate::route::{Known, Route, Router};
use crate::store::Source;
use crate::topk::TopK;
use crate::units::K;
use crate::visit::{Visit, VisitQueries};

/// A search, bound to its objects.
pub struct Search<'a> {
    /// The query rows.
    pub queries: &'a dyn Source,
    /// Their ids; `None` where these are their places.
    pub query_ids: Option<&'a [u64]>,
    /// Their groups, for leave-one-group-out.
    pub query_groups: Option<QueryGroups<'a>>,
    /// The reference rows.
    pub references: References<'a>,
    /// Whether a query's own row is excluded.
    pub exclude_own_row: bool,
    /// Which rows are visited.
    pub router: &'a dyn Router,
    /// Neighbours per query that are searched.
    pub k: K,
    /// What becomes of them before they are handed on; `None` where they are what was asked for.
    pub refine: Option<Refine<'a>>,
    /// Which side stays.
    pub order: Order,
    /// Query rows per block.
    pub block_rows: u64,
    /// Query rows that are told their landmarks at a time.
    pub ranked_rows: u64,
    /// What it is told as.
    pub stage: Stage,
    /// Units to do, ascending.
    pub todo: &'a [u64],
    /// Time between checkpoints within a unit.
    pub checkpoint_every: Duration,
    /// The threads to work on.
    pub pool: &'a rayon::ThreadPool,
    /// Where time is counted.
    pub clock: &'a Clock,
    /// Where pairs are counted that were compared.
    pub pairs: &'a AtomicU64,
}

/// An unfinished unit: enough to go on without losing more than a few minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Query rows, from the beginning of a unit.
    pub rows: Range<u64>,
    /// Those before this row have visited everything they shall.
    pub complete_to: u64,
    /// The others are in this round of their route.
    pub round: u32,
    /// And have visited in it what they shall of the references before this row.
    pub references_done: u64,
    /// Their neighbours so far.
    pub top: TopK,
}

impl Checkpoint {
    /// The rows that have not visited everything.
    fn open(&self) -> Range<u64> {
        self.complete_to..self.rows.end
    }

    /// Where these rows are in `top`.
    fn place(&self, rows: &Range<u64>) -> Range<usize> {
        length(&(self.rows.start..rows.start))..length(&(self.rows.start..rows.end))
    }
}

/// Where finished units and checkpoints go.
pub trait UnitSink: Sync {
    /// Writes a unit; called from one thread, in the order in which units are finished.
    ///
    /// # Errors
    /// Any I/O error.
    fn commit(&self, unit: u64, top: TopK) -> Result<(), Error>;

    /// Saves the state of an unfinished unit, in place of the one before.
    ///
    /// # Errors
    /// Any I/O error.
    fn save(&self, checkpoint: &Checkpoint) -> Result<(), Error>;
}

/// Opens an engine in the place of one that was lost so many times, the last time like this.
pub type Reopen<'a> = dyn FnMut(u32, &EngineError) -> Result<Box<dyn Engine>, Error> + 'a;

/// Where the engine comes from, also after its device was lost.
pub struct Engines<'a> {
    /// What searches.
    pub engine: &'a mut Box<dyn Engine>,
    /// Opens what takes its place before a block is repeated. It is told how often the block was lost, and how.
    pub reopen: &'a mut Reopen<'a>,
}

/// How often a block is tried on a device that is lost meanwhile.
pub const TRIES: u32 = 3;

/// Runs a search to its end or until asked to stop. A block whose device is lost is repeated on the device opened again.
///
/// # Errors
/// The first error of reading, searching or writing; [`JobError::Interrupted`] when asked to stop;
/// [`EngineError::DeviceLost`] for a block that was lost [`TRIES`] times. What was finished before is kept.
pub fn search(
    search: &Search<'_>,
    engines: Engines<'_>,
    sink: &dyn UnitSink,
    resume: Option<Checkpoint>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<(), Error> {
    let rows = search.queries.rows();
    let mut assembler = Assembler::new(rows, search.k);
    let mut ready = Vec::new();
    let mut runs_left = Vec::new();
    if let Some(checkpoint) = &resume {
        let complete = checkpoint.rows.start..checkpoint.complete_to;
        if !complete.is_empty() {
            ready = assembler.add(complete.clone(), checkpoint.top.slice(0..length(&complete)));
        }
        runs_left.extend(Some(checkpoint.open()).filter(|open| !open.is_empty()));
    }
    let covers = resume.as_ref().map_or(0..0, |checkpoint| checkpoint.rows.clone());
    runs_left.extend(runs(search.todo, rows, &covers));
    let queue = blocks(&runs_left, search.block_rows);
    let commit = |unit, top| search.clock.time(Part::Write, || sink.commit(unit, top));
    write_behind(commit, |send| {
        let (ready, left) = refined(search, ready, None, stop)?;
        if !left.is_empty() {
            // The checkpoint that holds them stays, and all that it holds is still to do.
            return Err(JobError::Interrupted.into());
        }
        for (unit, top) in ready {
            send(unit, top);
        }
        let landmarks = Landmarks::of(search.router, search.ranked_rows);
        let (told, saved) = (0, false);
        Loop { search, landmarks, engines, sink, assembler, resume, observer, stop, told, saved }.run(queue, send)
    })
}

fn length(rows: &Range<u64>) -> usize {
    usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX)
}

struct Loop<'a, 'e> {
    search: &'a Search<'a>,
    landmarks: Option<Landmarks>,
    engines: Engines<'e>,
    sink: &'a dyn UnitSink,
    assembler: Assembler,
    /// What the first blocks begin with.
    resume: Option<Checkpoint>,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    /// Partitions of the block in hand that the observer was told of: a repeated one is not told again.
    told: usize,
    /// Whether a checkpoint holds some of the block in hand.
    saved: bool,
}

/// How far a block is.
struct Standing {
    round: u32,
    /// Partitions visited, in all rounds.
    done: usize,
    saved_at: Instant,
}

impl Loop<'_, '_> {
    fn run(&mut self, queue: Vec<Range<u64>>, send: &mut dyn FnMut(u64, TopK) -> bool) -> Result<(), Error> {
        let search = self.search;
        let keep = search.order == Order::ReferenceStays;
        let mut pager = Pager::new(search.references, keep);
        std::thread::scope(|scope| {
            let (sender, receiver) = bounded(0);
            let last = queue.len();
            let ahead = queue.clone();
            // When the queries stay there is one block in memory and no room for the next.
            if keep {
                scope.spawn(move || {
                    for rows in ahead {
                        if sender.send(read_queries(search, &rows)).is_err() {
                            return;
                        }
                    }
                });
            }
            for (i, rows) in queue.into_iter().enumerate() {
                let queries = if keep { receiver.recv().ok() } else { None };
                let queries = queries.unwrap_or_else(|| read_queries(search, &rows))?;
                let top = self.surviving_block(&mut pager, &rows, &queries)?;
                self.observer.advance(self.search.stage, Step { rows: rows.end - rows.start, ..Step::default() });
                let whole = self.assembler.add(rows.clone(), top);
                let (whole, left) = refined(search, whole, Some((&rows, &queries.0)), self.stop)?;
                for (unit, top) in whole {
                    if !send(unit, top) {
                        return Ok(());
                    }
                }
                if !left.is_empty() {
                    self.save_found(left)?;
                    return Err(JobError::Interrupted.into());
                }
                if i + 1 < last && self.stop.asked() {
                    self.save_gathered()?;
                    return Err(JobError::Interrupted.into());
                }
            }
            drop(receiver);
            Ok(())
        })
    }

    /// One block, repeated where its device is lost.
    fn surviving_block(&mut self, pager: &mut Pager<'_>, rows: &Range<u64>, queries: &Queries) -> Result<TopK, Error> {
        (self.told, self.saved) = (0, false);
        if self.resume.as_ref().is_some_and(|checkpoint| !checkpoint.open().contains(&rows.start)) {
            self.resume = None;
        }
        let mut lost = 0;
        loop {
            let error = match self.block(pager, rows, queries) {
                Err(Error::Engine(error @ EngineError::DeviceLost { .. })) => error,
                done => return done,
            };
            lost += 1;
            let reopened = if lost < TRIES { (self.engines.reopen)(lost, &error) } else { Err(error.into()) };
            match reopened {
                Ok(engine) => *self.engines.engine = engine,
                Err(error) => {
                    // A checkpoint of this block holds the complete rows as well.
                    if !self.saved {
                        self.save_gathered()?;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// One block of queries against everything it visits.
    fn block(&mut self, pager: &mut Pager<'_>, rows: &Range<u64>, queries: &Queries) -> Result<TopK, Error> {
        let Search { router, clock, pool, k, .. } = *self.search;
        let (block, exclude) = queries;
        let engine = &mut **self.engines.engine;
        clock.time(Part::Search, || engine.begin(block, k, exclude))?;
        let near = match &self.landmarks {
            Some(landmarks) => clock.time(Part::Search, || pool.install(|| landmarks.near(engine)))?,
            None => Vec::new(),
        };
        let goes_on = self.resume.is_some();
        let (mut round, mut seen_to) = self.restore(rows)?;
        let mut standing = Standing { round, done: 0, saved_at: Instant::now() };
        while round < router.rounds() {
            let bounds = if round > 0 { self.engines.engine.bounds()? } else { Vec::new() };
            // Another engine may have taken other landmarks for the nearest in the rounds before this one.
            let near: &[u32] = if goes_on && round > 0 { &[] } else { &near };
            let known = Known { queries: block, near, bounds: &bounds, seen_to };
            let route = clock.time(Part::Search, || pool.install(|| router.route(round, &known)));
            standing.round = round;
            self.round(pager, &*route, rows, &mut standing)?;
            (round, seen_to) = (round + 1, 0);
        }
        Ok(clock.time(Part::Search, || self.engines.engine.finish())?)
    }

    /// Puts back what a checkpoint holds of a block. Returns the round that goes on, and up to which row it was.
    fn restore(&mut self, rows: &Range<u64>) -> Result<(u32, u64), Error> {
        let Some(mut checkpoint) = self.resume.take() else { return Ok((0, 0)) };
        let stands = (checkpoint.round, checkpoint.references_done);
        let place = checkpoint.place(rows);
        if rows.end < checkpoint.rows.end {
            self.engines.engine.restore(&checkpoint.top.slice(place))?;
            self.resume = Some(checkpoint);
        } else {
            // The last block that needs it: the plan has no room for a copy of a whole block's neighbours. Were the
            // device lost now, the block would begin without it.
            checkpoint.top.keep_rows(place);
            self.engines.engine.restore(&checkpoint.top)?;
        }
        Ok(stands)
    }

    /// One round of a block.
    fn round(
        &mut self,
        pager: &mut Pager<'_>,
        route: &dyn Route,
        rows: &Range<u64>,
        standing: &mut Standing,
    ) -> Result<(), Error> {
        let Search { clock, pool, checkpoint_every, .. } = *self.search;
        let last_round = standing.round + 1 == self.search.router.rounds();
        pager.each(route, pool, clock, |partition, part| {
            let mut pairs = 0;
            let mut portions = route.visits(partition);
            while let Some(visits) = clock.time(Part::Search, || pool.install(|| portions.next())) {
                clock.time(Part::Search, || self.engines.engine.visit(part, &visits)).map_err(stopped)?;
                pairs += visits.iter().map(|visit| pairs_of(visit, rows.end - rows.start)).sum::<u64>();
            }
            standing.done += 1;
            if standing.done > self.told {
                self.observer.advance(self.search.stage, Step { pairs, ..Step::default() });
                self.search.pairs.fetch_add(pairs, Ordering::Relaxed);
                self.told = standing.done;
            }
            if last_round && partition + 1 == route.partitions() {
                return Ok(true);
            }
            let stop = self.stop.asked();
            if stop || standing.saved_at.elapsed() >= checkpoint_every {
                let top = self.engines.engine.snapshot()?;
                let done = route.rows(partition).last().map_or(0, |rows| rows.end);
                self.save(rows.clone(), top, standing.round, done)?;
                (standing.saved_at, self.saved) = (Instant::now(), true);
            }
            if stop { Err(JobError::Interrupted.into()) } else { Ok(true) }
        })
    }

    /// Saves the block in hand behind the rows of its unit that are complete.
    fn save(&self, rows: Range<u64>, top: TopK, round: u32, references_done: u64) -> Result<(), Error> {
        let complete_to = rows.start;
        let (rows, top) = match self.assembler.gathered() {
            Some((gathered, complete)) => {
                (gathered.start..rows.end, complete.slice(0..length(&gathered)).followed_by(&top))
            }
            None => (rows, top),
        };
        self.sink.save(&Checkpoint { rows, complete_to, round, references_done, top })
    }

    /// Saves whole units that are still to be refined, which follow each other, and the complete rows behind them.
    fn save_found(&self, units: Units) -> Result<(), Error> {
        let all = self.search.queries.rows();
        let mut saved: Option<(Range<u64>, TopK)> = None;
        let gathered = self.assembler.gathered().map(|(rows, top)| (rows.clone(), top.slice(0..length(&rows))));
        for (rows, top) in units.into_iter().map(|(unit, top)| (unit_rows(unit, all), top)).chain(gathered) {
            saved = Some(match saved {
                Some((before, found)) => (before.start..rows.end, found.followed_by(&top)),
                None => (rows, top),
            });
        }
        let Some((rows, top)) = saved else { return Ok(()) };
        self.sink.save(&Checkpoint { complete_to: rows.end, rows, round: 0, references_done: 0, top })
    }

    /// Saves the complete rows of a unit that is not whole yet, between two of its blocks.
    fn save_gathered(&self) -> Result<(), Error> {
        let Some((gathered, complete)) = self.assembler.gathered() else { return Ok(()) };
        let top = complete.slice(0..length(&gathered));
        self.sink.save(&Checkpoint { complete_to: gathered.end, rows: gathered, round: 0, references_done: 0, top })
    }
}

/// An engine that was asked to stop did so for the user.
fn stopped(error: EngineError) -> Error {
    if matches!(error, EngineError::Stopped) { JobError::Interrupted.into() } else { error.into() }
}

/// Pairs that a visit compares, in a block of so many queries.
fn pairs_of(visit: &Visit, block_rows: u64) -> u64 {
    let queries = match &visit.queries {
        VisitQueries::All => block_rows,
        VisitQueries::List(list) => list.len() as u64,
    };
    u64::from(visit.rows.end - visit.rows.start) * queries
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
