//! Visits of some queries to few rows each, such as the lists of an inverted file, in few passes.

use std::ops::Range;
use std::sync::PoisonError;

use rayon::prelude::*;

use super::params::{Job, MergeParams};
use super::resident::int;
use super::search::{EXACT_COST, Search, Which};
use super::steps::{NO_ROW, Tiles, jobs};
use super::turns::{Seeing, Turns};
use crate::error::EngineError;

/// Pairs of queries and pieces of rows that are worth a thread.
const RUN_PAIRS: usize = 1 << 16;

/// What is searched of a turn, of one thread's making: kept from turn to turn, since fresh memory costs more than what is
/// done in it.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Query rows, those of each item padded to whole tiles.
    slots: Vec<u32>,
    jobs: Vec<Job>,
    groups: Vec<Group>,
    /// Its queries that no run before it has.
    new: Vec<u32>,
    /// Or each query with the first row that it sees and the one behind the last, where nothing is to be filtered.
    first: Vec<u32>,
}

/// Queries that are gathered together, and what they see.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Where in the run's slots and jobs they end.
    slots: usize,
    jobs: usize,
    pairs: u64,
}

/// How tiles are made.
#[derive(Clone, Copy)]
struct Shape {
    /// Queries and references of a tile.
    queries: u32,
    references: u32,
    /// Room for gathered queries, whole tiles of it.
    room: u32,
    /// Pairs after which a group is full: a pass is no longer than watchdogs allow.
    pairs_max: u64,
}

impl Run {
    fn clear(&mut self) {
        self.slots.clear();
        self.jobs.clear();
        self.groups.clear();
        self.new.clear();
        self.first.clear();
    }

    /// Where the last group begins.
    fn start(&self) -> Group {
        self.groups.len().checked_sub(2).map_or(Group::default(), |before| self.groups[before])
    }

    /// What is seen one after the other, of queries that see no more in this turn and have seen nothing before.
    fn fill_first(&mut self, all: impl Iterator<Item = Seeing>) {
        self.clear();
        for Seeing { rows, queries, .. } in all {
            self.first.extend(queries.iter().flat_map(|query| [*query, rows.start, rows.end]));
        }
    }

    /// What is seen one after the other.
    fn fill(&mut self, all: impl Iterator<Item = Seeing>, shape: Shape) {
        self.clear();
        self.groups.push(Group::default());
        for seeing in all {
            let tiles = Tiles::of(&seeing.rows, shape.references);
            let pairs_of_tile = u64::from(shape.queries) * u64::from(shape.references) * u64::from(tiles.n.max(1));
            let short = u32::try_from(shape.pairs_max / pairs_of_tile).unwrap_or(u32::MAX).max(1);
            let length = short.saturating_mul(shape.queries).min(shape.room);
            for part in seeing.queries.chunks(usize::try_from(length).unwrap_or(1)) {
                let group = self.groups[self.groups.len() - 1];
                let held = int(group.slots - self.start().slots);
                let is_full = held + int(part.len()).next_multiple_of(shape.queries) > shape.room;
                let pairs = u64::from(int(part.len()).div_ceil(shape.queries)) * pairs_of_tile;
                if is_full || group.pairs + pairs > shape.pairs_max {
                    self.groups.push(Group { pairs: 0, ..group });
                }
                self.add(part, &tiles, shape);
            }
            self.new.extend_from_slice(&seeing.new);
        }
    }

    /// Adds these queries against these tiles of references to the last group.
    fn add(&mut self, queries: &[u32], tiles: &Tiles, shape: Shape) {
        let first = int(self.slots.len() - self.start().slots) / shape.queries;
        let n = int(queries.len()).div_ceil(shape.queries);
        self.slots.extend_from_slice(queries);
        self.slots.resize(self.slots.len().next_multiple_of(usize::try_from(shape.queries).unwrap_or(1)), NO_ROW);
        let shift = |job: Job| Job { query_tile: job.query_tile + first, ..job };
        self.jobs.extend(jobs(n, &(0..tiles.n), tiles).into_iter().map(shift));
        let (slots, jobs, last) = (self.slots.len(), self.jobs.len(), self.groups.len() - 1);
        let group = &mut self.groups[last];
        (group.slots, group.jobs) = (slots, jobs);
        group.pairs += u64::from(n) * u64::from(tiles.n) * u64::from(shape.queries) * u64::from(shape.references);
    }

    /// Slots, jobs and pairs of each group.
    fn each(&self) -> impl Iterator<Item = (&[u32], &[Job], u64)> {
        let mut start = Group::default();
        self.groups.iter().map(move |group| {
            let start = std::mem::replace(&mut start, *group);
            (&self.slots[start.slots..group.slots], &self.jobs[start.jobs..group.jobs], group.pairs)
        })
    }
}

/// Groups that are searched in one pass.
#[derive(Default)]
struct Together<'r> {
    slots: Vec<&'r [u32]>,
    /// How many slots that is.
    n: usize,
    jobs: Vec<Job>,
    pairs: u64,
}

impl<'r> Together<'r> {
    /// Whether so many more slots and pairs are too much.
    fn is_full(&self, slots: usize, pairs: u64, shape: Shape) -> bool {
        int(self.n + slots) > shape.room || self.pairs + pairs > shape.pairs_max
    }

    fn add(&mut self, slots: &'r [u32], jobs: &[Job], pairs: u64, shape: Shape) {
        let first = int(self.n) / shape.queries;
        self.slots.push(slots);
        self.n += slots.len();
        self.jobs.extend(jobs.iter().map(|job| Job { query_tile: job.query_tile + first, ..*job }));
        self.pairs += pairs;
    }
}

impl Search<'_> {
    /// Searches visits that were put into turns, each in as few passes as its queries fill tiles for, and one merge.
    /// `params` says what else merges do.
    pub fn visit_together(
        &mut self,
        pool: &rayon::ThreadPool,
        chunks: &[Turns],
        params: MergeParams,
    ) -> Result<(), EngineError> {
        let (queries, references) = (int(self.o.variant.queries()), int(self.o.variant.references()));
        let room = self.o.workshop.slots / queries * queries;
        let shape = Shape { queries, references, room, pairs_max: self.o.workshop.pairs_max };
        // The turns of all chunks, each in so many runs.
        let turns: Vec<(&Turns, usize, usize)> = chunks
            .iter()
            .flat_map(|turns| (0..turns.len()).map(move |turn| (turns, turn, turns.pairs(turn).div_ceil(RUN_PAIRS))))
            .collect();
        let runs: Vec<(&Turns, usize, usize, usize)> =
            turns.iter().flat_map(|&(turns, turn, n)| (0..n).map(move |run| (turns, turn, run, n))).collect();
        let mut held = self.o.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() < runs.len() {
            held.resize_with(runs.len(), Run::default);
        }
        let held: &mut [Run] = &mut held;
        // All at once: waking threads may take as long as what they do.
        pool.install(|| {
            held.par_iter_mut().zip(&runs).for_each(|(held, &(turns, turn, run, n))| {
                let seeing = turns.seeing(turn, run, n);
                if turns.is_first(turn) { held.fill_first(seeing) } else { held.fill(seeing, shape) }
            });
        });
        let mut first = 0;
        for (turns, turn, n) in turns {
            let runs = &held[first..first + n];
            if turns.is_first(turn) {
                self.first_turn(&turns.chunk, runs, params);
            } else {
                self.turn(&turns.chunk, runs, shape, params)?;
            }
            first += n;
            if turn + 1 == turns.len() {
                self.commands.submit();
            }
        }
        Ok(())
    }

    /// The merge of a turn of queries that have no threshold yet: of all rows that they see, at their exact distances.
    fn first_turn(&mut self, chunk: &Range<u32>, runs: &[Run], params: MergeParams) {
        // None sees more rows than there is room for.
        let cost = u64::from(self.o.workshop.room) * EXACT_COST;
        let most = usize::try_from(self.o.workshop.pairs_max / cost).unwrap_or(usize::MAX).max(1);
        let parts: Vec<&[u32]> = runs.iter().flat_map(|run| run.first.chunks(3 * most)).collect();
        let queries = |parts: &[&[u32]]| parts.iter().map(|part| part.len() / 3).sum::<usize>();
        let mut start = 0;
        for end in 1..=parts.len() {
            if end < parts.len() && queries(&parts[start..=end]) <= most {
                continue;
            }
            let count = queries(&parts[start..end]);
            let work = self.o.device.filled_from("query rows and what they see", &parts[start..end]);
            let params = MergeParams { ranged: 1, ..params };
            self.merge(chunk, Which::Seeing(&work, int(count)), params, count as u64 * cost);
            start = end;
        }
    }

    /// The passes of a turn's runs.
    fn turn(&mut self, chunk: &Range<u32>, runs: &[Run], shape: Shape, params: MergeParams) -> Result<(), EngineError> {
        let mut pass = Together::default();
        for (slots, jobs, pairs) in runs.iter().flat_map(Run::each).filter(|(_, jobs, _)| !jobs.is_empty()) {
            if pass.is_full(slots.len(), pairs, shape) {
                self.pass(chunk, &pass)?;
                pass = Together::default();
            }
            pass.add(slots, jobs, pairs, shape);
        }
        self.pass(chunk, &pass)?;
        let new: Vec<&[u32]> = runs.iter().map(|run| run.new.as_slice()).collect();
        let count = int(new.iter().map(|new| new.len()).sum());
        let work = self.o.device.filled_from("query rows", &new);
        self.merge(chunk, Which::Listed(&work, count), params, 0);
        Ok(())
    }

    /// The distance tile of some groups.
    fn pass(&mut self, chunk: &Range<u32>, groups: &Together<'_>) -> Result<(), EngineError> {
        if groups.jobs.is_empty() {
            return Ok(());
        }
        let gathered = self.gather(&groups.slots, Some(&self.o.workshop.gathered))?;
        self.columns(&gathered, 0, int(groups.n));
        self.tile(chunk, &gathered, &groups.jobs, groups.pairs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_all_queries_and_no_more_pairs_or_slots_than_they_may() {
        let shape = Shape { queries: 4, references: 16, room: 40, pairs_max: 4 * 16 * 5 };
        let seeing = |rows: Range<u32>, n: u32| Seeing { rows, queries: (0..n).collect(), new: Vec::new() };
        let all = [seeing(0..16, 3), seeing(10..60, 9), seeing(64..80, 39), seeing(80..96, 4)];
        let mut run = Run::default();
        run.fill(all.into_iter(), shape);
        let groups: Vec<_> = run.each().filter(|(_, jobs, _)| !jobs.is_empty()).collect();
        assert!(groups.len() > 3, "{}", groups.len());
        for (slots, _, pairs) in &groups {
            assert!(*pairs <= shape.pairs_max && slots.len() <= 40, "{pairs} pairs, {} slots", slots.len());
        }
        let held = groups.iter().flat_map(|(slots, ..)| *slots).filter(|slot| **slot != NO_ROW).count();
        assert_eq!(held, 3 + 9 + 39 + 4);
    }
}
