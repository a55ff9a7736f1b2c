use super::*;
use crate::store::conformance;
use crate::store::testing::{Failure, encode, rounded, values};

/// A `.npy` file of this version with this dictionary and these bytes.
fn file(version: u8, dictionary: &str, bytes: &[u8]) -> Vec<u8> {
    let len = dictionary.len();
    let mut file = vec![0x93, b'N', b'U', b'M', b'P', b'Y', version, 0];
    match version {
        1 => file.extend(u16::try_from(len).unwrap_or(0).to_le_bytes()),
        _ => file.extend(u32::try_from(len).unwrap_or(0).to_le_bytes()),
    }
    [file.as_slice(), dictionary.as_bytes(), bytes].concat()
}

fn open(bytes: &[u8]) -> Result<(NpySource, Arc<IoCounters>, tempfile::TempDir), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rows.npy");
    std::fs::write(&path, bytes)?;
    let io = IoCounters::new();
    Ok((NpySource::open(&path, &io)?, io, folder))
}

fn dictionary(descr: &str, order: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}    \n")
}

#[test]
fn every_version_and_type_conforms() -> Result<(), Failure> {
    for (version, descr, dtype) in [(1, "'<f2'", "float16"), (2, "'<f4'", "float32"), (3, "'<f8'", "float64")] {
        for (rows, dim) in [(0, 4), (1, 1), (1000, 7)] {
            let values = values(rows, dim);
            let header = dictionary(descr, "False", &format!("({rows}, {dim})"));
            let (source, _, _folder) = open(&file(version, &header, &encode(dtype, &values)))?;
            conformance::check(&source, &rounded(dtype, &values)).map_err(|e| format!("{dtype} {rows}: {e}"))?;
        }
    }
    Ok(())
}

#[test]
fn rows_wider_than_a_piece_and_pieces_wider_than_a_row_read_the_same() -> Result<(), Failure> {
    let (rows, dim) = (5, PIECE_BYTES / 8 + 3);
    let values = values(rows, dim);
    let header = dictionary("'<f8'", "False", &format!("({rows}, {dim})"));
    let (source, io, _folder) = open(&file(1, &header, &encode("float64", &values)))?;
    let opened = io.read();
    let mut out = vec![0.0; rows * dim];
    source.read_f64(&[0..5], &mut out)?;
    assert!(out == values);
    assert_eq!(io.read() - opened, source.stored_bytes());
    Ok(())
}

#[test]
fn a_value_that_is_not_finite_is_named() -> Result<(), Failure> {
    let mut values = values(10, 3);
    values[22] = f64::NAN;
    let (source, _, folder) = open(&file(1, &dictionary("'<f4'", "False", "(10, 3)"), &encode("float32", &values)))?;
    assert!(source.read(&[0..7, 8..10], &mut [0.0; 27]).is_ok());
    let error = source.read(&[0..2, 5..9], &mut [0.0; 18]).map_err(|e| e.to_string());
    let error = error.map_err(|e| e.replace(&folder.path().display().to_string(), ""));
    assert_eq!(error, Err("/rows.npy holds NaN at row 7, column 1; remove such rows or impute them first".to_owned()));
    Ok(())
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let data = [0; 48];
    let with = |descr: &str, order: &str, shape: &str| file(1, &dictionary(descr, order, shape), &data);
    for (bytes, says) in [
        (with("'<f4'", "True", "(4, 3)"), "in Fortran order"),
        (with("'<i4'", "False", "(4, 3)"), "of type <i4"),
        (with("'>f4'", "False", "(4, 3)"), "of type >f4"),
        (with("[('a', '<f4')]", "False", "(12,)"), "of type [('a', '<f4')]"),
        (with("'<f4'", "False", "(12,)"), "1-dimensional"),
        (with("'<f4'", "False", "()"), "0-dimensional"),
        (with("'<f4'", "False", "(2, 3, 2)"), "3-dimensional"),
        (with("'<f4'", "False", "(4, 0)"), "0 columns wide"),
        (with("'<f4'", "False", "(5, 3)"), "is damaged: 5 rows of 3 float32 do not fit"),
        (with("'<f4'", "False", "(9223372036854775807, 3)"), "is damaged"),
        (with("'<f4'", "False", "(4, 3)")[..30].to_vec(), "is damaged"),
        (with("'<f4'", "False", "(4, 3)")[..8].to_vec(), "is damaged"),
        (with("'<f4'", "False", "(4, 3)")[..5].to_vec(), "does not begin as a .npy file does"),
        (b"PK\x03\x04 a zip, as .npz files are".to_vec(), "does not begin as a .npy file does"),
        (file(1, "{'descr': '<f4'}", &data), "no shape"),
        (file(9, "{}", &data), "version"),
        (vec![], "does not begin"),
    ] {
        let error = open(&bytes).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(says)), "{says}: {error:?}");
    }
}
