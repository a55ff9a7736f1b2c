use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ZarrSource;
use crate::error::StoreError;
use crate::store::disk::Disk;
use crate::store::testing::{Failure, codecs, encode, rounded, v2, v3, values, write};
use crate::store::{IoCounters, Source, conformance};

fn open(folder: &Path) -> Result<(ZarrSource, Arc<IoCounters>), StoreError> {
    let io = IoCounters::new();
    let disk = Arc::new(Disk::open(folder, &io)?);
    Ok((ZarrSource::open(&disk, "")?, io))
}

/// Reads the whole array in blocks of so many rows.
fn read_in_blocks(source: &ZarrSource, block: u64) -> Result<Vec<f64>, StoreError> {
    let mut all = Vec::new();
    let mut row = 0;
    while row < source.rows() {
        let end = source.rows().min(row + block);
        let mut out = vec![0.0; usize::try_from(end - row).unwrap_or(0) * source.dim()];
        source.read_f64(&[row..end], &mut out)?;
        all.extend(out);
        row = end;
    }
    Ok(all)
}

fn file_bytes(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_metadata = [".zarray", "zarr.json"].contains(&entry.file_name().to_string_lossy().as_ref());
        if entry.metadata()?.is_dir() {
            bytes += file_bytes(&entry.path())?;
        } else if !is_metadata {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn layouts() -> Vec<(&'static str, &'static str, Value)> {
    let shape = [1003, 10];
    let blosc = json!({"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0});
    vec![
        ("plain", "float32", v3("float32", &shape, &[100, 10], None, &codecs(&[]))),
        ("zstd", "float32", v3("float32", &shape, &[100, 10], None, &codecs(&["zstd"]))),
        ("gzip half", "float16", v3("float16", &shape, &[64, 10], None, &codecs(&["gzip"]))),
        ("blosc double crc", "float64", v3("float64", &shape, &[64, 10], None, &codecs(&["blosc", "crc32c"]))),
        ("sharded", "float32", v3("float32", &shape, &[32, 10], Some(&[256, 10]), &codecs(&["zstd", "crc32c"]))),
        ("sharded, split", "float64", v3("float64", &shape, &[50, 5], Some(&[100, 10]), &codecs(&["zstd"]))),
        ("split shards", "float32", v3("float32", &shape, &[50, 2], Some(&[150, 4]), &codecs(&["blosc"]))),
        ("wide chunk", "float32", v3("float32", &shape, &[30, 16], None, &codecs(&["zstd"]))),
        ("one chunk", "float32", v3("float32", &shape, &[2000, 10], None, &codecs(&["zstd"]))),
        ("v2", "float32", v2("<f4", &shape, &[100, 10], "C", &blosc)),
        ("v2 columns first", "float64", v2("<f8", &shape, &[100, 3], "F", &json!({"id": "zstd", "level": 1}))),
        ("v2 big-endian", "float32", v2(">f4", &shape, &[100, 10], "C", &Value::Null)),
        ("v2 gzip", "float16", v2("<f2", &shape, &[1003, 1], "C", &json!({"id": "gzip", "level": 1}))),
    ]
}

#[test]
fn every_layout_conforms() -> Result<(), Failure> {
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for (name, dtype, metadata) in layouts() {
            let folder = tempfile::tempdir()?;
            let values = values(1003, 10);
            write(folder.path(), &metadata, encode(dtype, &values))?;
            let source = pool.install(|| open(folder.path()))?.0;
            let checked = pool.install(|| conformance::check(&source, &rounded(dtype, &values)));
            checked.map_err(|e| format!("{name}, {threads} threads: {e}"))?;
        }
    }
    Ok(())
}

#[test]
fn small_and_empty_arrays_conform() -> Result<(), Failure> {
    for (rows, dim) in [(0, 3), (1, 1), (1, 7), (2, 1), (65, 3)] {
        for shard in [None, Some(&[64, 4][..])] {
            let folder = tempfile::tempdir()?;
            let values = values(rows, dim);
            let shape = [rows as u64, dim as u64];
            write(
                folder.path(),
                &v3("float64", &shape, &[16, 2], shard, &codecs(&["zstd"])),
                encode("float64", &values),
            )?;
            conformance::check(&open(folder.path())?.0, &values).map_err(|e| format!("{rows} × {dim}: {e}"))?;
        }
    }
    Ok(())
}

#[test]
fn chunks_that_were_never_written_are_the_fill_value() -> Result<(), Failure> {
    for shard in [None, Some(&[40, 4][..])] {
        let folder = tempfile::tempdir()?;
        let mut values = values(100, 4);
        values[40..360].fill(0.0);
        write(
            folder.path(),
            &v3("float32", &[100, 4], &[10, 2], shard, &codecs(&["zstd"])),
            encode("float32", &values),
        )?;
        conformance::check(&open(folder.path())?.0, &rounded("float32", &values))?;
    }
    Ok(())
}

#[test]
fn a_pass_over_the_array_reads_every_byte_once() -> Result<(), Failure> {
    for (name, dtype, metadata) in layouts() {
        let folder = tempfile::tempdir()?;
        let values = values(1003, 10);
        write(folder.path(), &metadata, encode(dtype, &values))?;
        let stored = file_bytes(folder.path())?;
        let multiple = open(folder.path())?.0.chunk_rows();
        for block in [multiple, 2 * multiple, 37, 256, 1003] {
            let (source, io) = open(folder.path())?;
            let opened = io.read();
            assert_eq!(read_in_blocks(&source, block)?, rounded(dtype, &values), "{name}, blocks of {block}");
            assert_eq!(io.read() - opened, stored, "{name}, blocks of {block}");
            assert_eq!(source.stored_bytes(), stored, "{name}");
        }
    }
    Ok(())
}

#[test]
fn several_ranges_of_one_chunk_decode_it_once() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let values = values(1000, 10);
    write(folder.path(), &v3("float32", &[1000, 10], &[100, 10], None, &codecs(&[])), encode("float32", &values))?;
    let (source, io) = open(folder.path())?;
    let opened = io.read();
    source.read(&[90..95, 10..20, 190..200, 0..5], &mut [0.0; 300])?;
    assert_eq!(io.read() - opened, 2 * 100 * 10 * 4);
    Ok(())
}

#[test]
fn what_was_kept_can_be_released() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let metadata = v3("float32", &[64, 2], &[16, 2], Some(&[64, 2]), &codecs(&[]));
    write(folder.path(), &metadata, encode("float32", &values(64, 2)))?;
    let (source, io) = open(folder.path())?;
    source.read(&[0..8], &mut [0.0; 16])?;
    let read = io.read();
    source.read(&[8..10], &mut [0.0; 4])?;
    assert_eq!(io.read(), read, "the chunk is kept");
    source.release();
    source.read(&[10..12], &mut [0.0; 4])?;
    assert_eq!(io.read(), read + 16 * 2 * 4 + 4 * 16 + 4, "chunk and index are read again");
    Ok(())
}

/// Overwrites the stored value at a row and column, and says what reading it says.
fn error_with(metadata: &Value, dtype: &str, at: usize, value: f64) -> Result<String, Failure> {
    let folder = tempfile::tempdir()?;
    let mut values = values(100, 4);
    values[at] = value;
    write(folder.path(), metadata, encode(dtype, &values))?;
    let (source, _) = open(folder.path())?;
    assert!(source.read(&[0..17], &mut [0.0; 17 * 4]).is_ok(), "the rows before it can be read");
    let error = source.read(&[0..100], &mut [0.0; 400]).map_err(|e| e.to_string());
    let error = error.err().ok_or("it was read")?;
    Ok(error.replace(&folder.path().display().to_string(), "store"))
}

#[test]
fn values_that_are_not_finite_are_named() -> Result<(), Failure> {
    let whole = v3("float32", &[100, 4], &[17, 4], None, &codecs(&["zstd"]));
    let split = v3("float64", &[100, 4], &[17, 3], Some(&[34, 6]), &codecs(&[]));
    let advice = "remove such rows or impute them first";
    for (metadata, dtype, at, value, message) in [
        (&whole, "float32", 71, f64::NAN, format!("store holds NaN at row 17, column 3; {advice}")),
        (&whole, "float32", 399, f64::INFINITY, format!("store holds inf at row 99, column 3; {advice}")),
        (&split, "float64", 230, f64::NEG_INFINITY, format!("store holds -inf at row 57, column 2; {advice}")),
        (&split, "float64", 231, f64::NAN, format!("store holds NaN at row 57, column 3; {advice}")),
    ] {
        assert_eq!(error_with(metadata, dtype, at, value)?, message);
    }
    let large = error_with(&split, "float64", 70, 1e39)?;
    assert!(large.ends_with("at row 17, column 2, which is too large for float32; scale the data down"), "{large}");
    Ok(())
}

#[test]
fn a_fill_value_that_is_not_finite_is_named() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut metadata = v3("float32", &[10, 2], &[5, 2], None, &codecs(&[]));
    metadata["fill_value"] = json!("NaN");
    write(folder.path(), &metadata, encode("float32", &values(10, 2)))?;
    std::fs::remove_file(folder.path().join("c/1/0"))?;
    let error = open(folder.path())?.0.read(&[0..10], &mut [0.0; 20]);
    assert!(matches!(error, Err(StoreError::NotFinite { row: 5, column: 0, .. })), "{error:?}");
    Ok(())
}

#[test]
fn a_flipped_byte_in_a_checked_chunk_is_an_error_that_names_the_array() -> Result<(), Failure> {
    for (metadata, file) in [
        (v3("float32", &[64, 4], &[64, 4], None, &codecs(&["zstd", "crc32c"])), "c/0/0"),
        (v3("float32", &[64, 4], &[64, 4], None, &codecs(&["crc32c"])), "c/0/0"),
        (v3("float32", &[64, 4], &[16, 4], Some(&[64, 4]), &codecs(&["crc32c"])), "c/0/0"),
        (v3("float32", &[64, 4], &[16, 4], Some(&[64, 4]), &codecs(&["zstd", "crc32c"])), "c/0/0"),
    ] {
        let folder = tempfile::tempdir()?;
        write(folder.path(), &metadata, encode("float32", &values(64, 4)))?;
        let path = folder.path().join(file);
        let good = std::fs::read(&path)?;
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad)?;
            let read = open(folder.path())?.0.read(&[0..64], &mut [0.0; 256]);
            let named = matches!(&read, Err(StoreError::Damaged { array, why })
                if *array == folder.path().display().to_string() && why.contains(file));
            assert!(named, "byte {at} of {metadata}: {read:?}");
        }
    }
    Ok(())
}

#[test]
fn a_damaged_zstd_frame_is_an_error_and_no_huge_allocation() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let metadata = v3("float32", &[64, 4], &[64, 4], None, &codecs(&["zstd"]));
    write(folder.path(), &metadata, encode("float32", &values(64, 4)))?;
    let path = folder.path().join("c/0/0");
    let good = std::fs::read(&path)?;
    // The frame header: any of its bits, alone and with a size of 2⁶³ bytes after it.
    let mut cases: Vec<Vec<u8>> = (0..48).map(|bit| flipped(&good, bit)).collect();
    cases.push([&good[..4], &[0xE0], &[0xFF; 8], &good[6..]].concat());
    cases.push(good[..good.len() / 2].to_vec());
    cases.push(Vec::new());
    let mut refused = 0;
    for bad in &cases {
        std::fs::write(&path, bad)?;
        match open(folder.path())?.0.read(&[0..64], &mut [0.0; 256]) {
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(other) => return Err(format!("{other:?}").into()),
            Ok(()) => {}
        }
    }
    assert!(refused >= cases.len() - 8, "{refused} of {} are refused", cases.len());
    Ok(())
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn a_truncated_shard_is_damaged() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let metadata = v3("float32", &[64, 4], &[16, 4], Some(&[64, 4]), &codecs(&[]));
    write(folder.path(), &metadata, encode("float32", &values(64, 4)))?;
    let path = folder.path().join("c/0/0");
    let good = std::fs::read(&path)?;
    for len in [0, 10, good.len() - 1] {
        std::fs::write(&path, &good[..len])?;
        let read = open(folder.path())?.0.read(&[0..1], &mut [0.0; 4]);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{len}: {read:?}");
    }
    Ok(())
}

#[test]
fn arrays_that_cannot_be_rows_are_refused_with_what_they_are() -> Result<(), Failure> {
    for (metadata, says) in [
        (v3("int32", &[4, 2], &[4, 2], None, &codecs(&[])), "of int32; coordinates must be float16"),
        (v3("bool", &[4, 2], &[4, 2], None, &json!([{"name": "bytes"}])), "of bool; coordinates must be float16"),
        (v3("float32", &[8], &[4], None, &codecs(&[])), "1-dimensional; coordinates must be two-dimensional"),
        (v3("float32", &[2, 2, 2], &[2, 2, 2], None, &codecs(&[])), "3-dimensional; coordinates must"),
        (v3("float32", &[8, 0], &[4, 1], None, &codecs(&[])), "without columns; coordinates must have"),
    ] {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("zarr.json"), metadata.to_string())?;
        let error = open(folder.path()).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(says)), "{says}: {error:?}");
    }
    Ok(())
}

#[test]
fn what_zarr_cannot_decode_is_said_at_opening() -> Result<(), Failure> {
    let mut unknown = v3("float32", &[4, 2], &[4, 2], None, &codecs(&["no_such_codec"]));
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("zarr.json"), unknown.to_string())?;
    let error = open(folder.path()).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("no_such_codec")), "{error:?}");
    unknown["chunk_grid"]["name"] = json!("rectangular");
    std::fs::write(folder.path().join("zarr.json"), unknown.to_string())?;
    let error = open(folder.path()).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("regular grid")), "{error:?}");
    std::fs::write(folder.path().join("zarr.json"), "{")?;
    assert!(matches!(open(folder.path()), Err(StoreError::Damaged { .. })));
    Ok(())
}

#[test]
fn scratch_is_bounded_by_chunks_not_by_rows() -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let mut scratch = Vec::new();
    for rows in [10_000, 1_000_000_000] {
        let folder = tempfile::tempdir()?;
        let metadata = v3("float32", &[rows, 50], &[1000, 50], Some(&[4000, 50]), &codecs(&["zstd"]));
        std::fs::write(folder.path().join("zarr.json"), metadata.to_string())?;
        scratch.push(pool.install(|| open(folder.path()).map(|(source, _)| source.scratch_bytes()))?);
    }
    assert_eq!(scratch[0], scratch[1]);
    let chunk = 1000 * 50 * 4;
    assert!((4 * chunk..8 * chunk).contains(&scratch[0]), "{}", scratch[0]);
    Ok(())
}
