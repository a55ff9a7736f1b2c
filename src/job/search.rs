//! The search of a job: plan, engine, units, markers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::checkpoint;
use super::columns::check_categories;
use super::groups::Groups;
use super::inputs::Inputs;
use super::manifest::{Marker, Statistics};
use super::names::NameWriter;
use super::output::Output;
use super::request::{Names, SearchRequest};
use super::run::Run;
use crate::engine::Engine;
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::error::{Error, JobError};
use crate::plan::search::{SearchInput, SearchPlan, Side, plan};
use crate::route::all::AllRows;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::progress::{Stage, Step};
use crate::schedule::search::{Checkpoint, Search, UnitSink, search};
use crate::store::Source;
use crate::store::anndata::AnnData;
use crate::store::neighbours::NeighboursWriter;
use crate::topk::{PADDING, TopK};
use crate::units::{K, UNIT_ROWS};
use crate::weights::stats::DistanceStatistics;

/// The stage's folder of markers.
pub const STAGE: &str = "search";

/// Axes longer than this get a range index unless names are asked for.
const NAMED_ROWS_MAX: u64 = 10_000_000;

/// A search that has been checked and planned.
pub struct Planned<'a> {
    /// What was asked.
    pub request: &'a SearchRequest,
    /// Both sides.
    pub inputs: Inputs,
    /// How it runs.
    pub plan: SearchPlan,
    /// Where the time goes.
    pub engine: Box<dyn Engine>,
    /// The kernel variant.
    pub variant: String,
}

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

impl<'a> Planned<'a> {
    /// Opens the inputs, makes the engine and plans.
    ///
    /// # Errors
    /// Whatever would stop the search before it begins.
    pub fn new(request: &'a SearchRequest, run: &Run<'_>) -> Result<Self, Error> {
        let inputs = Inputs::open(request, &run.io)?;
        if let Some(key) = &request.exclude_group {
            let (queries, references) = annotated(&inputs)?;
            check_categories(references, key)?;
            check_categories(queries, key)?;
        }
        let engine = CpuEngine::new(CpuConfig { metric: request.metric, pool: Arc::clone(&run.pool), simd: None })?;
        let variant = engine.simd().to_owned();
        let dim = inputs.queries.source.dim();
        let input = SearchInput {
            queries: side(&*inputs.queries.source),
            references: side(&*inputs.references.source),
            dim: dim as u64,
            k: request.k.get() as u64,
            groups: request.exclude_group.is_some(),
            names: copies_names(request.run.names, inputs.queries.source.rows()),
            engine: engine.limits(dim, request.k),
            budget: run.budget,
        };
        let plan = plan(&input)?;
        Ok(Self { request, inputs, plan, engine: Box::new(engine), variant })
    }

    /// What the arrays follow from.
    #[must_use]
    pub fn parameters(&self) -> Value {
        let request = self.request;
        json!({
            "rep": request.rep,
            "reference_rep": request.reference_rep.as_ref().unwrap_or(&request.rep),
            "k": request.k.get(),
            "metric": request.metric.name(),
            "method": "exact",
            "self_mapping": self.inputs.self_mapping,
            "exclude_group": request.exclude_group,
            "compat": request.compat.then_some("cellmapper-0.2.5"),
            "names": copies_names(request.run.names, self.inputs.queries.source.rows()),
            "seed": request.run.seed,
        })
    }

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

    fn run_with(&mut self, output: &Output, run: &Run<'_>, own_row: OwnRow) -> Result<SearchDone, Error> {
        let (queries, references) = (&self.inputs.queries, &self.inputs.references);
        let rows = queries.source.rows();
        let k = self.request.k;
        let written_k = if own_row == OwnRow::FirstDropped { k.get().saturating_sub(1) } else { k.get() };
        let written_k = u32::try_from(written_k).ok().and_then(|k| K::new(k).ok()).ok_or_else(|| {
            JobError::Refused("k = 1 leaves no neighbours under --compat cellmapper-0.2.5; use k ≥ 2".to_owned())
        })?;
        let names = copies_names(self.request.run.names, rows);
        let sink = Sink {
            output,
            neighbours: NeighboursWriter::create(
                &output.folder,
                rows,
                written_k.get() as u64,
                references.source.rows(),
            )?,
            names: NameWriter::create(&output.folder, "obs", rows, queries.annotations.as_ref().filter(|_| names))?,
            own_row,
            k: written_k,
        };
        let done = output.done(STAGE)?;
        let todo: Vec<u64> = (0..unit_count(rows)).filter(|unit| !done.contains_key(unit)).collect();
        let checkpoint_rows = self.plan.block_rows.max(UNIT_ROWS);
        let checkpoint = output.checkpoint(checkpoint::bytes_max(checkpoint_rows, k))?;
        let checkpoint = checkpoint.filter(|saved| goes_on(saved, &todo, rows, k));
        self.tell_beginning(run, rows, &done.keys().copied().collect::<Vec<_>>(), checkpoint.as_ref());
        let groups = self.groups()?;
        let partition_rows = u32::try_from(self.plan.partition_rows).unwrap_or(u32::MAX);
        let router = AllRows::new(references.source.rows(), partition_rows);
        let query_groups = groups.as_ref().map(Groups::reader);
        let task = Search {
            queries: &*queries.source,
            references: &*references.source,
            groups: groups.as_ref().zip(query_groups.as_ref()).map(|(groups, reader)| {
                let reader: crate::schedule::search::QueryGroups<'_> = reader;
                (reader, groups.references.as_slice())
            }),
            exclude_own_row: own_row == OwnRow::Excluded,
            router: &router,
            k,
            order: self.plan.order,
            block_rows: self.plan.block_rows,
            todo: &todo,
            checkpoint_every: Duration::from_secs(self.request.run.checkpoint_seconds),
            pool: &run.pool,
            clock: &run.clock,
        };
        let result = search(&task, &mut *self.engine, &sink, checkpoint, run.observer, run.stop);
        run.observer.end(Stage::Search);
        result?;
        output.drop_checkpoint()?;
        let computed_rows: u64 = todo.iter().map(|&unit| unit_rows(unit, rows)).map(|r| r.end - r.start).sum();
        Ok(SearchDone {
            k: written_k,
            pairs: computed_rows * references.source.rows(),
            units: (todo.len() as u64, done.len() as u64),
        })
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

    fn groups(&self) -> Result<Option<Groups>, Error> {
        let Some(key) = &self.request.exclude_group else { return Ok(None) };
        let (queries, references) = annotated(&self.inputs)?;
        Groups::open(queries, references, key).map(Some)
    }

    fn tell_beginning(&self, run: &Run<'_>, rows: u64, done: &[u64], checkpoint: Option<&Checkpoint>) {
        let references = self.inputs.references.source.rows();
        let work = |rows: u64| Step { rows, pairs: rows.saturating_mul(references), bytes: 0 };
        let mut finished: u64 = done.iter().map(|&unit| unit_rows(unit, rows)).map(|r| r.end - r.start).sum();
        if !done.is_empty() {
            run.observer.note(&format!("{} finished units of {} are reused", done.len(), unit_count(rows)));
        }
        let mut finished_step = work(finished);
        if let Some(checkpoint) = checkpoint {
            finished += checkpoint.complete_to - checkpoint.rows.start;
            finished_step = work(finished);
            finished_step.pairs += (checkpoint.rows.end - checkpoint.complete_to) * checkpoint.references_done;
            run.observer.note("an unfinished unit goes on where it was saved");
        }
        run.observer.begin(Stage::Search, work(rows), finished_step);
    }
}

/// What a search did.
#[derive(Clone, Copy, Debug)]
pub struct SearchDone {
    /// Neighbours per query written.
    pub k: K,
    /// Pairs compared.
    pub pairs: u64,
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

/// What is known of the cells of both sides, for --exclude-group.
fn annotated(inputs: &Inputs) -> Result<(&AnnData, &AnnData), Error> {
    let both = inputs.queries.annotations.as_ref().zip(inputs.references.annotations.as_ref());
    both.ok_or_else(|| JobError::Refused("--exclude-group needs AnnData stores on both sides".to_owned()).into())
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

fn side(source: &dyn Source) -> Side {
    Side {
        rows: source.rows(),
        stored_bytes: source.stored_bytes(),
        chunk_rows: source.chunk_rows(),
        scratch_bytes: source.scratch_bytes(),
    }
}

/// Writes units and checkpoints.
struct Sink<'a> {
    output: &'a Output,
    neighbours: NeighboursWriter,
    names: NameWriter<'a>,
    own_row: OwnRow,
    k: K,
}

impl UnitSink for Sink<'_> {
    fn commit(&self, unit: u64, top: TopK) -> Result<(), Error> {
        let first_row = unit * UNIT_ROWS;
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
            engine: "cpu".to_owned(),
        };
        self.output.mark(STAGE, &marker)
    }

    fn save(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.output.save_checkpoint(checkpoint)
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

#[cfg(test)]
mod tests {
    use super::*;

    const U: u64 = UNIT_ROWS;

    #[test]
    fn only_a_checkpoint_of_units_that_are_to_do_is_gone_on_with() {
        let k = K::new(1).unwrap();
        for (rows, todo, expected) in [
            (0..10, vec![0], true),
            (U..2 * U + 5, vec![0, 1, 2], true),
            (U..2 * U, vec![1], true),
            (0..10, vec![1], false),
            // The marker of the first unit was lost after both had been finished.
            (U..2 * U + 5, vec![1], false),
            (U..2 * U + 5, vec![1, 3], false),
            (5..10, vec![0], false),
            (0..0, vec![0], false),
            (0..4 * U + 1, vec![0, 1, 2, 3, 4], false),
        ] {
            let top = TopK::empty(usize::try_from(rows.end - rows.start).unwrap(), k);
            let saved = Checkpoint { complete_to: rows.start, rows: rows.clone(), references_done: 1, top };
            assert_eq!(goes_on(&saved, &todo, 4 * U, k), expected, "{rows:?} of {todo:?}");
        }
        let saved = Checkpoint { rows: 0..1, complete_to: 0, references_done: 1, top: TopK::empty(1, k) };
        assert!(!goes_on(&saved, &[0], 1, K::new(2).unwrap()), "another k");
    }
}
