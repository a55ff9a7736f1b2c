//! What the user asked for, checked and bound to objects; work units; manifest. The only serde.
//!
//! A job opens and checks everything first, plans, and only then creates its output. Stages follow each other (search,
//! names, map, matrix, presence, finish); each marks its finished units, so that `--resume` does only what is missing.

mod approach;
mod audit;
mod cache;
mod calibrate;
mod checkpoint;
mod columns;
mod done;
mod engine;
mod evaluate;
mod explain;
mod finish;
mod graph;
mod groups;
mod index;
mod inputs;
mod manifest;
mod map;
mod mapping;
mod matrix;
mod names;
mod output;
mod planned;
mod presence;
mod report;
pub mod request;
mod run;
mod sample;
mod search;
mod sink;
mod stages;
mod transfer;
pub mod variants;
mod verify;
mod wanted;
mod warnings;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, JobError};
use crate::plan::mapping::{MappingInput, MappingPlan};
use crate::schedule::progress::{Observer, Silent, Stop};
use crate::store::folder::real_path;
use crate::units::ByteCount;
use finish::Axes;
use manifest::{EngineRecord, FORMAT, Manifest};
use output::Output;
use planned::Planned;
use report::Subject;
use request::{MapRequest, MappingRequest, Outcome, PlanReport, SearchRequest};
use run::Run;
use wanted::Sides;

pub use evaluate::evaluate;
pub use index::{index, plan_index};
pub use run::{default_budget, processor_name};
pub use transfer::{plan as plan_transfer, transfer};
pub use verify::verify;

/// The plan of a search, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_search(request: &SearchRequest) -> Result<PlanReport, Error> {
    plan(request, None)
}

/// The plan of a mapping, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_map(request: &MapRequest) -> Result<PlanReport, Error> {
    plan(&request.search, Some(&request.mapping))
}

/// Neighbours only.
///
/// # Errors
/// Any of the library's.
pub fn search(request: &SearchRequest, observer: &dyn Observer, stop: &Stop) -> Result<Outcome, Error> {
    job(request, None, observer, stop)
}

/// Neighbours, weights and transfer.
///
/// # Errors
/// Any of the library's.
pub fn map(request: &MapRequest, observer: &dyn Observer, stop: &Stop) -> Result<Outcome, Error> {
    job(&request.search, Some(&request.mapping), observer, stop)
}

fn plan(request: &SearchRequest, mapping: Option<&MappingRequest>) -> Result<PlanReport, Error> {
    let stop = Stop::new();
    let run = Run::begin(&request.within, &Silent, &stop)?;
    // What a run that goes on would not choose again is not chosen here.
    let earlier = if request.run.resume { output::earlier(&request.out, &request.run, &run.io)? } else { None };
    let mut planned = Planned::new(request, earlier.as_ref(), &run)?;
    planned.settle_as_before(earlier.as_ref(), &run)?;
    let mapping = plan_mapping(&planned, mapping, &run)?;
    let mapping = mapping.as_ref().map(|(input, plan)| (input, plan));
    Ok(report::report(Some(&subject(&planned)?), Some(&planned.plan), mapping, &run))
}

fn subject(planned: &Planned<'_>) -> Result<Subject, Error> {
    let (queries, references) = (&planned.inputs.queries.source, &planned.inputs.references.source);
    let reference = if planned.inputs.self_mapping { "the query itself" } else { references.name() };
    Ok(Subject {
        explained: explain::Explained::new(planned)?,
        names: (queries.name().to_owned(), reference.to_owned()),
        rows: (queries.rows(), references.rows()),
        dim: queries.dim(),
        k: planned.request.k.get(),
        metric: planned.request.metric.name(),
        engine: planned.opened.record.clone(),
    })
}

fn sides<'a>(planned: &'a Planned<'_>) -> Sides<'a> {
    let inputs = &planned.inputs;
    let references = inputs.references.annotations.as_ref();
    let named = search::copies_names(planned.request.run.names, inputs.references.source.rows());
    Sides {
        queries: inputs.queries.annotations.as_ref(),
        references,
        reference_names: references.filter(|_| named),
        rows: inputs.queries.source.rows(),
        reference_rows: inputs.references.source.rows(),
        self_mapping: inputs.self_mapping,
        metric: planned.request.metric,
    }
}

fn plan_mapping(
    planned: &Planned<'_>,
    mapping: Option<&MappingRequest>,
    run: &Run<'_>,
) -> Result<Option<(MappingInput, MappingPlan)>, Error> {
    let Some(mapping) = mapping else { return Ok(None) };
    let k = planned.request.k.get() as u64;
    let input = wanted::check(mapping, &sides(planned), k, run.threads, run.budget)?;
    let plan = crate::plan::mapping::plan(&input)?;
    Ok(Some((input, plan)))
}

fn job(
    request: &SearchRequest,
    mapping: Option<&MappingRequest>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Outcome, Error> {
    let run = Run::begin(&request.within, observer, stop)?;
    let inputs = [Some(&request.query), request.reference.as_ref(), request.how.index.as_ref()];
    check_place(&request.out, inputs.into_iter().flatten().map(std::path::PathBuf::as_path))?;
    let earlier = output::earlier(&request.out, &request.run, &run.io)?;
    let planned = Planned::new(request, earlier.as_ref(), &run)?;
    let mapping_plan = plan_mapping(&planned, mapping, &run)?;
    warnings::tell(&planned, mapping, &run)?;
    if let Some(outcome) = done::without_its_index(&planned, mapping, earlier.as_ref(), &run)? {
        return Ok(outcome);
    }
    let (mut planned, own_index) = planned.build_index(earlier.as_ref(), &run)?;
    planned.settle(earlier.as_ref(), &run)?;
    let manifest = manifest(&planned, mapping)?;
    let writes = planned.plan.bytes_written + mapping_plan.as_ref().map_or(0, |(_, plan)| plan.bytes_written);
    let mut output = begin(&request.out, manifest, &request.run, writes, &run)?;
    let mut outcome = outcome(&output.manifest, &request.out);
    outcome.name_engine(&planned.opened.record);
    outcome.method = planned.approach.method();
    if output.manifest.finished {
        return done::already(outcome, &output, &planned, &run);
    }
    planned.tell_graph(&run);
    let done = planned.run(&output, &run)?;
    (outcome.k, outcome.pairs, outcome.units) = (done.k.get() as u64, done.pairs, done.units);
    outcome.share_of_pairs = done.share;
    let graph = planned.graph_told();
    let recall = (!planned.approach.is_exact()).then(|| audit::audit(&mut planned, &output, &run)).transpose()?;
    output.manifest.recall = recall.map(|recall| recall.mean);
    (outcome.recall, outcome.recall_interval) = (output.manifest.recall, recall.map(|recall| recall.interval));
    outcome.name_engine(&planned.opened.record);
    let sides = sides(&planned);
    names::write_axis(&output, &run, "var", sides.reference_rows, sides.reference_names)?;
    let mut axes = Axes::default();
    let mut uns = planned.kth_distances(&output)?;
    let asked = audit::asked(&planned);
    uns.extend(graph.map(|told| ("hnsw".to_owned(), told)));
    uns.extend(own_index.map(|told| ("own_index".to_owned(), told)));
    uns.extend(recall.map(|recall| ("audit".to_owned(), recall.to_json(asked))));
    uns.extend(planned.lost.as_ref().map(|lost| ("device_lost".to_owned(), json!(lost))));
    tell_rounding(planned.inputs.rounding, uns["mean_kth_distance"].as_f64(), &run);
    if let (Some(mapping), Some((_, plan))) = (mapping, &mapping_plan) {
        let from = std::sync::Arc::clone(&output.folder);
        let mapped = stages::run(&output, &run, &from, &sides, mapping, plan)?;
        (axes.obs, axes.var) = (mapped.obs, mapped.var);
        uns.extend(mapped.uns);
    }
    run.fill(&mut outcome);
    uns.extend(account(&outcome, &run, &output)?);
    let uns = finish::uns(&output, uns);
    finish::finish(&mut output, &axes, &uns)?;
    run.fill(&mut outcome);
    Ok(outcome)
}

/// How much float64 rows were rounded, where there were any.
fn tell_rounding(rounding: Option<f64>, mean_kth_distance: Option<f64>, run: &Run<'_>) {
    let Some(rounding) = rounding else { return };
    let share = mean_kth_distance.map_or_else(String::new, |mean| {
        format!(", {:.1e} of the mean distance of the k-th neighbour", rounding / mean)
    });
    run.observer
        .note(&format!("float64 rows were rounded to float32, which moved them by at most {rounding:.1e}{share}"));
}

/// The job that an output of this belongs to.
fn manifest(planned: &Planned<'_>, mapping: Option<&MappingRequest>) -> Result<Manifest, Error> {
    let mut inputs = planned.inputs.fingerprint()?;
    if let Some(mapping) = mapping {
        inputs["annotations"] = wanted::fingerprints(mapping, &sides(planned))?;
    }
    if let Some(key) = &planned.request.exclude_group {
        inputs["groups"] = planned.group_fingerprints(key)?;
    }
    Ok(Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: if mapping.is_some() { "map" } else { "search" }.to_owned(),
        parameters: with_mapping(planned.parameters()?, mapping),
        inputs,
        rows: planned.inputs.queries.source.rows(),
        reference_rows: planned.inputs.references.source.rows(),
        k: planned.request.k.get() as u64,
        finished: false,
        units: std::collections::BTreeMap::new(),
        recall: None,
    })
}

/// `--overwrite` must never reach an input.
fn check_place<'p>(out: &Path, inputs: impl Iterator<Item = &'p Path>) -> Result<(), Error> {
    for input in inputs {
        if real_path(input).starts_with(real_path(out)) {
            let message = format!("the output {} holds the input {}", out.display(), input.display());
            return Err(JobError::Refused(format!("{message}; choose another output")).into());
        }
    }
    Ok(())
}

fn begin(
    path: &Path,
    manifest: Manifest,
    options: &request::RunOptions,
    writes: u64,
    run: &Run<'_>,
) -> Result<Output, Error> {
    let free = crate::store::folder::Folder::new(path, &run.io).free_bytes();
    if let Some(free) = free.filter(|free| *free < writes && !options.resume) {
        let (free, needs) = (ByteCount(free), ByteCount(writes));
        return Err(JobError::NoRoom { path: path.to_owned(), free, needs }.into());
    }
    Output::begin(path, manifest, options, &run.io)
}

/// What is known of a run of this manifest before it begins.
fn outcome(manifest: &Manifest, out: &Path) -> Outcome {
    Outcome {
        rows: manifest.rows,
        reference_rows: manifest.reference_rows,
        k: manifest.k,
        method: "exact",
        device: "cpu",
        adapter: processor_name(),
        variant: "none".to_owned(),
        seconds: request::Seconds::default(),
        pairs: 0,
        bytes_read: 0,
        bytes_written: 0,
        peak_memory_bytes: None,
        recall: None,
        recall_interval: None,
        share_of_pairs: None,
        units: (0, 0),
        out: out.to_owned(),
    }
}

impl Outcome {
    fn name_engine(&mut self, record: &EngineRecord) {
        self.device = record.kind();
        (self.adapter, self.variant) = (record.adapter.clone(), record.variant.clone());
    }
}

/// Units by kind of engine, the engines, and whether they find the same bytes.
type Searched = (BTreeMap<String, u64>, Vec<String>, bool);

/// What searched, from the markers: how many units each kind of engine did, which engines those were, and whether they
/// find the same bytes.
fn engines(output: &Output) -> Result<Searched, Error> {
    let (mut kinds, mut all) = (BTreeMap::new(), Vec::new());
    for marker in output.done(search::STAGE)?.into_values() {
        // A unit that goes on with another variant of the same kind is still one of that kind.
        let kind = ["cpu", "gpu"].into_iter().filter(|kind| marker.engines.iter().any(|e| e.kind() == *kind));
        *kinds.entry(kind.collect::<Vec<_>>().join("+")).or_default() += 1;
        all = manifest::both(&all, &marker.engines);
    }
    let same = all.windows(2).all(|pair| pair[0].finds_the_same_as(&pair[1]));
    let named = all.iter().map(|e| [&*e.device, &e.adapter, &e.driver, &e.variant].join(", ").replace(", , ", ", "));
    Ok((kinds, named.collect(), same))
}

/// The part of `uns/atlasknn` that differs from run to run.
fn account(outcome: &Outcome, run: &Run<'_>, output: &Output) -> Result<Map<String, Value>, Error> {
    let seconds = outcome.seconds;
    let (kinds, engines, same) = engines(output)?;
    let value = json!({
        "run": {
            "device": outcome.device,
            "adapter": outcome.adapter,
            "variant": outcome.variant,
            "threads": run.threads,
            "host_memory_bytes": run.budget.0,
            "units_computed": outcome.units.0,
            "units_reused": outcome.units.1,
            "pairs": outcome.pairs,
            "share_of_pairs": outcome.share_of_pairs,
            "bytes_read": outcome.bytes_read,
            "bytes_written": outcome.bytes_written,
            "peak_memory_bytes": outcome.peak_memory_bytes,
            "seconds": {
                "read": seconds.read,
                "search": seconds.search,
                "map": seconds.map,
                "write": seconds.write,
                "total": seconds.total,
            },
        },
        "units_by_engine": kinds,
        "engines": engines,
        "reproducible": same,
    });
    Ok(value.as_object().cloned().unwrap_or_default())
}

/// Everything the mapped arrays follow from.
fn with_mapping(mut parameters: Value, mapping: Option<&MappingRequest>) -> Value {
    if let (Some(mapping), Some(parameters)) = (mapping, parameters.as_object_mut()) {
        parameters.insert("mapping".to_owned(), mapping_parameters(mapping));
    }
    parameters
}

fn mapping_parameters(mapping: &MappingRequest) -> Value {
    let subsets: Vec<String> = mapping.label_subsets.iter().map(|(key, name)| format!("{key}={name}")).collect();
    json!({
        "kernel": mapping.kernel.name(),
        "labels": mapping.labels,
        "label_subsets": subsets,
        "values": mapping.values,
        "obsm": mapping.obsm,
        "presence": mapping.presence.as_ref().map(|presence| json!({
            "by": presence.by,
            "log": presence.log,
            "percentiles": [presence.percentiles.0, presence.percentiles.1],
            "min_max": presence.min_max,
        })),
        "self_edges": wanted::self_edges(mapping),
        "matrix": mapping.matrix,
        "min_confidence": mapping.min_confidence,
        "probabilities": mapping.probabilities,
    })
}
