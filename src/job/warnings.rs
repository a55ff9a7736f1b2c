//! What the user should know before a long wait. Nothing here stops a run.

use super::map::obsm_path;
use super::planned::Planned;
use super::request::MappingRequest;
use super::run::Run;
use super::wanted::Sides;
use crate::error::Error;
use crate::schedule::progress::Observer;
use crate::store::Absent;
use crate::store::anndata::AnnData;

/// Of a search, and of the mapping that follows it.
///
/// # Errors
/// Any I/O error.
pub fn tell(planned: &Planned<'_>, mapping: Option<&MappingRequest>, run: &Run<'_>) -> Result<(), Error> {
    let (k, inputs) = (planned.request.k.get() as u64, &planned.inputs);
    let most = inputs.references.source.rows() - u64::from(inputs.self_mapping && !planned.request.compat);
    if k > most {
        run.observer.warn(&format!(
            "k = {k}, and a cell can have only {most}: {} places of each are padded with -1 and +inf",
            k - most
        ));
    }
    warn_of(inputs.queries.source.absent()?, run.observer);
    if !inputs.self_mapping {
        warn_of(inputs.references.source.absent()?, run.observer);
    }
    if let Some(key) = &planned.request.exclude_group {
        let references = inputs.references.annotations.as_ref().filter(|_| !inputs.self_mapping);
        for cells in [inputs.queries.annotations.as_ref(), references].into_iter().flatten() {
            note(cells, key, run.observer)?;
        }
    }
    mapping.map_or(Ok(()), |mapping| tell_mapping(mapping, &super::sides(planned), run))
}

/// Of a mapping alone.
///
/// # Errors
/// Any I/O error.
pub fn tell_mapping(mapping: &MappingRequest, sides: &Sides<'_>, run: &Run<'_>) -> Result<(), Error> {
    if let Some(cells) = sides.references {
        for key in mapping.labels.iter().chain(&mapping.values) {
            note(cells, key, run.observer)?;
        }
        for key in &mapping.obsm {
            warn_of(cells.representation(&obsm_path(key))?.absent()?, run.observer);
        }
    }
    if let (Some(key), Some(cells)) = (mapping.presence.as_ref().and_then(|p| p.by.as_ref()), sides.queries) {
        note(cells, key, run.observer)?;
    }
    Ok(())
}

/// No embedding has a chunk of nothing but fill values by chance.
pub fn warn_of(absent: Vec<Absent>, observer: &dyn Observer) {
    for absent in absent {
        observer
            .warn(&format!("{absent}: if the store was copied, part of it is missing, and neighbours will be wrong"));
    }
}

/// A column may well have: codes that are all 0, truth values that are all false.
fn note(cells: &AnnData, key: &str, observer: &dyn Observer) -> Result<(), Error> {
    for absent in cells.obs(key)?.absent()? {
        observer.note(&format!(
            "{absent}, as zarr leaves out chunks of nothing else; were they lost, copy the store again"
        ));
    }
    Ok(())
}
