//! Search through an index in memory, a JSON line per repeat: what `benches/peers/run` holds against other inverted files.
//!
//! `cargo bench --bench ivf -- --index INDEX --queries Q.npy` reads both and packs the rows of the index. Each line of input is
//! then a number of lists to visit, and timed is the rest: from the queries as given, through the nearest lists of each, to the
//! sorted top-k with exact distances. What was found is written before the next line is read. Without arguments it does nothing,
//! so that `cargo bench` passes it by.

// A benchmark that cannot run should stop, and says what it found on standard output.
#![allow(clippy::expect_used, missing_docs)]

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::cpu::{CpuConfig, CpuEngine};
use atlasknn::engine::{Engine, Exclude, Partition};
use atlasknn::error::Error;
use atlasknn::route::ivf::{Cut, Lists, Probing};
use atlasknn::route::{Known, Router};
use atlasknn::schedule::near::Landmarks;
use atlasknn::schedule::pager::read_kept;
use atlasknn::store::index::Index;
use atlasknn::store::npy::NpySource;
use atlasknn::store::{IoCounters, Source};
use atlasknn::topk::TopK;
use atlasknn::units::K;
use clap::Parser;
use rayon::ThreadPool;
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// An index that `atlasknn index` built
    #[arg(long)]
    index: Option<PathBuf>,
    /// Query rows, float32
    #[arg(long, requires = "index")]
    queries: Option<PathBuf>,
    #[arg(short, default_value_t = 30)]
    k: u32,
    /// How many threads; 0 is one per core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write what each repeat found: the ids, u64 little-endian, `queries × k`
    #[arg(long)]
    ids: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Queries whose nearest lists are found at a time.
const RANKED_ROWS: u64 = 65_536;

/// An index in memory.
struct InMemory {
    index: Index,
    lists: Arc<Lists>,
    part: Arc<Partition>,
}

impl InMemory {
    fn open(path: &Path, pool: &ThreadPool) -> Self {
        let index = Index::open(path, &IoCounters::new()).expect("an index");
        let (rows, dim) = (index.rows(), index.dim());
        let centroids = RowBlock::new(RowIds::Range(0..index.lists() as u64), dim, index.centroids().to_vec());
        let lists = Lists {
            centroids: centroids.expect("lists × dim values"),
            offsets: index.offsets().to_vec(),
            radii: index.radii().to_vec(),
        };
        let ids = RowIds::List(index.ids(0..rows).expect("ids that can be read"));
        let part = Partition::new(read_kept(&**index.source(), &[0..rows], ids, pool).expect("rows that can be read"));
        Self { index, lists: Arc::new(lists), part }
    }

    /// Visits so many lists near each query.
    fn probing(&self, nprobe: usize) -> Probing {
        Probing::new(self.index.metric(), Arc::clone(&self.lists), nprobe, Cut::kept(u32::MAX, &self.lists.offsets))
    }

    /// The neighbours of the queries, as `schedule` finds them where everything is resident.
    fn search(
        &self,
        engine: &mut CpuEngine,
        queries: &RowBlock,
        k: K,
        router: &Probing,
        pool: &ThreadPool,
    ) -> Result<TopK, Error> {
        engine.begin(queries, k, &Exclude::Nothing)?;
        let near = Landmarks::of(router, RANKED_ROWS).map_or(Ok(Vec::new()), |marks| marks.near(engine))?;
        let known = Known { queries, near: &near, bounds: &[], seen_to: 0 };
        let route = pool.install(|| router.route(0, &known));
        for partition in 0..route.partitions() {
            for visits in route.visits(partition) {
                engine.visit(&self.part, &visits)?;
            }
        }
        Ok(engine.finish()?)
    }
}

/// All rows of a source.
fn all(source: &dyn Source) -> Vec<f32> {
    let mut values = vec![0.0; usize::try_from(source.rows()).expect("64 bits") * source.dim()];
    source.read(&[0..source.rows()], &mut values).expect("rows that can be read");
    values
}

fn say(line: &serde_json::Value) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody who reads");
}

fn main() {
    let args = Args::parse();
    let (Some(index), Some(queries)) = (&args.index, &args.queries) else {
        println!("ivf: nothing to search; see --help, or benches/peers/run");
        return;
    };
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(args.threads).build().expect("a pool"));
    let k = K::new(args.k).expect("k from 1 to 256");
    let queries = NpySource::open(queries, &IoCounters::new()).expect("a .npy file of rows");
    let queries =
        RowBlock::new(RowIds::Range(0..queries.rows()), queries.dim(), all(&queries)).expect("rows × dim values");
    let memory = InMemory::open(index, &pool);
    let config = CpuConfig { metric: memory.index.metric(), pool: Arc::clone(&pool), simd: None };
    let mut engine = CpuEngine::new(config).expect("an instruction set of this machine");
    let started = Instant::now();
    engine.begin(&queries, k, &Exclude::Nothing).expect("queries the engine takes");
    // No visits: this only packs.
    engine.visit(&memory.part, &[]).expect("rows of the same dimension");
    let prepare_s = started.elapsed().as_secs_f64();
    say(&json!({ "ready": true, "simd": engine.simd(), "prepare_s": prepare_s, "lists": memory.lists.len() }));

    for line in std::io::stdin().lock().lines() {
        let nprobe = line.expect("a line").trim().parse().expect("a number of lists");
        let router = memory.probing(nprobe);
        let started = Instant::now();
        let found = memory.search(&mut engine, &queries, k, &router, &pool).expect("queries that can be searched");
        let seconds = started.elapsed().as_secs_f64();
        if let Some(path) = &args.ids {
            let bytes: Vec<u8> = found.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
            std::fs::write(path, bytes).expect("a file that can be written");
        }
        say(&json!({ "seconds": seconds }));
    }
}
