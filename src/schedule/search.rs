//! The search loop: query blocks one ahead, partitions one ahead, finished units written behind, checkpoints between.

use std::ops::Range;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::assemble::Assembler;
use super::blocks::{blocks, runs};
use super::pager::{Pager, read_block};
use super::progress::{Observer, Stage, Step, Stop};
use super::units::write_behind;
use super::{Clock, Part};
use crate::block::RowBlock;
use crate::engine::{Engine, Exclude};
use crate::error::{EngineError, Error, JobError};
use crate::plan::search::Order;
use crate::route::Router;
use crate::store::Source;
use crate::topk::TopK;
use crate::units::K;
use crate::visit::Visit;

/// Reads the groups of query rows.
pub type QueryGroups<'a> = &'a (dyn Fn(Range<u64>) -> Result<Vec<u32>, Error> + Sync);

/// A search, bound to its objects.
pub struct Search<'a> {
    /// The query rows.
    pub queries: &'a dyn Source,
    /// The reference rows.
    pub references: &'a dyn Source,
    /// Groups of the query rows, and of all references, for leave-one-group-out.
    pub groups: Option<(QueryGroups<'a>, &'a [u32])>,
    /// Whether a query's own row is excluded.
    pub exclude_own_row: bool,
    /// Which rows are visited.
    pub router: &'a dyn Router,
    /// Neighbours per query.
    pub k: K,
    /// Which side stays.
    pub order: Order,
    /// Query rows per block.
    pub block_rows: u64,
    /// Units to do, ascending.
    pub todo: &'a [u64],
    /// Time between checkpoints within a unit.
    pub checkpoint_every: Duration,
    /// The threads to work on.
    pub pool: &'a rayon::ThreadPool,
    /// Where time is counted.
    pub clock: &'a Clock,
}

/// An unfinished unit: enough to go on without losing more than a few minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Query rows, from the beginning of a unit.
    pub rows: Range<u64>,
    /// Those before this row have seen every reference.
    pub complete_to: u64,
    /// The others have seen the references before this row.
    pub references_done: u64,
    /// Their neighbours so far.
    pub top: TopK,
}

impl Checkpoint {
    /// The rows that have not seen every reference.
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
        for (unit, top) in ready {
            send(unit, top);
        }
        let mut loop_state = Loop { search, engines, sink, assembler, resume, observer, stop, told: 0, saved: false };
        loop_state.run(queue, send)
    })
}

fn length(rows: &Range<u64>) -> usize {
    usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX)
}

struct Loop<'a, 'e> {
    search: &'a Search<'a>,
    engines: Engines<'e>,
    sink: &'a dyn UnitSink,
    assembler: Assembler,
    /// What the first blocks begin with.
    resume: Option<Checkpoint>,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    /// Visits of the block in hand that the observer was told of: a repeated one is not told again.
    told: usize,
    /// Whether a checkpoint holds some of the block in hand.
    saved: bool,
}

type Queries = (RowBlock, Exclude);

impl Loop<'_, '_> {
    fn run(&mut self, queue: Vec<Range<u64>>, send: &mut dyn FnMut(u64, TopK) -> bool) -> Result<(), Error> {
        let search = self.search;
        let groups = search.groups.map(|(_, references)| references);
        let keep = search.order == Order::ReferenceStays;
        let mut pager = Pager::new(search.references, search.router.partitions(), groups, keep);
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
                self.observer.advance(Stage::Search, Step { rows: rows.end - rows.start, ..Step::default() });
                for (unit, top) in self.assembler.add(rows, top) {
                    if !send(unit, top) {
                        return Ok(());
                    }
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
        let Search { router, clock, pool, k, checkpoint_every, .. } = *self.search;
        let (block, exclude) = queries;
        clock.time(Part::Search, || self.engines.engine.begin(block, k, exclude))?;
        let mut seen_to = 0;
        if let Some(mut checkpoint) = self.resume.take() {
            seen_to = checkpoint.references_done;
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
        }
        let ranges = router.partitions();
        let visits: Vec<_> = (0..ranges.len())
            .filter(|&index| ranges[index].end > seen_to)
            .map(|index| (index, unseen(router.visits(index, block), &ranges[index], seen_to)))
            .filter(|(_, visits)| !visits.is_empty())
            .collect();
        let needed: Vec<usize> = visits.iter().map(|(index, _)| *index).collect();
        let mut saved_at = Instant::now();
        let mut done = 0;
        pager.each(&needed, pool, clock, |index, part| {
            clock.time(Part::Search, || self.engines.engine.visit(part, &visits[done].1))?;
            done += 1;
            if done > self.told {
                let pairs = (ranges[index].end - ranges[index].start.max(seen_to)) * (rows.end - rows.start);
                self.observer.advance(Stage::Search, Step { pairs, ..Step::default() });
                self.told = done;
            }
            if done == visits.len() {
                return Ok(true);
            }
            let stop = self.stop.asked();
            if stop || saved_at.elapsed() >= checkpoint_every {
                let top = self.engines.engine.snapshot()?;
                self.save(rows.clone(), top, ranges[index].end)?;
                (saved_at, self.saved) = (Instant::now(), true);
            }
            if stop { Err(JobError::Interrupted.into()) } else { Ok(true) }
        })?;
        Ok(clock.time(Part::Search, || self.engines.engine.finish())?)
    }

    /// Saves the block in hand behind the rows of its unit that are complete.
    fn save(&self, rows: Range<u64>, top: TopK, references_done: u64) -> Result<(), Error> {
        let checkpoint = match self.assembler.gathered() {
            Some((gathered, complete)) => Checkpoint {
                rows: gathered.start..rows.end,
                complete_to: rows.start,
                references_done,
                top: complete.slice(0..length(&gathered)).followed_by(&top),
            },
            None => Checkpoint { complete_to: rows.start, rows, references_done, top },
        };
        self.sink.save(&checkpoint)
    }

    /// Saves the complete rows of a unit that is not whole yet, between two of its blocks.
    fn save_gathered(&self) -> Result<(), Error> {
        let Some((gathered, complete)) = self.assembler.gathered() else { return Ok(()) };
        let top = complete.slice(0..length(&gathered));
        self.sink.save(&Checkpoint { complete_to: gathered.end, rows: gathered, references_done: 0, top })
    }
}

/// The visits without the rows before `seen_to`: another engine may give those other last digits, and the same neighbour
/// at two distances would be two neighbours.
fn unseen(mut visits: Vec<Visit>, partition: &Range<u64>, seen_to: u64) -> Vec<Visit> {
    let seen = u32::try_from(seen_to.saturating_sub(partition.start)).unwrap_or(u32::MAX);
    for visit in &mut visits {
        visit.rows.start = visit.rows.start.max(seen);
    }
    visits.retain(|visit| visit.rows.start < visit.rows.end);
    visits
}

fn read_queries(search: &Search<'_>, rows: &Range<u64>) -> Result<Queries, Error> {
    search.clock.time(Part::Read, || {
        let block = read_block(search.queries, rows, search.pool)?;
        let own_row = search.exclude_own_row;
        let exclude = match search.groups {
            Some((groups, _)) => Exclude::SameGroup { groups: groups(rows.clone())?, own_row },
            None if own_row => Exclude::OwnRow,
            None => Exclude::Nothing,
        };
        Ok((block, exclude))
    })
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
