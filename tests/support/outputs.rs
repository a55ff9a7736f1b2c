//! Makes inputs for whole jobs and reads what they wrote, with nothing of the library but its requests.
#![allow(dead_code, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use atlasknn::job::request::{
    DeviceChoice, DeviceRequest, How, MapRequest, MappingRequest, Names, Outcome, PresenceRequest, RunOptions,
    SearchRequest, Within,
};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Silent, Stop};
use atlasknn::units::{ByteCount, K};
use atlasknn::weights::WeightKernel;
use zarrs::array::{Array, ElementOwned};
use zarrs::filesystem::FilesystemStore;

/// The command line, with a cache folder of the tests' own: what it remembers is not for the one who runs them.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlasknn"));
    command.env("ATLASKNN_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command
}

/// A `.npy` file of float32 rows.
pub fn write_npy(path: &Path, rows: usize, dim: usize, mut value: impl FnMut(usize, usize) -> f32) {
    let mut file = npy(path, "<f4", rows, dim);
    for row in 0..rows {
        let bytes: Vec<u8> = (0..dim).flat_map(|column| value(row, column).to_le_bytes()).collect();
        file.write_all(&bytes).expect("write");
    }
    file.flush().expect("flush");
}

/// A `.npy` file of float64 rows.
pub fn write_npy_f64(path: &Path, rows: usize, dim: usize, mut value: impl FnMut(usize, usize) -> f64) {
    let mut file = npy(path, "<f8", rows, dim);
    for row in 0..rows {
        let bytes: Vec<u8> = (0..dim).flat_map(|column| value(row, column).to_le_bytes()).collect();
        file.write_all(&bytes).expect("write");
    }
    file.flush().expect("flush");
}

fn npy(path: &Path, descr: &str, rows: usize, dim: usize) -> std::io::BufWriter<fs::File> {
    let mut file = std::io::BufWriter::new(fs::File::create(path).expect("create"));
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    file.write_all(b"\x93NUMPY\x01\x00").expect("write");
    file.write_all(&u16::try_from(header.len()).expect("short").to_le_bytes()).expect("write");
    file.write_all(header.as_bytes()).expect("write");
    file
}

/// The same numbers for the same place, spread over −1..1.
pub fn noise(seed: u64, row: usize, column: usize) -> f32 {
    let mut x = seed ^ (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (column as u64) << 40;
    for _ in 0..2 {
        x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    #[allow(clippy::cast_precision_loss)]
    let unit = ((x >> 40) as f32) / 8_388_608.0;
    unit - 1.0
}

/// A search of one `.npy` file against another with everything at its default.
pub fn search_request(query: &Path, reference: Option<&Path>, out: &Path, k: u32) -> SearchRequest {
    SearchRequest {
        query: query.to_owned(),
        reference: reference.map(Path::to_owned),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        reference_rep: None,
        k: K::new(k).expect("k"),
        metric: Metric::Euclidean,
        exclude_group: None,
        compat: false,
        how: How::default(),
        device: DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() },
        within: Within { host_memory: Some(ByteCount::mib(1024)), threads: Some(2) },
        run: RunOptions { names: Names::Auto, ..RunOptions::default() },
    }
}

/// A mapping that transfers nothing yet.
pub fn mapping(kernel: WeightKernel) -> MappingRequest {
    MappingRequest {
        kernel,
        labels: vec![],
        label_subsets: vec![],
        values: vec![],
        obsm: vec![],
        presence: None,
        self_edges: None,
        matrix: false,
        min_confidence: None,
        probabilities: false,
    }
}

/// Raw presence, without any clipping or stretching.
pub fn raw_presence(by: Option<&str>) -> PresenceRequest {
    PresenceRequest { by: by.map(str::to_owned), ..PresenceRequest::default() }
}

pub fn search(request: &SearchRequest) -> Result<Outcome, atlasknn::Error> {
    atlasknn::job::search(request, &Silent, &Stop::new())
}

pub fn map(request: &MapRequest) -> Result<Outcome, atlasknn::Error> {
    atlasknn::job::map(request, &Silent, &Stop::new())
}

/// The bundled stores.
pub fn pbmc(side: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/data/pbmc_{side}.zarr"))
}

/// A whole array of an output, with its shape.
pub fn read<T: ElementOwned>(out: &Path, path: &str) -> (Vec<u64>, Vec<T>) {
    let store = Arc::new(FilesystemStore::new(out).expect("store"));
    let array = Array::open(store, &format!("/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"));
    let values = array.retrieve_array_subset::<Vec<T>>(&array.subset_all());
    (array.shape().to_vec(), values.unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// Only the values.
pub fn values<T: ElementOwned>(out: &Path, path: &str) -> Vec<T> {
    read(out, path).1
}

/// Transferred labels by name; `None` where missing.
pub fn labels(out: &Path, key: &str) -> Vec<Option<String>> {
    let categories: Vec<String> = values(out, &format!("obs/{key}_pred/categories"));
    let codes: Vec<i8> = values(out, &format!("obs/{key}_pred/codes"));
    codes.into_iter().map(|code| usize::try_from(code).ok().map(|code| categories[code].clone())).collect()
}

/// Checksums of every file that must not differ between runs: all but the manifest with its timings.
pub fn array_bytes(out: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    collect(out, out, &mut files);
    files.retain(|path, _| !path.starts_with(".atlasknn") && !path.starts_with("uns/") && path != "zarr.json");
    assert!(!files.is_empty(), "{} holds no arrays", out.display());
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, u32>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
            files.insert(name, crc32c::crc32c(&fs::read(&path).expect("file")));
        }
    }
}
