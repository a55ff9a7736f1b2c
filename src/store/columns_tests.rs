use std::path::Path;

use serde_json::json;

use super::*;
use crate::store::IoCounters;
use crate::store::testing::{Failure, codecs, v3, write, write_texts};

fn open(folder: &Path, paths: &[&str]) -> Result<Column, StoreError> {
    let disk = Arc::new(Disk::open(folder, &IoCounters::new())?);
    Column::open(&disk, &paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), "column")
}

fn group(folder: &Path, encoding: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let attributes = json!({"encoding-type": encoding, "encoding-version": "0.2.0", "ordered": true});
    let metadata = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
    Ok(std::fs::write(folder.join("zarr.json"), metadata.to_string())?)
}

fn texts(folder: &Path, texts: &[&str]) -> Result<(), Failure> {
    write_texts(folder, &v3("string", &[texts.len() as u64], &[2], None, &json!([{"name": "vlen-utf8"}])), texts)
}

fn bytes(folder: &Path, dtype: &str, values: &[u8]) -> Result<(), Failure> {
    write(folder, &v3(dtype, &[values.len() as u64], &[2], None, &codecs(&[])), values.to_vec())
}

fn categorical(folder: &Path, categories: &[&str], codes: &[u8]) -> Result<(), Failure> {
    group(folder, "categorical")?;
    texts(&folder.join("categories"), categories)?;
    bytes(&folder.join("codes"), "int8", codes)
}

#[test]
fn categories_of_datasets_are_joined_in_order_of_appearance() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    categorical(&folder.path().join("a"), &["T", "B"], &[0, 1, 255])?;
    categorical(&folder.path().join("b"), &["NK", "B"], &[0, 1])?;
    categorical(&folder.path().join("c"), &[], &[255])?;
    let column = open(folder.path(), &["a", "b", "c"])?;
    assert_eq!(column.categories()?, ["T", "B", "NK"]);
    assert_eq!(column.codes(0..6)?, [0, 1, MISSING, 2, 1, MISSING]);
    assert_eq!(column.codes(2..4)?, [MISSING, 2]);
    assert_eq!(column.as_texts(2..4)?, ["nan", "NK"]);
    // An order is one order only when all datasets have the same.
    assert!(matches!(column.kind(), ColumnKind::Categorical { ordered: false, .. }));
    assert!(matches!(open(folder.path(), &["a"])?.kind(), ColumnKind::Categorical { ordered: true, .. }));
    assert!(matches!(open(folder.path(), &["a", "a"])?.kind(), ColumnKind::Categorical { ordered: true, .. }));
    Ok(())
}

#[test]
fn a_code_without_category_is_damage() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    categorical(folder.path(), &["x", "y"], &[0, 2, 254])?;
    let column = open(folder.path(), &[""])?;
    assert_eq!(column.codes(0..1)?, [0]);
    for row in [1, 2] {
        assert!(matches!(column.codes(row..row + 1), Err(StoreError::Damaged { .. })), "{row}");
    }
    Ok(())
}

#[test]
fn nullable_columns_say_what_is_missing() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    for (name, encoding) in [("n", "nullable-integer"), ("b", "nullable-boolean"), ("s", "nullable-string-array")] {
        let at = folder.path().join(name);
        group(&at, encoding)?;
        bytes(&at.join("mask"), "bool", &[0, 1, 0])?;
        match name {
            "n" => bytes(&at.join("values"), "uint8", &[5, 1, 7])?,
            "b" => bytes(&at.join("values"), "bool", &[1, 1, 0])?,
            _ => texts(&at.join("values"), &["é", "", "z"])?,
        }
    }
    let numbers = open(folder.path(), &["n"])?.numbers(0..3)?;
    assert!(numbers[0] == 5.0 && numbers[1].is_nan() && numbers[2] == 7.0, "{numbers:?}");
    assert_eq!(open(folder.path(), &["b"])?.bools(0..3)?, [Some(true), None, Some(false)]);
    assert_eq!(open(folder.path(), &["b"])?.numbers(2..3)?, [0.0]);
    assert_eq!(open(folder.path(), &["s"])?.strings(1..3)?, [None, Some("z".to_owned())]);
    assert_eq!(open(folder.path(), &["s"])?.as_texts(0..2)?, ["é", "nan"]);
    bytes(&folder.path().join("n/mask"), "bool", &[0, 1])?;
    assert!(matches!(open(folder.path(), &["n"]), Err(StoreError::Damaged { .. })));
    Ok(())
}

#[test]
fn datasets_that_disagree_are_refused() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    texts(&folder.path().join("s"), &["a"])?;
    bytes(&folder.path().join("i"), "int8", &[3])?;
    bytes(&folder.path().join("u"), "uint8", &[200])?;
    assert!(matches!(open(folder.path(), &["s", "i"]), Err(StoreError::WrongKind { .. })));
    assert!(matches!(open(folder.path(), &["s", "none"]), Err(StoreError::MissingKey { .. })));
    let both = open(folder.path(), &["i", "u"])?;
    assert_eq!(both.numbers(0..2)?, [3.0, 200.0]);
    assert_eq!(*both.kind(), ColumnKind::Number { dtype: "int64".to_owned(), integer: true });
    Ok(())
}

#[test]
fn other_groups_are_no_columns() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    group(folder.path(), "dataframe")?;
    let error = open(folder.path(), &[""]).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("is a dataframe; a column must be")), "{error:?}");
    Ok(())
}
