//! An inverted file on a GPU: built by the program's own job, and searched by its router and engine from rows that lie on
//! the device.

#![allow(clippy::expect_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use atlasknn::block::{RowBlock, RowIds};
use atlasknn::engine::gpu::GpuEngine;
use atlasknn::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use atlasknn::job::request::{DeviceChoice, DeviceRequest, IndexRequest, RunOptions, Within};
use atlasknn::metric::Metric;
use atlasknn::plan::lists::ListsInput;
use atlasknn::route::ivf::{Cut, Lists, Probing};
use atlasknn::route::{Known, Router};
use atlasknn::schedule::near::Landmarks;
use atlasknn::schedule::progress::{Observer, Stage, Step, Stop};
use atlasknn::store::IoCounters;
use atlasknn::store::index::{Encoding, Index};
use atlasknn::topk::TopK;
use atlasknn::units::{ByteCount, K};
use atlasknn::visit::Horizon;
use serde_json::{Value, json};

/// When each stage began and how long it took.
#[derive(Default)]
struct Stages(Mutex<Vec<(Stage, Instant, f64)>>);

impl Observer for Stages {
    fn begin(&self, stage: Stage, _: Step, _: Step) {
        self.0.lock().expect("no panic").push((stage, Instant::now(), 0.0));
    }
    fn end(&self, stage: Stage) {
        let mut stages = self.0.lock().expect("no panic");
        if let Some(of) = stages.iter_mut().rfind(|(of, _, _)| *of == stage) {
            of.2 = of.1.elapsed().as_secs_f64();
        }
    }
}

/// Builds an index of rows in a file on an adapter. Returns what that took.
pub fn build(rows: &Path, out: &Path, lists: Option<u64>, device: usize, memory: ByteCount) -> Value {
    let request = IndexRequest {
        reference: rows.to_owned(),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        metric: Metric::Euclidean,
        lists,
        encoding: Encoding::F32,
        device: DeviceRequest { choice: DeviceChoice::Number(device), memory: Some(memory), variant: None },
        within: Within::default(),
        run: RunOptions::default(),
    };
    let (stages, began) = (Stages::default(), Instant::now());
    let outcome = atlasknn::job::index(&request, &stages, &Stop::new()).expect("an index");
    let stages: HashMap<&str, f64> =
        stages.0.into_inner().expect("no panic").iter().map(|(stage, _, seconds)| (stage.name(), *seconds)).collect();
    json!({
        "rows": outcome.rows, "lists": outcome.lists.len(), "largest_list": outcome.lists.iter().max(),
        "adapter": outcome.adapter, "variant": outcome.variant, "device_seconds": outcome.seconds.search,
        "read_seconds": outcome.seconds.read, "write_seconds": outcome.seconds.write, "stages": stages,
        "gpairs": outcome.pairs as f64 / 1e9, "wall_seconds": began.elapsed().as_secs_f64(),
    })
}

/// Lists that each query visits: at most so many, within a horizon.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    nprobe: usize,
    horizon: Option<f32>,
}

impl std::str::FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (nprobe, horizon) = text.split_once('@').map_or((text, None), |(nprobe, times)| (nprobe, Some(times)));
        let horizon = horizon.map(str::parse).transpose().map_err(|why| format!("{why}"))?;
        Ok(Self { nprobe: nprobe.parse().map_err(|why| format!("{why}"))?, horizon })
    }
}

/// An index in memory, its rows in partitions as a plan would cut them.
pub struct Loaded {
    lists: Arc<Lists>,
    cut: Cut,
    parts: HashMap<u64, Arc<Partition>>,
}

impl Loaded {
    pub fn open(path: &Path, partition_rows: usize) -> Self {
        let index = Index::open(path, &IoCounters::new()).expect("an index");
        let ids = RowIds::Range(0..index.lists() as u64);
        let centroids = RowBlock::new(ids, index.dim(), index.centroids().to_vec()).expect("centroids");
        let lists = Lists { centroids, offsets: index.offsets().to_vec(), radii: index.radii().to_vec() };
        let cut = Cut::kept(u32::try_from(partition_rows).expect("few rows"), &lists.offsets);
        let all = cut.parts((0..lists.len()).map(|list| (list, lists.rows(list))), 0);
        let read = |part: &[std::ops::Range<u64>]| {
            let rows = part[0].clone();
            let mut values = vec![0.0; usize::try_from(rows.end - rows.start).expect("64 bits") * index.dim()];
            index.source().read(part, &mut values).expect("rows");
            let ids = RowIds::List(index.ids(rows.clone()).expect("ids"));
            (rows.start, Partition::new(RowBlock::new(ids, index.dim(), values).expect("a block")))
        };
        let parts = all.iter().map(|part| read(&part.rows)).collect();
        Self { lists: Arc::new(lists), cut, parts }
    }

    /// The nearest of all rows.
    pub fn exactly(&self, engine: &mut dyn Engine, queries: &RowBlock, k: K) -> TopK {
        engine.begin(queries, k, &Exclude::Nothing).expect("begin");
        for part in self.parts.values() {
            let rows = 0..u32::try_from(part.block.rows()).expect("few");
            engine.visit(part, &[Visit { rows, queries: VisitQueries::All }]).expect("visit");
        }
        engine.finish().expect("finish")
    }

    /// Searches the lists nearest each query so many times and once before. Returns what was found, and medians of seconds:
    /// `near` finds the nearest centroids, `begin` brings the queries, `route` sorts (query, list) pairs, `visit` searches,
    /// `finish` brings the neighbours back.
    pub fn near(
        &self,
        (engine, pool): (&mut GpuEngine, &rayon::ThreadPool),
        queries: &RowBlock,
        (k, Probes { nprobe, horizon }): (K, Probes),
        repeats: usize,
    ) -> (TopK, Value) {
        let router = Probing::new(Metric::Euclidean, Arc::clone(&self.lists), nprobe, self.cut.clone());
        let router = router.within(horizon.and_then(|times| Horizon::new(Metric::Euclidean, times)));
        let landmarks = Landmarks::of(&router, self.told_at_a_time(engine, queries, nprobe)).expect("centroids");
        let (mut times, mut found, mut visited) = (vec![Vec::new(); 5], None, 0);
        for repeat in 0..=repeats {
            let mut at = Instant::now();
            let mut lap = |of: usize| {
                let seconds = at.elapsed().as_secs_f64();
                at = Instant::now();
                if repeat > 0 {
                    times[of].push(seconds);
                }
            };
            engine.begin(queries, k, &Exclude::Nothing).expect("begin");
            engine.drain().expect("drain");
            lap(1);
            let near = pool.install(|| landmarks.near(engine)).expect("near");
            lap(0);
            let known = Known { queries, near: &near, bounds: &[], seen_to: 0 };
            let route = pool.install(|| router.route(0, &known));
            lap(2);
            for partition in 0..route.partitions() {
                let part = &self.parts[&route.rows(partition)[0].start];
                let mut portions = route.visits(partition);
                while let Some(visits) = pool.install(|| portions.next()) {
                    engine.visit(part, &visits).expect("visit");
                }
            }
            engine.drain().expect("drain");
            lap(3);
            found = Some(engine.finish().expect("finish"));
            lap(4);
            visited = near.iter().filter(|list| **list != u32::MAX).count();
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        let (search, total) = (medians[0] + medians[2] + medians[3], medians.iter().sum::<f64>());
        let rows = queries.rows() as f64;
        let visited = visited as f64 / rows;
        let told = json!({
            "lists": self.lists.len(), "nprobe": nprobe, "horizon": horizon, "visited": visited,
            "partitions": self.parts.len(), "queries": queries.rows(),
            "queries_per_s": rows / search, "queries_per_s_with_copies": rows / total, "seconds": search,
            "near": medians[0], "begin": medians[1], "route": medians[2], "visit": medians[3], "finish": medians[4],
            "pairs_per_query": visited * self.lists.rows_per_visit(),
        });
        (found.expect("a result"), told)
    }

    /// Queries that a plan would tell their lists at a time.
    fn told_at_a_time(&self, engine: &GpuEngine, queries: &RowBlock, nprobe: usize) -> u64 {
        let nearest = K::new(u32::try_from(nprobe).expect("few lists")).expect("few lists");
        let input = ListsInput {
            lists: self.lists.len() as u64,
            nearest: nprobe as u64,
            visited: nprobe as f64,
            bounded: false,
            rows_per_visit: self.lists.rows_per_visit(),
            ranking: Some(engine.limits(queries.dim(), nearest)),
            candidates: 0,
            refined: None,
        };
        input.ranked_rows(queries.rows() as u64)
    }
}

/// Every so many of the rows, about `n`, and which they are.
pub fn sample(queries: &RowBlock, n: usize) -> (Vec<usize>, RowBlock) {
    let n = n.min(queries.rows());
    let rows: Vec<usize> = (0..n).map(|i| i * queries.rows() / n).collect();
    let values = rows.iter().flat_map(|&row| queries.row(row)).copied().collect();
    (rows, RowBlock::new(RowIds::Range(0..n as u64), queries.dim(), values).expect("a block"))
}

/// The share of the sample's true neighbours that were found.
pub fn recall(found: &TopK, rows: &[usize], truth: &TopK) -> f64 {
    let hits = |(at, &row): (usize, &usize)| truth.row(at).0.iter().filter(|id| found.row(row).0.contains(id)).count();
    let all: usize = (0..rows.len()).map(|at| truth.row(at).0.len()).sum();
    rows.iter().enumerate().map(hits).sum::<usize>() as f64 / all.max(1) as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
