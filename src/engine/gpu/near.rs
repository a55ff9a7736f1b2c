//! Rows of a partition that are nearest each query, such as centroids: a search beside the one that was begun, of the queries
//! that lie on the device already, some at a time. The host takes what was found of some while the next are searched.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::device::Device;
use super::params::HorizonParams;
use super::programs::{MergeShape, Programs};
use super::queries::{Queries, mapped, read_back, staging};
use super::resident::{ROW_THREADS, Resident, int};
use super::search::Search;
use super::steps::Tiles;
use super::{GpuEngine, check_visits};
use crate::engine::{Horizon, Partition, Visit, VisitQueries, check_landmarks};
use crate::error::EngineError;
use crate::units::K;

/// Neighbours that are worth a task of their own.
const SLOTS: usize = 1 << 14;

/// What such a search works with besides the queries, the partition and the workshop.
struct Beside {
    programs: Arc<Programs>,
    /// The block's queries, with a top-k for some of them.
    queries: Queries,
    /// Beyond this, nothing is near.
    horizon: Option<Horizon>,
    /// Queries at a time.
    chunk: usize,
    /// What was found of two chunks, on its way to the host.
    staging: [wgpu::Buffer; 2],
}

/// A chunk that was submitted.
struct Sent {
    rows: Range<usize>,
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    outcome: std::sync::mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl GpuEngine {
    /// As [`crate::engine::Engine::nearest`].
    pub(super) fn nearest_rows(
        &mut self,
        part: &Arc<Partition>,
        (k, horizon): (K, Option<Horizon>),
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        let (_, queries) = self.begun("nearest")?;
        let (n, dim, block_k) = (queries.stored.n, queries.dim, queries.k.get());
        check_visits((n, dim), part, &[])?;
        check_landmarks(part)?;
        if n == 0 || part.block.rows() == 0 {
            return Ok(vec![u32::MAX; n * k.get()]);
        }
        let resident = self.resident(part)?;
        self.settle()?;
        if let Some((_, queries)) = self.queries.as_mut().filter(|(_, queries)| queries.have_seen()) {
            // Thresholds of what was found must not hold here.
            queries.open();
        }
        self.pack_queries()?;
        let taken = self.query_bytes(n, dim, block_k) + self.workshop_bytes(dim);
        let beside_bytes = (at_a_time.min(n) * k.get() * 12) as u64;
        self.residents.make_room(beside_bytes, self.memory.saturating_sub(taken));
        let beside = self.sparing(|engine| engine.beside(k, horizon, at_a_time))?;
        let visit = Visit { rows: 0..int(part.block.rows()), queries: VisitQueries::All };
        let mut near = Vec::with_capacity(n * k.get());
        let overflowed = self.all_chunks(&beside, &resident, &visit, &mut near)?;
        self.overflows += overflowed.len() as u64;
        self.overflowed_chunks(&beside, &resident, &visit, &overflowed, &mut near)?;
        Ok(near)
    }

    fn beside(&self, k: K, horizon: Option<Horizon>, at_a_time: usize) -> Result<Beside, EngineError> {
        let not_begun = EngineError::NotBegun { call: "nearest" };
        let (Some((_, queries)), Some(workshop)) = (&self.queries, &self.workshop) else { return Err(not_begun) };
        let device = &self.shared.device;
        let tile = self.variant.queries();
        let most = usize::try_from(workshop.chunk).unwrap_or(usize::MAX);
        let chunk = (at_a_time.min(queries.stored.n).next_multiple_of(tile)).min(most);
        let staging = || staging(device, "the nearest, on their way", chunk * k.get() * 4);
        Ok(Beside {
            programs: self.shared.programs(self.metric, queries.dim, MergeShape::of(k), &self.variant)?,
            queries: queries.beside(device, k, chunk)?,
            horizon,
            chunk,
            staging: [staging()?, staging()?],
        })
    }

    /// Searches all chunks. Returns the queries whose survivors did not fit.
    fn all_chunks(
        &self,
        beside: &Beside,
        part: &Resident,
        visit: &Visit,
        near: &mut Vec<u32>,
    ) -> Result<Vec<u32>, EngineError> {
        let mut search = self.search_of(&beside.queries, &beside.programs, part, 0)?;
        let tiles = Tiles::of(&visit.rows, int(self.variant.references()));
        let mut last: Option<Sent> = None;
        for (rows, staging) in beside.chunks().zip(beside.staging.iter().cycle()) {
            search.clear_tops();
            search.chunk(&(int(rows.start)..int(rows.end)), &tiles, None)?;
            let sent = beside.send(search, rows, staging);
            search = self.search_of(&beside.queries, &beside.programs, part, 0)?;
            if let Some(sent) = last.replace(sent) {
                beside.receive(&self.shared.device, &self.pool, sent, near)?;
            }
        }
        if let Some(sent) = last {
            beside.receive(&self.shared.device, &self.pool, sent, near)?;
        }
        search.o.workshop.overflowed(&self.shared.device)
    }

    /// Searches these queries again without a filter.
    fn overflowed_chunks(
        &self,
        beside: &Beside,
        part: &Resident,
        visit: &Visit,
        overflowed: &[u32],
        near: &mut [u32],
    ) -> Result<(), EngineError> {
        let device = &self.shared.device;
        let at =
            |row: usize| overflowed.partition_point(|query| usize::try_from(*query).is_ok_and(|query| query < row));
        for rows in beside.chunks() {
            let own = &overflowed[at(rows.start)..at(rows.end)];
            if own.is_empty() {
                continue;
            }
            let mut search = self.search_of(&beside.queries, &beside.programs, part, 0)?;
            search.clear_tops();
            search.again(visit, own, &(int(rows.start)..int(rows.end)));
            search.leave_far(beside.horizon, int(rows.len()));
            search.commands.submit();
            let view = read_back(device, &beside.staging[0], &beside.queries.tops, &[beside.ids(&rows)])?;
            let (k, ids): (usize, &[u32]) = (beside.queries.k.get(), bytemuck::cast_slice(&view));
            for row in own.iter().filter_map(|query| usize::try_from(*query).ok()) {
                let at = (row - rows.start) * k;
                near[row * k..(row + 1) * k].iter_mut().zip(&ids[at..]).for_each(|(near, id)| *near = !id);
            }
            drop(view);
            beside.staging[0].unmap();
        }
        Ok(())
    }
}

impl Search<'_> {
    /// Takes what is beyond the horizon from the top-k of the first so many queries of a chunk.
    fn leave_far(&mut self, horizon: Option<Horizon>, queries: u32) {
        let Some(Horizon { times, squares }) = horizon else { return };
        let (k, plane) = (int(self.o.queries.k.get()), int(self.o.queries.plane()));
        let params = HorizonParams {
            queries,
            k,
            plane,
            nearest: int(Horizon::NEAREST),
            times,
            squares: u32::from(squares),
            pad0: 0,
            pad1: 0,
        };
        let groups = queries.div_ceil(ROW_THREADS);
        let commands = self.commands.add(0);
        self.o.programs.horizon.add(self.o.device, commands, &[&self.o.queries.tops], &params, groups);
    }
}

impl Beside {
    /// Where in the top-k the ids of a chunk are, in bytes: the low halves, for there are few rows.
    fn ids(&self, rows: &Range<usize>) -> Range<u64> {
        let start = 4 * self.queries.plane() as u64;
        start..start + (4 * rows.len() * self.queries.k.get()) as u64
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (n, chunk) = (self.queries.stored.n, self.chunk);
        (0..n).step_by(chunk).map(move |first| first..(first + chunk).min(n))
    }

    /// Submits a chunk's search, and what copies its outcome.
    fn send(&self, mut search: Search<'_>, rows: Range<usize>, staging: &wgpu::Buffer) -> Sent {
        let ids = self.ids(&rows);
        let bytes = ids.end - ids.start;
        search.leave_far(self.horizon, int(rows.len()));
        search.commands.add(0).copy_buffer_to_buffer(&self.queries.tops, ids.start, staging, 0, bytes);
        let submission = search.commands.submit();
        let (sender, outcome) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver waits for the submission.
            let _ = sender.send(result);
        });
        Sent { rows, staging: staging.clone(), submission, outcome }
    }

    /// Waits for a chunk and adds what was found.
    fn receive(
        &self,
        device: &Device,
        pool: &rayon::ThreadPool,
        sent: Sent,
        near: &mut Vec<u32>,
    ) -> Result<(), EngineError> {
        let Sent { rows, staging, submission, outcome } = sent;
        device.wait_for(Some(submission))?;
        let ids = self.ids(&rows);
        let view = mapped(device, &staging, &outcome, ids.end - ids.start)?;
        let ids: &[u32] = bytemuck::cast_slice(&view);
        pool.install(|| near.par_extend(ids.par_iter().with_min_len(SLOTS).map(|id| !id)));
        drop(view);
        staging.unmap();
        Ok(())
    }
}
