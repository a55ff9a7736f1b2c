//! What a user asks for and what comes back: plain data, filled in by the command line or by another program.

mod how;
mod index;

use std::path::PathBuf;

pub use how::{DEFAULT_RECALL, GraphOptions, How, Method, Probes};
pub use index::{IndexOutcome, IndexRequest};

use crate::metric::Metric;
use crate::units::{ByteCount, K};

/// What to search, how, within what.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// The query cells: an AnnData zarr store, an annbatch collection, a zarr array or a `.npy` file.
    pub query: PathBuf,
    /// The reference cells; `None` maps the query onto itself.
    pub reference: Option<PathBuf>,
    /// The store to write.
    pub out: PathBuf,
    /// The query's rows: `X_pca`, `obsm/X_pca`, `X`, `layers/NAME`, or a path to an array.
    pub rep: String,
    /// The reference's rows where they have another name.
    pub reference_rep: Option<String>,
    /// Neighbours per query.
    pub k: K,
    /// The distance.
    pub metric: Metric,
    /// No neighbours with the same `obs/KEY`.
    pub exclude_group: Option<String>,
    /// What CellMapper 0.2.5 would do about a cell's own row, instead of what is right.
    pub compat: bool,
    /// Which pairs are compared.
    pub how: How,
    /// What computes.
    pub device: DeviceRequest,
    /// Budget and threads.
    pub within: Within,
    /// How to run.
    pub run: RunOptions,
}

/// What computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Which processor or adapter.
    pub choice: DeviceChoice,
    /// The variant of the GPU programs; the engine's choice by default.
    pub variant: Option<String>,
    /// Device memory; [`crate::engine::gpu::DEFAULT_MEMORY`] by default.
    pub memory: Option<ByteCount>,
}

/// Which processor or adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU that is no software where there is one and the job is worth it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU that is no software.
    Gpu,
    /// An adapter by its number in [`crate::engine::gpu::adapters`].
    Number(usize),
    /// An adapter by a part of its name.
    Named(String),
    /// All GPUs that are no software, at once.
    AllGpus,
}

impl DeviceChoice {
    /// Whether only a GPU will do.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        !matches!(self, Self::Auto | Self::Cpu)
    }
}

/// Budget and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Within {
    /// Host memory; a quarter of the machine's by default.
    pub host_memory: Option<ByteCount>,
    /// Threads; as many as there are cores by default.
    pub threads: Option<usize>,
}

/// Which cell names to copy into the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Those of axes up to 1e7 rows.
    #[default]
    Auto,
    /// All of them.
    All,
    /// None: a range index.
    None,
}

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Continue what is in the output.
    pub resume: bool,
    /// Replace what is in the output.
    pub overwrite: bool,
    /// Continue although another engine computed what is there.
    pub allow_mixed: bool,
    /// Which cell names to copy.
    pub names: Names,
    /// Seed of everything random.
    pub seed: u64,
    /// Seconds between checkpoints of a long unit.
    pub checkpoint_seconds: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            resume: false,
            overwrite: false,
            allow_mixed: false,
            names: Names::Auto,
            seed: 0,
            checkpoint_seconds: 120,
        }
    }
}

/// How to turn neighbours into annotations.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingRequest {
    /// Distance → weight.
    pub kernel: crate::weights::WeightKernel,
    /// Categorical `obs` keys of the reference.
    pub labels: Vec<String>,
    /// Categories to keep, as (key, category) in the order the probabilities shall have; none keeps all.
    pub label_subsets: Vec<(String, String)>,
    /// Numeric `obs` keys of the reference.
    pub values: Vec<String>,
    /// Embeddings of the reference.
    pub obsm: Vec<String>,
    /// Presence scores, if wanted.
    pub presence: Option<PresenceRequest>,
    /// Add the diagonal (self-mapping); `None` is the command's default.
    pub self_edges: Option<bool>,
    /// Also write the mapping matrix.
    pub matrix: bool,
    /// Labels below this confidence become missing.
    pub min_confidence: Option<f32>,
    /// Also write every category's probability.
    pub probabilities: bool,
}

/// How presence scores are made.
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceRequest {
    /// One more score per category of this query `obs` key.
    pub by: Option<String>,
    /// log1p first.
    pub log: bool,
    /// Clip at these percentiles.
    pub percentiles: (f64, f64),
    /// Stretch to 0..1 at the end.
    pub min_max: bool,
}

impl Default for PresenceRequest {
    fn default() -> Self {
        Self { by: None, log: false, percentiles: (1.0, 99.0), min_max: true }
    }
}

/// Search and mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct MapRequest {
    /// The search.
    pub search: SearchRequest,
    /// The mapping.
    pub mapping: MappingRequest,
}

/// Mapping from an earlier search.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferRequest {
    /// The output of the earlier search.
    pub neighbours: PathBuf,
    /// The reference of that search.
    pub reference: PathBuf,
    /// The store to write.
    pub out: PathBuf,
    /// The mapping.
    pub mapping: MappingRequest,
    /// Budget and threads.
    pub within: Within,
    /// How to run.
    pub run: RunOptions,
}

/// A plan, to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanReport {
    /// (what, value) as a person reads them, in order.
    pub lines: Vec<(String, String)>,
    /// (what, bytes) of host memory, in order; they add up to at most the budget.
    pub memory: Vec<(String, u64)>,
    /// The budget.
    pub budget: ByteCount,
    /// Memory and budget of the device, where it has memory of its own.
    pub device: Option<(Vec<(String, u64)>, ByteCount)>,
    /// The same for programs.
    pub json: serde_json::Value,
}

/// Wall seconds by stage; stages overlap, so they need not add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds {
    /// Spent reading.
    pub read: f64,
    /// The engine's time.
    pub search: f64,
    /// Weights and transfer.
    pub map: f64,
    /// Spent writing.
    pub write: f64,
    /// Wall time of the whole.
    pub total: f64,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Query rows.
    pub rows: u64,
    /// Reference rows.
    pub reference_rows: u64,
    /// Neighbours per query written.
    pub k: u64,
    /// exact, ivf or hnsw.
    pub method: &'static str,
    /// cpu or gpu.
    pub device: &'static str,
    /// The processor's or adapter's name.
    pub adapter: String,
    /// The kernel variant.
    pub variant: String,
    /// Seconds by stage.
    pub seconds: Seconds,
    /// Pairs compared by this run (not by an earlier, resumed one).
    pub pairs: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Peak resident memory of the process, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Audited recall; `None` for exact.
    pub recall: Option<f64>,
    /// Its 95 % interval; `None` for exact, and where an earlier run had finished.
    pub recall_interval: Option<(f64, f64)>,
    /// The share of all pairs that this run compared, where an index left some out.
    pub share_of_pairs: Option<f64>,
    /// Units computed by this run, and reused from an earlier one.
    pub units: (u64, u64),
    /// The store.
    pub out: PathBuf,
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// Files whose checksums were compared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of neighbours whose order and range were checked, or rows of an index that are where it says.
    pub rows: u64,
    /// Whether it is an index.
    pub is_index: bool,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// Transferred labels against known ones.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateRequest {
    /// The output of a mapping.
    pub out: PathBuf,
    /// The store with the known labels: the cells of the output, in its order.
    pub truth: PathBuf,
    /// Their column in its `obs`.
    pub truth_key: String,
    /// The label as it was transferred: `obs/KEY_pred` and `obs/KEY_conf` of the output.
    pub prediction: String,
    /// Cells below this confidence are left out.
    pub min_confidence: f32,
}

/// How well one label was found.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelScore {
    /// The category.
    pub name: String,
    /// Cells that have it in truth.
    pub support: u64,
    /// Share of the cells given this label that have it.
    pub precision: f64,
    /// Share of the cells with this label that were given it.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// How well labels were transferred. Precision, recall and `f1_weighted` are means over labels weighted by support.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Share of right labels.
    pub accuracy: f64,
    /// Weighted by support.
    pub precision: f64,
    /// Weighted by support.
    pub recall: f64,
    /// Weighted by support.
    pub f1_weighted: f64,
    /// Every label counting the same.
    pub f1_macro: f64,
    /// Share of the cells with a known label that were left out as unsure.
    pub excluded_fraction: f64,
    /// Cells compared.
    pub rows: u64,
    /// Label by label, in the order of the categories.
    pub labels: Vec<LabelScore>,
}
