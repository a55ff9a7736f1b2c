//! Reads `tests/fixtures/golden`: outputs of CellMapper 0.2.5, written by the `convert.py` beside them.
#![allow(dead_code, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

/// Any number of a golden array; row numbers and codes are exact in f64.
pub type Numbers = Vec<f64>;

/// One case: a folder of `.npy` arrays and perhaps a `case.json`.
pub struct Case(PathBuf);

impl Case {
    pub fn new(name: &str) -> Self {
        Self(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name))
    }

    /// The numbers of an array, row-major.
    pub fn numbers(&self, array: &str) -> Numbers {
        self.npy(array).1
    }

    /// Whole numbers.
    pub fn rows(&self, array: &str) -> Vec<u64> {
        self.numbers(array).into_iter().map(whole).collect()
    }

    /// Columns of a matrix.
    pub fn width(&self, array: &str) -> usize {
        let header = self.npy(array).0;
        let shape = header.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).expect("a shape");
        shape.split(',').nth(1).and_then(|n| n.trim().parse().ok()).expect("two dimensions")
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.json(key)).expect("strings")
    }

    /// Anything in `case.json`.
    pub fn json(&self, key: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.0.join("case.json")).expect("case.json");
        let case: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        case[key].clone()
    }

    /// Version 1.0, little endian, C order: header, then values.
    fn npy(&self, array: &str) -> (String, Numbers) {
        let path = self.0.join(format!("{array}.npy"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00", "{}", path.display());
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = String::from_utf8_lossy(&bytes[10..end]).into_owned();
        assert!(header.contains("'fortran_order': False"), "{header}");
        let data = &bytes[end..];
        let numbers = if header.contains("'<f8'") {
            data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
        } else if header.contains("'<f4'") {
            data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        } else {
            assert!(header.contains("'<i4'"), "{header}");
            data.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect()
        };
        (header, numbers)
    }
}

/// The nearest float32.
#[allow(clippy::cast_possible_truncation)]
pub fn single(value: f64) -> f32 {
    value as f32
}

/// A row number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0, "{value} is no row");
    value as u64
}

/// The first place where two lists differ by more than `tolerance · max(1, |expected|)`, or in length.
pub fn difference(found: &[f64], expected: &[f64], tolerance: f64) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} numbers, expected {}", found.len(), expected.len()));
    }
    let near = |a: f64, b: f64| a == b || (a - b).abs() <= tolerance * b.abs().max(1.0);
    let at = found.iter().zip(expected).position(|(&a, &b)| !near(a, b))?;
    Some(format!("number {at} is {}, expected {}", found[at], expected[at]))
}

/// Numbers in another type.
pub fn doubles(values: &[f32]) -> Numbers {
    values.iter().map(|&value| f64::from(value)).collect()
}
