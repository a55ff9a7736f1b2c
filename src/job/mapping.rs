//! What every mapping stage shares: neighbours, and how they become rows of the mapping matrix.

use std::ops::Range;

use super::manifest::Marker;
use crate::error::{Error, JobError, StoreError};
use crate::matrix::MatrixRows;
use crate::schedule::blocks::unit_rows;
use crate::store::neighbours::Neighbours;
use crate::topk::TopK;
use crate::units::INNER_ROWS;
use crate::weights::stats::DistanceStatistics;
use crate::weights::weigh;
use crate::weights::{WeightKernel, stats};

/// Neighbours with the function that weighs them.
pub struct Weighing {
    /// The neighbours store.
    pub neighbours: Neighbours,
    /// Reference rows.
    pub references: u64,
    /// Distance → weight.
    pub kernel: WeightKernel,
    /// Of all distances, without self edges.
    pub statistics: DistanceStatistics,
    /// Whether each row also gets itself.
    pub self_edges: bool,
}

impl Weighing {
    /// Entries of a row of M at most.
    #[must_use]
    pub fn per_row(&self) -> u64 {
        self.neighbours.k().get() as u64 + u64::from(self.self_edges)
    }

    /// Rows of M.
    ///
    /// # Errors
    /// Damaged neighbours.
    pub fn matrix(&self, rows: Range<u64>) -> Result<MatrixRows, Error> {
        let top = self.read(rows.clone())?;
        Ok(weigh(self.kernel, &self.kernel_statistics(), &top, self.self_edges.then_some(rows)))
    }

    /// All rows of M of a unit.
    ///
    /// # Errors
    /// Damaged neighbours.
    pub fn unit(&self, unit: u64) -> Result<MatrixRows, Error> {
        self.matrix(unit_rows(unit, self.neighbours.rows()))
    }

    /// Neighbours of some rows, in range of the reference.
    ///
    /// # Errors
    /// Damaged neighbours.
    pub fn read(&self, rows: Range<u64>) -> Result<TopK, Error> {
        let top = self.neighbours.read(rows)?;
        match top.ids().iter().find(|&&id| id >= self.references && id != crate::topk::PADDING) {
            Some(id) => Err(StoreError::Damaged {
                array: crate::store::neighbours::INDICES.to_owned(),
                why: format!("it names reference row {id} of {}", self.references),
            }
            .into()),
            None => Ok(top),
        }
    }

    /// How many entries each of these rows has.
    ///
    /// # Errors
    /// Damaged neighbours.
    pub fn row_lengths(&self, rows: Range<u64>) -> Result<Vec<u64>, Error> {
        let mut lengths = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = rows.end.min(start + INNER_ROWS);
            lengths.extend(super::matrix::row_lengths(&self.matrix(start..end)?));
            start = end;
        }
        Ok(lengths)
    }

    /// CellMapper's statistics include the zeros of the self edges.
    fn kernel_statistics(&self) -> DistanceStatistics {
        if self.self_edges { self.statistics.with_zeros(self.neighbours.rows()) } else { self.statistics }
    }
}

/// Statistics of all distances, merged in unit order, from the markers of a finished search.
///
/// # Errors
/// [`JobError::Unfit`] when a unit is missing.
pub fn statistics<'m>(markers: impl Iterator<Item = &'m Marker>, units: u64) -> Result<DistanceStatistics, Error> {
    let mut all = stats::DistanceStatistics::default();
    let mut expected = 0;
    for marker in markers {
        let unit = marker.statistics.as_ref().filter(|_| marker.unit == expected);
        let unit = unit.ok_or_else(|| incomplete(expected))?;
        all.merge(&DistanceStatistics::from(unit));
        expected += 1;
    }
    if expected == units { Ok(all) } else { Err(incomplete(expected)) }
}

fn incomplete(unit: u64) -> Error {
    JobError::Unfit(format!("the search is not finished (unit {unit} is missing); run it again with --resume")).into()
}
