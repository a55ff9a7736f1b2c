//! Numbers and embeddings: weighted sums of reference values, M × values. Zero rows give 0, NaN spreads.

use rayon::prelude::*;

use super::{TASK_ROWS, check_columns, check_length, index};
use crate::error::TransferError;
use crate::matrix::MatrixRows;

/// Numbers of the reference in the width they are stored in: a float32 column of 1e8 rows stays at 400 MB.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision, and what integers are read as.
    F64(Vec<f64>),
}

/// `references × dim` numbers, row-major, ready to be mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct NumericTransfer {
    values: Values,
    dim: usize,
    references: usize,
}

impl NumericTransfer {
    /// `dim` numbers per reference row, row-major; 1 for a column.
    ///
    /// # Errors
    /// Values that do not fill whole rows.
    pub fn new(values: Values, dim: usize) -> Result<Self, TransferError> {
        let found = match &values {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        };
        let references = found.checked_div(dim).unwrap_or(0);
        check_length("values of the reference", found, references * dim)?;
        Ok(Self { values, dim, references })
    }

    /// How many reference rows.
    #[must_use]
    pub fn references(&self) -> usize {
        self.references
    }

    /// Numbers per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Mapped numbers, `rows × dim` row-major, summed in f64 over the row's columns in their order.
    ///
    /// # Errors
    /// A matrix with columns beyond the reference.
    pub fn transfer(&self, matrix: &MatrixRows) -> Result<Vec<f64>, TransferError> {
        check_columns(matrix, self.references)?;
        Ok(match &self.values {
            Values::F32(values) => product(matrix, values, self.dim),
            Values::F64(values) => product(matrix, values, self.dim),
        })
    }
}

fn product<T: Copy + Into<f64> + Sync>(matrix: &MatrixRows, values: &[T], dim: usize) -> Vec<f64> {
    let mut out = vec![0.0; matrix.rows() * dim];
    if dim == 0 {
        return out;
    }
    out.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
        for (row, out) in (task * TASK_ROWS..).zip(out.chunks_exact_mut(dim)) {
            let (columns, weights) = matrix.row(row);
            for (&column, &weight) in columns.iter().zip(weights) {
                let start = index(column) * dim;
                for (sum, &value) in out.iter_mut().zip(&values[start..start + dim]) {
                    *sum += f64::from(weight) * value.into();
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> MatrixRows {
        MatrixRows { offsets: vec![0, 2, 2, 4], columns: vec![0, 2, 1, 2], weights: vec![0.25, 0.75, 0.0, 1.0] }
    }

    #[test]
    fn rows_are_weighted_means_and_empty_rows_are_zero() -> Result<(), TransferError> {
        let column = NumericTransfer::new(Values::F32(vec![4.0, 9.0, 8.0]), 1)?;
        assert_eq!((column.references(), column.dim()), (3, 1));
        assert_eq!(column.transfer(&matrix())?, [7.0, 0.0, 8.0]);
        let embedding = NumericTransfer::new(Values::F64(vec![4.0, 1.0, 9.0, 9.0, 8.0, 1.0]), 2)?;
        assert_eq!(embedding.transfer(&matrix())?, [7.0, 1.0, 0.0, 0.0, 8.0, 1.0]);
        Ok(())
    }

    #[test]
    fn nan_spreads_even_from_a_neighbour_of_weight_0() -> Result<(), TransferError> {
        let out = NumericTransfer::new(Values::F64(vec![1.0, f64::NAN, 1.0]), 1)?.transfer(&matrix())?;
        assert_eq!(out[..2], [1.0, 0.0]);
        assert!(out[2].is_nan());
        Ok(())
    }

    #[test]
    fn more_rows_than_a_task_are_mapped_alike() -> Result<(), TransferError> {
        let n = 3 * TASK_ROWS + 1;
        let eye =
            MatrixRows { offsets: (0..=n).collect(), columns: (0..n as u64).rev().collect(), weights: vec![1.0; n] };
        let values: Vec<f64> = (0..2 * n).map(|i| i as f64).collect();
        let out = NumericTransfer::new(Values::F64(values), 2)?.transfer(&eye)?;
        assert!((0..n).all(|r| out[2 * r..2 * r + 2] == [(2 * (n - 1 - r)) as f64, (2 * (n - 1 - r) + 1) as f64]));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<(), TransferError> {
        assert!(NumericTransfer::new(Values::F32(vec![0.0; 5]), 2).is_err());
        assert!(NumericTransfer::new(Values::F32(vec![0.0; 5]), 0).is_err());
        let small = NumericTransfer::new(Values::F32(vec![0.0; 2]), 1)?.transfer(&matrix());
        assert_eq!(small, Err(TransferError::Reference { row: 2, rows: 2 }));
        Ok(())
    }
}
