//! One visit on the device: seeds, then tiles and merges in doubling steps, and what overflowed once more without a filter.

use std::ops::Range;
use std::sync::Mutex;

use super::Tuning;
use super::device::Device;
use super::params::{ColumnsParams, GatherParams, HalfTileParams, Job, MergeParams, TileParams};
use super::programs::Programs;
use super::queries::{Queries, read_back, staging};
use super::resident::{Packing, ROW_THREADS, Resident, buffer, int};
use super::steps::{Tiles, jobs, rows_in, seeds, short, slots, steps};
use super::together::Run;
use super::variant::Variant;
use crate::engine::{Visit, VisitQueries};
use crate::error::EngineError;

/// How much harder a pair is that is computed exactly at once than one in a tile.
pub(super) const EXACT_COST: u64 = 16;

/// What a search works with besides queries and partitions.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Survivors of each query of a chunk.
    pub survivors: wgpu::Buffer,
    /// Their numbers, and behind them which queries overflowed.
    pub counts: wgpu::Buffer,
    /// Query rows of a chunk.
    pub chunk: u32,
    /// Room for survivors per query.
    pub room: u32,
    /// Pairs of a tile pass between two submissions.
    pub pairs_max: u64,
    /// Rows that are searched without a filter to begin with; twice k where that is more.
    pub seed_rows: usize,
    /// Queries of the block.
    pub rows: usize,
    /// Queries that are gathered at a time, and room for them.
    pub slots: u32,
    pub gathered: wgpu::Buffer,
    nothing: wgpu::Buffer,
    /// What of the overflowed queries is on its way to the host.
    staging: wgpu::Buffer,
}

impl Workshop {
    /// Room for chunks of so many queries of a block.
    /// The queries of visits to few rows are put into so many slots, of so many bytes each.
    pub fn new(
        device: &Device,
        chunk: u32,
        rows: usize,
        (most, slot_bytes): (u32, usize),
        tuning: Tuning,
    ) -> Result<Self, EngineError> {
        let Tuning { room, seed_rows, pairs_max, .. } = tuning;
        // A small block fills few tiles.
        let all = most.min(chunk.saturating_mul(16));
        let size = |n: usize| n * size_of::<u32>();
        let slots = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(Self {
            survivors: buffer(device, "survivors", size(slots(chunk) * slots(room)))?,
            counts: buffer(device, "survivor counts", size(slots(chunk) + 1 + rows))?,
            chunk,
            room,
            pairs_max,
            seed_rows,
            rows,
            slots: all,
            gathered: buffer(device, "gathered queries", slots(all) * slot_bytes)?,
            nothing: buffer(device, "an empty list", 0)?,
            staging: staging(device, "overflows on their way", size(rows + 1))?,
        })
    }

    /// Where the number of overflowed queries is in `counts`, in bytes.
    fn overflow_offset(&self) -> u64 {
        u64::from(self.chunk) * 4
    }

    /// The queries whose survivors did not fit since this was last asked.
    pub fn overflowed(&self, device: &Device) -> Result<Vec<u32>, EngineError> {
        let read = |bytes: u64, skip: usize| -> Result<Vec<u32>, EngineError> {
            let at = self.overflow_offset();
            let view = read_back(device, &self.staging, &self.counts, &[at..at + bytes])?;
            let words = bytemuck::cast_slice::<u8, u32>(&view)[skip..].to_vec();
            drop(view);
            self.staging.unmap();
            Ok(words)
        };
        let n = read(4, 0)?[0];
        if n == 0 {
            return Ok(Vec::new());
        }
        let mut rows = read(4 + u64::from(n) * 4, 1)?;
        rows.sort_unstable();
        let mut commands = device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        commands.clear_buffer(&self.counts, self.overflow_offset(), Some(4));
        device.queue.submit([commands.finish()]);
        Ok(rows)
    }
}

/// A visit's objects.
pub(super) struct Objects<'a> {
    pub device: &'a Device,
    pub variant: &'a Variant,
    pub programs: &'a Programs,
    pub workshop: &'a Workshop,
    pub queries: &'a Queries,
    pub part: &'a Resident,
    pub merge: MergeParams,
    /// What visits of few rows are made of on the host.
    pub runs: &'a Mutex<Vec<Run>>,
    /// Rows seen before by every query of the visit.
    pub seen: u64,
}

/// Visits of one partition.
pub(super) struct Search<'a> {
    pub(super) o: Objects<'a>,
    pub(super) commands: Commands<'a>,
}

/// A command buffer that is submitted whenever it holds enough work.
pub(super) struct Commands<'a> {
    device: &'a Device,
    encoder: Option<wgpu::CommandEncoder>,
    pairs: u64,
    pairs_max: u64,
}

impl Commands<'_> {
    pub(super) fn add(&mut self, pairs: u64) -> &mut wgpu::CommandEncoder {
        if self.pairs > 0 && self.pairs + pairs > self.pairs_max {
            self.submit();
        }
        self.pairs += pairs;
        let gpu = &self.device.gpu;
        self.encoder.get_or_insert_with(|| gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()))
    }

    /// Submits what there is. Returns when that will be done.
    pub(super) fn submit(&mut self) -> wgpu::SubmissionIndex {
        self.pairs = 0;
        self.device.queue.submit(self.encoder.take().map(wgpu::CommandEncoder::finish))
    }
}

/// Queries as the distance tile reads them: packed, and the query row of each slot.
pub(super) struct Slots {
    tiles: wgpu::Buffer,
    rows: wgpu::Buffer,
    /// Whether they are some queries only, so that a slot is no row.
    listed: bool,
}

impl Slots {
    /// All queries of the block.
    fn of(queries: &Queries) -> Result<Self, EngineError> {
        let tiled = queries.tiled()?;
        let tiles = tiled.half.as_ref().map_or(&tiled.tiles, |half| &half.fragments);
        Ok(Self { tiles: tiles.clone(), rows: queries.slots.clone(), listed: false })
    }
}

/// Which queries a merge concerns.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// Consecutive rows.
    Chunk(&'a Range<u32>),
    /// Rows in a buffer, so many.
    Listed(&'a wgpu::Buffer, u32),
    /// The same, each with the first of the rows that it sees and the one behind the last.
    Seeing(&'a wgpu::Buffer, u32),
}

impl<'a> Search<'a> {
    /// A search of these objects with nothing submitted.
    pub fn new(o: Objects<'a>) -> Self {
        let commands = Commands { device: o.device, encoder: None, pairs: 0, pairs_max: o.workshop.pairs_max };
        Self { o, commands }
    }

    /// Searches one visit. What overflowed is noted on the device.
    pub fn visit(&mut self, visit: &Visit) -> Result<(), EngineError> {
        let tile = int(self.o.variant.references());
        let tiles = Tiles::of(&visit.rows, tile);
        let n = int(self.o.queries.stored.n);
        for first in (0..n).step_by(usize::try_from(self.o.workshop.chunk).unwrap_or(1)) {
            let chunk = first..first.saturating_add(self.o.workshop.chunk).min(n);
            match &visit.queries {
                VisitQueries::All => self.chunk(&chunk, &tiles, None)?,
                list @ VisitQueries::List(_) => {
                    let rows = rows_in(list, &chunk);
                    if !rows.is_empty() {
                        self.chunk(&chunk, &tiles, Some(&rows))?;
                    }
                }
            }
        }
        self.commands.submit();
        Ok(())
    }

    /// One chunk of queries, or some rows of it, against the tiles of a visit.
    pub(super) fn chunk(&mut self, chunk: &Range<u32>, tiles: &Tiles, list: Option<&[u32]>) -> Result<(), EngineError> {
        let (tile_rows, q_tile) = (self.o.variant.references(), self.o.variant.queries());
        let count = list.map_or(chunk.end - chunk.start, |rows| int(rows.len()));
        let work = list.map(|rows| self.list("query rows", rows));
        let which = match &work {
            Some(rows) => Which::Listed(rows, count),
            None => Which::Chunk(chunk),
        };
        let wanted = self.o.workshop.seed_rows.max(2 * self.o.queries.k.get());
        let seeded = if self.o.seen == 0 { seeds(tiles.n, tile_rows, wanted) } else { 0 };
        self.ranged(chunk, which, tiles, 0..seeded, MergeParams::default());
        let slots = match list {
            Some(rows) => Some(self.gather(&[&slots(rows.iter().copied(), q_tile)], None)?),
            None => None,
        };
        let first_tile = if list.is_some() { 0 } else { chunk.start / int(q_tile) };
        let tiled = match &slots {
            Some(slots) => slots,
            None => &Slots::of(self.o.queries)?,
        };
        let seen = u32::try_from(self.o.seen / tile_rows as u64).unwrap_or(u32::MAX);
        let query_tiles = count.div_ceil(int(q_tile));
        for step in steps(tiles.n, seeded, seen) {
            self.columns(tiled, first_tile * int(q_tile), query_tiles * int(q_tile));
            let pairs = u64::from(query_tiles) * (q_tile * tile_rows) as u64;
            for part in short(step, pairs, self.o.workshop.pairs_max) {
                let mut jobs = jobs(query_tiles, &part, tiles);
                for job in &mut jobs {
                    job.query_tile += first_tile;
                }
                self.tile(chunk, tiled, &jobs, pairs * u64::from(part.end - part.start));
            }
            self.merge(chunk, which, MergeParams::default(), 0);
        }
        Ok(())
    }

    /// The queries of these slots in tiles of their own, in a buffer that is there or in a new one.
    pub(super) fn gather(&mut self, slots: &[&[u32]], to: Option<&wgpu::Buffer>) -> Result<Slots, EngineError> {
        let all = self.o.queries.tiled()?;
        let total: usize = slots.iter().map(|slots| slots.len()).sum();
        let n = int(total);
        let list = self.o.device.filled_from("slots", slots);
        let (pass, from, channels, bytes) = match (&self.o.programs.half, &all.half) {
            (Some(programs), Some(half)) => {
                (&programs.gather, &half.fragments, 16 * Variant::fragments(self.o.queries.dim).0, 2)
            }
            _ => (&self.o.programs.gather, &all.tiles, self.o.queries.channels, 4),
        };
        let tiles = match to {
            Some(buffer) => buffer.clone(),
            None => buffer(self.o.device, "gathered queries", total * channels * bytes)?,
        };
        let params = GatherParams { slots: n, channels: int(channels), ..GatherParams::default() };
        pass.add(self.o.device, self.commands.add(0), &[from, &list, &tiles], &params, n.div_ceil(ROW_THREADS));
        Ok(Slots { tiles, rows: list, listed: true })
    }

    /// Brings thresholds to the columns of the slots' fragments, where there are any.
    pub(super) fn columns(&mut self, slots: &Slots, first: u32, n: u32) {
        let half = self.o.queries.tiled.as_ref().and_then(|tiled| tiled.half.as_ref());
        if let (Some(programs), Some(half)) = (&self.o.programs.half, half) {
            let blocks = int(Variant::fragments(self.o.queries.dim).0);
            let params = ColumnsParams { slots: n, first, blocks, ..ColumnsParams::default() };
            let buffers = [&self.o.queries.states, &half.shares, &slots.rows, &slots.tiles];
            programs.columns.add(self.o.device, self.commands.add(0), &buffers, &params, n.div_ceil(ROW_THREADS));
        }
    }

    pub(super) fn tile(&mut self, chunk: &Range<u32>, slots: &Slots, jobs: &[Job], pairs: u64) {
        let list = self.list("jobs", jobs);
        let n = int(jobs.len());
        let Workshop { counts, survivors, room, .. } = self.o.workshop;
        let (states, tiles) = (&self.o.queries.states, &self.o.part.tiled.tiles);
        let commands = self.commands.add(pairs);
        if let (Some(programs), Some(half)) = (&self.o.programs.half, &self.o.part.tiled.half) {
            let channels = int(Packing::channels(self.o.variant, self.o.queries.dim, 2));
            let params = HalfTileParams {
                jobs: n,
                room: *room,
                first_row: chunk.start,
                channels,
                rows: int(self.o.queries.stored.n),
                listed: u32::from(slots.listed),
                grouped: u32::from(self.o.queries.grouped),
                pad0: 0,
            };
            let buffers = [&slots.tiles, &half.fragments, tiles, states, &slots.rows, &list, counts, survivors];
            programs.tile.add(self.o.device, commands, &buffers, &params, n);
        } else {
            let slabs = int(self.o.variant.slabs(self.o.queries.dim).0);
            let params = TileParams { jobs: n, slabs, room: *room, first_row: chunk.start };
            let buffers = [&slots.tiles, tiles, states, &slots.rows, &list, counts, survivors];
            self.o.programs.tile.add(self.o.device, commands, &buffers, &params, n);
        }
    }

    /// Gives what passed the filter, or all rows of a range, exact distances and merges them.
    pub(super) fn merge(&mut self, chunk: &Range<u32>, which: Which<'_>, range: MergeParams, pairs: u64) {
        let (listed, work, queries) = match which {
            Which::Chunk(rows) => (0, &self.o.workshop.nothing, rows.end - rows.start),
            Which::Listed(rows, count) => (1, rows, count),
            Which::Seeing(rows, count) => (2, rows, count),
        };
        let params = MergeParams {
            width: int(super::rows::width(self.o.queries.dim)),
            k: int(self.o.queries.k.get()),
            room: self.o.workshop.room,
            first_row: chunk.start,
            queries,
            listed,
            overflow_at: self.o.workshop.chunk,
            tile: int(self.o.variant.references()),
            own_row: u32::from(self.o.queries.own_row),
            share: self.o.merge.share,
            tops_from: self.o.queries.chunk.map_or(0, |_| chunk.start),
            plane: int(self.o.queries.plane()),
            ..range
        };
        let buffers = [
            &self.o.queries.stored.rows,
            &self.o.part.stored.rows,
            &self.o.queries.states,
            &self.o.part.stored.marks,
            &self.o.queries.tops,
            &self.o.workshop.counts,
            &self.o.workshop.survivors,
            work,
        ];
        let commands = self.commands.add(pairs);
        self.o.programs.merge.add(self.o.device, commands, &buffers, &params, queries);
    }

    /// All rows at some positions, each at its exact distance; `params` says what else the merge does.
    fn ranged(
        &mut self,
        chunk: &Range<u32>,
        which: Which<'_>,
        tiles: &Tiles,
        positions: Range<u32>,
        params: MergeParams,
    ) {
        let queries = match which {
            Which::Chunk(rows) => rows.end - rows.start,
            Which::Listed(_, count) | Which::Seeing(_, count) => count,
        };
        let pairs = u64::from(queries) * self.o.variant.references() as u64 * EXACT_COST;
        for part in short(positions, pairs, self.o.workshop.pairs_max) {
            let range = MergeParams {
                ranged: 1,
                first_position: part.start,
                last_position: part.end,
                first_tile: tiles.first,
                tiles: tiles.n,
                stride: tiles.stride,
                first_reference: tiles.first_row,
                last_reference: tiles.last_row,
                ..params
            };
            self.merge(chunk, which, range, pairs * u64::from(part.end - part.start));
        }
    }

    /// Makes every top-k empty.
    pub fn clear_tops(&mut self) {
        self.commands.add(0).clear_buffer(&self.o.queries.tops, 0, None);
    }

    /// Searches these queries of a visit again, without a filter: their survivors did not fit. Where there is a top-k for a
    /// chunk only, they are of that chunk.
    pub fn again(&mut self, visit: &Visit, overflowed: &[u32], chunk: &Range<u32>) {
        let rows: Vec<u32> = match &visit.queries {
            VisitQueries::All => overflowed.to_vec(),
            VisitQueries::List(list) => {
                overflowed.iter().copied().filter(|row| list.binary_search(row).is_ok()).collect()
            }
        };
        if rows.is_empty() {
            return;
        }
        let tiles = Tiles::of(&visit.rows, int(self.o.variant.references()));
        let buffer = self.list("overflowed queries", &rows);
        let which = Which::Listed(&buffer, int(rows.len()));
        self.ranged(chunk, which, &tiles, 0..tiles.n, MergeParams::again());
        self.commands.submit();
    }

    pub(super) fn list<T: bytemuck::Pod>(&self, what: &'static str, values: &[T]) -> wgpu::Buffer {
        self.o.device.filled(what, bytemuck::cast_slice(values), wgpu::BufferUsages::STORAGE)
    }
}
