//! The search of a job: plan, engine, units, markers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::approach::{Through, router};
use super::checkpoint;
use super::engine::{Opened, Reopen};
use super::groups::{Groups, annotated};
use super::inputs::Cells;
use super::manifest::{EngineRecord, Marker};
use super::names::NameWriter;
use super::output::Output;
use super::planned::Planned;
use super::request::{Names, SearchRequest};
use super::run::Run;
use super::sink::Sink;
use crate::engine::Engine;
use crate::error::{EngineError, Error, JobError};
use crate::plan::search::{SearchPlan, Side};
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::pager::{ReadIds, References};
use crate::schedule::progress::{Stage, Step};
use crate::schedule::refine::Refine;
use crate::schedule::search::{Checkpoint, Engines, QueryGroups, Search, TRIES, search};
use crate::store::Source;
use crate::store::neighbours::NeighboursWriter;
use crate::units::{K, UNIT_ROWS};

/// The stage's folder of markers.
pub const STAGE: &str = "search";

/// Axes longer than this get a range index unless names are asked for.
const NAMED_ROWS_MAX: u64 = 10_000_000;

/// Finished units, units to do, and a checkpoint with what computed it.
type Standing = (BTreeMap<u64, Marker>, Vec<u64>, Option<(Checkpoint, Vec<EngineRecord>)>);

/// What CellMapper 0.2.5 would write: what becomes of a cell's own row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRow {
    /// Never found.
    Excluded,
    /// Searched like any other and kept.
    Kept,
    /// Searched like any other; the first column, which is it in every row, is dropped.
    FirstDropped,
}

impl Planned<'_> {
    /// Searches whatever is not done yet. Returns the neighbours per query written, and how many units were computed
    /// and reused.
    ///
    /// # Errors
    /// The first error of reading, searching or writing; [`JobError::Interrupted`].
    pub fn run(&mut self, output: &Output, run: &Run<'_>) -> Result<SearchDone, Error> {
        let rows = self.inputs.queries.source.rows();
        let square = rows == self.inputs.references.source.rows();
        if !(self.request.compat && square) {
            let own_row = if self.inputs.self_mapping { OwnRow::Excluded } else { OwnRow::Kept };
            return self.run_with(output, run, own_row);
        }
        // CellMapper drops the first column when it is the own row in every row, and only then.
        if output.done("search-kept")?.is_empty() {
            let done = self.run_with(output, run, OwnRow::FirstDropped)?;
            let markers = output.done(STAGE)?;
            if markers.values().all(|marker| marker.own_row_first == Some(true)) {
                return Ok(done);
            }
            run.observer.note(
                "a cell's nearest neighbour is another one at distance 0, so CellMapper 0.2.5 would keep every cell's \
                 own row; searching again that way",
            );
            output.unmark(STAGE)?;
            output.drop_checkpoint()?;
            output.mark("search-kept", &Marker::empty())?;
        }
        self.run_with(output, run, OwnRow::Kept)
    }

    /// Searches, and goes on with the CPU where the device is lost again and again.
    fn run_with(&mut self, output: &Output, run: &Run<'_>, own_row: OwnRow) -> Result<SearchDone, Error> {
        let rows = self.inputs.queries.source.rows();
        let done = output.done(STAGE)?;
        let todo = (0..unit_count(rows)).filter(|unit| !done.contains_key(unit));
        let (units, computed_rows) = todo.fold((0, 0), |(units, sum), unit| {
            let unit = unit_rows(unit, rows);
            (units + 1, sum + (unit.end - unit.start))
        });
        let all_pairs = computed_rows as f64 * self.inputs.references.source.rows() as f64;
        let k = loop {
            match self.attempt(output, run, own_row) {
                Err(Error::Engine(error @ EngineError::DeviceLost { .. })) if self.opened.reopen.is_some() => {
                    self.fall_back(&error, run)?;
                }
                k => break k?,
            }
        };
        // Of all pairs that are visited, a graph compares few.
        let visited = self.pairs.load(Ordering::Relaxed);
        let pairs = self.graph.as_ref().map_or(visited, |graph| graph.counts.pairs.load(Ordering::Relaxed));
        let share = (self.through.is_some() && all_pairs > 0.0).then(|| (pairs as f64 / all_pairs).min(1.0));
        Ok(SearchDone { k, pairs, share, units: (units, done.len() as u64) })
    }

    /// Puts the CPU in the place of a device that was lost for good, with a plan of its own.
    pub fn fall_back(&mut self, error: &EngineError, run: &Run<'_>) -> Result<(), Error> {
        let message = format!("{error}, {TRIES} times in a row; the CPU goes on");
        run.observer.warn(&message);
        self.opened = Opened::cpu(self.request.metric, run)?;
        // The device found it, within wider ties than the CPU has.
        self.to_audit = None;
        self.plan_again(run)?;
        self.lost = Some(message);
        Ok(())
    }

    fn attempt(&mut self, output: &Output, run: &Run<'_>, own_row: OwnRow) -> Result<K, Error> {
        let (queries, references) = (&self.inputs.queries, &self.inputs.references);
        let rows = queries.source.rows();
        let written_k = written_k(self.request.k, own_row)?;
        let (done, todo, checkpoint) = self.standing(output)?;
        let names = queries.annotations.as_ref().filter(|_| copies_names(self.request.run.names, rows));
        let reference_rows = references.source.rows();
        let sink = Sink {
            output,
            neighbours: NeighboursWriter::create(&output.folder, rows, written_k.get() as u64, reference_rows)?,
            names: NameWriter::create(&output.folder, "obs", rows, names)?,
            own_row,
            k: written_k,
            engine: self.opened.record.clone(),
            earlier: checkpoint.as_ref().map(|(checkpoint, engines)| (checkpoint.rows.clone(), engines.clone())),
        };
        let checkpoint = checkpoint.map(|(checkpoint, _)| checkpoint);
        self.tell_beginning(run, rows, &done.keys().copied().collect::<Vec<_>>(), checkpoint.as_ref());
        let groups = self.groups()?;
        let through = self.through.as_ref();
        let router = router(self.approach, through, self.request.metric, &self.plan, reference_rows);
        let ids = through.map(|through| |rows| Ok(through.index.ids(rows)?));
        let query_groups = groups.as_ref().map(Groups::reader);
        let task = Search {
            queries: &*queries.source,
            query_ids: None,
            query_groups: query_groups.as_ref().map(|reader| reader as QueryGroups<'_>),
            references: References {
                source: through.map_or(&*references.source, |through| &**through.index.source()),
                ids: ids.as_ref().map(|ids| ids as ReadIds<'_>),
                groups: groups.as_ref().map(|groups| groups.references.as_slice()),
            },
            exclude_own_row: own_row == OwnRow::Excluded,
            router: &*router,
            k: self.candidates(),
            refine: through.and_then(|through| refine(through, self.request, references, &self.plan)),
            order: self.plan.order,
            block_rows: self.plan.block_rows,
            ranked_rows: self.plan.ranked_rows,
            stage: Stage::Search,
            todo: &todo,
            checkpoint_every: Duration::from_secs(self.request.run.checkpoint_seconds),
            pool: &run.pool,
            clock: &run.clock,
            pairs: &self.pairs,
        };
        let reopen = &self.opened.reopen;
        let engines = Engines {
            engine: &mut self.opened.engine,
            reopen: &mut |lost, error| open_again(reopen.as_ref(), lost, error, run),
        };
        let result = search(&task, engines, &sink, checkpoint, run.observer, run.stop);
        run.observer.end(Stage::Search);
        result?;
        output.drop_checkpoint()?;
        Ok(written_k)
    }

    /// The finished units, those to do, and where an unfinished one stands.
    fn standing(&self, output: &Output) -> Result<Standing, Error> {
        let (rows, k) = (self.inputs.queries.source.rows(), self.candidates());
        let done = output.done(STAGE)?;
        let todo: Vec<u64> = (0..unit_count(rows)).filter(|unit| !done.contains_key(unit)).collect();
        let checkpoint_rows = self.plan.block_rows.max(UNIT_ROWS);
        let checkpoint = output.checkpoint(checkpoint::bytes_max(checkpoint_rows, k))?;
        let checkpoint = checkpoint.filter(|(saved, _)| goes_on(saved, &todo, rows, k));
        if !todo.is_empty() {
            self.check_engines(output, done.values(), checkpoint.as_ref().map(|(_, engines)| engines))?;
        }
        Ok((done, todo, checkpoint))
    }

    /// Refuses to go on with another engine than the one that began, unless mixing is allowed or its device was lost.
    fn check_engines<'m>(
        &self,
        output: &Output,
        done: impl Iterator<Item = &'m Marker>,
        checkpoint: Option<&'m Vec<EngineRecord>>,
    ) -> Result<(), Error> {
        if self.request.run.allow_mixed || self.lost.is_some() {
            return Ok(());
        }
        let now = &self.opened.record;
        let mut earlier = done.flat_map(|marker| &marker.engines).chain(checkpoint.into_iter().flatten());
        match earlier.find(|earlier| !earlier.finds_the_same_as(now)) {
            None => Ok(()),
            Some(earlier) => Err(JobError::OtherEngine {
                path: output.folder.root().to_owned(),
                earlier: earlier.in_words(),
                now: now.in_words(),
            }
            .into()),
        }
    }

    /// The mean k-th distance, and how far the rounding of float64 rows may have moved it.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn kth_distances(&self, output: &Output) -> Result<Map<String, Value>, Error> {
        let (mut sum, mut count) = (0.0, 0);
        for (unit_sum, unit_count) in output.done(STAGE)?.into_values().filter_map(|marker| marker.kth) {
            sum += unit_sum;
            count += unit_count;
        }
        let mean = if count == 0 { None } else { Some(sum / count as f64) };
        let value = json!({ "mean_kth_distance": mean, "float64_rounding": self.inputs.rounding });
        Ok(value.as_object().cloned().unwrap_or_default())
    }

    /// The fingerprints of the groups of both sides.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn group_fingerprints(&self, key: &str) -> Result<Value, Error> {
        let (queries, references) = annotated(&self.inputs)?;
        Ok(json!([queries.obs(key)?.fingerprint()?, references.obs(key)?.fingerprint()?]))
    }

    pub fn groups(&self) -> Result<Option<Groups>, Error> {
        let Some(key) = &self.request.exclude_group else { return Ok(None) };
        let (queries, references) = annotated(&self.inputs)?;
        Groups::open(queries, references, key).map(Some)
    }

    fn tell_beginning(&self, run: &Run<'_>, rows: u64, done: &[u64], checkpoint: Option<&Checkpoint>) {
        let references = self.inputs.references.source.rows();
        // Of lists it is what is expected; where bounds decide, the most; and a graph is told of as if all were compared.
        let per_row = if self.graph.is_some() { references as f64 } else { self.plan.pairs / rows as f64 };
        let share = per_row / references as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // for a progress bar
        let work = |rows: u64| Step { rows, pairs: (rows as f64 * per_row) as u64, bytes: 0 };
        let there = done.iter().filter(|&&unit| unit < unit_count(rows));
        let mut finished: u64 = there.map(|&unit| unit_rows(unit, rows)).map(|r| r.end - r.start).sum();
        if !done.is_empty() {
            run.observer.note(&format!("{} finished units of {} are reused", done.len(), unit_count(rows)));
        }
        let mut finished_step = work(finished);
        if let Some(checkpoint) = checkpoint {
            finished += checkpoint.complete_to - checkpoint.rows.start;
            finished_step = work(finished);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let seen = (checkpoint.references_done as f64 * share) as u64;
            finished_step.pairs += (checkpoint.rows.end - checkpoint.complete_to) * seen;
            run.observer.note("an unfinished unit goes on where it was saved");
        }
        run.observer.begin(Stage::Search, work(rows), finished_step);
    }
}

/// What becomes of what a compressed index finds.
fn refine<'r>(
    through: &Through,
    request: &SearchRequest,
    references: &'r Cells,
    plan: &SearchPlan,
) -> Option<Refine<'r>> {
    let (metric, k, window_rows) = (request.metric, request.k, plan.window_rows);
    through.refines(request).then(|| Refine { references: &*references.source, metric, k, window_rows })
}

/// What a search did.
#[derive(Clone, Copy, Debug)]
pub struct SearchDone {
    /// Neighbours per query written.
    pub k: K,
    /// Pairs compared.
    pub pairs: u64,
    /// The share of all pairs that this is, where an index left some out.
    pub share: Option<f64>,
    /// Units computed and reused.
    pub units: (u64, u64),
}

/// Whether a checkpoint is of work that is still to do. All units that it touches must be: where a later one is finished
/// already, what follows it in the checkpoint would belong to no unit.
fn goes_on(checkpoint: &Checkpoint, todo: &[u64], rows: u64, k: K) -> bool {
    let of = &checkpoint.rows;
    let units = of.start / UNIT_ROWS..of.end.div_ceil(UNIT_ROWS);
    let begins_a_unit = of.start.is_multiple_of(UNIT_ROWS) && !of.is_empty() && of.end <= rows;
    begins_a_unit && checkpoint.top.k() == k.get() && units.into_iter().all(|unit| todo.contains(&unit))
}

/// The device opened again. One that cannot be counts as lost for good.
pub fn open_again(
    reopen: Option<&Reopen>,
    lost: u32,
    error: &EngineError,
    run: &Run<'_>,
) -> Result<Box<dyn Engine>, Error> {
    run.observer.warn(&format!("{error}; opening it again and repeating the block (try {} of {TRIES})", lost + 1));
    let adapter = match error {
        EngineError::DeviceLost { adapter } => adapter.clone(),
        _ => String::new(),
    };
    let reopened = reopen.map(|reopen| reopen());
    match reopened {
        Some(Ok(engine)) => Ok(engine),
        _ => Err(EngineError::DeviceLost { adapter }.into()),
    }
}

/// Neighbours per query that are written.
fn written_k(k: K, own_row: OwnRow) -> Result<K, Error> {
    let written = if own_row == OwnRow::FirstDropped { k.get().saturating_sub(1) } else { k.get() };
    let written = u32::try_from(written).ok().and_then(|k| K::new(k).ok()).ok_or_else(|| {
        JobError::Refused("k = 1 leaves no neighbours under --compat cellmapper-0.2.5; use k ≥ 2".to_owned())
    })?;
    Ok(written)
}

/// Whether the names of an axis are copied.
#[must_use]
pub fn copies_names(names: Names, rows: u64) -> bool {
    match names {
        Names::Auto => rows <= NAMED_ROWS_MAX,
        Names::All => true,
        Names::None => false,
    }
}

/// What planning must know of a source.
pub fn side(source: &dyn Source) -> Side {
    Side {
        rows: source.rows(),
        stored_bytes: source.stored_bytes(),
        row_bytes: source.row_bytes(),
        chunk_rows: source.chunk_rows(),
        scratch_bytes: source.scratch_bytes(),
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
pub(super) mod tests;
