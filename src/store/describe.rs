//! What a store holds, entry by entry, and which arrays can be searched.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::StoreError;
use crate::store::anndata::{AnnData, datasets};
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind, children, join, numbers};
use crate::store::npy::NpySource;
use crate::store::open::{is_npy, open_folder};
use crate::store::zarr::{Element, ZarrArray};
use crate::store::{IoCounters, Source};

/// A group or an array of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path inside the store, empty for the root; in a collection, inside each dataset.
    pub path: String,
    /// Its AnnData encoding, or `array` or `group`.
    pub kind: String,
    /// Its shape; in a collection the rows of all datasets. Empty where there is none.
    pub shape: Vec<u64>,
    /// Its zarr type, empty where there is none.
    pub dtype: String,
    /// Shape of what is decoded together, empty where there is none.
    pub chunks: Vec<u64>,
    /// Shape of a shard, if it has shards.
    pub shards: Option<Vec<u64>>,
    /// Codecs of a chunk, in the order they were applied.
    pub codecs: Vec<String>,
    /// Bytes on disk, estimated from a sample of the files.
    pub stored_bytes: u64,
    /// Whether its rows can be searched.
    pub representation: bool,
    /// Whether it is the index of a table: the names of its rows.
    pub index: bool,
}

/// What the store at `path` holds, parents before children, in the order of their names. The arrays that make up a
/// sparse matrix or a column are told as one.
///
/// # Errors
/// Nothing there, none of the formats, any I/O error. An array that can't be read is an entry whose kind says why.
pub fn describe(path: &Path, io: &Arc<IoCounters>) -> Result<Vec<Entry>, StoreError> {
    if is_npy(path) {
        return Ok(vec![npy(&NpySource::open(path, io)?)]);
    }
    let (disk, root) = open_folder(path, io)?;
    let mut all: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for dataset in datasets(&disk, &root)? {
        let mut entries = Vec::new();
        walk(&disk, &dataset, "", &mut entries)?;
        for entry in entries {
            if let Some(&at) = places.get(&entry.path) {
                merge(&mut all[at], &entry);
            } else {
                places.insert(entry.path.clone(), all.len());
                all.push(entry);
            }
        }
    }
    // In an AnnData only what has a row per cell can be searched: not the genes' loadings.
    if let Ok(data) = AnnData::of(&disk) {
        for entry in &mut all {
            entry.representation &= entry.shape.first() == Some(&data.n_obs());
        }
    }
    Ok(all)
}

/// Adds the same entry of another dataset.
fn merge(entry: &mut Entry, other: &Entry) {
    let per_cell = ["X", "obs", "obsm", "layers"].contains(&entry.path.split('/').next().unwrap_or(""));
    if let (true, Some(rows), Some(more)) = (per_cell, entry.shape.first_mut(), other.shape.first()) {
        *rows += more;
    }
    entry.stored_bytes += other.stored_bytes;
    entry.representation &= other.representation && entry.shape.get(1) == other.shape.get(1);
}

fn npy(source: &NpySource) -> Entry {
    Entry {
        path: String::new(),
        kind: "npy".to_owned(),
        shape: vec![source.rows(), source.dim() as u64],
        dtype: source.dtype().name().to_owned(),
        chunks: Vec::new(),
        shards: None,
        codecs: Vec::new(),
        stored_bytes: source.stored_bytes(),
        representation: true,
        index: false,
    }
}

fn walk(disk: &Arc<Disk>, dataset: &str, path: &str, entries: &mut Vec<Entry>) -> Result<(), StoreError> {
    let full = match (dataset, path) {
        (dataset, "") => dataset.to_owned(),
        _ => join(dataset, path),
    };
    let Some(node) = Node::open(disk, &full)? else { return Ok(()) };
    if node.kind == NodeKind::Array {
        entries.push(array(disk, &node, path)?);
        return Ok(());
    }
    let kind = if node.encoding().is_empty() { "group" } else { node.encoding() };
    let mut entry = Entry {
        path: path.to_owned(),
        kind: kind.to_owned(),
        shape: numbers(node.attributes.get("shape")),
        dtype: String::new(),
        chunks: Vec::new(),
        shards: None,
        codecs: Vec::new(),
        stored_bytes: 0,
        representation: false,
        index: false,
    };
    // These are one thing to a reader, made of several arrays of which one says the type.
    let says = match kind {
        "csr_matrix" | "csc_matrix" => Some("data"),
        "categorical" => Some("codes"),
        _ if kind.starts_with("nullable-") => Some("values"),
        _ => None,
    };
    let at = entries.len();
    for child in children(disk, &full)? {
        walk(disk, dataset, &join(path, &child), entries)?;
    }
    if kind == "dataframe" {
        let index = join(path, node.attributes.get("_index").and_then(Value::as_str).unwrap_or("_index"));
        entries[at..].iter_mut().filter(|entry| entry.path == index).for_each(|entry| entry.index = true);
    }
    let below = if says.is_some() { entries.split_off(at) } else { Vec::new() };
    for child in below {
        entry.stored_bytes += child.stored_bytes;
        if says.is_some_and(|name| child.path == join(path, name)) {
            entry.dtype = child.dtype;
            entry.codecs = child.codecs;
            if entry.shape.is_empty() {
                entry.shape = child.shape;
                entry.chunks = child.chunks;
                entry.shards = child.shards;
            }
        }
    }
    entries.insert(at, entry);
    Ok(())
}

fn array(disk: &Arc<Disk>, node: &Node, path: &str) -> Result<Entry, StoreError> {
    let element = Element::of(node);
    let kind = if node.encoding().is_empty() { "array" } else { node.encoding() };
    let mut entry = Entry {
        path: path.to_owned(),
        kind: kind.to_owned(),
        shape: node.shape(),
        dtype: element.name(),
        chunks: Vec::new(),
        shards: None,
        codecs: Vec::new(),
        stored_bytes: 0,
        representation: false,
        index: false,
    };
    match ZarrArray::open(disk, &node.path) {
        Ok(array) => {
            entry.chunks = array.chunk_shape().to_vec();
            entry.shards = array.shard_shape().map(<[u64]>::to_vec);
            entry.codecs = array.codec_names().to_vec();
            entry.stored_bytes = array.stored_bytes()?;
            entry.representation =
                matches!(element, Element::Float(_)) && matches!(entry.shape[..], [_, columns] if columns > 0);
        }
        // One array that this can't read should not hide the others.
        Err(StoreError::Zarr { why, .. }) => entry.kind = format!("{kind}, not readable: {why}"),
        Err(other) => return Err(other),
    }
    Ok(entry)
}
