//! The commands as typed. What the flags mean together is checked in `convert`, what is not built yet in `unbuilt`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::flags::{Device, How, Mapping, Names, Print, Run, Scanpy, Talk, What, Within, metric_parser};
use super::help;
use super::values::{self, Encoding, Lists, Truth};
use crate::metric::Metric;

/// Finds the nearest reference cells of every query cell and maps annotations with them
#[derive(Parser, Clone, Debug)]
#[command(name = "atlasknn", version, long_about = help::ABOUT, after_help = help::ABOUT_EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
#[command(disable_help_subcommand = true)]
pub enum Command {
    /// Map the bundled PBMC query onto its reference and show the result
    #[command(long_about = help::DEMO, after_help = help::DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Find neighbours and transfer labels, numbers and embeddings with them
    #[command(long_about = help::MAP, after_help = help::MAP_EXAMPLES)]
    Map(Box<MapArgs>),
    /// Find neighbours only
    #[command(long_about = help::SEARCH, after_help = help::SEARCH_EXAMPLES)]
    Search(Box<SearchArgs>),
    /// Transfer with the neighbours of an earlier search
    #[command(long_about = help::TRANSFER, after_help = help::TRANSFER_EXAMPLES)]
    Transfer(Box<TransferArgs>),
    /// Build an index of a large reference, out of core
    #[command(long_about = help::INDEX, after_help = help::INDEX_EXAMPLES)]
    Index(Box<IndexArgs>),
    /// Compare transferred labels with known ones
    #[command(long_about = help::EVALUATE, after_help = help::EVALUATE_EXAMPLES)]
    Evaluate(EvaluateArgs),
    /// Show what a store holds, and which arrays can be searched
    #[command(long_about = help::INFO, after_help = help::INFO_EXAMPLES)]
    Info(InfoArgs),
    /// Show what this machine can compute with
    #[command(long_about = help::DEVICES, after_help = help::DEVICES_EXAMPLES)]
    Devices(DevicesArgs),
    /// Check an output: every chunk there, checksums right, rows sorted and in range
    #[command(long_about = help::VERIFY, after_help = help::VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
}

/// The two sides and the output.
#[derive(Args, Clone, Debug)]
pub struct Sides {
    /// The query cells: an AnnData zarr store, an annbatch collection, a zarr array or a .npy file
    pub query: PathBuf,
    /// The reference cells, in one of the same formats; leave it out to map the query onto itself
    pub reference: Option<PathBuf>,
    /// The AnnData zarr store to write
    #[arg(short, long, value_name = "OUT")]
    pub out: PathBuf,
}

/// `atlasknn map`.
#[derive(Args, Clone, Debug)]
pub struct MapArgs {
    #[command(flatten)]
    pub sides: Sides,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub mapping: Mapping,
    #[command(flatten)]
    pub scanpy: Scanpy,
    #[command(flatten)]
    pub within: Within,
    #[command(flatten)]
    pub run: Run,
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub talk: Talk,
}

/// `atlasknn search`.
#[derive(Args, Clone, Debug)]
pub struct SearchArgs {
    #[command(flatten)]
    pub sides: Sides,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub scanpy: Scanpy,
    #[command(flatten)]
    pub how: How,
    #[command(flatten)]
    pub within: Within,
    #[command(flatten)]
    pub run: Run,
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub talk: Talk,
}

/// `atlasknn transfer`.
#[derive(Args, Clone, Debug)]
pub struct TransferArgs {
    /// The output of an earlier `atlasknn search` or `atlasknn map`
    pub neighbours: PathBuf,
    /// The reference of that search, for its labels, numbers and embeddings
    pub reference: PathBuf,
    /// The AnnData zarr store to write
    #[arg(short, long, value_name = "OUT")]
    pub out: PathBuf,
    #[command(flatten)]
    pub mapping: Mapping,
    #[command(flatten)]
    pub scanpy: Scanpy,
    #[command(flatten)]
    pub within: Within,
    #[command(flatten)]
    pub run: Run,
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub talk: Talk,
}

/// `atlasknn index`.
#[derive(Args, Clone, Debug)]
pub struct IndexArgs {
    /// The reference cells
    pub reference: PathBuf,
    /// The index to write
    #[arg(short, long, value_name = "INDEX")]
    pub out: PathBuf,
    /// Where the cells' coordinates are
    #[arg(long, value_name = "NAME", default_value = "X_pca", value_parser = values::rep, help_heading = "What to index")]
    pub rep: String,
    /// How far apart two cells are; searches of the index use the same
    #[arg(long, value_name = "NAME", default_value = "euclidean", value_parser = metric_parser(), help_heading = "What to index")]
    pub metric: Metric,
    /// How many lists to cut the reference into: a number, or auto, which is twice the root of the number of cells, and a
    /// list for every 64 cells where there are fewer than 16,384
    #[arg(long, value_name = "N", default_value = "auto", value_parser = values::lists, help_heading = "How to index")]
    pub lists: Lists,
    /// How coordinates are kept in the index
    #[arg(long, value_enum, default_value = "f32", help_heading = "How to index")]
    pub encoding: Encoding,
    #[command(flatten, next_help_heading = "How to index")]
    pub device: Device,
    #[command(flatten)]
    pub within: Within,
    #[command(flatten)]
    pub run: Run,
    #[command(flatten)]
    pub talk: Talk,
}

/// `atlasknn evaluate`.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The output of `atlasknn map` or `atlasknn transfer`
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// The known labels: a store and a column of its obs, with the same cells in the same order
    #[arg(long, value_name = "QUERY:obs/KEY", value_parser = values::truth)]
    pub truth: Truth,
    /// The label that was transferred, where it has another name than KEY [default: the same name]
    #[arg(long, value_name = "KEY", value_parser = values::obs_key)]
    pub prediction: Option<String>,
    /// Leave out cells whose label has a confidence below this, 0 to 1
    #[arg(long, value_name = "C", default_value = "0", value_parser = values::share)]
    pub min_confidence: f32,
    #[command(flatten)]
    pub print: Print,
}

/// `atlasknn info`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// An AnnData zarr store, an annbatch collection, a zarr array, a .npy file or an index
    pub store: PathBuf,
    #[command(flatten)]
    pub print: Print,
}

/// `atlasknn devices`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DevicesArgs {
    #[command(flatten)]
    pub print: Print,
}

/// `atlasknn verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The output of `atlasknn map`, `search`, `transfer` or `index`
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    #[command(flatten)]
    pub talk: Talk,
}

/// `atlasknn demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The folder to put the data and the result in
    #[arg(short, long, value_name = "DIR", default_value = "atlasknn-demo")]
    pub out: PathBuf,
    #[command(flatten)]
    pub within: Within,
    #[command(flatten)]
    pub talk: Talk,
}
