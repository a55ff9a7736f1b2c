//! Annotations of the reference carried to the query through rows of the mapping matrix, and how well that went.
//! No files, no search: whoever calls brings whole reference columns and one block of query rows after the other.

pub mod agreement;
pub mod categorical;
pub mod numeric;
pub mod presence;
pub mod vocabulary;

use crate::error::TransferError;
use crate::matrix::MatrixRows;
use rayon::prelude::*;

/// Rows that one task handles: enough to hide the cost of a task.
const TASK_ROWS: usize = 1024;

/// Refuses a matrix that points beyond the reference, naming the first such column.
fn check_columns(matrix: &MatrixRows, references: usize) -> Result<(), TransferError> {
    match matrix.columns.par_iter().find_first(|&&column| column >= references as u64) {
        Some(&row) => Err(TransferError::Reference { row, rows: references }),
        None => Ok(()),
    }
}

/// A reference row that `check_columns` has seen, as an index.
fn index(column: u64) -> usize {
    usize::try_from(column).unwrap_or(usize::MAX)
}

/// Refuses codes other than −1 and 0 to `categories` − 1, naming the first such row.
fn check_codes(codes: &[i32], categories: usize) -> Result<(), TransferError> {
    match codes.par_iter().position_first(|&code| code != -1 && code_index(code).is_none_or(|c| c >= categories)) {
        Some(row) => Err(TransferError::Code { row, code: codes[row], categories }),
        None => Ok(()),
    }
}

/// A code as an index; `None` where the value is missing.
fn code_index(code: i32) -> Option<usize> {
    usize::try_from(code).ok()
}

/// Refuses things of another length than what they go with.
fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), TransferError> {
    if found == expected { Ok(()) } else { Err(TransferError::Length { what, found, expected }) }
}

/// The nearest float32, the type of what is written.
#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}
