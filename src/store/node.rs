//! Groups and arrays of a zarr hierarchy, v2 or v3, by their JSON alone: attributes, children, names near a wrong one.

use serde_json::{Map, Value};

use crate::error::StoreError;
use crate::store::disk::Disk;

/// Group or array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Has children.
    Group,
    /// Has chunks.
    Array,
}

/// One group or array.
#[derive(Clone, Debug)]
pub struct Node {
    /// Path inside the store, without a leading slash; empty for the root.
    pub path: String,
    /// Group or array.
    pub kind: NodeKind,
    /// 2 or 3.
    pub zarr_format: u8,
    /// The user's attributes.
    pub attributes: Map<String, Value>,
    /// `zarr.json` without attributes and consolidated metadata, or `.zarray`, or `.zgroup`.
    pub metadata: Map<String, Value>,
}

impl Node {
    /// The node at `path`, or `None` when there is none.
    ///
    /// # Errors
    /// Any I/O error, JSON that is damaged.
    pub fn open(disk: &Disk, path: &str) -> Result<Option<Self>, StoreError> {
        // A path with such a part would leave the store or name it twice.
        if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(None);
        }
        if let Some(mut metadata) = json(disk, &join(path, "zarr.json"))? {
            let kind = if metadata.get("node_type").and_then(Value::as_str) == Some("array") {
                NodeKind::Array
            } else {
                NodeKind::Group
            };
            let attributes = match metadata.shift_remove("attributes") {
                Some(Value::Object(attributes)) => attributes,
                _ => Map::new(),
            };
            metadata.shift_remove("consolidated_metadata");
            return Ok(Some(Self { path: path.to_owned(), kind, zarr_format: 3, attributes, metadata }));
        }
        for (file, kind) in [(".zarray", NodeKind::Array), (".zgroup", NodeKind::Group)] {
            if let Some(metadata) = json(disk, &join(path, file))? {
                let attributes = json(disk, &join(path, ".zattrs"))?.unwrap_or_default();
                return Ok(Some(Self { path: path.to_owned(), kind, zarr_format: 2, attributes, metadata }));
            }
        }
        Ok(None)
    }

    /// The node at `path`, which must be there.
    ///
    /// # Errors
    /// [`StoreError::MissingKey`] with the names nearest to it, and as [`Node::open`].
    pub fn required(disk: &Disk, path: &str) -> Result<Self, StoreError> {
        if let Some(node) = Self::open(disk, path)? {
            return Ok(node);
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names = children(disk, parent)?;
        let near = nearest(name, &names).into_iter().map(|n| join(parent, &n)).collect();
        Err(StoreError::MissingKey { store: store_name(disk), key: path.to_owned(), near })
    }

    /// The AnnData encoding type, or nothing.
    #[must_use]
    pub fn encoding(&self) -> &str {
        self.attributes.get("encoding-type").and_then(Value::as_str).unwrap_or("")
    }

    /// The shape of an array, empty for a group.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        numbers(self.metadata.get("shape"))
    }

    /// What messages call it: `atlas.zarr:obsm/X_pca`.
    #[must_use]
    pub fn name(&self, disk: &Disk) -> String {
        node_name(disk, &self.path)
    }
}

/// What messages call the node at `path`.
#[must_use]
pub fn node_name(disk: &Disk, path: &str) -> String {
    if path.is_empty() { store_name(disk) } else { format!("{}:{path}", disk.root().display()) }
}

/// What messages call the store.
#[must_use]
pub fn store_name(disk: &Disk) -> String {
    disk.root().display().to_string()
}

/// Paths put together; an empty one is the root.
#[must_use]
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// Names of the groups and arrays directly below a group, sorted.
///
/// # Errors
/// Any I/O error.
pub fn children(disk: &Disk, path: &str) -> Result<Vec<String>, StoreError> {
    let mut names = disk.folders(path)?;
    let mut failed = None;
    names.retain(|name| {
        ["zarr.json", ".zarray", ".zgroup"].iter().any(|file| {
            disk.stat(&join(&join(path, name), file)).unwrap_or_else(|e| failed.replace(e).and(None)).is_some()
        })
    });
    failed.map_or(Ok(names), Err)
}

/// At most five of the names, the most alike first.
#[must_use]
pub fn nearest(name: &str, names: &[String]) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut scored: Vec<_> = names.iter().map(|n| (strsim::jaro_winkler(&lower, &n.to_lowercase()), n)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(5).map(|(_, n)| n.clone()).collect()
}

/// Whether one name may be a slip of the other.
#[must_use]
pub fn alike(a: &str, b: &str) -> bool {
    strsim::jaro_winkler(&a.to_lowercase(), &b.to_lowercase()) > 0.85
}

/// The whole numbers of a JSON array.
pub(crate) fn numbers(value: Option<&Value>) -> Vec<u64> {
    value.and_then(Value::as_array).map(|v| v.iter().filter_map(Value::as_u64).collect()).unwrap_or_default()
}

fn json(disk: &Disk, key: &str) -> Result<Option<Map<String, Value>>, StoreError> {
    let Some(bytes) = disk.read(key)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| StoreError::Damaged { array: node_name(disk, key), why: format!("its JSON does not parse: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_name_comes_first() {
        let names = ["X_umap", "X_pca", "X_scVI", "X_pca_harmony"].map(str::to_owned);
        for (wrong, right) in [("X_PCA", "X_pca"), ("X_pcs", "X_pca"), ("xumap", "X_umap"), ("X_scvi", "X_scVI")] {
            assert_eq!(nearest(wrong, &names).first().map(String::as_str), Some(right), "{wrong}");
        }
        assert!(nearest("X", &[]).is_empty());
    }
}
