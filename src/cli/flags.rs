//! The flags that several commands share, a group each, as typed. Nothing is checked here that needs two flags.

// These comments are the help texts, where backticks would be printed; and a flag is a bool.
#![allow(clippy::doc_markdown, clippy::struct_excessive_bools, clippy::struct_field_names)]

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::values::{self, Compat, Kernel, Method, NamesChoice};
use crate::job::request::DeviceChoice;
use crate::metric::Metric;
use crate::units::{ByteCount, K};

/// A metric by its name; a typing error gets a suggestion.
pub fn metric_parser() -> impl TypedValueParser<Value = Metric> {
    PossibleValuesParser::new(Metric::ALL.map(Metric::name)).try_map(|name| values::metric(&name))
}

/// What to search.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What to search")]
pub struct What {
    /// Where the cells' coordinates are: X_pca (short for obsm/X_pca), X, layers/NAME, or the path of an array
    #[arg(long, value_name = "NAME", default_value = "X_pca", value_parser = values::rep)]
    pub rep: String,
    /// The reference's coordinates, where they have another name than the query's [default: the same name]
    #[arg(long, value_name = "NAME", value_parser = values::rep)]
    pub reference_rep: Option<String>,
    /// How many neighbours each cell gets, 1 to 256; usually 15 to 30
    #[arg(short, value_name = "K", default_value = "30", allow_negative_numbers = true, value_parser = values::k)]
    pub k: K,
    /// How far apart two cells are
    #[arg(long, value_name = "NAME", default_value = "euclidean", value_parser = metric_parser())]
    pub metric: Metric,
    /// Take no neighbours with the same value in this column of obs, for example the batch [default: all may be taken]
    #[arg(long, value_name = "KEY", value_parser = values::obs_key)]
    pub exclude_group: Option<String>,
    /// cellmapper-0.2.5: treat a cell's own row in self-mapping as that program does, which leaves k−1 neighbours
    /// [default: k other cells]
    #[arg(long, value_enum, value_name = "VERSION", hide_possible_values = true)]
    pub compat: Option<Compat>,
}

/// How to search.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to search")]
pub struct How {
    /// Find the true neighbours (exact), or nearly all of them in far less time by comparing each cell only with those of
    /// the nearest lists of an index (ivf) or with those that a graph leads to (hnsw: the reference must fit into memory, and
    /// the graph is built by each run); auto is exact while that is quick, else exact or ivf, what is quicker
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    pub method: Method,
    /// Search through this index of the reference, made by atlasknn index. With --method exact, what it shows to be too
    /// far is left out, and the result is the same [default: where ivf needs one, it is built first and kept beside OUT,
    /// in atlasknn-cache]
    #[arg(long, value_name = "INDEX")]
    pub index: Option<std::path::PathBuf>,
    /// Look into so many lists of the index; makes auto ivf
    #[arg(long, value_name = "N", conflicts_with = "recall")]
    pub nprobe: Option<NonZeroU32>,
    /// Of those lists, leave out each whose centre is far: whose squared distance to the cell is more than so many times the
    /// mean squared distance of its ten nearest centres. Cells in the middle of a list need few [default: none is left out]
    #[arg(long, value_name = "TIMES", requires = "nprobe", value_parser = values::times)]
    pub horizon: Option<f64>,
    /// Look into as many lists as find this share of the true neighbours, tried on a sample of the query first; makes auto
    /// ivf [default: 0.99]. With hnsw, warn where a sample shows that fewer were found
    #[arg(long, value_name = "SHARE", value_parser = values::recall)]
    pub recall: Option<f64>,
    /// Fail where the recall, measured at the end on another sample, is below --recall; otherwise that is a warning
    #[arg(long, conflicts_with = "nprobe")]
    pub strict: bool,
    /// Keep the distances as a compressed index has them, instead of taking exact ones from the reference for more
    /// neighbours than are kept (f16: 16 more, sq8: twice as many and 16, pq: four times as many and 64; at most 256)
    #[arg(long)]
    pub no_refine: bool,
    /// Links of each cell in the graph of --method hnsw, 2 to 256 [default: 16]
    #[arg(long, value_name = "M")]
    pub hnsw_m: Option<u32>,
    /// Candidates that are kept while a cell's links are chosen, 1 to 10000 [default: 200]
    #[arg(long, value_name = "N")]
    pub hnsw_ef_construction: Option<u32>,
    /// Candidates that are kept while a cell of the query is searched, 1 to 10000; more find more [default: 128]
    #[arg(long, value_name = "N")]
    pub hnsw_ef: Option<u32>,
    #[command(flatten)]
    pub device: Device,
}

/// What computes.
#[derive(Args, Clone, Debug)]
pub struct Device {
    /// What computes: auto (a GPU where there is one and the search is long enough for it), cpu, gpu (the first one),
    /// gpu:N (as atlasknn devices numbers them), gpu:all (all at once, the queries shared among them), or a part of an
    /// adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    pub device: DeviceChoice,
    /// Use this variant of the GPU programs, as atlasknn devices lists them [default: the adapter's best]
    #[arg(long, value_name = "NAME")]
    pub device_variant: Option<String>,
}

/// How to map.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to map")]
pub struct Mapping {
    /// How much a neighbour at distance d counts: gauss, scarches, inverse_distance or equal (random, jaccard, hnoca and
    /// umap are not built yet)
    #[arg(long, value_enum, default_value = "gauss", hide_possible_values = true)]
    pub kernel: Kernel,
    /// Labels to transfer: columns of the reference's obs; writes KEY_pred and the confidence KEY_conf
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = values::obs_key)]
    pub label: Vec<String>,
    /// Let only this category of a label vote; repeat it to allow more [default: all categories vote]
    #[arg(long, value_name = "KEY=CATEGORY", value_parser = values::key_and_category)]
    pub label_subset: Vec<(String, String)>,
    /// Numbers to transfer: columns of the reference's obs; writes the weighted mean KEY_pred
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = values::obs_key)]
    pub value: Vec<String>,
    /// Embeddings to transfer: arrays of the reference's obsm, for example X_umap; writes KEY_pred
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = values::obsm_key)]
    pub obsm: Vec<String>,
    /// Expression layers to transfer (not built yet)
    #[arg(long, value_name = "KEY", num_args = 1..)]
    pub layer: Vec<String>,
    /// Turn labels below this confidence into missing ones, 0 to 1 [default: keep all]
    #[arg(long, value_name = "C", value_parser = values::share)]
    pub min_confidence: Option<f32>,
    /// Also write the probability of every category of every label, to obsm/KEY_probabilities
    #[arg(long)]
    pub probabilities: bool,
    /// Also score how well each reference cell is represented in the query, 0 to 1
    #[arg(long)]
    pub presence: bool,
    /// One more presence score per value of this column of the query's obs (with transfer, of the obs of NEIGHBOURS);
    /// implies --presence
    #[arg(long, value_name = "KEY", value_parser = values::obs_key)]
    pub presence_by: Option<String>,
    /// Take log(1 + score) before clipping; implies --presence
    #[arg(long)]
    pub presence_log: bool,
    /// Clip presence scores at these percentiles; implies --presence [default: 1,99]
    #[arg(long, value_name = "LOW,HIGH", value_parser = values::percentiles)]
    pub presence_percentiles: Option<(f64, f64)>,
    /// Do not stretch presence scores to 0..1; implies --presence
    #[arg(long)]
    pub presence_no_min_max: bool,
    /// Also write the mapping matrix, query × reference, as X
    #[arg(long)]
    pub matrix: bool,
    /// In self-mapping, add every cell to its own neighbours, at distance 0
    #[arg(long, overrides_with = "no_self_edges")]
    pub self_edges: bool,
    /// In self-mapping, let no cell be its own neighbour; the default
    #[arg(long, overrides_with = "self_edges")]
    pub no_self_edges: bool,
    /// Make the weights of self-mapping the same in both directions (not built yet)
    #[arg(long, overrides_with = "no_symmetrize")]
    pub symmetrize: bool,
    /// Leave the weights as they are; the default
    #[arg(long, overrides_with = "symmetrize")]
    pub no_symmetrize: bool,
    /// Walk this many steps over the mapping matrix in self-mapping (more than 1: not built yet)
    #[arg(long, value_name = "T", default_value = "1")]
    pub steps: NonZeroU32,
    /// Keep at most this many entries in a row of the mapping matrix (not built yet)
    #[arg(long, value_name = "N")]
    pub max_row: Option<NonZeroU32>,
}

/// What scanpy reads.
#[derive(Args, Clone, Copy, Debug)]
pub struct Scanpy {
    /// In self-mapping, also write what scanpy's umap and leiden read (not built yet)
    #[arg(long)]
    pub scanpy: bool,
}

/// Within what.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Within what")]
pub struct Within {
    /// Use at most this much memory, for example 512MiB or 8GiB [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub host_memory: Option<ByteCount>,
    /// Use at most this much memory of the GPU, for example 4GiB [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub device_memory: Option<ByteCount>,
    /// Use this many threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    pub threads: Option<NonZeroUsize>,
}

/// The run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The run")]
pub struct Run {
    /// Print the plan (memory, time, disk) and stop; nothing is written
    #[arg(long)]
    pub dry_run: bool,
    /// Continue an interrupted run; finished work is kept
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// With --resume: continue although the CPU, another GPU or another driver began it
    #[arg(long)]
    pub allow_mixed: bool,
    /// Replace OUT if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Begin everything random with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Seconds between checkpoints of a long unit.
    #[arg(long, value_name = "S", default_value_t = 120, hide = true)]
    pub checkpoint_seconds: u64,
}

/// Names of cells, for commands whose output has cells.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "The run")]
pub struct Names {
    /// Copy all cell names or none [default: those of sides up to 10 million cells]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub names: Option<NamesChoice>,
}

/// What to print.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "The run")]
pub struct Talk {
    /// Print the result as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Print no notes and no progress; warnings and errors stay
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: the plan before a run, progress lines more often
    #[arg(short, long)]
    pub verbose: bool,
}

/// What to print, for commands that are over at once; they have no notes and no progress to silence.
#[derive(Args, Clone, Copy, Debug)]
pub struct Print {
    /// Print the result as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Accepted everywhere, so that a script may give it to all.
    #[arg(short, long, hide = true)]
    pub quiet: bool,
    /// Accepted everywhere, so that a script may give it to all.
    #[arg(short, long, hide = true, conflicts_with = "quiet")]
    pub verbose: bool,
}
