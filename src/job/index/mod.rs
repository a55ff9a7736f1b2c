//! An index, built in three stages: centroids are learned from a sample, each row is put aside with its list, and the
//! rows are written in the order of their lists. A run that ends early goes on where it saved its state.

mod arrange;
mod assign;
mod check;
mod nearest;
mod state;
mod train;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::{Opened, Subject};
use super::finish::finish_index;
use super::inputs::Indexed;
use super::manifest::{EngineRecord, FORMAT, Manifest};
use super::output::Output;
use super::request::{DeviceChoice, IndexOutcome, IndexRequest, PlanReport};
use super::run::Run;
use super::{report, warnings};
use crate::block::patterns::{PATTERNS, Patterns};
use crate::block::scale::Scale;
use crate::error::{EngineError, Error, JobError, PlanError, StoreError};
use crate::metric::Metric;
use crate::plan::index::{IndexInput, IndexPlan, lists_for, plan, training_pairs};
use crate::plan::sample::sample_rows;
use crate::route::space::ListSpace;
use crate::schedule::progress::{Observer, Silent, Stage, Stop};
use crate::schedule::search::TRIES;
use crate::store::index::{Codec, Encoding, Index, Layout};
use crate::units::K;
use arrange::{Arranged, arrange};
use assign::assign;
use state::State;
use train::{PATTERN_ROWS, Trained, train};

pub use check::check;

/// The command that makes an index, in its manifest.
pub const COMMAND: &str = "index";

/// The plan of an index, without building it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_index(request: &IndexRequest) -> Result<PlanReport, Error> {
    let stop = Stop::new();
    let run = Run::begin(&request.within, &Silent, &stop)?;
    let planned = Planned::new(request, &run)?;
    Ok(report::index(&planned, &run))
}

/// Builds an index.
///
/// # Errors
/// Any of the library's.
pub fn index(request: &IndexRequest, observer: &dyn Observer, stop: &Stop) -> Result<IndexOutcome, Error> {
    let run = Run::begin(&request.within, observer, stop)?;
    let made = make(request, &run)?;
    made.planned.outcome(&made.output, made.pairs, &run)
}

/// An index that is there.
pub struct Made<'a> {
    planned: Planned<'a>,
    output: Output,
    /// Pairs that were compared for it.
    pub pairs: u64,
}

/// Builds an index as a part of a run.
///
/// # Errors
/// As [`index`].
pub fn make<'a>(request: &'a IndexRequest, run: &Run<'_>) -> Result<Made<'a>, Error> {
    let mut planned = Planned::new(request, run)?;
    super::check_place(&request.out, std::iter::once(request.reference.as_path()))?;
    warnings::warn_of(planned.indexed.source.absent()?, run.observer);
    planned.tell(run);
    let writes = planned.plan.bytes_written.0 + planned.plan.bytes_written.1;
    let mut output = super::begin(&request.out, planned.manifest(), &request.run, writes, run)?;
    let pairs = if output.manifest.finished {
        run.observer.note("everything is done already");
        0
    } else {
        build(&mut planned, &mut output, run)?
    };
    state::clean_up(&output)?;
    Ok(Made { planned, output, pairs })
}

/// Builds what is not built yet, and goes on with the CPU where the device is lost again and again. Returns the pairs
/// compared.
fn build(planned: &mut Planned<'_>, output: &mut Output, run: &Run<'_>) -> Result<u64, Error> {
    let rows_done = State::load(output)?.map_or(0, |state| state.rows_done);
    let known = planned.trained(output)?.map_or(0, |_| training_pairs(planned.plan.sample_rows, planned.lists));
    loop {
        match attempt(planned, output, run) {
            Err(Error::Engine(error @ EngineError::DeviceLost { .. })) if planned.opened.reopen.is_some() => {
                for stage in [Stage::Train, Stage::Assign] {
                    run.observer.end(stage);
                }
                planned.fall_back(&error, run)?;
            }
            done => break done?,
        }
    }
    let assigned = planned.lists * planned.layout.rows.saturating_sub(rows_done);
    Ok(training_pairs(planned.plan.sample_rows, planned.lists) - known + assigned)
}

fn attempt(planned: &mut Planned<'_>, output: &mut Output, run: &Run<'_>) -> Result<(), Error> {
    let trained = if let Some(trained) = planned.trained(output)? {
        trained
    } else {
        // Rows that were put aside have the list numbers of centroids that are lost.
        output.drop_checkpoint()?;
        let trained = train(planned, run)?;
        state::save_trained(output, &trained)?;
        trained
    };
    let (mut state, mut spill) = assign(planned, &trained, output, run)?;
    let arranged = arrange(planned, &trained, &state, &spill, output, run);
    if matches!(arranged, Err(Error::Job(JobError::Interrupted))) {
        state.save(output, &mut spill)?;
    }
    let arranged = arranged?;
    planned.finish(arranged, &state, output)
}

/// An index that has been checked and planned.
pub struct Planned<'a> {
    /// What was asked.
    pub request: &'a IndexRequest,
    /// The rows.
    pub indexed: Indexed,
    /// The space that lists are made in.
    pub space: ListSpace,
    /// How many lists are learned.
    pub lists: u64,
    /// How the arrays are cut.
    pub layout: Layout,
    /// How it runs.
    pub plan: IndexPlan,
    /// What finds the nearest centroids.
    pub opened: Opened,
    /// What the plan follows from.
    input: IndexInput,
    /// Whether the engine that began was lost for good.
    lost: bool,
}

impl<'a> Planned<'a> {
    /// Opens the reference, makes the engine and plans.
    ///
    /// # Errors
    /// Whatever would stop the run before it begins.
    pub fn new(request: &'a IndexRequest, run: &Run<'_>) -> Result<Self, Error> {
        let indexed = Indexed::open(&request.reference, &request.rep, request.metric, &run.io)?;
        let (rows, dim) = (indexed.source.rows(), indexed.source.dim());
        let lists = request.lists.unwrap_or_else(|| lists_for(rows)).min(rows).min(u64::from(u32::MAX)).max(1);
        let layout = Layout::new(rows, dim as u64, lists);
        let space = ListSpace::of(request.metric);
        let k = K::new(1)?;
        let pairs = lists as f64 * rows as f64;
        // Lists are of rows that are near each other, whatever the metric.
        let subject = Subject { metric: Metric::Euclidean, dim, k, pairs };
        let opened = Opened::new(&request.device, subject, run)?;
        let mut input = IndexInput {
            rows: super::search::side(&*indexed.source),
            dim: dim as u64,
            lists,
            placed: space != ListSpace::Rows,
            code_bytes: Codec::row_bytes(request.encoding, dim as u64),
            pattern_rows: if request.encoding == Encoding::Pq { PATTERN_ROWS } else { 0 },
            shard_rows: layout.shard_rows,
            engine: opened.engine.limits(dim, k),
            budget: run.budget,
        };
        let (opened, plan) = match plan(&input) {
            // Nobody asked for the GPU.
            Err(error @ PlanError::DeviceBudget { .. }) if request.device.choice == DeviceChoice::Auto => {
                run.observer.note(&format!("the GPU cannot be used, so the CPU searches: {error}"));
                let opened = Opened::cpu(Metric::Euclidean, run)?;
                input.engine = opened.engine.limits(dim, k);
                (opened, plan(&input)?)
            }
            plan => (opened, plan?),
        };
        Ok(Self { request, indexed, space, lists, layout, plan, opened, input, lost: false })
    }

    /// Puts the CPU in the place of a device that was lost for good, with a plan of its own.
    fn fall_back(&mut self, error: &EngineError, run: &Run<'_>) -> Result<(), Error> {
        run.observer.warn(&format!("{error}, {TRIES} times in a row; the CPU goes on"));
        self.opened = Opened::cpu(Metric::Euclidean, run)?;
        self.input.engine = self.opened.engine.limits(self.dim(), K::new(1)?);
        self.plan = plan(&self.input)?;
        self.lost = true;
        Ok(())
    }

    /// The centroids that an earlier run learned.
    fn trained(&self, output: &Output) -> Result<Option<Trained>, Error> {
        let lists = usize::try_from(self.lists).unwrap_or(usize::MAX);
        state::load_trained(output, lists, self.dim(), self.pattern_values())
    }

    /// Dimensions.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.indexed.source.dim()
    }

    /// Dimensions whose least and largest values the encoding needs.
    #[must_use]
    pub fn limits_needed(&self) -> usize {
        if self.request.encoding == Encoding::Sq8 { self.dim() } else { 0 }
    }

    /// The encoding with what is known once all rows were seen.
    ///
    /// # Errors
    /// Patterns that are missing.
    pub fn codec(&self, trained: &Trained, state: &State) -> Result<Codec, Error> {
        Ok(match self.request.encoding {
            Encoding::F32 => Codec::F32,
            Encoding::F16 => Codec::F16,
            Encoding::Sq8 => Codec::Sq8(Scale::between(&state.limits)),
            Encoding::Pq => {
                let patterns = Patterns::from_rows(&trained.patterns, self.dim());
                Codec::Pq(patterns.ok_or_else(|| StoreError::Damaged {
                    array: "the unfinished index".to_owned(),
                    why: "its patterns are missing; build it again with --overwrite".to_owned(),
                })?)
            }
        })
    }

    /// Values of all patterns, for encodings that need them.
    #[must_use]
    pub fn pattern_values(&self) -> usize {
        let codes = if self.request.encoding == Encoding::Pq { self.dim().div_ceil(Patterns::width()) } else { 0 };
        codes * PATTERNS * Patterns::width()
    }

    /// Refuses to go on with another engine than the one that began, unless mixing is allowed or its device was lost.
    ///
    /// # Errors
    /// [`JobError::OtherEngine`].
    pub fn check_engines(&self, output: &Output, earlier: &[EngineRecord]) -> Result<(), Error> {
        let now = &self.opened.record;
        match earlier.iter().find(|earlier| !earlier.finds_the_same_as(now)) {
            Some(earlier) if !(self.request.run.allow_mixed || self.lost) => Err(JobError::OtherEngine {
                path: output.folder.root().to_owned(),
                earlier: earlier.in_words(),
                now: now.in_words(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn tell(&self, run: &Run<'_>) {
        let rows = self.layout.rows;
        if self.request.lists.is_some_and(|lists| lists > rows) {
            run.observer.note(&format!("{rows} rows make at most {rows} lists"));
        }
    }

    /// The job that an output of this belongs to.
    fn manifest(&self) -> Manifest {
        let request = self.request;
        Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: COMMAND.to_owned(),
            parameters: json!({
                "rep": request.rep,
                "metric": request.metric.name(),
                "lists": self.lists,
                "encoding": request.encoding.name(),
                "seed": request.run.seed,
            }),
            inputs: json!({ "reference": self.indexed.fingerprint }),
            rows: self.layout.rows,
            reference_rows: self.layout.rows,
            k: 0,
            finished: false,
            units: BTreeMap::new(),
            recall: None,
        }
    }

    /// Writes what is known of the lists, and what makes an index of it all.
    fn finish(&self, arranged: Arranged, state: &State, output: &mut Output) -> Result<(), Error> {
        let Arranged { writer, codec, offsets, centroids, radii, largest_error } = arranged;
        let lists = radii.len();
        writer.write_lists(&offsets, centroids, radii)?;
        writer.write_codec(codec)?;
        let manifest = self.describe(lists, largest_error, state);
        finish_index(output, |nodes| writer.finish(&manifest, nodes))
    }

    /// What a search must know of the index, and a person may want to. Nothing that differs from run to run.
    fn describe(&self, lists: usize, largest_error: f64, state: &State) -> Value {
        let request = self.request;
        let engine = |record: &EngineRecord| match record.kind() {
            // Any two processors find the same.
            "cpu" => json!({ "device": "cpu" }),
            kind => json!({ "device": kind, "adapter": record.adapter, "driver": record.driver }),
        };
        let mut engines: Vec<Value> = state.engines.iter().map(engine).collect();
        engines.dedup();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "metric": request.metric.name(),
            "encoding": request.encoding.name(),
            "rows": self.layout.rows,
            "dim": self.dim(),
            "lists": lists,
            "centroids_learned": self.lists,
            "sample_rows": sample_rows(self.layout.rows, self.lists),
            "seed": request.run.seed,
            "rep": request.rep,
            "preparation": self.indexed.preparation.as_ref().map(crate::store::prepared::Preparation::to_json),
            "reference": self.indexed.fingerprint,
            "largest_encoding_error": largest_error,
            "engines": engines,
        })
    }

    fn outcome(&self, output: &Output, pairs: u64, run: &Run<'_>) -> Result<IndexOutcome, Error> {
        let index = Index::open(output.folder.root(), &run.io)?;
        let record = &self.opened.record;
        Ok(IndexOutcome {
            rows: index.rows(),
            dim: index.dim(),
            lists: index.list_rows(),
            metric: index.metric(),
            encoding: index.encoding(),
            device: record.kind(),
            adapter: record.adapter.clone(),
            variant: record.variant.clone(),
            seconds: run.seconds(),
            pairs,
            bytes_read: run.io.read(),
            bytes_written: run.io.written(),
            peak_memory_bytes: super::run::peak_memory_bytes(),
            out: output.folder.root().to_owned(),
        })
    }
}

#[cfg(test)]
#[path = "lost_tests.rs"]
mod tests;
