//! What the engine keeps on the device, and what goes first where memory is short.

use std::sync::Arc;

use super::GpuEngine;
use super::codes::Decoding;
use super::programs::Programs;
use super::queries::bytes_per_query;
use super::resident::{HalfOf, Packing, Resident, Residents, Stored, Tiled, buffer, int};
use super::rows::Rows;
use super::search::Workshop;
use super::space::Space;
use super::variant::Variant;
use crate::block;
use crate::engine::Partition;
use crate::engine::cpu::exact::check_rows;
use crate::error::EngineError;

/// Gathered queries at a time and the bytes they may take, on devices with this much memory and with less. Steps, and far
/// from any memory that is just enough: the least that works is told by what is refused.
const LARGE: (u64, u32, u64) = (16 << 30, 1 << 20, 512 << 20);
const SMALL: (u32, u64) = (1 << 17, 64 << 20);
/// How many there are however large they are.
const SLOTS_MIN: u32 = 4096;

impl GpuEngine {
    /// Bytes of the queries and of what they are searched with.
    pub(super) fn query_bytes(&self, rows: usize, dim: usize, k: usize) -> u64 {
        let packed = Packing::channels(&self.variant, dim, 0) * size_of::<f32>();
        let half = if self.variant.is_cooperative() { Variant::fragments(dim).0 * 32 + 4 } else { 0 };
        (rows * (bytes_per_query(dim, k) + packed + half)) as u64
    }

    pub(super) fn workshop_bytes(&self, dim: usize) -> u64 {
        let gathered = u64::from(self.slots(dim)) * self.slot_bytes(dim) as u64;
        u64::from(self.tuning.chunk) * (u64::from(self.tuning.room) + 1) * 4 + gathered
    }

    /// Queries that are gathered at a time.
    fn slots(&self, dim: usize) -> u32 {
        let (most, bytes) = if self.memory >= LARGE.0 { (LARGE.1, LARGE.2) } else { SMALL };
        let fit = bytes.min(self.shared.device.adapter.binding_bytes_max) / self.slot_bytes(dim) as u64;
        u32::try_from(fit).unwrap_or(u32::MAX).clamp(SLOTS_MIN, most).min(self.tuning.slots)
    }

    /// Bytes of a query as the distance tile reads it.
    fn slot_bytes(&self, dim: usize) -> usize {
        let full = Packing::channels(&self.variant, dim, 0) * size_of::<f32>();
        let half = if self.variant.is_cooperative() { Variant::fragments(dim).0 * 32 } else { 0 };
        full.max(half)
    }

    /// The partition on the device, uploaded and packed where it is not there.
    pub(super) fn resident(&mut self, part: &Arc<Partition>) -> Result<Arc<Resident>, EngineError> {
        self.residents.forget_dropped();
        if let Some(resident) = self.residents.find(part) {
            return Ok(resident);
        }
        let Some((sample, queries)) = &self.queries else { return Err(EngineError::NotBegun { call: "visit" }) };
        check_rows(self.metric, &part.block, "reference")?;
        if self.space.is_none() {
            let space = Space::of(self.metric, sample, &part.block);
            let centre = buffer(&self.shared.device, "the centre", size_of_val(space.centre.as_slice()))?;
            self.shared.device.queue.write_buffer(&centre, 0, bytemuck::cast_slice(&space.centre));
            self.space = Some((space, centre));
        }
        let bytes = Residents::bytes(&self.variant, part.block.dim(), part.block.rows());
        let taken = self.query_bytes(queries.stored.n, queries.dim, queries.k.get()) + self.workshop_bytes(queries.dim);
        self.residents.make_room(bytes, self.memory.saturating_sub(taken));
        let (stored, tiled) = self.sparing(|engine| engine.upload(part))?;
        Ok(self.residents.add(part, stored, tiled, &self.variant))
    }

    /// Makes what takes device memory, with what can be spared freed where there is not enough.
    pub(super) fn sparing<T>(
        &mut self,
        mut make: impl FnMut(&Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        loop {
            match make(self) {
                // The budget was too much for this device after all.
                Err(EngineError::DeviceMemory { .. }) if self.relieve()? => {}
                made => return made,
            }
        }
    }

    /// Frees device memory where some can be spared: other partitions first, then half of the room for survivors. Whether
    /// anything was.
    fn relieve(&mut self) -> Result<bool, EngineError> {
        self.settle()?;
        if self.residents.clear() {
            self.memory /= 2;
        } else if let Some(workshop) = self.workshop.take_if(|workshop| workshop.chunk > int(self.variant.queries())) {
            let rows = workshop.rows;
            self.tuning.chunk = workshop.chunk / 2;
            drop(workshop);
            self.workshop = Some(self.workshop(rows)?);
        } else {
            return Ok(false);
        }
        // What was dropped is free once the device is done with it.
        self.shared.device.wait()?;
        Ok(true)
    }

    /// Room for the survivors of a block of so many queries; less of it where the device has no more.
    pub(super) fn workshop(&mut self, rows: usize) -> Result<Workshop, EngineError> {
        let (dim, _) = self.programs.as_ref().ok_or(EngineError::NotBegun { call: "visit" })?;
        let gathered = (self.slots(*dim), self.slot_bytes(*dim));
        let tile = int(self.variant.queries());
        loop {
            let most = int(rows.next_multiple_of(self.variant.queries()).max(1));
            let chunk = self.tuning.chunk.next_multiple_of(tile).min(most);
            match Workshop::new(&self.shared.device, chunk, rows, gathered, self.tuning) {
                Err(EngineError::DeviceMemory { .. }) if chunk > tile => self.tuning.chunk = chunk / 2,
                made => return made,
            }
        }
    }

    fn upload(&self, part: &Partition) -> Result<(Stored, Tiled), EngineError> {
        let rows = Rows {
            metric: self.metric,
            block: &part.block,
            groups: part.groups.as_deref(),
            mask: part.mask.as_deref(),
        };
        let (packing, programs) = self.packing()?;
        let (device, pool, what) = (&self.shared.device, &self.pool, "a partition");
        let decoding = match &part.block {
            block::Rows::Coded(coded) => Decoding::of(rows, coded),
            block::Rows::Plain(_) => None,
        };
        let stored = match decoding {
            Some(decoding) => decoding.upload(device, pool, what, &programs.decode)?,
            None => Stored::upload(device, pool, what, rows)?,
        };
        let tiles = packing.pack(&programs.pack_references, &stored, self.variant.references(), 2, None)?;
        let half = match &programs.half {
            Some(half) => Some(packing.pack_half(&half.pack_references, &tiles, stored.n, HalfOf::References)?),
            None => None,
        };
        Ok((stored, Tiled { tiles, half }))
    }

    fn packing(&self) -> Result<(Packing<'_>, &Programs), EngineError> {
        let not_begun = EngineError::NotBegun { call: "visit" };
        let (Some((space, centre)), Some((_, programs))) = (&self.space, &self.programs) else { return Err(not_begun) };
        Ok((Packing { device: &self.shared.device, variant: &self.variant, space, centre }, programs))
    }

    /// Packs the queries into the space, which may not have been there when they came.
    pub(super) fn pack_queries(&mut self) -> Result<(), EngineError> {
        if self.queries.as_ref().is_none_or(|(_, queries)| queries.tiled.is_some()) {
            return Ok(());
        }
        let tiled = self.sparing(Self::packed_queries)?;
        if let Some((_, queries)) = &mut self.queries {
            queries.tiled = Some(tiled);
        }
        Ok(())
    }

    fn packed_queries(&self) -> Result<Tiled, EngineError> {
        let (_, queries) = self.begun("visit")?;
        let (packing, programs) = self.packing()?;
        let states = Some(&queries.states);
        let tiles = packing.pack(&programs.pack_queries, &queries.stored, self.variant.queries(), 0, states)?;
        let half = match &programs.half {
            Some(half) => Some(packing.pack_half(&half.pack_queries, &tiles, queries.stored.n, HalfOf::Queries)?),
            None => None,
        };
        Ok(Tiled { tiles, half })
    }
}
