//! Visits of some queries to few rows each, such as the lists of an inverted file, in few passes.

use std::ops::Range;

use super::params::{Job, MergeParams};
use super::resident::int;
use super::search::{Search, Which};
use super::steps::{Tiles, jobs, rows_in, slots};
use crate::engine::Visit;
use crate::error::EngineError;

/// Visits whose queries are gathered together.
#[derive(Default)]
struct Group {
    /// Query rows, each visit's padded to whole tiles.
    slots: Vec<u32>,
    jobs: Vec<Job>,
    /// Tiles of all jobs.
    tiles: u64,
}

impl Group {
    /// Adds these queries against these tiles of references.
    fn add(&mut self, rows: &[u32], tiles: &Tiles, q_tile: u32) {
        let first = int(self.slots.len()) / q_tile;
        self.slots.extend(slots(rows.iter().copied(), usize::try_from(q_tile).unwrap_or(1)));
        let n = int(self.slots.len()) / q_tile - first;
        let shift = |job: Job| Job { query_tile: job.query_tile + first, ..job };
        self.jobs.extend(jobs(n, &(0..tiles.n), tiles).into_iter().map(shift));
        self.tiles += u64::from(n) * u64::from(tiles.n);
    }
}

impl Search<'_> {
    /// Searches visits of some queries to few rows each, such as the lists of an inverted file: all of them in as few passes
    /// as their queries fill tiles for, and one merge. No visit has more rows than there is room for, so a query that has
    /// seen nothing keeps all rows of its first one.
    pub fn visit_together(&mut self, visits: &[&Visit]) -> Result<(), EngineError> {
        let n = int(self.o.queries.stored.n);
        let (tile_rows, q_tile) = (int(self.o.variant.references()), int(self.o.variant.queries()));
        let room = self.o.workshop.slots / q_tile * q_tile;
        for first in (0..n).step_by(usize::try_from(self.o.workshop.chunk).unwrap_or(1)) {
            let chunk = first..first.saturating_add(self.o.workshop.chunk).min(n);
            let (mut group, mut touched) = (Group::default(), Vec::new());
            for visit in visits {
                let tiles = Tiles::of(&visit.rows, tile_rows);
                let rows = rows_in(&visit.queries, &chunk);
                touched.extend_from_slice(&rows);
                for part in rows.chunks(usize::try_from(room).unwrap_or(1)) {
                    if int(group.slots.len()) + int(part.len()).next_multiple_of(q_tile) > room {
                        self.group(&chunk, &std::mem::take(&mut group))?;
                    }
                    group.add(part, &tiles, q_tile);
                }
            }
            self.group(&chunk, &group)?;
            touched.sort_unstable();
            touched.dedup();
            if !touched.is_empty() {
                let work = self.list("query rows", &touched);
                self.merge(&chunk, Which::Listed(&work, int(touched.len())), MergeParams::default(), 0);
            }
        }
        self.commands.submit();
        Ok(())
    }

    /// The distance tile of a group.
    fn group(&mut self, chunk: &Range<u32>, group: &Group) -> Result<(), EngineError> {
        if group.jobs.is_empty() {
            return Ok(());
        }
        let slots = self.gather(&group.slots, Some(&self.o.workshop.gathered))?;
        self.columns(&slots, 0, int(group.slots.len()));
        let pairs = group.tiles * (self.o.variant.queries() * self.o.variant.references()) as u64;
        self.tile(chunk, &slots, &group.jobs, pairs);
        Ok(())
    }
}
