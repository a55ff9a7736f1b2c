//! A job that an earlier run finished: what there is to say of it, also where the index that the search made for itself is
//! gone since.

use serde_json::{Value, json};

use super::approach::Approach;
use super::audit;
use super::manifest::Manifest;
use super::output::{self, Output};
use super::planned::Planned;
use super::request::{MappingRequest, Outcome, Probes};
use super::run::Run;
use crate::error::Error;

/// What there is to say of it.
///
/// # Errors
/// A recall that is below the one asked for, with --strict.
pub fn already(mut outcome: Outcome, output: &Output, planned: &Planned<'_>, run: &Run<'_>) -> Result<Outcome, Error> {
    run.observer.note("everything is done already");
    outcome.recall = output.manifest.recall;
    if let Some(mean) = outcome.recall {
        audit::tell(mean, "", planned, run)?;
    }
    run.fill(&mut outcome);
    Ok(outcome)
}

/// The same of a job whose own index is gone: none is built again for what is finished. `None` where there is something to
/// do, or another job to refuse, for which the index is needed.
///
/// # Errors
/// Any I/O error, and those of [`already`].
pub fn without_its_index(
    planned: &Planned<'_>,
    mapping: Option<&MappingRequest>,
    earlier: Option<&Manifest>,
    run: &Run<'_>,
) -> Result<Option<Outcome>, Error> {
    let request = planned.request;
    let gone = planned.through.is_none() && planned.own_index.as_ref().is_some_and(|own| !own.is_there);
    let Some(earlier) = earlier.filter(|earlier| gone && earlier.finished) else { return Ok(None) };
    let mut manifest = super::manifest(planned, mapping)?;
    remember(&mut manifest.parameters, &earlier.parameters, planned);
    if manifest.differs_from(earlier).is_some() || !output::is_finished(&request.out, &run.io)? {
        return Ok(None);
    }
    let output = super::begin(&request.out, manifest, &request.run, 0, run)?;
    if !output.manifest.finished {
        return Ok(None);
    }
    let mut outcome = super::outcome(&output.manifest, &request.out);
    outcome.name_engine(&planned.opened.record);
    outcome.method = planned.approach.method();
    already(outcome, &output, planned, run).map(Some)
}

/// Takes over what only the index would tell. How many lists are visited is the earlier run's choice where this one leaves
/// it open.
fn remember(parameters: &mut Value, earlier: &Value, planned: &Planned<'_>) {
    let (Approach::Near(near), Some(parameters)) = (planned.approach, parameters.as_object_mut()) else { return };
    let probes = planned.request.how.probes;
    let chosen = |key, own: Value| if near.guess { earlier[key].clone() } else { own };
    let nprobe = match probes {
        // However many there were.
        Probes::Lists(lists) | Probes::WithHorizon(lists, _) => json!(lists),
        _ => earlier["nprobe"].clone(),
    };
    let known = [
        ("index", earlier["index"].clone()),
        ("nprobe", nprobe),
        ("horizon", chosen("horizon", json!(near.horizon))),
        ("lists_visited", chosen("lists_visited", json!(near.visited))),
        ("recall", json!(probes.recall())),
        ("candidates", json!(planned.candidates().get())),
        ("refined", json!(false)),
    ];
    parameters.extend(known.map(|(key, value)| (key.to_owned(), value)));
}
