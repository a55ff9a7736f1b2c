//! The queries on the device between `begin` and `finish`, and their top-k on the way to and from the host.

use std::ops::Range;

use rayon::prelude::*;

use super::device::Device;
use super::params::Mark;
use super::resident::{Stored, Tiled, buffer, int};
use super::steps::slots;
use super::variant::Variant;
use crate::engine::{Exclude, Visit, VisitQueries};
use crate::error::EngineError;
use crate::topk::{PADDING, TopK};
use crate::units::K;

/// Bytes of neighbours that are on their way to the host at a time.
const READ_BYTES: usize = 32 << 20;
/// Neighbours that are worth a task of their own.
const SLOTS_MIN: usize = 1 << 14;

/// A block of queries on the device.
#[derive(Debug)]
pub(super) struct Queries {
    pub stored: Stored,
    pub dim: usize,
    pub k: K,
    pub own_row: bool,
    /// Whether references of a query's group are excluded.
    pub grouped: bool,
    /// Two vec4<u32> per query, as in `merge.wgsl`.
    pub states: wgpu::Buffer,
    pub tops: wgpu::Buffer,
    /// Query rows of the slots of `tiled`: all of them, in order.
    pub slots: wgpu::Buffer,
    /// Packed, once there is a space to pack them into.
    pub tiled: Option<Tiled>,
    /// Values of a packed row.
    pub channels: usize,
    /// Rows that each query has seen; saturates.
    pub seen: Vec<u32>,
    /// For how many queries there is a top-k; `None` for all.
    pub chunk: Option<usize>,
    /// Whether an id may need its high half.
    pub wide: bool,
}

/// Bytes of a query on the device, the packed row not counted.
pub(super) fn bytes_per_query(dim: usize, k: usize) -> usize {
    // Its states are there twice while its nearest lists are found.
    Stored::bytes_per_row(dim) + 12 * k + 2 * 32 + 2 * size_of::<u32>()
}

/// An order as `merge.wgsl` keeps it, of a distance.
fn order_of(distance: f32) -> u32 {
    let bits = (distance + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Whether this id is no 32 bits, or all of them.
pub(super) fn is_wide(id: u64) -> bool {
    id >= u64::from(u32::MAX)
}

fn distance_of(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 1 { order & !(1 << 31) } else { !order })
}

impl Queries {
    /// Queries with an empty top-k each.
    pub fn new(
        device: &Device,
        variant: &Variant,
        stored: Stored,
        shape: (usize, K),
        exclude: &Exclude,
    ) -> Result<Self, EngineError> {
        let (n, (dim, k)) = (stored.n, shape);
        let all = slots(0..int(n), variant.queries());
        let slots = buffer(device, "slots", all.len() * size_of::<u32>())?;
        device.queue.write_buffer(&slots, 0, bytemuck::cast_slice(&all));
        Ok(Self {
            dim,
            k,
            own_row: matches!(exclude, Exclude::OwnRow | Exclude::SameGroup { own_row: true, .. }),
            grouped: matches!(exclude, Exclude::SameGroup { .. }),
            states: buffer(device, "states of the queries", n * 2 * size_of::<Mark>())?,
            // New buffers are zeros, which is an empty top-k.
            tops: buffer(device, "neighbours", n * k.get() * 12)?,
            slots,
            tiled: None,
            channels: super::resident::Packing::channels(variant, dim, 0),
            seen: vec![0; n],
            chunk: None,
            wide: false,
            stored,
        })
    }

    /// The same queries, which have seen nothing and exclude nothing, with room for the top-k of so many at a time.
    pub fn beside(&self, device: &Device, k: K, chunk: usize) -> Result<Self, EngineError> {
        let states = buffer(device, "states beside", self.stored.n * 2 * size_of::<Mark>())?;
        let mut commands = device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        commands.copy_buffer_to_buffer(&self.states, 0, &states, 0, self.states.size());
        device.queue.submit([commands.finish()]);
        Ok(Self {
            stored: self.stored.clone(),
            dim: self.dim,
            k,
            own_row: false,
            grouped: false,
            states,
            tops: buffer(device, "neighbours beside", chunk * k.get() * 12)?,
            slots: self.slots.clone(),
            tiled: self.tiled.clone(),
            channels: self.channels,
            seen: Vec::new(),
            chunk: Some(chunk),
            wide: false,
        })
    }

    /// Opens their thresholds with the next partition, as if they had seen nothing. What was found stays.
    pub fn open(&mut self) {
        self.tiled = None;
        self.seen.fill(0);
    }

    /// Whether any of them was searched.
    pub fn have_seen(&self) -> bool {
        self.seen.iter().any(|rows| *rows > 0)
    }

    /// The packed rows.
    pub fn tiled(&self) -> Result<&Tiled, EngineError> {
        self.tiled.as_ref().ok_or(EngineError::NotBegun { call: "visit" })
    }

    /// Notes that a visit is made; the fewest rows that any of its queries had seen before.
    pub fn see(&mut self, visit: &Visit) -> u64 {
        let rows = visit.rows.end - visit.rows.start;
        let mut least = u32::MAX;
        let mut see = |seen: &mut u32| {
            least = least.min(*seen);
            *seen = seen.saturating_add(rows);
        };
        match &visit.queries {
            VisitQueries::All => self.seen.iter_mut().for_each(&mut see),
            VisitQueries::List(list) => {
                for &row in list {
                    see(&mut self.seen[usize::try_from(row).unwrap_or(usize::MAX)]);
                }
            }
        }
        u64::from(least)
    }

    /// Values of a plane of `tops`: orders, low halves and high halves of ids have one each.
    pub fn plane(&self) -> usize {
        self.chunk.unwrap_or(self.stored.n) * self.k.get()
    }

    /// Rows of the top-k that are on their way to the host, or from it, at a time.
    fn rows_at_a_time(&self) -> usize {
        (READ_BYTES / (12 * self.k.get())).max(1).min(self.stored.n)
    }

    /// Where in `tops` these rows of a plane are, in bytes.
    fn place(&self, plane: usize, rows: &Range<usize>) -> Range<u64> {
        let at = |row: usize| (4 * (plane * self.plane() + row * self.k.get())) as u64;
        at(rows.start)..at(rows.end)
    }

    /// Everything found so far, unpacked on the pool.
    pub fn top(&self, device: &Device, pool: &rayon::ThreadPool) -> Result<TopK, EngineError> {
        let all = self.stored.n * self.k.get();
        let (mut ids, mut distances) = (Vec::with_capacity(all), Vec::with_capacity(all));
        let step = self.rows_at_a_time();
        let planes = if self.wide { 3 } else { 2 };
        let staging = staging(device, "neighbours on their way", step * self.k.get() * 4 * planes)?;
        for first in (0..self.stored.n).step_by(step.max(1)) {
            let rows = first..(first + step).min(self.stored.n);
            let places: Vec<_> = (0..planes).map(|plane| self.place(plane, &rows)).collect();
            let view = read_back(device, &staging, &self.tops, &places)?;
            let words: &[u32] = bytemuck::cast_slice(&view);
            let n = rows.len() * self.k.get();
            let id = |at: usize| match (!words[n + at], words.get(2 * n + at).map(|high| !high)) {
                (low, Some(high)) => u64::from(high) << 32 | u64::from(low),
                (u32::MAX, None) => PADDING,
                (low, None) => u64::from(low),
            };
            let distance = |at: usize| if id(at) == PADDING { f32::INFINITY } else { distance_of(!words[at]) + 0.0 };
            pool.install(|| {
                let slots = || (0..n).into_par_iter().with_min_len(SLOTS_MIN);
                ids.par_extend(slots().map(id));
                distances.par_extend(slots().map(distance));
            });
            drop(view);
            staging.unmap();
        }
        Ok(TopK::from_sorted(self.k, ids, distances))
    }

    /// Replaces everything found so far.
    pub fn restore(&mut self, device: &Device, all: &TopK) -> Result<(), EngineError> {
        if (all.rows(), all.k()) != (self.stored.n, self.k.get()) {
            let why = format!("it has {} rows of {}, there are {} of {}", all.rows(), all.k(), self.stored.n, self.k);
            return Err(EngineError::Shape { what: "the saved top-k and the queries", why });
        }
        let step = self.rows_at_a_time();
        for first in (0..self.stored.n).step_by(step.max(1)) {
            let rows = first..(first + step).min(self.stored.n);
            let slots = rows.start * self.k.get()..rows.end * self.k.get();
            let (ids, distances) = (&all.ids()[slots.clone()], &all.distances()[slots]);
            let half = |id: &u64, shift: u32| !u32::try_from(id >> shift & u64::from(u32::MAX)).unwrap_or(u32::MAX);
            let orders = distances.iter().map(|distance| !order_of(*distance)).collect();
            let planes: [Vec<u32>; 3] =
                [orders, ids.iter().map(|id| half(id, 0)).collect(), ids.iter().map(|id| half(id, 32)).collect()];
            for (plane, words) in planes.iter().enumerate() {
                let at = self.place(plane, &rows).start;
                device.queue.write_buffer(&self.tops, at, bytemuck::cast_slice(words));
            }
        }
        self.wide |= all.ids().iter().any(|id| *id != PADDING && is_wide(*id));
        Ok(())
    }
}

/// A buffer that the host can read.
pub(super) fn staging(device: &Device, what: &'static str, bytes: usize) -> Result<wgpu::Buffer, EngineError> {
    device.checked(what, |gpu| {
        gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: (bytes.max(4) as u64).next_multiple_of(4),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        })
    })
}

/// Copies parts of a buffer into a staging buffer, one after the other, waits, and maps it. The caller unmaps it.
pub(super) fn read_back(
    device: &Device,
    staging: &wgpu::Buffer,
    from: &wgpu::Buffer,
    places: &[Range<u64>],
) -> Result<wgpu::BufferView, EngineError> {
    let mut commands = device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut bytes = 0;
    for place in places {
        commands.copy_buffer_to_buffer(from, place.start, staging, bytes, place.end - place.start);
        bytes += place.end - place.start;
    }
    device.queue.submit([commands.finish()]);
    let (sender, receiver) = std::sync::mpsc::channel();
    staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
        // The receiver waits below.
        let _ = sender.send(result);
    });
    device.wait()?;
    mapped(device, staging, &receiver, bytes)
}

/// What was mapped of a staging buffer, once the device was waited for.
pub(super) fn mapped(
    device: &Device,
    staging: &wgpu::Buffer,
    outcome: &std::sync::mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    bytes: u64,
) -> Result<wgpu::BufferView, EngineError> {
    match outcome.try_recv() {
        Ok(Ok(())) => staging.get_mapped_range(0..bytes).map_err(|why| device.error("reading back", why)),
        Ok(Err(why)) => Err(device.error("reading back", why)),
        Err(why) => Err(device.error("reading back", why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_compare_as_distances_and_come_back() {
        let distances = [f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 2.5, f32::MAX, f32::INFINITY];
        assert!(distances.is_sorted_by_key(|&d| order_of(d)));
        assert!(distances.iter().all(|&d| distance_of(order_of(d)) == d));
        assert_eq!(order_of(-0.0), order_of(0.0));
    }
}
