//! Opens whatever a user may point at as rows: an AnnData store, a collection, a bare zarr array, a `.npy` file.

use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;
use crate::store::anndata::AnnData;
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind};
use crate::store::npy::NpySource;
use crate::store::zarr::ZarrSource;
use crate::store::{IoCounters, Source};

/// The rows that `rep` means in the store at `path`; `rep` is ignored where the path is an array itself.
///
/// # Errors
/// Nothing there, none of the formats, no such key, and as the formats' own `open`.
pub fn open_representation(path: &Path, rep: &str, io: &Arc<IoCounters>) -> Result<Arc<dyn Source>, StoreError> {
    if is_npy(path) {
        return Ok(Arc::new(NpySource::open(path, io)?));
    }
    let (disk, root) = open_folder(path, io)?;
    if root.kind == NodeKind::Array {
        return Ok(Arc::new(ZarrSource::open(&disk, "")?));
    }
    let has_obs = Node::open(&disk, "obs")?.is_some();
    if has_obs || root.encoding() == crate::store::anndata::COLLECTION {
        return AnnData::of(&disk)?.representation(rep);
    }
    // Some other group: the path of an array in it will do.
    Ok(Arc::new(ZarrSource::open(&disk, rep.trim_matches('/'))?))
}

/// Whether the path is that of a `.npy` file.
pub(crate) fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
}

/// The folder at `path` and its root group or array.
pub(crate) fn open_folder(path: &Path, io: &Arc<IoCounters>) -> Result<(Arc<Disk>, Node), StoreError> {
    let not_a_store = |why: &str| StoreError::NotAStore { path: path.to_owned(), why: why.to_owned() };
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Err(not_a_store("stores behind a URL are not supported yet; copy it to a disk"));
    }
    let disk = match Disk::open(path, io) {
        Err(StoreError::NotAStore { .. }) => {
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            return Err(not_a_store(match extension.as_deref() {
                Some("h5ad" | "h5") => {
                    "HDF5 is not supported yet; convert it with anndata.read_h5ad(\"x.h5ad\").write_zarr(\"x.zarr\")"
                }
                Some("zip") => "a zipped store can't be read in place; unzip it first",
                Some("npz") => "an .npz holds several arrays; save the one you mean with numpy.save",
                _ => "it is a file; a zarr store is a folder, and a file of rows ends in .npy",
            }));
        }
        disk => Arc::new(disk?),
    };
    match Node::open(&disk, "")? {
        Some(root) => Ok((disk, root)),
        None => Err(not_a_store("it has no zarr.json, .zgroup or .zarray")),
    }
}
