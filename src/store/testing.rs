//! Values and zarr arrays for the tests of this floor.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};
use zarrs::array::{Array, ArraySubset};
use zarrs::filesystem::FilesystemStore;

/// `rows × dim` values between −1 and 1, the same every time.
pub(crate) fn values(rows: usize, dim: usize) -> Vec<f64> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    (0..rows * dim).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Rounded to float32.
#[allow(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
pub(crate) fn as_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Rounded to float32 and made float64 again.
pub(crate) fn through_f32(values: &[f64]) -> Vec<f64> {
    as_f32(values).into_iter().map(f64::from).collect()
}

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The metadata of a v3 array. With a shard shape, the codecs are those inside a shard.
pub(crate) fn v3(dtype: &str, shape: &[u64], chunk: &[u64], shard: Option<&[u64]>, codecs: &Value) -> Value {
    let index = json!([{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]);
    let codecs = match shard {
        Some(_) => json!([{"name": "sharding_indexed", "configuration": {
            "chunk_shape": chunk, "codecs": codecs, "index_codecs": index, "index_location": "end"}}]),
        None => codecs.clone(),
    };
    json!({
        "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": dtype, "attributes": {},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard.unwrap_or(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": match dtype { "string" => json!(""), "bool" => json!(false), _ => json!(0) },
        "codecs": codecs,
    })
}

/// The metadata of a v2 array.
pub(crate) fn v2(dtype: &str, shape: &[u64], chunk: &[u64], order: &str, compressor: &Value) -> Value {
    json!({
        "zarr_format": 2, "shape": shape, "chunks": chunk, "dtype": dtype, "order": order, "compressor": compressor,
        "filters": if dtype == "|O" { json!([{"id": "vlen-utf8"}]) } else { Value::Null },
        "fill_value": if dtype == "|O" { json!("") } else { json!(0) }, "dimension_separator": ".",
    })
}

/// The codecs of little-endian numbers and these after them.
pub(crate) fn codecs(names: &[&str]) -> Value {
    let mut codecs = vec![json!({"name": "bytes", "configuration": {"endian": "little"}})];
    for name in names {
        codecs.push(match *name {
            "zstd" => json!({"name": "zstd", "configuration": {"level": 1, "checksum": false}}),
            "gzip" => json!({"name": "gzip", "configuration": {"level": 1}}),
            "blosc" => json!({"name": "blosc", "configuration": {
                "cname": "lz4", "clevel": 3, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}}),
            other => json!({ "name": other }),
        });
    }
    Value::Array(codecs)
}

/// Writes an array of elements of a fixed size; chunks that are all zeros are left out.
pub(crate) fn write(folder: &Path, metadata: &Value, bytes: Vec<u8>) -> Result<(), Failure> {
    write_bytes(folder, metadata, zarrs::array::ArrayBytes::new_flen(bytes))
}

/// Writes an array of texts.
pub(crate) fn write_texts(folder: &Path, metadata: &Value, texts: &[&str]) -> Result<(), Failure> {
    let mut offsets = vec![0];
    for text in texts {
        offsets.push(offsets[offsets.len() - 1] + text.len());
    }
    let offsets = zarrs::array::ArrayBytesOffsets::new(offsets)?;
    let bytes = zarrs::array::ArrayBytes::new_vlen(texts.concat().into_bytes(), offsets)?;
    write_bytes(folder, metadata, bytes)
}

fn write_bytes(folder: &Path, metadata: &Value, bytes: zarrs::array::ArrayBytes<'static>) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let file = if metadata["zarr_format"] == 2 { ".zarray" } else { "zarr.json" };
    std::fs::write(folder.join(file), metadata.to_string())?;
    let array = Array::open(std::sync::Arc::new(FilesystemStore::new(folder)?), "/")?;
    let all = ArraySubset::new_with_shape(array.shape().to_vec());
    array.store_array_subset(&all, bytes)?;
    Ok(())
}

/// The bytes of float64 values stored as a type of this v3 name.
pub(crate) fn encode(dtype: &str, values: &[f64]) -> Vec<u8> {
    match dtype {
        "float16" => values.iter().flat_map(|v| half::f16::from_f64(*v).to_ne_bytes()).collect(),
        "float32" => as_f32(values).iter().flat_map(|v| v.to_ne_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
    }
}

/// What reads back after [`encode`].
pub(crate) fn rounded(dtype: &str, values: &[f64]) -> Vec<f64> {
    match dtype {
        "float16" => values.iter().map(|v| half::f16::from_f64(*v).to_f64()).collect(),
        "float32" => through_f32(values),
        _ => values.to_vec(),
    }
}
