//! Visits of one call: those to many rows by themselves, those to few in turns, and what overflowed in them once more.

use std::sync::Arc;

use rayon::prelude::*;

use super::GpuEngine;
use super::params::MergeParams;
use super::resident::{self, Resident};
use super::turns::{Limits, Turns};
use crate::engine::{Visit, VisitQueries};
use crate::error::EngineError;

/// Calls after which the device is asked what overflowed: it waits for the answer, and the calls are remembered.
const CALLS: u32 = 4;

/// Visits of a partition that were searched alone, and those that were searched together.
#[derive(Debug)]
pub(super) struct Unsettled {
    part: Arc<Resident>,
    alone: Vec<Visit>,
    together: Vec<Turns>,
    /// In how many calls.
    calls: u32,
}

/// Visits to many rows, each with the fewest rows that any of its queries had seen.
type Alone<'v> = Vec<(u64, &'v Visit)>;

impl GpuEngine {
    /// Searches again what overflowed in the last visits.
    pub(super) fn settle(&mut self) -> Result<(), EngineError> {
        let Some(Unsettled { part, alone, together, .. }) = self.unsettled.take() else { return Ok(()) };
        let workshop = self.workshop.as_ref().ok_or(EngineError::NotBegun { call: "visit" })?;
        let overflowed = workshop.overflowed(&self.shared.device)?;
        if overflowed.is_empty() {
            return Ok(());
        }
        self.overflows += overflowed.len() as u64;
        let limits = self.limits_of_turns()?;
        let together: Vec<Turns> = self.pool.install(|| {
            let again = together.par_iter().map(|turns| turns.again(limits, &overflowed));
            again.filter(|turns| turns.len() > 0).collect()
        });
        let mut search = self.search(&part, 0)?;
        for visit in &alone {
            // Survivors are not looked at, so any chunk will do.
            search.again(visit, &overflowed, &(0..1));
        }
        search.visit_together(&self.pool, &together, MergeParams::again())
    }

    fn limits_of_turns(&self) -> Result<Limits, EngineError> {
        let (_, queries) = self.begun("visit")?;
        let k = resident::int(queries.k.get());
        Ok(Limits::new(self.tuning.room, k, resident::int(self.variant.references())))
    }

    /// Puts visits to few rows each into turns, and notes the rows that all visits bring their queries. Returns the
    /// visits to many rows, each with the fewest rows that any of its queries had seen, and the turns.
    fn sort<'v>(&mut self, visits: &'v [Visit]) -> Result<(Alone<'v>, Vec<Turns>), EngineError> {
        let limits = self.limits_of_turns()?;
        let not_begun = EngineError::NotBegun { call: "visit" };
        let (Some((_, queries)), Some(workshop)) = (&mut self.queries, &self.workshop) else { return Err(not_begun) };
        let is_few = |visit: &&Visit| {
            matches!(visit.queries, VisitQueries::List(_)) && visit.rows.end - visit.rows.start <= limits.few()
        };
        let (few, many): (Vec<&Visit>, Vec<&Visit>) =
            visits.iter().filter(|visit| !visit.rows.is_empty()).partition(is_few);
        let alone = many.into_iter().map(|visit| (queries.see(visit), visit)).collect();
        Ok((alone, Turns::of(&self.pool, limits, workshop.chunk, &mut queries.seen, &few)))
    }

    /// Searches visits to a partition on the device. What overflowed is asked for later.
    pub(super) fn visit_sorted(&mut self, resident: Arc<Resident>, visits: &[Visit]) -> Result<(), EngineError> {
        let (alone, mut together) = self.sort(visits)?;
        let goes_on = |last: &Unsettled| Arc::ptr_eq(&last.part, &resident) && last.calls < CALLS && alone.is_empty();
        if !self.unsettled.as_ref().is_some_and(goes_on) {
            self.settle()?;
        }
        for &(seen, visit) in &alone {
            self.search(&resident, seen)?.visit(visit)?;
        }
        self.search(&resident, 0)?.visit_together(&self.pool, &together, MergeParams::default())?;
        if let Some(last) = &mut self.unsettled {
            last.together.append(&mut together);
            last.calls += 1;
        } else {
            let alone = alone.into_iter().map(|(_, visit)| visit.clone()).collect();
            self.unsettled = Some(Unsettled { part: resident, alone, together, calls: 1 });
        }
        Ok(())
    }
}
