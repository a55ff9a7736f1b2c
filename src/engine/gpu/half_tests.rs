//! The passes that round to f16, on any adapter that has f16, against their twins bit for bit: what they round is done on the
//! bits, so that no compiler has a say in it. Where no adapter has f16 these tests say so and compare nothing, which is not to
//! happen where Vulkan is there in software: that has it.

use std::sync::Arc;

use half::f16;

use super::device::Device;
use super::params::ColumnsParams;
use super::passes::Pass;
use super::programs::{MergeShape, sources, uses};
use super::queries::read_back;
use super::resident::{Half, HalfOf, Packing, ROW_THREADS, Stored, buffer, int};
use super::rows::Rows;
use super::space::Space;
use super::templates::expand;
use super::tests::adapter;
use super::variant::{VARIANTS, Variant};
use super::{Adapter, adapters, steps};
use crate::block::RowBlock;
use crate::engine::conformance::{block, k, noise};
use crate::metric::Metric;
use crate::oracle::{columns, pack_half};

const ROWS: usize = 300;

fn cooperative() -> Variant {
    VARIANTS.into_iter().find(Variant::is_cooperative).expect("the variant in f16")
}

fn has_f16(adapter: &Adapter) -> bool {
    adapter.features.contains(&"f16")
}

/// Any adapter with f16, opened.
fn device() -> Option<Device> {
    let Some(adapter) = adapters().into_iter().find(has_f16) else {
        eprintln!("no adapter has f16: what is rounded to it was not compared");
        return None;
    };
    Some(adapter.open_with(wgpu::Features::SHADER_F16, wgpu::ExperimentalFeatures::disabled()).expect("a device"))
}

#[test]
fn vulkan_in_software_has_f16_so_what_is_rounded_is_compared_wherever_everything_is_checked() {
    if adapter().is_none() {
        return;
    }
    let all = adapters();
    for adapter in all.iter().filter(|adapter| adapter.is_software() && adapter.backend == "vulkan") {
        assert!(has_f16(adapter), "{} ({}) has only {:?}", adapter.name, adapter.driver, adapter.features);
        assert!(device().is_some_and(|device| has_f16(&device.adapter)));
    }
    let on = all.iter().find(|adapter| has_f16(adapter)).map_or("nothing", |adapter| adapter.name.as_str());
    println!("what is rounded to f16 is compared on: {on}");
}

/// Rows whose values are of all sizes, with one far out and one of zeros.
fn rows(dim: usize, seed: u64) -> RowBlock {
    let mut values = noise(seed, ROWS * dim);
    for (i, value) in values.iter_mut().enumerate() {
        *value *= [1.0, 1e-2, 3e-5, 7.0, 1e-7][i % 5];
        match i / dim {
            3 => *value *= 1e6,
            4 => *value = 0.0,
            _ => {}
        }
    }
    block(0, dim, values)
}

fn words<T: bytemuck::Pod>(device: &Device, from: &wgpu::Buffer) -> Vec<T> {
    let staging = device.gpu.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: from.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let view = read_back(device, &staging, from, &[0..from.size()]).expect("to read");
    bytemuck::pod_collect_to_vec(&view)
}

struct Bench<'a> {
    device: &'a Device,
    dim: usize,
    packing: Packing<'a>,
}

impl Bench<'_> {
    fn pass(&self, label: &str) -> Pass {
        let all = sources(Metric::Euclidean, self.dim, MergeShape::of(k(1)), self.packing.variant);
        let (file, label, words) = all.into_iter().find(|(_, of, _)| *of == label).expect("a pass");
        Pass::new(self.device, label, expand(file, &words).expect("a shader"), uses(label)).expect("a pass")
    }

    /// Lets `columns` write the thresholds of all queries.
    fn write_columns(&self, states: &wgpu::Buffer, half: &Half) {
        let device = self.device;
        let all = steps::slots(0..int(ROWS), 128);
        let slots = buffer(device, "slots", all.len() * 4).expect("a buffer");
        device.queue.write_buffer(&slots, 0, bytemuck::cast_slice(&all));
        let blocks = int(Variant::fragments(self.dim).0);
        let params = ColumnsParams { slots: int(all.len()), blocks, ..ColumnsParams::default() };
        let mut commands = device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let buffers = [states, &half.shares, &slots, &half.fragments];
        let groups = params.slots.div_ceil(ROW_THREADS);
        self.pass("columns").add(device, &mut commands, &buffers, &params, groups);
        device.queue.submit([commands.finish()]);
    }

    /// A row of `tiles`, `head` channels left out.
    fn row(&self, tiles: &[f32], head: usize, row: usize) -> Vec<f32> {
        let channels = Packing::channels(self.packing.variant, self.dim, head);
        (0..self.dim).map(|j| tiles[(row / 128 * channels + head + j) * 128 + row % 128]).collect()
    }

    /// The values of a row of fragments and its four columns.
    fn half_row(&self, fragments: &[u16], row: usize) -> (Vec<f16>, [f16; 4]) {
        let (blocks, extra) = Variant::fragments(self.dim);
        let at = |j: usize| f16::from_bits(fragments[(row / 16 * blocks + j / 16) * 256 + row % 16 * 16 + j % 16]);
        ((0..self.dim).map(at).collect(), std::array::from_fn(|c| at(extra + c)))
    }
}

/// Does something with rows of a few widths that are packed on a device with f16.
fn each_dim(check: impl Fn(&Bench<'_>, &Stored)) {
    let Some(device) = device() else { return };
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"));
    let variant = cooperative();
    for dim in [1, 12, 21, 50, 100] {
        let block = rows(dim, 2);
        let space = Space::of(Metric::Euclidean, &rows(dim, 1), &block);
        let centre = buffer(&device, "the centre", size_of_val(space.centre.as_slice())).expect("a buffer");
        device.queue.write_buffer(&centre, 0, bytemuck::cast_slice(&space.centre));
        let packing = Packing { device: &device, variant: &variant, space: &space, centre: &centre };
        let all = Rows { metric: Metric::Euclidean, block: &block, groups: None, mask: None };
        let stored = Stored::upload(&device, &pool, "rows", all).expect("an upload");
        check(&Bench { device: &device, dim, packing }, &stored);
    }
}

#[test]
fn references_in_f16_are_those_of_the_twin() {
    each_dim(|bench, stored| {
        let Bench { device, dim, packing } = *bench;
        let tiles = packing.pack(&bench.pass("packing references"), stored, 128, 2, None).expect("tiles");
        let pass = bench.pass("packing references in f16");
        let half = packing.pack_half(&pass, &tiles, ROWS, HalfOf::References).expect("f16");
        let (tiles, fragments) = (words::<f32>(device, &tiles), words(device, &half.fragments));
        let channels = Packing::channels(packing.variant, dim, 2);
        for row in 0..ROWS {
            let mut twin = pack_half::half(&bench.row(&tiles, 2, row), packing.space.pack_params().gamma);
            let columns = pack_half::reference_columns(&mut twin, tiles[row / 128 * channels * 128 + row % 128]);
            // The share is a sum, which a device may order otherwise; what it is added to is split the same way.
            let (values, found) = bench.half_row(&fragments, row);
            let total = |columns: [f16; 4]| columns[0].to_f64() + columns[1].to_f64();
            assert_eq!(values, twin.values, "reference {row}, {dim} dimensions");
            let close = (total(found) - total(columns)).abs() <= 1e-6 * total(columns).abs() + 6.2e-5;
            assert!(close, "reference {row}, {dim} dimensions: {found:?} and not {columns:?}");
        }
    });
}

#[test]
fn queries_and_their_thresholds_in_f16_are_those_of_the_twin() {
    each_dim(|bench, stored| {
        let Bench { device, dim, packing } = *bench;
        let states = buffer(device, "states", ROWS * 32).expect("a buffer");
        let tiles = packing.pack(&bench.pass("packing queries"), stored, 128, 0, Some(&states)).expect("tiles");
        let half =
            packing.pack_half(&bench.pass("packing queries in f16"), &tiles, ROWS, HalfOf::Queries).expect("f16");
        let spread = |(i, x): (usize, f32)| x * [1.0, 1e-4, 90.0][i % 3];
        let thresholds: Vec<f32> = noise(3, ROWS).into_iter().enumerate().map(spread).collect();
        for (row, threshold) in thresholds.iter().enumerate() {
            device.queue.write_buffer(&states, row as u64 * 32 + 16, bytemuck::bytes_of(threshold));
        }
        bench.write_columns(&states, &half);
        let (tiles, fragments) = (words::<f32>(device, &tiles), words(device, &half.fragments));
        let shares: Vec<f32> = words(device, &half.shares);
        for row in 0..ROWS {
            // Queries are packed with their sign turned, for the tile in f32.
            let values: Vec<f32> = bench.row(&tiles, 0, row).iter().map(|y| -y).collect();
            let twin = pack_half::half(&values, packing.space.pack_params().gamma);
            let close = (twin.share - shares[row]).abs() <= 1e-5 * twin.share;
            assert!(close, "the share of query {row} is {} and not {}", shares[row], twin.share);
            let columns = columns::query_columns(thresholds[row], shares[row]);
            assert_eq!(bench.half_row(&fragments, row), (twin.values, columns), "query {row}, {dim} dimensions");
        }
    });
}
