//! Visits of some queries to few rows each, such as the lists of an inverted file, in few passes.

use std::ops::Range;

use rayon::prelude::*;

use super::params::{Job, MergeParams};
use super::resident::int;
use super::search::{Search, Which};
use super::steps::{NO_ROW, Tiles, jobs};
use super::turns::{Seeing, Turns};
use crate::error::EngineError;

/// Pairs of queries and pieces of rows that are worth a thread.
const RUN_PAIRS: usize = 1 << 17;

/// Queries that are gathered together, and what they see.
#[derive(Default)]
struct Group {
    /// Query rows, those of each item padded to whole tiles.
    slots: Vec<u32>,
    jobs: Vec<Job>,
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

impl Group {
    /// Adds these queries against these tiles of references.
    fn add(&mut self, queries: &[u32], tiles: &Tiles, shape: Shape) {
        let first = int(self.slots.len()) / shape.queries;
        let n = int(queries.len()).div_ceil(shape.queries);
        self.slots.extend_from_slice(queries);
        self.slots.resize(usize::try_from((first + n) * shape.queries).unwrap_or(usize::MAX), NO_ROW);
        let shift = |job: Job| Job { query_tile: job.query_tile + first, ..job };
        self.jobs.extend(jobs(n, &(0..tiles.n), tiles).into_iter().map(shift));
        self.pairs += u64::from(n) * u64::from(tiles.n) * u64::from(shape.queries) * u64::from(shape.references);
    }

    /// The groups of what is seen one after the other.
    fn of(all: impl Iterator<Item = Seeing>, shape: Shape) -> Run {
        let (mut groups, mut new, mut group) = (Vec::new(), Vec::new(), Self::default());
        for seeing in all {
            let tiles = Tiles::of(&seeing.rows, shape.references);
            let pairs_of_tile = u64::from(shape.queries) * u64::from(shape.references) * u64::from(tiles.n.max(1));
            let short = u32::try_from(shape.pairs_max / pairs_of_tile).unwrap_or(u32::MAX).max(1);
            let length = short.saturating_mul(shape.queries).min(shape.room);
            for part in seeing.queries.chunks(usize::try_from(length).unwrap_or(1)) {
                let is_full = int(group.slots.len()) + int(part.len()).next_multiple_of(shape.queries) > shape.room;
                if is_full || group.pairs >= shape.pairs_max {
                    groups.push(std::mem::take(&mut group));
                }
                group.add(part, &tiles, shape);
            }
            new.extend_from_slice(&seeing.new);
        }
        groups.push(group);
        groups.retain(|group| !group.jobs.is_empty());
        Run { groups, new }
    }
}

/// What is searched of a turn by one thread's making.
struct Run {
    groups: Vec<Group>,
    /// Its queries that no run before it has.
    new: Vec<u32>,
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
        for turns in chunks {
            for turn in 0..turns.len() {
                let runs = turns.pairs(turn).div_ceil(RUN_PAIRS);
                let groups = || turns.runs(turn, runs).map(|seeing| Group::of(seeing, shape)).collect();
                let runs: Vec<Run> = pool.install(groups);
                for group in runs.iter().flat_map(|run| &run.groups) {
                    self.group(&turns.chunk, group)?;
                }
                let touched: Vec<u32> = runs.into_iter().flat_map(|run| run.new).collect();
                let work = self.list("query rows", &touched);
                self.merge(&turns.chunk, Which::Listed(&work, int(touched.len())), params, 0);
            }
            self.commands.submit();
        }
        Ok(())
    }

    /// The distance tile of a group.
    fn group(&mut self, chunk: &Range<u32>, group: &Group) -> Result<(), EngineError> {
        let slots = self.gather(&group.slots, Some(&self.o.workshop.gathered))?;
        self.columns(&slots, 0, int(group.slots.len()));
        self.tile(chunk, &slots, &group.jobs, group.pairs);
        Ok(())
    }
}
