//! An AnnData zarr store of either format, or an annbatch collection of them read as one: rows to search from `obsm`,
//! `X` and `layers`, columns of `obs`, and the cells' names. Only what is asked for is read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::StoreError;
use crate::store::columns::Column;
use crate::store::concatenated::Concatenated;
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind, children, join, nearest, node_name, store_name};
use crate::store::open::open_folder;
use crate::store::zarr::ZarrSource;
use crate::store::{IoCounters, Source};

/// The encoding type of an annbatch collection.
pub(crate) const COLLECTION: &str = "annbatch-preshuffled";

/// An AnnData store or a collection of them.
#[derive(Debug)]
pub struct AnnData {
    disk: Arc<Disk>,
    /// Paths of the datasets inside the store: the root, or `dataset_0`, `dataset_1`, ...
    datasets: Vec<String>,
    names: Column,
    n_vars: u64,
}

impl AnnData {
    /// The store at `path`; what is read is added to `io`.
    ///
    /// # Errors
    /// Nothing there, no AnnData, any I/O error.
    pub fn open(path: &Path, io: &Arc<IoCounters>) -> Result<Self, StoreError> {
        Self::of(&open_folder(path, io)?.0)
    }

    /// The store in an open folder.
    pub(crate) fn of(disk: &Arc<Disk>) -> Result<Self, StoreError> {
        let not_anndata = |why: &str| StoreError::NotAStore { path: disk.root().to_owned(), why: why.to_owned() };
        let root = Node::open(disk, "")?.ok_or_else(|| not_anndata("it has neither zarr.json nor .zgroup"))?;
        if root.kind == NodeKind::Array {
            return Err(not_anndata("it is a bare array, without obs"));
        }
        let datasets = datasets(disk, &root)?;
        let first = datasets.first().ok_or_else(|| not_anndata("it is a collection without datasets"))?;
        if Node::open(disk, &join(first, "obs"))?.is_none() {
            return Err(not_anndata("it has no obs, so it is no AnnData"));
        }
        let indexes = datasets.iter().map(|dataset| index(disk, &join(dataset, "obs")));
        let names = Column::open(disk, &indexes.collect::<Result<Vec<_>, _>>()?, &node_name(disk, "obs names"))?;
        let n_vars = match Node::open(disk, &join(first, "var"))? {
            Some(_) => Column::open(disk, &[index(disk, &join(first, "var"))?], &node_name(disk, "var names"))?.rows(),
            None => 0,
        };
        Ok(Self { disk: Arc::clone(disk), datasets, names, n_vars })
    }

    /// How many cells.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.names.rows()
    }

    /// How many genes.
    #[must_use]
    pub fn n_vars(&self) -> u64 {
        self.n_vars
    }

    /// How many datasets: 1, or more in a collection.
    #[must_use]
    pub fn n_datasets(&self) -> usize {
        self.datasets.len()
    }

    /// Columns of `obs`, in their order, without the names.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn obs_keys(&self) -> Result<Vec<String>, StoreError> {
        let Some(obs) = Node::open(&self.disk, &join(&self.datasets[0], "obs"))? else { return Ok(Vec::new()) };
        let order = obs.attributes.get("column-order").and_then(Value::as_array);
        Ok(order.map_or_else(Vec::new, |keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
    }

    /// Keys of `obsm`, sorted.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn obsm_keys(&self) -> Result<Vec<String>, StoreError> {
        children(&self.disk, &join(&self.datasets[0], "obsm"))
    }

    /// Keys of `layers`, sorted.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn layer_keys(&self) -> Result<Vec<String>, StoreError> {
        children(&self.disk, &join(&self.datasets[0], "layers"))
    }

    /// The rows that `rep` means: `X_pca` and `obsm/X_pca` are in `obsm`, `X` is `X`, `layers/NAME` a layer, and
    /// anything else the path of an array.
    ///
    /// # Errors
    /// [`StoreError::MissingKey`] with the nearest names, a sparse matrix or a table, an array that has not one row per
    /// cell, and as [`ZarrSource::open`].
    pub fn representation(&self, rep: &str) -> Result<Arc<dyn Source>, StoreError> {
        let path = self.path_of(rep)?;
        let mut parts: Vec<Arc<dyn Source>> = Vec::with_capacity(self.datasets.len());
        for dataset in &self.datasets {
            let path = join(dataset, &path);
            self.refuse_other_encodings(&path)?;
            parts.push(Arc::new(ZarrSource::open(&self.disk, &path)?));
        }
        let source: Arc<dyn Source> = match <[_; 1]>::try_from(parts) {
            Ok([one]) => one,
            Err(parts) => Arc::new(Concatenated::new(&node_name(&self.disk, &path), parts)?),
        };
        if source.rows() != self.n_obs() {
            return Err(StoreError::WrongKind {
                array: source.name().to_owned(),
                found: format!("{} rows long", source.rows()),
                expected: format!("a representation needs one row for each of the {} cells", self.n_obs()),
            });
        }
        Ok(source)
    }

    /// A column of `obs`.
    ///
    /// # Errors
    /// [`StoreError::MissingKey`] with the nearest names, an encoding that is not supported, any I/O error.
    pub fn obs(&self, key: &str) -> Result<Column, StoreError> {
        let keys = self.obs_keys()?;
        let path = join("obs", key);
        if !keys.iter().any(|k| k == key) {
            let near = nearest(key, &keys).iter().map(|near| join("obs", near)).collect();
            return Err(StoreError::MissingKey { store: store_name(&self.disk), key: path, near });
        }
        let paths: Vec<String> = self.datasets.iter().map(|dataset| join(dataset, &path)).collect();
        let column = Column::open(&self.disk, &paths, &node_name(&self.disk, &path))?;
        if column.rows() != self.n_obs() {
            let why = format!("it has {} rows and there are {} cells", column.rows(), self.n_obs());
            return Err(StoreError::Damaged { array: column.name().to_owned(), why });
        }
        Ok(column)
    }

    /// The names of these cells.
    ///
    /// # Errors
    /// Rows out of range, a damaged chunk, any I/O error.
    pub fn names(&self, range: Range<u64>) -> Result<Vec<String>, StoreError> {
        self.names.as_texts(range)
    }

    /// Most bytes that reading names holds beyond what it returns.
    #[must_use]
    pub fn names_scratch_bytes(&self) -> u64 {
        self.names.scratch_bytes()
    }

    /// The path inside a dataset that `rep` means.
    fn path_of(&self, rep: &str) -> Result<String, StoreError> {
        let rep = rep.trim_matches('/');
        let in_obsm = join("obsm", rep);
        let first = &self.datasets[0];
        // A key of obsm comes first: obsm may hold a key `X`, but the rows of the expression matrix are what is meant.
        let candidates = if rep.contains('/') || rep == "X" { [rep, &in_obsm] } else { [&in_obsm, rep] };
        for path in candidates {
            if !rep.is_empty() && Node::open(&self.disk, &join(first, path))?.is_some() {
                return Ok(path.to_owned());
            }
        }
        let mut names: Vec<String> = self.obsm_keys()?.iter().map(|key| join("obsm", key)).collect();
        names.extend(self.layer_keys()?.iter().map(|key| join("layers", key)));
        if Node::open(&self.disk, &join(first, "X"))?.is_some() {
            names.push("X".to_owned());
        }
        let key = if rep.contains('/') || rep == "X" { rep.to_owned() } else { in_obsm };
        Err(StoreError::MissingKey { store: store_name(&self.disk), near: nearest(&key, &names), key })
    }

    fn refuse_other_encodings(&self, path: &str) -> Result<(), StoreError> {
        let node = Node::required(&self.disk, path)?;
        let (found, expected) = match node.encoding() {
            "csr_matrix" | "csc_matrix" => (
                format!("a sparse matrix ({})", node.encoding()),
                "coordinates must be dense; use an embedding such as --rep X_pca, or write the matrix densely",
            ),
            "dataframe" => {
                ("a table".to_owned(), "coordinates must be an array; store it with .to_numpy(dtype=\"float32\")")
            }
            _ => return Ok(()),
        };
        Err(StoreError::WrongKind { array: node.name(&self.disk), found, expected: expected.to_owned() })
    }
}

/// Paths of the datasets: the root of an AnnData, or the children of a collection in the order of their numbers.
pub(crate) fn datasets(disk: &Disk, root: &Node) -> Result<Vec<String>, StoreError> {
    if root.encoding() != COLLECTION {
        return Ok(vec![String::new()]);
    }
    let mut numbered: Vec<(u64, String)> = children(disk, "")?
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix("dataset_")?.parse().ok()?, name)))
        .collect();
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, name)| name).collect())
}

/// The path of a table's index, which its attributes name.
fn index(disk: &Disk, table: &str) -> Result<String, StoreError> {
    let node = Node::required(disk, table)?;
    Ok(join(table, node.attributes.get("_index").and_then(Value::as_str).unwrap_or("_index")))
}
