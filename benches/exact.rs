//! Exact search in memory of rows from `.npy` files, a JSON line per repeat: what `benches/peers/run` holds against others.
//!
//! `cargo bench --bench exact -- --references R.npy --queries Q.npy` reads both and packs the references, as a search over
//! many query blocks does once. Timed is the rest, from the queries as given to the sorted top-k with exact distances.
//! `ATLASKNN_SIMD` picks the instruction set. Without arguments it does nothing, so that `cargo bench` passes it by.

// A benchmark that cannot run should stop, and says what it found on standard output.
#![allow(clippy::expect_used, missing_docs)]

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::cpu::{CpuConfig, CpuEngine};
use atlasknn::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use atlasknn::metric::Metric;
use atlasknn::store::npy::NpySource;
use atlasknn::store::{IoCounters, Source};
use atlasknn::topk::TopK;
use atlasknn::units::K;
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// Reference rows, float32
    #[arg(long)]
    references: Option<PathBuf>,
    /// Query rows, float32
    #[arg(long, requires = "references")]
    queries: Option<PathBuf>,
    #[arg(short, default_value_t = 30)]
    k: u32,
    /// How many threads; 0 is one per core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Queries that are searched at a time [default: all]
    #[arg(long)]
    batch: Option<u64>,
    #[arg(long, default_value = "euclidean")]
    metric: String,
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Wait for a line of input before each repeat, and end with the input
    #[arg(long)]
    on_request: bool,
    /// Write what the last repeat found: the ids, u64 little-endian, `queries × k`
    #[arg(long)]
    ids: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rows that may be resident together, as the engine asks for.
const PARTITION_BYTES: u64 = 1 << 30;

fn open(path: &Path) -> NpySource {
    NpySource::open(path, &IoCounters::new()).expect("a .npy file of rows")
}

/// The rows of a source in blocks of `rows` each.
fn blocks(source: &dyn Source, rows: u64) -> Vec<RowBlock> {
    let total = source.rows();
    let starts = (0..total).step_by(usize::try_from(rows.max(1)).expect("64 bits"));
    let read = |start: u64| {
        let range = start..(start + rows).min(total);
        let len = usize::try_from(range.end - range.start).expect("64 bits") * source.dim();
        let mut values = vec![0.0; len];
        source.read(std::slice::from_ref(&range), &mut values).expect("rows that can be read");
        RowBlock::new(RowIds::Range(range), source.dim(), values).expect("rows × dim values")
    };
    starts.map(read).collect()
}

/// The neighbours of all batches, one after the other.
fn search(engine: &mut CpuEngine, parts: &[Arc<Partition>], batches: &[RowBlock], k: K) -> Vec<TopK> {
    let find = |batch| {
        engine.begin(batch, k, &Exclude::Nothing).expect("queries the engine takes");
        for part in parts {
            let rows = 0..u32::try_from(part.block.rows()).expect("a partition's rows fit into u32");
            engine.visit(part, &[Visit { rows, queries: VisitQueries::All }]).expect("rows of the same dimension");
        }
        engine.finish().expect("a search that was begun")
    };
    batches.iter().map(find).collect()
}

fn say(line: &serde_json::Value) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody who reads");
}

fn main() {
    let args = Args::parse();
    let (Some(references), Some(queries)) = (&args.references, &args.queries) else {
        println!("exact: nothing to search; see --help, or benches/peers/run");
        return;
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build().expect("a pool");
    let metric = Metric::ALL.into_iter().find(|metric| metric.name() == args.metric).expect("the name of a metric");
    let mut engine = CpuEngine::new(CpuConfig { metric, pool: Arc::new(pool), simd: None })
        .expect("an instruction set of this machine");
    let k = K::new(args.k).expect("k from 1 to 256");

    let (references, queries) = (open(references), open(queries));
    let (n_references, n_queries) = (references.rows(), queries.rows());
    let parts: Vec<_> =
        blocks(&references, PARTITION_BYTES / (4 * references.dim() as u64)).into_iter().map(Partition::new).collect();
    let batches = blocks(&queries, args.batch.unwrap_or(n_queries));
    let started = Instant::now();
    engine.begin(&batches[0], k, &Exclude::Nothing).expect("queries the engine takes");
    for part in &parts {
        // No visits: this only packs.
        engine.visit(part, &[]).expect("rows of the same dimension");
    }
    say(&json!({ "ready": true, "simd": engine.simd(), "prepare_s": started.elapsed().as_secs_f64() }));

    let mut found = Vec::new();
    let mut requests = std::io::stdin().lock().lines();
    for _ in 0..if args.on_request { usize::MAX } else { args.repeats } {
        if args.on_request && requests.next().is_none() {
            break;
        }
        // What was found before is given back outside of what is timed, as `peer.py` does.
        found.clear();
        let started = Instant::now();
        found = search(&mut engine, &parts, &batches, k);
        let seconds = started.elapsed().as_secs_f64();
        let gpairs = n_queries as f64 * n_references as f64 / 1e9;
        say(&json!({ "seconds": seconds, "gpairs_per_s": gpairs / seconds }));
    }
    if let Some(path) = &args.ids {
        let bytes: Vec<u8> = found.iter().flat_map(TopK::ids).flat_map(|id| id.to_le_bytes()).collect();
        std::fs::write(path, bytes).expect("a file that can be written");
    }
}
