//! The end of a job: the groups that make the output an AnnData, the manifest in `uns`, consolidated metadata.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::manifest::File;
use super::output::Output;
use crate::error::{Error, StoreError};
use crate::store::folder::Folder;
use crate::store::results::{Values, consolidate, encoding_attributes, write_group, write_small};

/// Columns of the two axes, in the order in which they are to be shown.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// Of `obs`.
    pub obs: Vec<String>,
    /// Of `var`.
    pub var: Vec<String>,
}

/// Writes what makes the store whole and marks it as finished.
///
/// # Errors
/// Any I/O error.
pub fn finish(output: &mut Output, axes: &Axes, uns: &Value) -> Result<(), Error> {
    let folder = Arc::clone(&output.folder);
    for (axis, columns) in [("obs", &axes.obs), ("var", &axes.var)] {
        let mut attributes = encoding_attributes("dataframe", "0.2.0");
        attributes.insert("_index".to_owned(), json!("_index"));
        attributes.insert("column-order".to_owned(), json!(columns));
        write_group(&folder, axis, &attributes)?;
    }
    for group in ["obsm", "varm", "obsp", "varp", "layers", "uns"] {
        write_group(&folder, group, &encoding_attributes("dict", "0.1.0"))?;
    }
    // Timings and counters have other lengths in another run: none of an earlier attempt may stay.
    folder.remove("uns/atlasknn")?;
    write_value(&folder, "uns/atlasknn", uns)?;
    let nodes = nodes(&folder, "")?;
    consolidate(&folder, &nodes, &encoding_attributes("anndata", "0.1.0"))?;
    output.finish(&remaining_files(&folder)?)
}

/// Writes the root group of an index, told the nodes below it, and marks the index as finished.
///
/// # Errors
/// Any I/O error.
pub fn finish_index(output: &mut Output, root: impl FnOnce(&[String]) -> Result<(), StoreError>) -> Result<(), Error> {
    let folder = Arc::clone(&output.folder);
    root(&nodes(&folder, "")?)?;
    output.finish(&remaining_files(&folder)?)
}

/// Writes JSON as AnnData elements: objects as dicts, lists of text or numbers as arrays, the rest as scalars. Lists of
/// anything else are written as their JSON text; nulls are left out.
fn write_value(folder: &Arc<Folder>, path: &str, value: &Value) -> Result<(), Error> {
    let string = |text: String| -> Result<(), Error> {
        let attributes = encoding_attributes("string", "0.2.0");
        Ok(write_small(folder, path, &Values::Strings(vec![text]), true, attributes)?)
    };
    let scalar = |values: Values| -> Result<(), Error> {
        Ok(write_small(folder, path, &values, true, encoding_attributes("numeric-scalar", "0.2.0"))?)
    };
    match value {
        Value::Null => Ok(()),
        Value::Object(entries) => {
            write_group(folder, path, &encoding_attributes("dict", "0.1.0"))?;
            entries
                .iter()
                .try_for_each(|(key, value)| write_value(folder, &format!("{path}/{}", key.replace('/', "_")), value))
        }
        Value::String(text) => string(text.clone()),
        Value::Bool(value) => scalar(Values::Bool(vec![*value])),
        Value::Number(number) => match number.as_i64() {
            Some(value) => scalar(Values::I64(vec![value])),
            None => scalar(Values::F64(vec![number.as_f64().unwrap_or(f64::NAN)])),
        },
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            let numbers: Option<Vec<f64>> = items.iter().map(Value::as_f64).collect();
            match (texts, numbers) {
                (Some(texts), _) => {
                    let attributes = encoding_attributes("string-array", "0.2.0");
                    Ok(write_small(folder, path, &Values::Strings(texts), false, attributes)?)
                }
                (_, Some(numbers)) => {
                    let attributes = encoding_attributes("array", "0.2.0");
                    Ok(write_small(folder, path, &Values::F64(numbers), false, attributes)?)
                }
                _ => string(value.to_string()),
            }
        }
    }
}

/// The paths of all groups and arrays below `path`, sorted.
fn nodes(folder: &Folder, path: &str) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for name in folder.list(path)? {
        let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if name.starts_with('.') || folder.length(&format!("{child}/zarr.json")).is_none() {
            continue;
        }
        found.push(child.clone());
        found.extend(nodes(folder, &child)?);
    }
    Ok(found)
}

/// Every file that no unit's marker lists, with its checksum.
fn remaining_files(folder: &Folder) -> Result<Vec<File>, Error> {
    let mut listed = BTreeSet::new();
    for stage in super::output::stages(folder)? {
        for marker in super::output::read_markers(folder, &stage)?.into_values() {
            listed.extend(marker.files.into_iter().map(|file| file.path));
        }
    }
    let mut remaining = Vec::new();
    for path in folder.files("")? {
        if !path.starts_with('.') && !listed.contains(&path) {
            remaining.extend(folder.checksum(&path)?.map(File::from));
        }
    }
    Ok(remaining)
}

/// What is known of a run, for `uns/atlasknn`.
#[must_use]
pub fn uns(output: &Output, run: Map<String, Value>) -> Value {
    let manifest = &output.manifest;
    let mut uns = json!({
        "version": manifest.version,
        "command": manifest.command,
        "parameters": manifest.parameters,
        "inputs": { "query": text(&manifest.inputs["query"]), "reference": text(&manifest.inputs["reference"]) },
        "rows": manifest.rows,
        "reference_rows": manifest.reference_rows,
        "k": manifest.k,
        "reproducible": true,
    });
    if let Some(uns) = uns.as_object_mut() {
        uns.extend(run);
    }
    uns
}

/// Fingerprints are for machines: one line of JSON each.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
