//! Where finished units and checkpoints of a search go.

use std::ops::Range;

use super::manifest::{EngineRecord, Marker, Statistics, both};
use super::names::NameWriter;
use super::output::Output;
use super::search::{OwnRow, STAGE};
use crate::error::Error;
use crate::schedule::blocks::unit_rows;
use crate::schedule::search::{Unfinished, UnitSink};
use crate::store::neighbours::NeighboursWriter;
use crate::topk::{PADDING, TopK};
use crate::units::{K, UNIT_ROWS};
use crate::weights::stats::DistanceStatistics;

/// Writes units and checkpoints.
pub struct Sink<'a> {
    /// Where to.
    pub output: &'a Output,
    /// The neighbours' arrays.
    pub neighbours: NeighboursWriter,
    /// The names of the query.
    pub names: NameWriter<'a>,
    /// What becomes of a cell's own row.
    pub own_row: OwnRow,
    /// Neighbours that are written.
    pub k: K,
    /// What searches.
    pub engine: EngineRecord,
    /// The rows of the checkpoint that the search begins with, and what searched them before.
    pub earlier: Option<(Range<u64>, Vec<EngineRecord>)>,
}

impl Sink<'_> {
    /// What searched these rows.
    fn engines(&self, rows: &Range<u64>) -> Vec<EngineRecord> {
        let now = vec![self.engine.clone()];
        match &self.earlier {
            Some((covered, then)) if covered.start < rows.end && rows.start < covered.end => both(then, &now),
            _ => now,
        }
    }
}

impl UnitSink for Sink<'_> {
    fn commit(&self, unit: u64, top: TopK) -> Result<(), Error> {
        let first_row = unit * UNIT_ROWS;
        let engines = self.engines(&unit_rows(unit, first_row + top.rows() as u64));
        let own_row_first = (self.own_row == OwnRow::FirstDropped)
            .then(|| (0..top.rows()).all(|row| top.row(row).0[0] == first_row + row as u64));
        let top = if own_row_first.is_some() { top.without_first(self.k) } else { top };
        let mut statistics = DistanceStatistics::default();
        statistics.extend(&top);
        let kth = kth_distances(&top);
        let mut files = self.neighbours.write_unit(unit, top)?;
        files.push(self.names.write_unit(unit)?);
        let marker = Marker {
            unit,
            files: files.into_iter().map(Into::into).collect(),
            statistics: Some(Statistics::from(&statistics)),
            own_row_first,
            kth: Some(kth),
            engines,
        };
        self.output.mark(STAGE, &marker)
    }

    fn save(&self, checkpoint: &Unfinished<'_>) -> Result<(), Error> {
        self.output.save_checkpoint(checkpoint, &self.engines(&checkpoint.rows))
    }
}

/// The sum of the k-th distances of the rows that have k neighbours, and how many those are. Distances beyond float32
/// are left out, as in the statistics: JSON has no infinity, and a marker that cannot be read is a unit lost.
fn kth_distances(top: &TopK) -> (f64, u64) {
    let mut sum = (0.0, 0);
    for row in 0..top.rows() {
        let (ids, distances) = top.row(row);
        if let (Some(&id), Some(&distance)) = (ids.last(), distances.last())
            && id != PADDING
            && distance.is_finite()
        {
            sum = (sum.0 + f64::from(distance), sum.1 + 1);
        }
    }
    sum
}
