//! Rows that a device decodes, against those that the host would send and against the twin, bit for bit.

use std::sync::Arc;

use half::f16;

use super::*;
use crate::block::codes::ListPatterns;
use crate::block::patterns::{PATTERNS as BYTES, Patterns};
use crate::block::scale::Scale;
use crate::block::{RowIds, Rows as Kept};
use crate::engine::conformance::{k, noise};
use crate::engine::gpu::programs::{MergeShape, sources, uses};
use crate::engine::gpu::queries::read_back;
use crate::engine::gpu::templates::expand;
use crate::engine::gpu::tests::adapter;
use crate::engine::gpu::variant::VARIANTS;
use crate::metric::Metric;
use crate::oracle::decode::{Kind, decode};

/// Any bytes.
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    noise(seed, n).iter().map(|value| value.to_bits().to_le_bytes()[1]).collect()
}

fn halves(rows: usize, dim: usize) -> Codes {
    let both = bytes(1, rows * dim).into_iter().zip(bytes(2, rows * dim));
    // Of all sizes, the subnormal ones and both zeros among them.
    let some = both.map(|(low, high)| f16::from_bits(u16::from_le_bytes([low, high])));
    Codes::Halves(some.map(|half| if half.is_finite() { half } else { f16::NEG_ZERO }).collect())
}

fn scaled(rows: usize, dim: usize) -> Codes {
    let limits: Vec<(f32, f32)> = noise(3, dim).into_iter().map(|low| (low, low + 7.0 * low.abs())).collect();
    Codes::Scaled(bytes(4, rows * dim), Arc::new(Scale::between(&limits)))
}

fn patterns(rows: usize, dim: usize) -> Codes {
    let patterns = Patterns::from_rows(&noise(5, dim.div_ceil(2) * BYTES * 2), dim).expect("patterns of all codes");
    let n = rows as u64;
    let offsets = Arc::new(vec![0, 3, 3, n / 2 + 3, n + 9]);
    let centroids = Arc::new(noise(6, 4 * dim));
    let codes = bytes(7, rows * patterns.codes());
    Codes::Patterns(codes, Arc::new(ListPatterns { patterns, centroids, offsets }))
}

fn coded(codes: Codes, rows: usize, dim: usize) -> CodedRows {
    let ids = RowIds::List((0..rows as u64).map(|row| (row << 20) + 5).collect());
    CodedRows::new(ids, &[2..2 + rows as u64], dim, codes).expect("codes of all rows")
}

fn read<T: bytemuck::Pod>(device: &Device, from: &wgpu::Buffer, n: usize) -> Vec<T> {
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    let size = from.size();
    let staging =
        device.gpu.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
    let view = read_back(device, &staging, from, &[0..size]).expect("to read");
    let mut all: Vec<T> = bytemuck::pod_collect_to_vec(&view);
    all.truncate(n);
    all
}

/// The row by the twin of the shader.
fn by_twin(coded: &CodedRows, row: usize) -> Vec<f32> {
    let (codes, dim) = (coded.bytes(row), coded.dim());
    match coded.codes() {
        Codes::Halves(_) => decode(Kind::Halves, codes, dim),
        Codes::Scaled(_, scale) => decode(Kind::Scaled(&scale.table()), codes, dim),
        Codes::Patterns(_, lists) => {
            let (_, centroid) = coded.list(row).expect("a list");
            decode(Kind::Patterns(&lists.patterns.to_rows(), centroid), codes, dim)
        }
    }
}

#[test]
fn a_device_decodes_rows_to_the_bits_that_the_host_would_send() {
    let Some(adapter) = adapter() else { return };
    let device = adapter.open_with(wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled()).expect("a device");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    // More rows than are decoded at a time, of one dimension; and rows that do not fill words.
    for (rows, dim) in [(1, 1), (7, 3), (130, 50), (301, 51), (140_001, 1), (33, 1000)] {
        for make in [halves, scaled, patterns] {
            let coded = coded(make(rows, dim), rows, dim);
            let kept = Kept::from(coded.clone());
            let of = Rows { metric: Metric::Manhattan, block: &kept, groups: None, mask: None };
            let (mut values, mut marks) = (vec![0.0; rows * 4 * width(dim)], vec![Mark::default(); rows]);
            of.fill(0..rows, &mut values, &mut marks);
            let words = sources(Metric::Manhattan, dim, MergeShape::of(k(1)), &VARIANTS[0]);
            let (file, label, words) = words.into_iter().find(|(_, label, _)| *label == "decoding").expect("a shader");
            let pass = Pass::new(&device, label, expand(file, &words).expect("a shader"), uses(label)).expect("a pass");
            let decoding = Decoding::of(of, &coded).expect("codes that a device can decode");
            let stored = decoding.upload(&device, &pool, "rows", &pass).expect("an upload");
            assert_eq!(read::<Mark>(&device, &stored.marks, rows), marks, "{rows} × {dim}");
            let found = read::<f32>(&device, &stored.rows, values.len());
            for (row, (found, sent)) in found.chunks(4 * width(dim)).zip(values.chunks(4 * width(dim))).enumerate() {
                let alike = |other: &[f32]| found.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(alike(sent), "row {row} of {rows} × {dim}: {found:?} and {sent:?}");
                assert!(alike(&by_twin(&coded, row)), "row {row} of {rows} × {dim} by its twin");
                // Which says something: rows are not all the same.
                assert!(dim < 50 || !alike(&by_twin(&coded, (row + 1) % rows)), "row {row} of {rows} × {dim}");
            }
        }
    }
}

#[test]
fn what_a_device_would_round_or_keep_in_another_way_is_left_to_the_host() {
    let decodes = |metric, codes| {
        let coded = coded(codes, 5, 2);
        let kept = Kept::from(coded.clone());
        Decoding::of(Rows { metric, block: &kept, groups: None, mask: None }, &coded).is_some()
    };
    assert!(decodes(Metric::Euclidean, halves(5, 2)) && !decodes(Metric::Cosine, halves(5, 2)));
    let scale =
        |low: f32, step: f32| Codes::Scaled(vec![9; 10], Arc::new(Scale { low: vec![low; 2], step: vec![step; 2] }));
    assert!(decodes(Metric::InnerProduct, scale(-1.0, 0.5)) && !decodes(Metric::InnerProduct, scale(-1e20, 1e18)));
    assert!(!decodes(Metric::Euclidean, scale(0.0, 1e-18)));
    let beside = |centroid: f32| {
        let patterns = Patterns::from_rows(&noise(5, BYTES * 2), 2).expect("patterns of a code");
        let (centroids, offsets) = (Arc::new(vec![centroid; 2]), Arc::new(vec![0, 9]));
        Codes::Patterns(vec![3; 5], Arc::new(ListPatterns { patterns, centroids, offsets }))
    };
    assert!(decodes(Metric::Chebyshev, beside(0.0)) && decodes(Metric::Chebyshev, beside(-4.0)));
    assert!(!decodes(Metric::Chebyshev, beside(1e-9)) && !decodes(Metric::Chebyshev, beside(1e16)));
}
