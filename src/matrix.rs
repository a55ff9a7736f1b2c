//! Rows of the mapping matrix M, `rows × references`, as CSR: what weights make and transfer reads.

/// Consecutive rows of the mapping matrix: columns ascending within a row, each row summing to 1 or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixRows {
    /// `rows + 1` offsets into `columns` and `weights`.
    pub offsets: Vec<usize>,
    /// Reference rows.
    pub columns: Vec<u64>,
    /// Their weights, in (0, 1], or 0 where a kernel underflows.
    pub weights: Vec<f32>,
}

impl MatrixRows {
    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// One row's columns and weights.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u64], &[f32]) {
        let entries = self.offsets[row]..self.offsets[row + 1];
        (&self.columns[entries.clone()], &self.weights[entries])
    }
}
