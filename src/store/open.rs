//! Opens whatever a user may point at as rows: an AnnData store, a collection, a bare zarr array, a `.npy` file.

use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;
use crate::store::anndata::AnnData;
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind, alike, nearest};
use crate::store::npy::NpySource;
use crate::store::zarr::ZarrSource;
use crate::store::{IoCounters, Source};

/// The rows that `rep` means in the store at `path`; `rep` is ignored where the path is an array itself.
///
/// # Errors
/// Nothing there, none of the formats, no such key, and as the formats' own `open`.
pub fn open_representation(path: &Path, rep: &str, io: &Arc<IoCounters>) -> Result<Arc<dyn Source>, StoreError> {
    if is_npy(path) {
        return Ok(Arc::new(NpySource::open(path, io).map_err(with_neighbours)?));
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
                Some("h5ad" | "h5") => return Err(not_a_store(&how_to_convert(path))),
                Some("zip") => "a zipped store can't be read in place; unzip it first",
                Some("npz") => "an .npz holds several arrays; save the one you mean with numpy.save",
                _ => "it is a file; a zarr store is a folder, and a file of rows ends in .npy",
            }));
        }
        disk => Arc::new(disk.map_err(with_neighbours)?),
    };
    match Node::open(&disk, "")? {
        Some(root) => Ok((disk, root)),
        None => Err(not_a_store(&what_it_is_instead(&disk)?)),
    }
}

/// How an `.h5ad` becomes a store, in Python.
fn how_to_convert(path: &Path) -> String {
    let (h5ad, zarr) = (path.display().to_string(), path.with_extension("zarr").display().to_string());
    format!("HDF5 is not supported yet; convert it with anndata.read_h5ad({h5ad:?}).write_zarr({zarr:?})")
}

/// Why a folder without metadata is there.
fn what_it_is_instead(disk: &Disk) -> Result<String, StoreError> {
    if disk.stat(UNFINISHED)?.is_some() {
        return Ok("its run is not finished; complete it with --resume".to_owned());
    }
    let mut stores = Vec::new();
    for name in disk.folders("")? {
        if Node::open(disk, &name)?.is_some() {
            stores.push(name);
        }
        if stores.len() == 5 {
            break;
        }
    }
    let why = "it has no zarr.json, .zgroup or .zarray".to_owned();
    Ok(if stores.is_empty() { why } else { format!("{why}; name one of the stores in it: {}", stores.join(", ")) })
}

/// What a run leaves in its output from the beginning, long before the metadata of the store.
const UNFINISHED: &str = ".atlasknn/manifest.json";

/// Names what lies beside a path that does not exist and sounds alike.
fn with_neighbours(error: StoreError) -> StoreError {
    let StoreError::Missing { path } = &error else { return error };
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return error };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|found| !found.starts_with('.') && alike(&name, found))
        .collect();
    if names.is_empty() {
        return error;
    }
    let store = if parent == Path::new(".") { "this folder".to_owned() } else { parent.display().to_string() };
    StoreError::MissingKey { store, near: nearest(&name, &names), key: name }
}
