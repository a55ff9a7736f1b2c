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
use super::refine::{Refine, refined};
use super::saved::length;
pub use super::saved::{Checkpoint, Unfinished, UnitSink};
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
    let covers = resume.as_ref().map_or(0..0, |checkpoint| checkpoint.rows.clone());
    // What is complete is less than a unit, or all there is: the plan has no room for a copy of that.
    let (done, resume) = match resume {
        Some(saved) if saved.open().is_empty() => (Some((saved.rows, saved.top)), None),
        Some(saved) => {
            let complete = saved.rows.start..saved.complete_to;
            runs_left.push(saved.open());
            (Some((complete.clone(), saved.top.slice(0..length(&complete)))), Some(saved))
        }
        None => (None, None),
    };
    if let Some((rows, top)) = done.filter(|(rows, _)| !rows.is_empty()) {
        ready = assembler.add(rows, top);
    }
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
        let (told, saved, saved_at) = (0, false, Instant::now());
        let mut all =
            Loop { search, landmarks, engines, sink, assembler, resume, observer, stop, told, saved, saved_at };
        all.run(queue, send)
    })
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
    /// Pairs of the block in hand that the observer was told of: those of a repeated one are not told again.
    told: u64,
    /// Whether a checkpoint holds some of the block in hand.
    saved: bool,
    /// When a checkpoint was saved, or there was nothing to save.
    saved_at: Instant,
}

/// How far a block is.
struct Standing {
    round: u32,
    /// References before this row have been visited in this round. Those of a partition count when all of them have.
    references_done: u64,
    /// Pairs compared, in all rounds.
    pairs: u64,
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
                    self.save_complete(&left)?;
                    return Err(JobError::Interrupted.into());
                }
                if i + 1 < last && self.is_due() {
                    self.save_complete(&[])?;
                    self.heed()?;
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
                        self.save_complete(&[])?;
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
        let mut standing = Standing { round, references_done: seen_to, pairs: 0 };
        while round < router.rounds() {
            let bounds = if round > 0 { self.engines.engine.bounds()? } else { Vec::new() };
            // Another engine may have taken other landmarks for the nearest in the rounds before this one.
            let near: &[u32] = if goes_on && round > 0 { &[] } else { &near };
            let known = Known { queries: block, near, bounds: &bounds, seen_to };
            let route = clock.time(Part::Search, || pool.install(|| router.route(round, &known)));
            (standing.round, standing.references_done) = (round, seen_to);
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
        let Search { clock, pool, .. } = *self.search;
        let last_round = standing.round + 1 == self.search.router.rounds();
        pager.each(route, pool, clock, |partition, part| {
            let mut portions = route.visits(partition);
            let mut next = || clock.time(Part::Search, || pool.install(|| portions.next()));
            let mut portion = next();
            while let Some(visits) = portion {
                clock.time(Part::Search, || self.engines.engine.visit(part, &visits)).map_err(stopped)?;
                standing.pairs += visits.iter().map(|visit| pairs_of(visit, rows.end - rows.start)).sum::<u64>();
                self.tell(standing.pairs);
                drop(visits);
                portion = next();
                if portion.is_some() {
                    self.border(rows, standing)?;
                }
            }
            standing.references_done = route.rows(partition).last().map_or(0, |rows| rows.end);
            // Behind the last partition of the last round the block is complete, which is worth more than a checkpoint.
            if !last_round || partition + 1 < route.partitions() {
                self.border(rows, standing)?;
            }
            Ok(true)
        })
    }

    /// Tells of the pairs of the block in hand, where those are more than were told.
    fn tell(&mut self, pairs: u64) {
        let more = pairs.saturating_sub(self.told);
        if more > 0 {
            self.observer.advance(self.search.stage, Step { pairs: more, ..Step::default() });
            self.search.pairs.fetch_add(more, Ordering::Relaxed);
            self.told = pairs;
        }
    }

    /// Where a block can be left and gone on with: saves it where it is time to, and ends the run where somebody asked.
    fn border(&mut self, rows: &Range<u64>, standing: &Standing) -> Result<(), Error> {
        if self.is_due() {
            self.save_block(rows, standing)?;
            self.heed()?;
        }
        Ok(())
    }

    /// Whether it is time to save: because it was long ago, or because the run is to end. What an earlier run saved of blocks
    /// that are still to come is on the disk alone, and is not given up for what this one did meanwhile.
    fn is_due(&self) -> bool {
        self.stop.asked() || (self.resume.is_none() && self.saved_at.elapsed() >= self.search.checkpoint_every)
    }

    /// Ends the run where somebody asked, once all that there is to save is saved.
    fn heed(&self) -> Result<(), Error> {
        if self.stop.asked() { Err(JobError::Interrupted.into()) } else { Ok(()) }
    }

    /// Saves the block in hand behind the rows of its unit that are complete.
    fn save_block(&mut self, rows: &Range<u64>, standing: &Standing) -> Result<(), Error> {
        let top = self.engines.engine.snapshot()?;
        let parts: Vec<_> = self.assembler.gathered().into_iter().chain([(rows.clone(), &top)]).collect();
        if let Some(all) = Unfinished::complete(&parts) {
            let Standing { round, references_done, .. } = *standing;
            self.sink.save(&Unfinished { complete_to: rows.start, round, references_done, ..all })?;
        }
        (self.saved_at, self.saved) = (Instant::now(), true);
        Ok(())
    }

    /// Saves whole units that are still to be refined, which follow each other, and behind them the complete rows of a unit
    /// that is not whole yet.
    fn save_complete(&mut self, units: &[(u64, TopK)]) -> Result<(), Error> {
        let all = self.search.queries.rows();
        let units = units.iter().map(|(unit, top)| (unit_rows(*unit, all), top));
        let parts: Vec<_> = units.chain(self.assembler.gathered()).collect();
        if let Some(all) = Unfinished::complete(&parts) {
            self.sink.save(&all)?;
        }
        self.saved_at = Instant::now();
        Ok(())
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
