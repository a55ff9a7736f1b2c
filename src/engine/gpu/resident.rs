//! What lies on the device: the queries with their top-k, and partitions, the least recently used of which go first.

use std::sync::{Arc, Weak};

use super::device::Device;
use super::params::{HalfParams, Mark, PackParams};
use super::passes::Pass;
use super::queries::is_wide;
use super::rows::{Rows, width};
use super::space::Space;
use super::variant::Variant;
use crate::block::RowIds;
use crate::engine::Partition;
use crate::error::EngineError;

/// Bytes of rows that are prepared on the host at a time.
const UPLOAD_BYTES: usize = 8 << 20;
/// Invocations of a workgroup of a pass over rows.
pub(super) const ROW_THREADS: u32 = 64;

/// Rows as they are kept for exact distances, and their marks.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub rows: wgpu::Buffer,
    pub marks: wgpu::Buffer,
    pub n: usize,
}

/// A storage buffer; empty ones get 16 bytes, since no binding may be empty.
pub(super) fn buffer(device: &Device, what: &'static str, bytes: usize) -> Result<wgpu::Buffer, EngineError> {
    let size = (bytes.max(16) as u64).next_multiple_of(16);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    device.checked(what, |gpu| {
        gpu.create_buffer(&wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false })
    })
}

/// A storage buffer that is mapped to be written: only where the device shares the host's memory.
fn mapped(device: &Device, what: &'static str, bytes: usize) -> Result<wgpu::Buffer, EngineError> {
    let size = (bytes.max(16) as u64).next_multiple_of(16);
    let usage = wgpu::BufferUsages::STORAGE
        | wgpu::BufferUsages::COPY_SRC
        | wgpu::BufferUsages::COPY_DST
        | wgpu::BufferUsages::MAP_WRITE;
    device.checked(what, |gpu| {
        gpu.create_buffer(&wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: true })
    })
}

impl Stored {
    /// Bytes of a row and its mark.
    pub fn bytes_per_row(dim: usize) -> usize {
        16 * width(dim) + size_of::<Mark>()
    }

    /// Uploads all rows, prepared on the pool.
    pub fn upload(
        device: &Device,
        pool: &rayon::ThreadPool,
        what: &'static str,
        rows: Rows<'_>,
    ) -> Result<Self, EngineError> {
        if device.is_mappable {
            Self::in_place(device, pool, what, rows)
        } else {
            Self::staged(device, pool, what, rows)
        }
    }

    /// Writes the rows into the device's own buffers.
    fn in_place(
        device: &Device,
        pool: &rayon::ThreadPool,
        what: &'static str,
        rows: Rows<'_>,
    ) -> Result<Self, EngineError> {
        let (n, row_bytes) = (rows.block.rows(), 16 * width(rows.block.dim()));
        let stored =
            Self { rows: mapped(device, what, n * row_bytes)?, marks: mapped(device, what, n * size_of::<Mark>())?, n };
        let view = |of: &wgpu::Buffer| of.get_mapped_range_mut(..).map_err(|why| device.error("writing rows", why));
        let (mut to_rows, mut to_marks) = (view(&stored.rows)?, view(&stored.marks)?);
        in_parts(pool, rows, |first, values, marks| {
            let put = |to: &mut wgpu::BufferViewMut, at: usize, bytes: &[u8]| {
                to.slice(at..at + bytes.len()).copy_from_slice(bytes);
            };
            put(&mut to_rows, first * row_bytes, bytemuck::cast_slice(values));
            put(&mut to_marks, first * size_of::<Mark>(), bytemuck::cast_slice(marks));
        });
        drop((to_rows, to_marks));
        stored.rows.unmap();
        stored.marks.unmap();
        Ok(stored)
    }

    /// Sends the rows, which is what a device with memory of its own asks for.
    fn staged(
        device: &Device,
        pool: &rayon::ThreadPool,
        what: &'static str,
        rows: Rows<'_>,
    ) -> Result<Self, EngineError> {
        let (n, row_bytes) = (rows.block.rows(), 16 * width(rows.block.dim()));
        let stored =
            Self { rows: buffer(device, what, n * row_bytes)?, marks: buffer(device, what, n * size_of::<Mark>())?, n };
        in_parts(pool, rows, |first, values, marks| {
            let put = |to: &wgpu::Buffer, at: usize, bytes: &[u8]| device.queue.write_buffer(to, at as u64, bytes);
            put(&stored.rows, first * row_bytes, bytemuck::cast_slice(values));
            put(&stored.marks, first * size_of::<Mark>(), bytemuck::cast_slice(marks));
        });
        Ok(stored)
    }
}

/// Prepares all rows on the pool, a few at a time, and hands them on with the number of the first.
fn in_parts(pool: &rayon::ThreadPool, rows: Rows<'_>, mut send: impl FnMut(usize, &[f32], &[Mark])) {
    let (n, row_values) = (rows.block.rows(), 4 * width(rows.block.dim()));
    let step = (UPLOAD_BYTES / (row_values * size_of::<f32>())).max(1);
    let (mut values, mut marks) = (vec![0.0; step.min(n) * row_values], vec![Mark::default(); step.min(n)]);
    for first in (0..n).step_by(step) {
        let part = first..(first + step).min(n);
        let (values, marks) = (&mut values[..part.len() * row_values], &mut marks[..part.len()]);
        pool.install(|| rows.fill(part, values, marks));
        send(first, values, marks);
    }
}

/// What packing rows follows from.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub device: &'a Device,
    pub variant: &'a Variant,
    pub space: &'a Space,
    pub centre: &'a wgpu::Buffer,
}

impl Packing<'_> {
    /// Values of a packed row of `dim` dimensions and `head` channels before them.
    pub fn channels(variant: &Variant, dim: usize, head: usize) -> usize {
        let (slabs, slab) = variant.slabs(dim);
        head + slabs * slab
    }

    /// Packs rows into tiles of so many.
    pub fn pack(
        &self,
        pass: &Pass,
        stored: &Stored,
        tile: usize,
        head: usize,
        states: Option<&wgpu::Buffer>,
    ) -> Result<wgpu::Buffer, EngineError> {
        let dim = self.space.centre.len();
        let channels = Self::channels(self.variant, dim, head);
        let slots = stored.n.div_ceil(tile) * tile;
        let tiles = buffer(self.device, "packed rows", slots * channels * size_of::<f32>())?;
        let params = PackParams {
            rows: int(stored.n),
            slots: int(slots),
            dim: int(dim),
            width: int(width(dim)),
            channels: int(channels),
            ..self.space.pack_params()
        };
        let mut commands = self.device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut buffers = vec![&stored.rows, &stored.marks, self.centre, &tiles];
        buffers.extend(states);
        pass.add(self.device, &mut commands, &buffers, &params, int(slots).div_ceil(ROW_THREADS));
        self.device.queue.submit([commands.finish()]);
        Ok(tiles)
    }
}

/// Rows as fragments for cooperative matrices.
#[derive(Clone, Debug)]
pub(super) struct Half {
    pub fragments: wgpu::Buffer,
    /// Each query's share of the error; empty for references.
    pub shares: wgpu::Buffer,
}

impl Packing<'_> {
    /// Turns packed rows into fragments.
    pub fn pack_half(&self, pass: &Pass, tiles: &wgpu::Buffer, n: usize, of: HalfOf) -> Result<Half, EngineError> {
        let dim = self.space.centre.len();
        let (tile, head) = match of {
            HalfOf::Queries => (self.variant.queries(), 0),
            HalfOf::References => (self.variant.references(), 2),
        };
        let slots = n.div_ceil(tile) * tile;
        let blocks = Variant::fragments(dim).0;
        let fragments = buffer(self.device, "rows in f16", slots * blocks * 32)?;
        let shares = buffer(self.device, "shares", if of == HalfOf::Queries { slots * size_of::<f32>() } else { 0 })?;
        let params = HalfParams {
            slots: int(slots),
            dim: int(dim),
            channels: int(Self::channels(self.variant, dim, head)),
            blocks: int(blocks),
            gamma: self.space.pack_params().gamma,
            rows: int(n),
            ..HalfParams::default()
        };
        let mut commands = self.device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut buffers = vec![tiles, &fragments];
        if of == HalfOf::Queries {
            buffers.push(&shares);
        }
        pass.add(self.device, &mut commands, &buffers, &params, int(slots).div_ceil(ROW_THREADS));
        self.device.queue.submit([commands.finish()]);
        Ok(Half { fragments, shares })
    }
}

/// Which side becomes fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfOf {
    Queries,
    References,
}

/// Rows as the distance tile of a variant reads them.
#[derive(Clone, Debug)]
pub(super) struct Tiled {
    pub tiles: wgpu::Buffer,
    pub half: Option<Half>,
}

/// A partition on the device.
#[derive(Debug)]
pub(super) struct Resident {
    pub stored: Stored,
    pub tiled: Tiled,
    part: Weak<Partition>,
    key: u64,
    bytes: u64,
    /// Whether an id of it may need its high half.
    pub wide: bool,
}

/// The partitions on the device, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct Residents {
    all: Vec<Arc<Resident>>,
}

impl Residents {
    /// Bytes that a partition of so many rows takes.
    pub fn bytes(variant: &Variant, dim: usize, rows: usize) -> u64 {
        let slots = rows.div_ceil(variant.references()) * variant.references();
        let packed = slots * Packing::channels(variant, dim, 2) * size_of::<f32>();
        let half = if variant.is_cooperative() { slots * Variant::fragments(dim).0 * 32 } else { 0 };
        (rows * Stored::bytes_per_row(dim) + packed + half) as u64
    }

    /// Forgets partitions that their owners have dropped.
    pub fn forget_dropped(&mut self) {
        self.all.retain(|resident| resident.part.strong_count() > 0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The partition, where it is on the device.
    pub fn find(&mut self, part: &Partition) -> Option<Arc<Resident>> {
        let at = self.all.iter().position(|resident| resident.key == part.key())?;
        let resident = self.all.remove(at);
        self.all.push(Arc::clone(&resident));
        Some(resident)
    }

    /// Drops the least recently used until so many bytes are free of `room`.
    pub fn make_room(&mut self, bytes: u64, room: u64) {
        let mut held: u64 = self.all.iter().map(|resident| resident.bytes).sum();
        let mut dropped = 0;
        while held + bytes > room && dropped < self.all.len() {
            held -= self.all[dropped].bytes;
            dropped += 1;
        }
        self.all.drain(..dropped);
    }

    /// Drops all; whether there were any.
    pub fn clear(&mut self) -> bool {
        let any = !self.all.is_empty();
        self.all.clear();
        any
    }

    /// Adds a partition.
    pub fn add(&mut self, part: &Arc<Partition>, stored: Stored, tiled: Tiled, variant: &Variant) -> Arc<Resident> {
        let bytes = Self::bytes(variant, part.block.dim(), part.block.rows());
        let wide = match part.block.ids() {
            RowIds::Range(ids) => is_wide(ids.end),
            RowIds::List(ids) => ids.iter().any(|id| is_wide(*id)),
        };
        let resident = Resident { stored, tiled, part: Arc::downgrade(part), key: part.key(), bytes, wide };
        self.all.push(Arc::new(resident));
        Arc::clone(&self.all[self.all.len() - 1])
    }
}

/// A size as the device's integers; the limits keep all of them below 2³².
pub(super) fn int(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
