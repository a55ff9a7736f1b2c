//! The nearest centroid of each row, found by the engine of the job as any other neighbour.

use std::sync::Arc;

use crate::block::{RowBlock, RowIds};
use crate::engine::{Exclude, Partition, Visit, VisitQueries};
use crate::error::{EngineError, Error};
use crate::job::engine::Opened;
use crate::job::run::Run;
use crate::job::search::open_again;
use crate::route::kmeans::Assignment;
use crate::schedule::Part;
use crate::schedule::search::TRIES;
use crate::topk::TopK;
use crate::units::K;

/// Centroids, and what finds the nearest of them.
pub struct Nearest<'a> {
    opened: &'a mut Opened,
    run: &'a Run<'a>,
    k: K,
    parts: Vec<Arc<Partition>>,
    lists: usize,
}

impl<'a> Nearest<'a> {
    /// Searches with this engine, among no centroids yet.
    ///
    /// # Errors
    /// Never: 1 is a k.
    pub fn new(opened: &'a mut Opened, run: &'a Run<'a>) -> Result<Self, Error> {
        Ok(Self { opened, run, k: K::new(1)?, parts: Vec::new(), lists: 0 })
    }

    /// Searches among these from now on, so many of them together.
    ///
    /// # Errors
    /// Never: rows are cut where they end.
    pub fn among(&mut self, centroids: &[f32], dim: usize, part_rows: u64) -> Result<(), Error> {
        let step = usize::try_from(part_rows).unwrap_or(usize::MAX).max(1);
        self.lists = centroids.len() / dim;
        self.parts.clear();
        for first in (0..self.lists).step_by(step) {
            let rows = first..self.lists.min(first + step);
            let ids = RowIds::Range(rows.start as u64..rows.end as u64);
            let values = centroids[rows.start * dim..rows.end * dim].to_vec();
            self.parts.push(Partition::new(RowBlock::new(ids, dim, values)?));
        }
        Ok(())
    }

    /// The nearest centroid of each row of a block, the first of several at the same distance. A device that is lost is
    /// opened again, a few times.
    ///
    /// # Errors
    /// Those of the engine; [`EngineError::DeviceLost`] after [`TRIES`] times, or where it cannot be opened again.
    pub fn of(&mut self, block: &RowBlock) -> Result<Assignment, Error> {
        let mut lost = 0;
        let top = loop {
            let error = match self.run.clock.time(Part::Search, || self.search(block)) {
                Err(error @ EngineError::DeviceLost { .. }) => error,
                done => break done?,
            };
            lost += 1;
            if lost == TRIES || self.opened.reopen.is_none() {
                return Err(error.into());
            }
            self.opened.engine = open_again(self.opened.reopen.as_ref(), lost, &error, self.run)?;
        };
        let (ids, distances) = top.into_parts();
        // Padding is what a row has that is too far from every centroid for its distance to be a number.
        let list = |id: u64| u32::try_from(id).ok().filter(|_| id < self.lists as u64).unwrap_or(0);
        Ok(Assignment { lists: ids.into_iter().map(list).collect(), distances })
    }

    /// Pairs that a block of so many rows takes.
    #[must_use]
    pub fn pairs(&self, rows: usize) -> u64 {
        (rows as u64).saturating_mul(self.lists as u64)
    }

    fn search(&mut self, block: &RowBlock) -> Result<TopK, EngineError> {
        let engine = &mut self.opened.engine;
        engine.begin(block, self.k, &Exclude::Nothing)?;
        for part in &self.parts {
            let rows = u32::try_from(part.block.rows()).unwrap_or(u32::MAX);
            engine.visit(part, &[Visit { rows: 0..rows, queries: VisitQueries::All }])?;
        }
        engine.finish()
    }
}
