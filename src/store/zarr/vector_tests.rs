use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ZarrVector;
use crate::error::StoreError;
use crate::store::IoCounters;
use crate::store::disk::Disk;
use crate::store::testing::{Failure, codecs, v2, v3, write, write_texts};

fn open(folder: &Path) -> Result<(ZarrVector, Arc<IoCounters>), StoreError> {
    let io = IoCounters::new();
    Ok((ZarrVector::open(&Arc::new(Disk::open(folder, &io)?), "")?, io))
}

/// Ranges that cross chunk borders, end at them, and are empty, for 11 elements in chunks of 4.
const RANGES: [(u64, u64); 6] = [(0, 11), (3, 5), (4, 8), (0, 0), (11, 11), (7, 11)];

fn slice<T: Clone>(all: &[T], (start, end): (u64, u64)) -> Vec<T> {
    let skip = usize::try_from(start).unwrap_or(0);
    all.iter().skip(skip).take(usize::try_from(end).unwrap_or(0) - skip).cloned().collect()
}

#[test]
fn whole_numbers_of_any_width_read_by_range() -> Result<(), Failure> {
    let numbers: [i64; 11] = [0, 1, 2, 3, 100, 101, 102, 103, 7, 8, 9];
    for name in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"] {
        let width = name.trim_start_matches(char::is_alphabetic).parse::<usize>()? / 8;
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()[..width].to_vec()).collect();
        let folder = tempfile::tempdir()?;
        write(folder.path(), &v3(name, &[11], &[4], Some(&[8]), &codecs(&["zstd"])), bytes)?;
        let (vector, _) = open(folder.path())?;
        for range in RANGES {
            let found = vector.integers(range.0..range.1)?;
            assert_eq!(found, slice(&numbers, range), "{name} {range:?}");
            let floats: Vec<f64> = found.iter().map(|n| *n as f64).collect();
            assert_eq!(vector.numbers(range.0..range.1)?, floats, "{name} {range:?}");
        }
        assert!(vector.texts(0..1).is_err() && vector.bools(0..1).is_err(), "{name}");
        assert_eq!(vector.as_texts(4..6)?, ["100", "101"]);
    }
    Ok(())
}

#[test]
fn a_number_beyond_int64_is_an_error_as_a_whole_number_only() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), &v3("uint64", &[1], &[1], None, &codecs(&[])), u64::MAX.to_ne_bytes().to_vec())?;
    let (vector, _) = open(folder.path())?;
    assert!(vector.integers(0..1).is_err());
    assert_eq!(vector.numbers(0..1)?, [2.0_f64.powi(64)]);
    assert_eq!(vector.as_texts(0..1)?, ["18446744073709551615"]);
    Ok(())
}

#[test]
fn floats_and_truth_values_read_by_range() -> Result<(), Failure> {
    let floats: Vec<f64> = (0..11).map(|n| f64::from(n) / 4.0).collect();
    let folder = tempfile::tempdir()?;
    let bytes = floats.iter().flat_map(|v| v.to_ne_bytes()).collect();
    write(folder.path(), &v3("float64", &[11], &[4], None, &codecs(&["blosc"])), bytes)?;
    let (vector, _) = open(folder.path())?;
    for range in RANGES {
        assert_eq!(vector.numbers(range.0..range.1)?, slice(&floats, range));
    }
    let bools: Vec<bool> = (0..11).map(|n| n % 3 == 0).collect();
    let folder = tempfile::tempdir()?;
    write(folder.path(), &v2("|b1", &[11], &[4], "C", &Value::Null), bools.iter().map(|b| u8::from(*b)).collect())?;
    let (vector, _) = open(folder.path())?;
    for range in RANGES {
        assert_eq!(vector.bools(range.0..range.1)?, slice(&bools, range));
    }
    assert_eq!((vector.numbers(0..2)?, vector.as_texts(0..2)?), (vec![1.0, 0.0], vec!["True".into(), "False".into()]));
    Ok(())
}

#[test]
fn texts_of_any_and_of_fixed_length_read_by_range() -> Result<(), Failure> {
    let texts = ["a", "", "Zelle-é", "🧬", "cell4", "x", "y", "z", "", "n", "end"];
    let fixed: Vec<u8> = texts
        .iter()
        .flat_map(|text| {
            let mut points: Vec<u32> = text.chars().map(u32::from).collect();
            points.resize(8, 0);
            points.into_iter().flat_map(u32::to_ne_bytes)
        })
        .collect();
    let utf8 = json!([{"name": "vlen-utf8"}, {"name": "zstd", "configuration": {"level": 1, "checksum": false}}]);
    let mut fixed_v3 = v3("string", &[11], &[4], None, &codecs(&["zstd"]));
    fixed_v3["data_type"] = json!({"name": "fixed_length_utf32", "configuration": {"length_bytes": 32}});
    let mut fixed_v2 = v2("<U8", &[11], &[4], "C", &Value::Null);
    fixed_v2["fill_value"] = json!("");
    let blosc = json!({"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0});
    for metadata in [
        v3("string", &[11], &[4], None, &utf8),
        v3("string", &[11], &[4], Some(&[8]), &utf8),
        v2("|O", &[11], &[4], "C", &blosc),
        fixed_v3,
        fixed_v2,
    ] {
        let folder = tempfile::tempdir()?;
        if metadata.to_string().contains("utf8") {
            write_texts(folder.path(), &metadata, &texts)?;
        } else {
            write(folder.path(), &metadata, fixed.clone())?;
        }
        let (vector, _) = open(folder.path())?;
        for range in RANGES {
            assert_eq!(vector.texts(range.0..range.1)?, slice(&texts, range), "{metadata}");
        }
        assert!(vector.numbers(0..1).is_err() && vector.integers(0..1).is_err());
    }
    Ok(())
}

#[test]
fn floats_are_spelt_as_python_spells_them() -> Result<(), Failure> {
    let floats = [1.0, 0.1, 1e-5, 1.5e-7, 1e16, 2.5e20, -3.0, f64::NAN, f64::INFINITY];
    let spelt = ["1.0", "0.1", "1e-05", "1.5e-07", "1e+16", "2.5e+20", "-3.0", "nan", "inf"];
    let folder = tempfile::tempdir()?;
    let bytes = floats.iter().flat_map(|v| v.to_ne_bytes()).collect();
    write(folder.path(), &v3("float64", &[9], &[9], None, &codecs(&[])), bytes)?;
    assert_eq!(open(folder.path())?.0.as_texts(0..9)?, spelt);
    Ok(())
}

#[test]
fn a_pass_reads_every_chunk_once() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), &v3("int32", &[1000], &[64], Some(&[256]), &codecs(&[])), vec![1; 4000])?;
    let (vector, io) = open(folder.path())?;
    let opened = io.read();
    for start in (0..1000).step_by(50) {
        assert_eq!(vector.integers(start..start + 50)?, [0x0101_0101; 50]);
    }
    assert_eq!(io.read() - opened, 16 * 64 * 4 + 4 * (4 * 16 + 4));
    Ok(())
}

#[test]
fn rows_out_of_range_and_matrices_are_refused() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    write(folder.path(), &v3("int32", &[3], &[2], None, &codecs(&[])), vec![1; 12])?;
    assert!(matches!(open(folder.path())?.0.integers(2..4), Err(StoreError::OutOfRange { rows: 3, .. })));
    let folder = tempfile::tempdir()?;
    write(folder.path(), &v3("int32", &[3, 2], &[2, 2], None, &codecs(&[])), vec![1; 24])?;
    assert!(matches!(open(folder.path()), Err(StoreError::WrongKind { .. })));
    Ok(())
}
