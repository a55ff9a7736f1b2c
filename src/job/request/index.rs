//! What a user asks of an index, and what building it did.

use std::path::PathBuf;

use super::{DeviceRequest, RunOptions, Seconds, Within};
use crate::metric::Metric;
use crate::store::index::Encoding;

/// What to index, how, within what.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexRequest {
    /// The reference cells: an AnnData zarr store, an annbatch collection, a zarr array or a `.npy` file.
    pub reference: PathBuf,
    /// The index to write.
    pub out: PathBuf,
    /// The rows: `X_pca`, `obsm/X_pca`, `X`, `layers/NAME`, or a path to an array.
    pub rep: String,
    /// The distance that it will be searched by.
    pub metric: Metric,
    /// How many lists; `None` is [`crate::plan::index::lists_for`].
    pub lists: Option<u64>,
    /// How rows are kept.
    pub encoding: Encoding,
    /// What computes.
    pub device: DeviceRequest,
    /// Budget and threads.
    pub within: Within,
    /// How to run.
    pub run: RunOptions,
}

/// What building an index did.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexOutcome {
    /// Rows.
    pub rows: u64,
    /// Dimensions.
    pub dim: usize,
    /// Rows of each list, in the order of the index.
    pub lists: Vec<u64>,
    /// The distance.
    pub metric: Metric,
    /// How rows are kept.
    pub encoding: Encoding,
    /// cpu or gpu.
    pub device: &'static str,
    /// The processor's or adapter's name.
    pub adapter: String,
    /// The kernel variant.
    pub variant: String,
    /// Seconds by stage.
    pub seconds: Seconds,
    /// Pairs compared.
    pub pairs: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Peak resident memory of the process, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// The index.
    pub out: PathBuf,
}
