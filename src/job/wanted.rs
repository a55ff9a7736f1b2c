//! Checks what a mapping asks for against what the reference has, before any work, and counts what it will hold.

use serde_json::{Map, Value};

use super::columns::{categories, is_single};
use super::request::MappingRequest;
use crate::error::{Error, JobError, StoreError};
use crate::metric::Metric;
use crate::plan::mapping::MappingInput;
use crate::store::FloatType;
use crate::store::anndata::AnnData;
use crate::units::ByteCount;

/// The two cell sets of a mapping, as far as its stages need them.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The query's annotations, if it has any.
    pub queries: Option<&'a AnnData>,
    /// The reference's.
    pub references: Option<&'a AnnData>,
    /// Where the names of the references are copied from; `None` writes a range index.
    pub reference_names: Option<&'a AnnData>,
    /// Query rows.
    pub rows: u64,
    /// Reference rows.
    pub reference_rows: u64,
    /// Whether they are the same cells.
    pub self_mapping: bool,
    /// The distance of the neighbours.
    pub metric: Metric,
}

/// What the mapping will hold and write.
///
/// # Errors
/// Missing keys, columns of the wrong kind, choices that do not go together.
pub fn check(
    mapping: &MappingRequest,
    sides: &Sides<'_>,
    k: u64,
    threads: usize,
    budget: ByteCount,
) -> Result<MappingInput, Error> {
    check_choices(mapping, sides)?;
    let mut input = MappingInput {
        queries: sides.rows,
        references: sides.reference_rows,
        per_row: k + u64::from(self_edges(mapping)),
        per_reference: Vec::new(),
        per_query: 0,
        matrix: mapping.matrix,
        presence_columns: u64::from(mapping.presence.is_some()),
        threads: threads as u64,
        budget,
    };
    if let Some(cells) = sides.references {
        count_labels(mapping, cells, &mut input)?;
        count_numbers(mapping, cells, &mut input)?;
    }
    if let Some(key) = mapping.presence.as_ref().and_then(|presence| presence.by.as_ref()) {
        let cells = sides
            .queries
            .ok_or_else(|| JobError::Refused("--presence-by needs the query to be an AnnData store".to_owned()))?;
        input.presence_columns += categories(cells, key)?.names.len() as u64;
    }
    Ok(input)
}

/// Fingerprints of what a mapping carries over or goes by, by where it is; empty where it takes nothing.
///
/// # Errors
/// Any I/O error.
pub fn fingerprints(mapping: &MappingRequest, sides: &Sides<'_>) -> Result<Value, Error> {
    let mut all = Map::new();
    if let Some(cells) = sides.references {
        for key in mapping.labels.iter().chain(&mapping.values) {
            all.insert(format!("reference obs/{key}"), cells.obs(key)?.fingerprint()?);
        }
        for key in &mapping.obsm {
            let path = super::map::obsm_path(key);
            all.insert(format!("reference {path}"), cells.representation(&path)?.fingerprint()?);
        }
    }
    if let (Some(key), Some(cells)) = (mapping.presence.as_ref().and_then(|p| p.by.as_ref()), sides.queries) {
        all.insert(format!("query obs/{key}"), cells.obs(key)?.fingerprint()?);
    }
    Ok(Value::Object(all))
}

/// Whether self edges are added.
#[must_use]
pub fn self_edges(mapping: &MappingRequest) -> bool {
    mapping.self_edges == Some(true)
}

fn check_choices(mapping: &MappingRequest, sides: &Sides<'_>) -> Result<(), Error> {
    let refuse = |message: String| Err(JobError::Refused(message).into());
    if !sides.metric.is_distance() {
        if mapping.kernel.needs_distance() {
            let (kernel, metric) = (mapping.kernel, sides.metric);
            return refuse(format!("kernel {kernel} needs distances and {metric} gives none; use --kernel equal"));
        }
        if mapping.presence.is_some() {
            let metric = sides.metric;
            return refuse(format!("presence scores need distances and {metric} gives none; leave out --presence"));
        }
    }
    if self_edges(mapping) && !sides.self_mapping {
        return refuse("--self-edges is for self-mapping: query and reference are different cells here".to_owned());
    }
    let wanted = !(mapping.labels.is_empty() && mapping.values.is_empty() && mapping.obsm.is_empty());
    if wanted && sides.references.is_none() {
        return refuse(
            "the reference is a bare array without annotations: --label, --value and --obsm need an AnnData store"
                .to_owned(),
        );
    }
    if let Some((key, _)) = mapping.label_subsets.iter().find(|(key, _)| !mapping.labels.contains(key)) {
        return refuse(format!("--label-subset names {key}, which is not among --label"));
    }
    Ok(())
}

fn count_labels(mapping: &MappingRequest, cells: &AnnData, input: &mut MappingInput) -> Result<(), Error> {
    for key in &mapping.labels {
        let known = categories(cells, key)?;
        for (_, name) in mapping.label_subsets.iter().filter(|(of, _)| of == key) {
            if !known.names.contains(name) {
                return Err(StoreError::MissingKey {
                    store: "the reference".to_owned(),
                    key: format!("category {name} in obs/{key}"),
                    near: known.names.iter().take(20).cloned().collect(),
                }
                .into());
            }
        }
        input.per_reference.push((format!("labels {key}"), 4));
        input.per_query += 8 + if mapping.probabilities { 4 * (known.names.len() as u64 + 1) } else { 0 };
    }
    Ok(())
}

fn count_numbers(mapping: &MappingRequest, cells: &AnnData, input: &mut MappingInput) -> Result<(), Error> {
    for key in &mapping.values {
        let column = cells.obs(key)?;
        let bytes = if is_single(&column)? { 4 } else { 8 };
        input.per_reference.push((format!("values {key}"), bytes));
        input.per_query += bytes;
    }
    for key in &mapping.obsm {
        let source = cells.representation(&super::map::obsm_path(key))?;
        let bytes = source.dim() as u64 * if source.dtype() == FloatType::F64 { 8 } else { 4 };
        input.per_reference.push((format!("embedding {key}"), bytes));
        // The caller's float64 piece while it is transferred.
        input.per_query += bytes + source.dim() as u64 * 8;
    }
    Ok(())
}
