//! What is saved of a search that is not finished, and where that and finished units go.

use std::ops::Range;

use crate::error::Error;
use crate::topk::{TopK, TopRows};

/// An unfinished unit: enough to go on without losing more than a few minutes, or the visits to one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Query rows, from the beginning of a unit.
    pub rows: Range<u64>,
    /// Those before this row have visited everything they shall.
    pub complete_to: u64,
    /// The others are in this round of their route.
    pub round: u32,
    /// And have visited in it what they shall of the references before this row. What they found of later ones is in `top`
    /// as well: visiting it again changes nothing.
    pub references_done: u64,
    /// Their neighbours so far.
    pub top: TopK,
}

impl Checkpoint {
    /// The rows that have not visited everything.
    pub(super) fn open(&self) -> Range<u64> {
        self.complete_to..self.rows.end
    }

    /// Where these rows are in `top`.
    pub(super) fn place(&self, rows: &Range<u64>) -> Range<usize> {
        length(&(self.rows.start..rows.start))..length(&(self.rows.start..rows.end))
    }

    /// The same as it is saved.
    #[must_use]
    pub fn unfinished(&self) -> Unfinished<'_> {
        let Self { rows, complete_to, round, references_done, top } = self;
        let (rows, top_rows) = (rows.clone(), vec![top.part(0..top.rows())]);
        let (complete_to, round, references_done) = (*complete_to, *round, *references_done);
        Unfinished { rows, complete_to, round, references_done, k: top.k(), top: top_rows }
    }
}

/// A [`Checkpoint`] on its way to the disk. Neighbours stay where they are: the plan has no room for a copy of them all.
#[derive(Clone, Debug)]
pub struct Unfinished<'a> {
    /// As in a checkpoint.
    pub rows: Range<u64>,
    /// As in a checkpoint.
    pub complete_to: u64,
    /// As in a checkpoint.
    pub round: u32,
    /// As in a checkpoint.
    pub references_done: u64,
    /// Slots per row.
    pub k: usize,
    /// The neighbours so far, of rows that follow each other.
    pub top: Vec<TopRows<'a>>,
}

impl<'a> Unfinished<'a> {
    /// Rows that follow each other and are all complete; of each run of rows the first neighbours are theirs. `None` where
    /// there are none.
    pub(super) fn complete(parts: &[(Range<u64>, &'a TopK)]) -> Option<Self> {
        let (first, last) = (parts.first()?, parts.last()?);
        let top = parts.iter().map(|(rows, top)| top.part(0..length(rows))).collect();
        let (rows, k) = (first.0.start..last.0.end, first.1.k());
        Some(Self { complete_to: rows.end, rows, round: 0, references_done: 0, k, top })
    }
}

/// Where finished units and checkpoints go.
pub trait UnitSink: Sync {
    /// Writes a unit; called from one thread, in the order in which units are finished.
    ///
    /// # Errors
    /// Any I/O error.
    fn commit(&self, unit: u64, top: TopK) -> Result<(), Error>;

    /// Saves the state of an unfinished unit, in place of the one before.
    ///
    /// # Errors
    /// Any I/O error.
    fn save(&self, unfinished: &Unfinished<'_>) -> Result<(), Error>;
}

pub(super) fn length(rows: &Range<u64>) -> usize {
    usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX)
}
