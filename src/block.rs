//! Rows on the host, with the ids they have in their `Source`: `rows × dim` float32 values, row-major, or the codes that
//! an index keeps of them.

pub mod codes;
pub mod patterns;
pub mod scale;

use std::ops::Range;
use std::sync::Arc;

use ndarray::ArrayView2;

use self::codes::CodedRows;
use crate::error::BlockError;
use crate::units::RowId;

/// The ids of a block's rows, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowIds {
    /// Consecutive rows.
    Range(Range<u64>),
    /// Any rows, in any order.
    List(Vec<u64>),
}

impl RowIds {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Range(range) => usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX),
            Self::List(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of the `row`-th row.
    ///
    /// # Panics
    /// When a list has no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> RowId {
        match self {
            Self::Range(range) => RowId(range.start + row as u64),
            Self::List(ids) => RowId(ids[row]),
        }
    }
}

/// Host rows, `rows × dim` float32, row-major, finite. Clones and parts share their values.
#[derive(Clone, Debug)]
pub struct RowBlock {
    ids: RowIds,
    dim: usize,
    values: Arc<Vec<f32>>,
    /// Where its values begin in the shared ones.
    first: usize,
}

impl PartialEq for RowBlock {
    fn eq(&self, other: &Self) -> bool {
        (&self.ids, self.dim, self.values()) == (&other.ids, other.dim, other.values())
    }
}

impl RowBlock {
    /// A block of `ids.len()` rows.
    ///
    /// # Errors
    /// [`BlockError::Shape`] when `values` does not hold `ids.len() × dim` numbers or `dim` is 0.
    pub fn new(ids: RowIds, dim: usize, values: Vec<f32>) -> Result<Self, BlockError> {
        if dim == 0 || ids.len().checked_mul(dim) != Some(values.len()) {
            return Err(BlockError::Shape { rows: ids.len(), dim, values: values.len() });
        }
        Ok(Self { ids, dim, values: Arc::new(values), first: 0 })
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Values per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The rows' ids.
    #[must_use]
    pub fn ids(&self) -> &RowIds {
        &self.ids
    }

    /// One row's `dim` values.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.dim..(row + 1) * self.dim]
    }

    /// All values, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values[self.first..self.first + self.ids.len() * self.dim]
    }

    /// Some rows of the block.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> Self {
        let ids = match &self.ids {
            RowIds::Range(all) => RowIds::Range(all.start + rows.start as u64..all.start + rows.end as u64),
            RowIds::List(all) => RowIds::List(all[rows.clone()].to_vec()),
        };
        assert!(rows.start <= rows.end && rows.end <= self.rows(), "these rows are there");
        Self { ids, dim: self.dim, values: Arc::clone(&self.values), first: self.first + rows.start * self.dim }
    }

    /// The block as an array, `rows × dim`.
    ///
    /// # Panics
    /// Never: the constructor checked the shape.
    #[must_use]
    pub fn view(&self) -> ArrayView2<'_, f32> {
        #[allow(clippy::expect_used)]
        ArrayView2::from_shape((self.rows(), self.dim), self.values()).expect("the constructor checked the shape")
    }
}

/// Rows that are looked at one at a time, whatever they are kept as.
pub trait EachRow: Sync {
    /// How many rows.
    fn rows(&self) -> usize;
    /// Values per row.
    fn dim(&self) -> usize;
    /// The rows' ids.
    fn ids(&self) -> &RowIds;
    /// One row's `dim` values: where they lie, or in `room`.
    ///
    /// # Panics
    /// When there is no such row.
    fn row_in<'a>(&'a self, row: usize, room: &'a mut Vec<f32>) -> &'a [f32];
}

impl EachRow for RowBlock {
    fn rows(&self) -> usize {
        self.ids.len()
    }
    fn dim(&self) -> usize {
        self.dim
    }
    fn ids(&self) -> &RowIds {
        &self.ids
    }
    fn row_in<'a>(&'a self, row: usize, _: &'a mut Vec<f32>) -> &'a [f32] {
        self.row(row)
    }
}

/// Rows as floats or as codes.
#[derive(Clone, Debug)]
pub enum Rows {
    /// As floats.
    Plain(RowBlock),
    /// As codes.
    Coded(CodedRows),
}

impl Rows {
    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids().len()
    }

    /// Values per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Plain(block) => block.dim(),
            Self::Coded(rows) => rows.dim(),
        }
    }

    /// The rows' ids.
    #[must_use]
    pub fn ids(&self) -> &RowIds {
        match self {
            Self::Plain(block) => block.ids(),
            Self::Coded(rows) => rows.ids(),
        }
    }

    /// What is kept of a row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> &[u8] {
        match self {
            Self::Plain(block) => bytemuck::cast_slice(block.row(row)),
            Self::Coded(rows) => rows.bytes(row),
        }
    }

    /// Whether two rows are certainly the same.
    #[must_use]
    pub fn same(&self, a: usize, b: usize) -> bool {
        match self {
            Self::Plain(block) => block.row(a) == block.row(b),
            Self::Coded(rows) => rows.same(a, b),
        }
    }
}

impl EachRow for Rows {
    fn rows(&self) -> usize {
        self.rows()
    }
    fn dim(&self) -> usize {
        self.dim()
    }
    fn ids(&self) -> &RowIds {
        self.ids()
    }
    #[inline]
    fn row_in<'a>(&'a self, row: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Plain(block) => block.row(row),
            Self::Coded(rows) => {
                room.resize(rows.dim(), 0.0);
                rows.decode(row, room);
                room
            }
        }
    }
}

impl From<RowBlock> for Rows {
    fn from(block: RowBlock) -> Self {
        Self::Plain(block)
    }
}

impl From<CodedRows> for Rows {
    fn from(rows: CodedRows) -> Self {
        Self::Coded(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_knows_its_rows() -> Result<(), BlockError> {
        let block = RowBlock::new(RowIds::List(vec![7, 3]), 2, vec![1., 2., 3., 4.])?;
        assert_eq!((block.rows(), block.row(1), block.ids().get(1)), (2, [3., 4.].as_slice(), RowId(3)));
        assert_eq!(block.view()[[0, 1]], 2.0);
        Ok(())
    }

    #[test]
    fn a_part_has_the_ids_and_values_of_its_rows() -> Result<(), BlockError> {
        let values: Vec<f32> = vec![1., 2., 3., 4., 5., 6.];
        let consecutive = RowBlock::new(RowIds::Range(7..10), 2, values.clone())?;
        assert_eq!(consecutive.part(1..3), RowBlock::new(RowIds::Range(8..10), 2, values[2..].to_vec())?);
        let listed = RowBlock::new(RowIds::List(vec![4, 1, 9]), 2, values.clone())?;
        assert_eq!(listed.part(0..2), RowBlock::new(RowIds::List(vec![4, 1]), 2, values[..4].to_vec())?);
        assert_eq!(listed.part(3..3).rows(), 0);
        Ok(())
    }

    #[test]
    fn a_block_of_the_wrong_shape_is_refused() {
        assert!(RowBlock::new(RowIds::Range(0..3), 2, vec![0.0; 5]).is_err());
        assert!(RowBlock::new(RowIds::Range(0..0), 0, vec![]).is_err());
    }
}
