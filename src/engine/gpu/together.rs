//! Visits of some queries to few rows each, such as the lists of an inverted file, in few passes.

use std::ops::Range;

use super::params::{Job, MergeParams};
use super::resident::int;
use super::search::{Search, Which};
use super::steps::{NO_ROW, Tiles, jobs};
use super::turns::{Turn, Turns};
use crate::error::EngineError;

/// Queries that are gathered together, and what they see.
#[derive(Default)]
struct Group {
    /// Query rows, those of each item padded to whole tiles.
    slots: Vec<u32>,
    jobs: Vec<Job>,
    pairs: u64,
}

impl Group {
    /// Adds these queries against these tiles of references.
    fn add(&mut self, queries: &[u32], tiles: &Tiles, (q_tile, tile_rows): (u32, u32)) {
        let first = int(self.slots.len()) / q_tile;
        let n = int(queries.len()).div_ceil(q_tile);
        self.slots.extend_from_slice(queries);
        self.slots.resize(usize::try_from((first + n) * q_tile).unwrap_or(usize::MAX), NO_ROW);
        let shift = |job: Job| Job { query_tile: job.query_tile + first, ..job };
        self.jobs.extend(jobs(n, &(0..tiles.n), tiles).into_iter().map(shift));
        self.pairs += u64::from(n) * u64::from(tiles.n) * u64::from(q_tile) * u64::from(tile_rows);
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.jobs.clear();
        self.pairs = 0;
    }
}

impl Search<'_> {
    /// Searches visits that were put into turns, each in as few passes as its queries fill tiles for, and one merge. The
    /// device begins with the first chunk while the next one is written. `params` says what else merges do.
    pub fn visit_together(&mut self, chunks: &[Turns], params: MergeParams) -> Result<(), EngineError> {
        let mut group = Group::default();
        for Turns { chunk, turns } in chunks {
            for turn in turns {
                self.turn(chunk, turn, &mut group)?;
                let work = self.list("query rows", &turn.touched);
                self.merge(chunk, Which::Listed(&work, int(turn.touched.len())), params, 0);
            }
            self.commands.submit();
        }
        Ok(())
    }

    /// The distance tiles of a turn.
    fn turn(&mut self, chunk: &Range<u32>, turn: &Turn, group: &mut Group) -> Result<(), EngineError> {
        let (tile_rows, q_tile) = (int(self.o.variant.references()), int(self.o.variant.queries()));
        let room = self.o.workshop.slots / q_tile * q_tile;
        for (rows, queries) in turn.items() {
            let tiles = Tiles::of(rows, tile_rows);
            // A pass is no longer than watchdogs allow.
            let pairs_of_tile = u64::from(q_tile) * u64::from(tile_rows) * u64::from(tiles.n.max(1));
            let short = u32::try_from(self.o.workshop.pairs_max / pairs_of_tile).unwrap_or(u32::MAX).max(1);
            let length = short.saturating_mul(q_tile).min(room);
            for part in queries.chunks(usize::try_from(length).unwrap_or(1)) {
                let is_full = int(group.slots.len()) + int(part.len()).next_multiple_of(q_tile) > room;
                if is_full || group.pairs >= self.o.workshop.pairs_max {
                    self.group(chunk, group)?;
                }
                group.add(part, &tiles, (q_tile, tile_rows));
            }
        }
        self.group(chunk, group)
    }

    /// The distance tile of a group, which is empty then.
    fn group(&mut self, chunk: &Range<u32>, group: &mut Group) -> Result<(), EngineError> {
        if !group.jobs.is_empty() {
            let slots = self.gather(&group.slots, Some(&self.o.workshop.gathered))?;
            self.columns(&slots, 0, int(group.slots.len()));
            self.tile(chunk, &slots, &group.jobs, group.pairs);
        }
        group.clear();
        Ok(())
    }
}
