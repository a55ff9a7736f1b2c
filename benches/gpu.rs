//! Exact search on a GPU, a JSON line per case and variant: what the GPU tables of `RESULTS.md` are made of.
//!
//! `cargo bench --bench gpu -- --device 0 --case 65536,1000000,50,30,shuffled` searches a seeded mixture of clusters. Timed
//! is everything from resident partitions and queries to the sorted top-k on the host, exact distances included. A sample
//! of the queries is searched in f64 as well, and the ids compared outside the tie band. Without a device it does nothing.
//!
//! With `--ivf LISTS --nprobe A,B,C` the references of each case are indexed on the device and the queries, in one block,
//! searched through the index; a case of 0 queries is indexed only. Recall is that of a sample, against an exact search on
//! the device.

// A benchmark that cannot run should stop, and says what it found on standard output.
#![allow(clippy::expect_used, missing_docs)]

#[path = "support/ivf.rs"]
mod ivf;
#[path = "support/rows.rs"]
mod rows;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::gpu::{Adapter, GpuConfig, GpuEngine, Variant, adapters};
use atlasknn::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use atlasknn::metric::{EngineKind, Metric, tie_band};
use atlasknn::topk::TopK;
use atlasknn::units::{ByteCount, K};
use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// The adapter's number in `atlasknn devices`
    #[arg(long)]
    device: Option<usize>,
    /// QUERIES,REFERENCES,DIMENSIONS,K,ORDER, with ORDER shuffled, clustered, identical, or apart: other rows, of
    /// round clusters of one size that lie far apart
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Variants [default: all that the adapter runs]
    #[arg(long)]
    variant: Vec<String>,
    #[arg(long, default_value = "euclidean")]
    metric: String,
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Queries that are also searched in f64
    #[arg(long, default_value_t = 200)]
    check: usize,
    /// Rows of a partition
    #[arg(long, default_value_t = 2_000_000)]
    partition: usize,
    /// Device memory
    #[arg(long, default_value = "64GiB")]
    memory: ByteCount,
    /// Search each case once more within so much device memory, in partitions of `--partition-within` rows, and compare
    #[arg(long)]
    within: Option<ByteCount>,
    #[arg(long, default_value_t = 400_000)]
    partition_within: usize,
    /// Write the rows of each case here as raw float32, for other libraries
    #[arg(long)]
    write: Option<PathBuf>,
    /// Index the references in so many lists, or `auto`, and search the lists nearest each query instead of all rows
    #[arg(long)]
    ivf: Option<String>,
    /// Lists that each query visits; 24@1.4: of the nearest 24 those within a horizon of 1.4
    #[arg(long, value_delimiter = ',', default_value = "8,16,32")]
    nprobe: Vec<ivf::Probes>,
    /// Queries that are also searched exactly
    #[arg(long, default_value_t = 1_000)]
    recall_sample: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

struct Case {
    queries: usize,
    references: usize,
    dim: usize,
    k: u32,
    order: String,
}

fn parse(text: &str) -> Case {
    let parts: Vec<&str> = text.split(',').collect();
    let number = |i: usize| parts[i].parse().expect("a number");
    Case {
        queries: number(0),
        references: number(1),
        dim: number(2),
        k: u32::try_from(number(3)).expect("a small k"),
        order: parts[4].to_owned(),
    }
}

/// Clusters of uneven size that look like principal components of cells; see `benches/peers/data.py`.
struct Mixture {
    scale: Vec<f32>,
    weights: Vec<f32>,
    centres: Vec<f32>,
    planes: Vec<f32>,
    shift: Vec<f32>,
}

fn normal(rng: &mut Xoshiro256PlusPlus) -> f32 {
    let (a, b) = (rng.random_range(f32::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0_f32));
    (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()
}

const CLUSTERS: usize = 200;
const APART: usize = 500;
const INSIDE: usize = 8;
const BLOCK: usize = 10_000;

impl Mixture {
    fn new(dim: usize) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let scale: Vec<f32> = (0..dim).map(|j| 10.0 * (j as f32 + 1.0).powf(-0.7)).collect();
        // Squares of normals are Dirichlet(0.5) once they add up to 1.
        let raw: Vec<f32> = (0..CLUSTERS).map(|_| normal(&mut rng).powi(2)).collect();
        let total: f32 = raw.iter().sum();
        let mut scaled =
            |n: usize, by: f32| -> Vec<f32> { (0..n * dim).map(|i| normal(&mut rng) * scale[i % dim] * by).collect() };
        let (centres, planes) = (scaled(CLUSTERS, 1.0), scaled(CLUSTERS * INSIDE, 1.0 / (INSIDE as f32).sqrt()));
        let shift = scaled(1, 0.05);
        Self { weights: raw.iter().map(|w| w / total).collect(), centres, planes, shift, scale }
    }

    fn rows(&self, n: usize, seed: u64, shifted: bool, order: &str) -> Vec<f32> {
        let dim = self.scale.len();
        let mut values = vec![0.0; n * dim];
        if order == "apart" {
            apart(&mut values, dim, seed);
            return values;
        }
        values.par_chunks_mut(BLOCK * dim).enumerate().for_each(|(i, block)| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed << 32 | i as u64);
            for (row, out) in block.chunks_exact_mut(dim).enumerate() {
                let mut left: f32 = match order {
                    "clustered" => (i * BLOCK + row) as f32 / n as f32,
                    _ => rng.random_range(0.0..1.0),
                };
                let cluster = self
                    .weights
                    .iter()
                    .position(|w| {
                        left -= w;
                        left < 0.0
                    })
                    .unwrap_or(CLUSTERS - 1);
                let inside: Vec<f32> = (0..INSIDE).map(|_| normal(&mut rng)).collect();
                for (j, out) in out.iter_mut().enumerate() {
                    let plane: f32 =
                        (0..INSIDE).map(|p| inside[p] * self.planes[(cluster * INSIDE + p) * dim + j]).sum();
                    *out = self.centres[cluster * dim + j] + plane + normal(&mut rng) * 0.15 * self.scale[j];
                    *out += if shifted { self.shift[j] } else { 0.0 };
                }
            }
        });
        if order == "identical" {
            let first = values[..dim].to_vec();
            values.chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(&first));
        }
        values
    }
}

/// Rows of clusters that are spheres of one size, of which each has about 8 of 4,096 lists: 8 lists find 0.97 of the neighbours
/// of a million rows and 16 all of them, as `ivf_flat` of cuVS did where the rate to reach was measured, on rows we do not have.
fn apart(values: &mut [f32], dim: usize, seed: u64) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let centres: Vec<f32> = (0..APART * dim).map(|_| 3.0 * normal(&mut rng)).collect();
    values.par_chunks_mut(BLOCK * dim).enumerate().for_each(|(i, block)| {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed << 32 | i as u64);
        for out in block.chunks_exact_mut(dim) {
            let cluster = rng.random_range(0..APART);
            let centre = &centres[cluster * dim..(cluster + 1) * dim];
            out.iter_mut().zip(centre).for_each(|(out, centre)| *out = centre + normal(&mut rng));
        }
    });
}

fn block(values: &[f32], dim: usize, first: usize) -> RowBlock {
    let ids = RowIds::Range(first as u64..(first + values.len() / dim) as u64);
    RowBlock::new(ids, dim, values.to_vec()).expect("a block")
}

/// How many of a sample of queries have other ids than a search in f64 finds, ties apart.
fn wrong(case: &Case, queries: &[f32], references: &[f32], found: &TopK, check: usize) -> usize {
    let (dim, k) = (case.dim, usize::try_from(case.k).expect("a small k"));
    let band = tie_band(Metric::Euclidean, dim, EngineKind::Gpu);
    let sample: Vec<usize> = (0..check.min(case.queries)).map(|i| i * case.queries / check.min(case.queries)).collect();
    let differs = |&q: &usize| {
        let row = &queries[q * dim..(q + 1) * dim];
        let distance = |r: usize| {
            let other = &references[r * dim..(r + 1) * dim];
            row.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
        };
        let mut all: Vec<(f64, usize)> = (0..case.references).map(|r| (distance(r), r)).collect();
        all.select_nth_unstable_by(k, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let ids = found.row(q).0;
        let same = |(&id, &(true_distance, r)): (&u64, &(f64, usize))| {
            id == r as u64
                || usize::try_from(id)
                    .is_ok_and(|id| id < case.references && band.is_tie(distance(id), true_distance, 0.0))
        };
        !ids.iter().zip(&all).all(same)
    };
    sample.par_iter().filter(|q| differs(q)).count()
}

/// How the references lie on the device.
#[derive(Clone, Copy)]
struct Room {
    memory: ByteCount,
    partition: usize,
}

/// An engine of an adapter's variant, and the threads that it works on.
fn open(args: &Args, adapter: &Adapter, variant: &str, memory: ByteCount) -> (GpuEngine, Arc<rayon::ThreadPool>) {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().build().expect("a pool"));
    let config = GpuConfig {
        metric: args.metric.parse().expect("a metric"),
        pool: Arc::clone(&pool),
        adapter: adapter.clone(),
        variant: Some(variant.to_owned()),
        memory,
        pairs_per_second: None,
    };
    (GpuEngine::new(config).expect("an engine"), pool)
}

fn run(
    (args, adapter, variant): (&Args, &Adapter, &str),
    case: &Case,
    (queries, references): (&[f32], &[f32]),
    room: Room,
) -> TopK {
    let (mut engine, _) = open(args, adapter, variant, room.memory);
    let k = K::new(case.k).expect("a k");
    let values = room.partition * case.dim;
    let parts: Vec<Arc<Partition>> = references
        .chunks(values)
        .enumerate()
        .map(|(i, rows)| Partition::new(block(rows, case.dim, i * room.partition)))
        .collect();
    let rows = block(queries, case.dim, 0);
    let mut seconds = Vec::new();
    let (mut begins, mut finishes, mut found) = (Vec::new(), Vec::new(), None);
    // The first repeat uploads the partitions and compiles.
    for _ in 0..=args.repeats {
        let began = Instant::now();
        engine.begin(&rows, k, &Exclude::Nothing).expect("begin");
        engine.drain().expect("drain");
        let loaded = Instant::now();
        for part in &parts {
            let all = Visit { rows: 0..u32::try_from(part.block.rows()).expect("few"), queries: VisitQueries::All };
            engine.visit(part, &[all]).expect("visit");
        }
        engine.drain().expect("drain");
        let searched = Instant::now();
        found = Some(engine.finish().expect("finish"));
        begins.push((loaded - began).as_secs_f64());
        seconds.push((searched - loaded).as_secs_f64());
        finishes.push(searched.elapsed().as_secs_f64());
    }
    let first = (begins.remove(0), seconds.remove(0));
    finishes.remove(0);
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (search, begin, finish) = (median(seconds), median(begins), median(finishes));
    let pairs = case.queries as f64 * case.references as f64;
    let found = found.expect("a result");
    let wrong = if args.check > 0 { Some(wrong(case, queries, references, &found, args.check)) } else { None };
    println!(
        "{}",
        json!({
            "variant": variant, "queries": case.queries, "references": case.references, "dim": case.dim, "k": case.k,
            "order": case.order, "memory": room.memory.to_string(), "partition": room.partition, "gpairs_per_s": pairs / search / 1e9, "seconds": search, "begin": begin, "finish": finish,
            "first": { "begin": first.0, "search": first.1 },
            "checked": args.check, "wrong": wrong, "overflows": engine.overflows(),
        })
    );
    found
}

/// One case through an index, a line for the index and one for each variant and number of lists.
fn run_ivf(args: &Args, adapter: &Adapter, case: &Case, (queries, references): (&[f32], &[f32]), lists: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("rows.npy"), folder.path().join("rows.index"));
    rows::write_npy(&file, case.references as u64, case.dim, references);
    let lists = (lists != "auto").then(|| lists.parse().expect("a number of lists"));
    let built = ivf::build(&file, &out, lists, args.device.expect("a device"), args.memory);
    println!("{}", json!({ "index": built, "dim": case.dim, "order": case.order }));
    if case.queries == 0 {
        return;
    }
    let (k, queries) = (K::new(case.k).expect("a k"), block(queries, case.dim, 0));
    let loaded = ivf::Loaded::open(&out, args.partition);
    let (sampled, sample) = ivf::sample(&queries, args.recall_sample);
    for variant in variants(args, adapter) {
        let (mut engine, pool) = open(args, adapter, variant.name, args.memory);
        let truth = loaded.exactly(&mut engine, &sample, k);
        for &probes in &args.nprobe {
            let before = engine.overflows();
            let (found, mut told) = loaded.near((&mut engine, &pool), &queries, (k, probes), args.repeats);
            told["recall"] = ivf::recall(&found, &sampled, &truth).into();
            told["recall_sample"] = sampled.len().into();
            told["overflows"] = (engine.overflows() - before).into();
            println!("{}", json!({ "variant": variant.name, "k": case.k, "dim": case.dim, "ivf": told }));
        }
    }
}

/// The variants to measure.
fn variants<'a>(args: &'a Args, adapter: &Adapter) -> impl Iterator<Item = Variant> + 'a {
    let asked = |variant: &Variant| args.variant.is_empty() || args.variant.iter().any(|name| name == variant.name);
    Variant::of(adapter).into_iter().filter(asked)
}

fn main() {
    let args = Args::parse();
    let Some(device) = args.device else { return };
    let adapter = adapters().into_iter().nth(device).expect("an adapter of this number");
    println!("{}", json!({ "adapter": adapter.name, "backend": adapter.backend, "driver": adapter.driver }));
    for case in args.cases.iter().map(|text| parse(text)) {
        let mixture = Mixture::new(case.dim);
        let references = mixture.rows(case.references, 1, false, &case.order);
        let queries = mixture.rows(case.queries, 2, true, if case.order == "apart" { "apart" } else { "shuffled" });
        if let Some(folder) = &args.write {
            std::fs::write(folder.join("references.f32"), bytemuck::cast_slice(&references)).expect("to write");
            std::fs::write(folder.join("queries.f32"), bytemuck::cast_slice(&queries)).expect("to write");
        }
        let rows = (queries.as_slice(), references.as_slice());
        if let Some(lists) = &args.ivf {
            run_ivf(&args, &adapter, &case, rows, lists);
            continue;
        }
        for variant in variants(&args, &adapter) {
            let of = (&args, &adapter, variant.name);
            let found = run(of, &case, rows, Room { memory: args.memory, partition: args.partition });
            if let Some(memory) = args.within {
                let again = run(of, &case, rows, Room { memory, partition: args.partition_within });
                println!("{}", json!({ "same_bytes": again == found }));
            }
        }
    }
}
