//! A mapping from the neighbours of an earlier search.

use std::sync::Arc;

use serde_json::json;

use super::finish::{self, Axes};
use super::inputs::annotations;
use super::manifest::{FORMAT, Manifest};
use super::output::read_manifest;
use super::request::{Names, Outcome, PlanReport, TransferRequest};
use super::run::Run;
use super::wanted::Sides;
use super::{
    account, begin, check_place, mapping_parameters, names, outcome, report, search, stages, wanted, warnings,
};
use crate::error::{Error, JobError, StoreError};
use crate::metric::Metric;
use crate::plan::mapping::{MappingInput, MappingPlan};
use crate::schedule::progress::{Observer, Silent, Stop};
use crate::store::anndata::AnnData;
use crate::store::folder::Folder;
use crate::store::neighbours::Neighbours;
use crate::store::open::open_representation;

/// Everything a transfer reads.
struct Earlier {
    folder: Arc<Folder>,
    manifest: Manifest,
    queries: Option<AnnData>,
    references: Option<AnnData>,
    metric: Metric,
    self_mapping: bool,
    rows: u64,
    k: u64,
}

impl Earlier {
    fn open(request: &TransferRequest, run: &Run<'_>) -> Result<Self, Error> {
        let folder = Folder::new(&request.neighbours, &run.io);
        if !request.neighbours.exists() {
            return Err(StoreError::Missing { path: request.neighbours.clone() }.into());
        }
        let manifest = read_manifest(&folder)?.ok_or_else(|| StoreError::NotAStore {
            path: request.neighbours.clone(),
            why: "it has no manifest of atlasknn; give the output of `atlasknn search`".to_owned(),
        })?;
        if !manifest.finished {
            let message = format!("{} is not finished; complete it with --resume first", request.neighbours.display());
            return Err(JobError::Unfit(message).into());
        }
        let neighbours = Neighbours::open_path(&request.neighbours, &run.io)?;
        let text = |key: &str| manifest.parameters[key].as_str().unwrap_or_default().to_owned();
        let self_mapping = manifest.parameters["self_mapping"].as_bool().unwrap_or(false);
        let source = open_representation(&request.reference, &text("reference_rep"), &run.io)?;
        let then = if self_mapping { &manifest.inputs["query"] } else { &manifest.inputs["reference"] };
        // Rows of float64 were searched centred or scaled; what is compared here is what they were made of.
        if source.fingerprint()? != *then.get("source").unwrap_or(then) {
            let message = format!(
                "{} is not the reference that {} was searched in, or has changed since; search again",
                request.reference.display(),
                request.neighbours.display()
            );
            return Err(JobError::Unfit(message).into());
        }
        Ok(Self {
            queries: annotations(&request.neighbours, &run.io)?,
            references: annotations(&request.reference, &run.io)?,
            metric: text("metric").parse()?,
            self_mapping,
            rows: neighbours.rows(),
            k: neighbours.k().get() as u64,
            folder,
            manifest,
        })
    }

    fn sides(&self, names: Names) -> Sides<'_> {
        let named = search::copies_names(names, self.manifest.reference_rows);
        Sides {
            queries: self.queries.as_ref(),
            references: self.references.as_ref(),
            reference_names: self.references.as_ref().filter(|_| named),
            rows: self.rows,
            reference_rows: self.manifest.reference_rows,
            self_mapping: self.self_mapping,
            metric: self.metric,
        }
    }

    fn plan(&self, request: &TransferRequest, run: &Run<'_>) -> Result<(MappingInput, MappingPlan), Error> {
        let input = wanted::check(&request.mapping, &self.sides(request.run.names), self.k, run.threads, run.budget)?;
        let plan = crate::plan::mapping::plan(&input)?;
        Ok((input, plan))
    }
}

/// The plan of a transfer, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan(request: &TransferRequest) -> Result<PlanReport, Error> {
    let stop = Stop::new();
    let run = Run::begin(&request.within, &Silent, &stop)?;
    let (input, plan) = Earlier::open(request, &run)?.plan(request, &run)?;
    Ok(report::report(None, None, Some((&input, &plan)), &run))
}

/// Weights and transfer from an earlier search.
///
/// # Errors
/// Any of the library's.
pub fn transfer(request: &TransferRequest, observer: &dyn Observer, stop: &Stop) -> Result<Outcome, Error> {
    let run = Run::begin(&request.within, observer, stop)?;
    let earlier = Earlier::open(request, &run)?;
    let (_, plan) = earlier.plan(request, &run)?;
    check_place(&request.out, [request.neighbours.as_path(), request.reference.as_path()].into_iter())?;
    let parameters = json!({
        "search": earlier.manifest.parameters,
        "mapping": mapping_parameters(&request.mapping),
        "names": search::copies_names(request.run.names, earlier.rows),
    });
    let mut inputs = earlier.manifest.inputs.clone();
    inputs["annotations"] = wanted::fingerprints(&request.mapping, &earlier.sides(request.run.names))?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: "transfer".to_owned(),
        parameters,
        inputs,
        rows: earlier.rows,
        reference_rows: earlier.manifest.reference_rows,
        k: earlier.k,
        finished: false,
        units: std::collections::BTreeMap::new(),
        recall: None,
    };
    warnings::tell_mapping(&request.mapping, &earlier.sides(request.run.names), &run)?;
    let mut output = begin(&request.out, manifest, &request.run, plan.bytes_written, &run)?;
    let mut outcome = outcome(&output.manifest, &request.out);
    if output.manifest.finished {
        run.observer.note("everything is done already");
        run.fill(&mut outcome);
        return Ok(outcome);
    }
    let sides = earlier.sides(request.run.names);
    let query_names = sides.queries.filter(|_| search::copies_names(request.run.names, sides.rows));
    names::write_axis(&output, &run, "obs", sides.rows, query_names)?;
    names::write_axis(&output, &run, "var", sides.reference_rows, sides.reference_names)?;
    let mapped = stages::run(&output, &run, &earlier.folder, &sides, &request.mapping, &plan)?;
    let axes = Axes { obs: mapped.obs, var: mapped.var };
    run.fill(&mut outcome);
    let mut uns = mapped.uns;
    uns.extend(account(&outcome, &run, &output)?);
    let uns = finish::uns(&output, uns);
    finish::finish(&mut output, &axes, &uns)?;
    run.fill(&mut outcome);
    Ok(outcome)
}
