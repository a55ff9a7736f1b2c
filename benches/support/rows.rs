//! Rows to measure with, and the files they are read from.

#![allow(dead_code, clippy::expect_used)]

use std::io::Write;
use std::path::Path;

use atlasknn::schedule::blocks::{unit_count, unit_rows};
use atlasknn::store::IoCounters;
use atlasknn::store::folder::Folder;
use atlasknn::store::results::{ArraySpec, Kind, RowArray, Values, write_group};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const CLUSTERS: usize = 100;

/// `rows × dim` values about shared centres, rows of all clusters mixed.
pub fn mixture(seed: u64, rows: u64, dim: usize) -> Vec<f32> {
    let mut shared = Xoshiro256PlusPlus::seed_from_u64(7);
    let centres: Vec<f32> = (0..CLUSTERS * dim).map(|_| shared.random_range(-3.0..3.0)).collect();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut values = Vec::with_capacity(length(rows) * dim);
    for _ in 0..rows {
        let cluster = rng.random_range(0..CLUSTERS);
        for centre in &centres[cluster * dim..(cluster + 1) * dim] {
            values.push(centre + rng.random_range(-1.0_f32..1.0));
        }
    }
    values
}

/// A `.npy` file of float32 rows.
pub fn write_npy(path: &Path, rows: u64, dim: usize, values: &[f32]) {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file that can be written"));
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    for bytes in [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes()] {
        file.write_all(bytes).expect("room on the disk");
    }
    for value in values {
        file.write_all(&value.to_le_bytes()).expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}

/// A zarr group with one array, `rows`, as this program writes them: sharded, zstd.
pub fn write_zarr(path: &Path, rows: u64, dim: usize, values: &[f32]) {
    let folder = Folder::new(path, &IoCounters::new());
    write_group(&folder, "", &serde_json::Map::new()).expect("a folder that can be written");
    let spec = ArraySpec::rows("rows", Kind::F32, rows, Some(dim as u64));
    let array = RowArray::create(&folder, spec).expect("an array");
    for unit in 0..unit_count(rows) {
        let rows = unit_rows(unit, rows);
        let shard = values[length(rows.start) * dim..length(rows.end) * dim].to_vec();
        array.write_shard(unit, Values::F32(shard)).expect("room on the disk");
    }
}

fn length(rows: u64) -> usize {
    usize::try_from(rows).expect("64 bits")
}
