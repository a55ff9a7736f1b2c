//! What can go wrong while annotations are carried over.

use thiserror::Error as ThisError;

/// Annotations that cannot be carried over.
#[derive(Clone, Debug, PartialEq, ThisError)]
#[non_exhaustive]
pub enum TransferError {
    /// A code outside its categories.
    #[error("row {row} has category code {code}, but there are {categories} categories")]
    Code {
        /// The row.
        row: usize,
        /// Its code.
        code: i32,
        /// How many categories there are.
        categories: usize,
    },
    /// A category that is not there.
    #[error("there is no category `{found}`: there is {known}")]
    Category {
        /// What was given.
        found: String,
        /// The categories there are.
        known: String,
    },
    /// A category named twice.
    #[error("category `{found}` is named twice")]
    Repeated {
        /// The category.
        found: String,
    },
    /// More categories than codes.
    #[error("a column has more than {max} different values; categories need fewer")]
    TooMany {
        /// The most that are supported.
        max: i32,
    },
    /// Neighbours from another reference.
    #[error("a neighbour is reference row {row}, but the reference has {rows} rows; use the one that was searched")]
    Reference {
        /// The row.
        row: u64,
        /// How many rows the reference has.
        rows: usize,
    },
    /// Things handed over together that are of different lengths.
    #[error("{what} do not fit: found {found}, expected {expected}")]
    Length {
        /// What.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Percentiles that are none.
    #[error("percentiles {low} and {high} can't be clipped at: use two numbers from 0 to 100, the smaller first")]
    Percentiles {
        /// The lower.
        low: f64,
        /// The higher.
        high: f64,
    },
}
