//! What can go wrong, one enum per floor, wrapped once by [`Error`]. Messages say what, where, found against expected,
//! and what to do.

use std::path::PathBuf;

use thiserror::Error as ThisError;

use crate::units::ByteCount;

mod job;
mod transfer;

pub use job::JobError;
pub use transfer::TransferError;

/// A value that cannot be what its type means.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum UnitError {
    /// k out of range.
    #[error("k = {found} is out of range: use 1 to {max}")]
    K {
        /// What was asked.
        found: u32,
        /// The most that is supported.
        max: u32,
    },
    /// Not a number of bytes.
    #[error("`{text}` is not a size: write a number and a unit, for example 512MiB or 8GiB")]
    Bytes {
        /// What was given.
        text: String,
    },
    /// Not a metric.
    #[error("there is no metric `{found}`: use one of {known}")]
    Metric {
        /// What was given.
        found: String,
        /// The names there are.
        known: String,
    },
    /// Not a weight kernel.
    #[error("there is no kernel `{found}`: use one of {known}")]
    Kernel {
        /// What was given.
        found: String,
        /// The names there are.
        known: String,
    },
    /// A weight kernel of CellMapper that this version cannot compute.
    #[error("kernel `{found}` is not built yet: use one of {known}")]
    KernelNotBuilt {
        /// What was given.
        found: String,
        /// The names there are.
        known: String,
    },
}

/// A block of rows that does not hold together.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum BlockError {
    /// Values do not fill rows × dim.
    #[error("{values} values do not fill {rows} rows × {dim} dimensions")]
    Shape {
        /// Rows.
        rows: usize,
        /// Dimensions.
        dim: usize,
        /// Values given.
        values: usize,
    },
}

/// Reading and writing.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Something there that is none of the formats.
    #[error("{} is not a store this can read: {why}", path.display())]
    NotAStore {
        /// Where.
        path: PathBuf,
        /// What was found, and what was expected.
        why: String,
    },
    /// A key that the store does not have.
    #[error("{store} has no {key}{}", nearest(near))]
    MissingKey {
        /// The store.
        store: String,
        /// The key, for example `obsm/X_pca`.
        key: String,
        /// Names that are there, the most alike first.
        near: Vec<String>,
    },
    /// An array or column of a kind that cannot be used here.
    #[error("{array} is {found}; {expected}")]
    WrongKind {
        /// The array, with its store.
        array: String,
        /// What it is.
        found: String,
        /// What is needed, and what to do.
        expected: String,
    },
    /// A NaN or an infinity where a position is needed.
    #[error("{array} holds {value} at row {row}, column {column}; remove such rows or impute them first")]
    NotFinite {
        /// The array, with its store.
        array: String,
        /// The row.
        row: u64,
        /// The column.
        column: u64,
        /// The value.
        value: f64,
    },
    /// Rows outside the array.
    #[error("{array} has {rows} rows; rows {start}..{end} were asked for")]
    OutOfRange {
        /// The array, with its store.
        array: String,
        /// Its rows.
        rows: u64,
        /// First row asked for.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// Bytes that are not what was written.
    #[error("{array} is damaged: {why}")]
    Damaged {
        /// The array or file.
        array: String,
        /// How it shows.
        why: String,
    },
    /// No room.
    #[error("no space left on the device while writing {}; free some and run again (--resume keeps what is finished)", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// No permission.
    #[error("no permission to {action} {}", path.display())]
    Permission {
        /// read or write.
        action: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Anything else the operating system said.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A zarr array or codec that failed.
    #[error("{array}: {why}")]
    Zarr {
        /// The array, with its store.
        array: String,
        /// What zarr said.
        why: String,
    },
    /// A folder that unpacking would mix its files into.
    #[error("{} exists and was not made by the demo; choose another folder with -o", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A float64 that float32 cannot hold.
    #[error("{array} holds {value} at row {row}, column {column}, which is too large for float32; scale the data down")]
    TooLarge {
        /// The array, with its store.
        array: String,
        /// The row.
        row: u64,
        /// The column.
        column: u64,
        /// The value.
        value: f64,
    },
    /// A row without a direction once its mean is taken off.
    #[error("{array}: row {row} is constant, so its correlation is not defined; remove it or use another metric")]
    ConstantRow {
        /// The array, with its store.
        array: String,
        /// The row.
        row: u64,
    },
}

fn nearest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; there is {}", near.join(", ")) }
}

/// A plan that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum PlanError {
    /// The budget holds not even the smallest plan.
    #[error("host memory {budget} is too little: this run needs at least {needs} ({why}); raise --host-memory{advice}")]
    Budget {
        /// What was given.
        budget: ByteCount,
        /// The least that works.
        needs: ByteCount,
        /// What takes it.
        why: String,
        /// Other ways out, starting with a comma, or nothing.
        advice: String,
    },
    /// The device memory holds not even the smallest plan.
    #[error(
        "device memory {budget} is too little: this run needs at least {needs} ({why}); raise --device-memory, or use \
         --device cpu"
    )]
    DeviceBudget {
        /// What was given.
        budget: ByteCount,
        /// The least that works.
        needs: ByteCount,
        /// What takes it.
        why: String,
    },
}

/// A search that failed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum EngineError {
    /// Called before `begin`.
    #[error("no queries are loaded: begin comes before {call}")]
    NotBegun {
        /// The call.
        call: &'static str,
    },
    /// Rows of different width.
    #[error("queries have {queries} dimensions and references {references}; both must be of one embedding")]
    Dim {
        /// Dimensions of the queries.
        queries: usize,
        /// Dimensions of the references.
        references: usize,
    },
    /// A row whose distance is not defined.
    #[error("{side} row {row} is constant, so its correlation is not defined; remove it or use another metric")]
    ConstantRow {
        /// query or reference.
        side: &'static str,
        /// The row's id.
        row: u64,
    },
    /// Something handed over that does not fit the queries or the partition.
    #[error("{what} do not fit: {why}")]
    Shape {
        /// What.
        what: &'static str,
        /// How.
        why: String,
    },
    /// An adapter that was asked for and is not there.
    #[error("{asked} is not there; this machine has {known}. Use --device cpu, or install the adapter's driver")]
    Adapter {
        /// What was asked.
        asked: String,
        /// What there is.
        known: String,
    },
    /// A variant of the GPU programs that was asked for and is not to be had.
    #[error("--device-variant {found}, which {why} ({adapter}); it can run {known}")]
    Variant {
        /// What was asked.
        found: String,
        /// What is wrong with it.
        why: &'static str,
        /// The adapter.
        adapter: String,
        /// What would work.
        known: String,
    },
    /// A variant that was tried on an adapter and found wrong neighbours there.
    #[error(
        "{adapter} finds wrong neighbours with {variant} of the GPU programs, or its driver refuses them; search on the \
         CPU with --device cpu, or see what `atlasknn devices` tells of the others"
    )]
    Unsound {
        /// The variant.
        variant: String,
        /// The adapter.
        adapter: String,
    },
    /// A driver that refuses something.
    #[error("{adapter} failed at {what}: {why}")]
    Gpu {
        /// The adapter.
        adapter: String,
        /// At what.
        what: &'static str,
        /// What the driver says.
        why: String,
    },
    /// Memory of a device that is used up.
    #[error("{adapter} has no memory left for {what}; lower --device-memory")]
    DeviceMemory {
        /// The adapter.
        adapter: String,
        /// What did not fit.
        what: &'static str,
    },
    /// A device that its driver has given up.
    #[error("{adapter} was lost: its driver stopped answering")]
    DeviceLost {
        /// The adapter.
        adapter: String,
    },
    /// An option of a graph that none can be made with.
    #[error("--hnsw-{name} {found} is out of range: use {least} to {most}")]
    GraphOption {
        /// Which.
        name: &'static str,
        /// What was asked.
        found: u32,
        /// The least that works.
        least: u32,
        /// The most that works.
        most: u32,
    },
    /// A metric that no graph can be made with.
    #[error("--method hnsw needs a distance, which {metric} is not; use --method ivf or exact")]
    GraphMetric {
        /// The metric.
        metric: &'static str,
    },
    /// The crate that makes graphs failed.
    #[error("hnsw_rs failed at {doing}: {why}; use --method ivf")]
    Graph {
        /// At what.
        doing: &'static str,
        /// What it says.
        why: String,
    },
    /// A build without graphs.
    #[error("this atlasknn was built without the feature hnsw; use --method ivf, or build it with --features hnsw")]
    NoHnsw,
    /// Asked to stop in the middle of something long.
    #[error("stopped")]
    Stopped,
    /// An instruction set that was asked for and is not to be had.
    #[error("ATLASKNN_SIMD asks for `{found}`, which {why}; this machine runs {known}")]
    Simd {
        /// What was asked.
        found: String,
        /// What is wrong with it.
        why: &'static str,
        /// What would work.
        known: String,
    },
}

/// Anything this library can say went wrong.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A value out of range.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A misshapen block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Reading or writing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Planning.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Searching.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The job as a whole.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Carrying annotations over.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}
